//! What stands in the place of a redacted span.

use std::ops::Range;

use super::compile::Guardrails;
use super::rule::RedactForm;
use super::scan::Finding;
use crate::words::digest;

/// Characters of a hash that tell values apart and cannot be turned back.
const HASH_CHARS: usize = 12;
/// Of a placeholder: short, because models copy short words faithfully.
const PLACEHOLDER_CHARS: usize = 8;
/// Characters that `keep_last_4` keeps.
const KEPT: usize = 4;

/// What placeholders and hashes depend on beside the value.
///
/// A key of this installation, the tenant and the conversation: the same value has the same placeholder within a conversation, and another elsewhere.
#[derive(Clone, Default)]
pub struct Salt(String);

impl std::fmt::Debug for Salt {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Salt")
    }
}

impl Salt {
    /// From its parts.
    pub fn new(key: &str, tenant: &str, conversation: &str) -> Self {
        Self(digest::sha256_hex(format!("{key}\0{tenant}\0{conversation}").as_bytes()))
    }

    fn hash(&self, entity: &str, value: &str, chars: usize) -> String {
        let mut hash = digest::sha256_hex(format!("{}\0{entity}\0{value}", self.0).as_bytes());
        hash.truncate(chars);
        hash
    }
}

impl Guardrails {
    /// What stands in the place of a redacted span that reads `value`.
    pub fn placeholder(&self, finding: &Finding, value: &str, salt: &Salt) -> String {
        let entity = self.entity(finding);
        let form = self.rules().get(finding.rule).map(|rule| rule.config.redact.form);
        match form.unwrap_or_default() {
            RedactForm::Label => format!("[REDACTED:{entity}]"),
            RedactForm::Placeholder => {
                let hash = salt.hash(entity, value, PLACEHOLDER_CHARS);
                format!("[{}_{hash}]", entity.to_ascii_uppercase())
            }
            RedactForm::Mask => "*".repeat(value.chars().count()),
            RedactForm::KeepLast4 => {
                let hidden = value.chars().count().saturating_sub(KEPT);
                // A short value would be mostly shown.
                let hidden = if hidden < KEPT { value.chars().count() } else { hidden };
                value
                    .chars()
                    .enumerate()
                    .map(|(at, one)| if at < hidden { '*' } else { one })
                    .collect()
            }
            RedactForm::Hash => format!("[{entity}:{}]", salt.hash(entity, value, HASH_CHARS)),
        }
    }

    /// Whether the value behind a redacted span is put back in the answer.
    pub fn is_reversible(&self, finding: &Finding) -> bool {
        self.rules().get(finding.rule).is_some_and(|rule| rule.config.redact.reversible)
    }

    /// A whole text with what has to be redacted replaced.
    pub fn redacted(&self, text: &str, findings: &[Finding], salt: &Salt) -> String {
        let redacting = findings.iter().filter(|one| self.redacts(one));
        let edits: Vec<_> = redacting
            .map(|one| {
                let value = text.get(one.span()).unwrap_or_default();
                (one.span(), self.placeholder(one, value, salt))
            })
            .collect();
        replace(text, &edits)
    }
}

/// Puts other text in the place of spans, which are in order of their start.
///
/// Overlapping spans become one hole with the placeholder of the first.
pub fn replace(text: &str, edits: &[(Range<usize>, String)]) -> String {
    let mut out = String::with_capacity(text.len());
    let mut at = 0;
    for (span, placeholder) in edits {
        if span.start >= at {
            out.push_str(text.get(at..span.start).unwrap_or_default());
            out.push_str(placeholder);
        }
        at = at.max(span.end);
    }
    out.push_str(text.get(at..).unwrap_or_default());
    out
}
