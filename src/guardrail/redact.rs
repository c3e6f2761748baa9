//! What stands in the place of a redacted span.

use std::cmp::Reverse;
use std::ops::Range;

use super::compile::Guardrails;
use super::rule::RedactForm;
use super::scan::Finding;
use crate::words::digest;

/// Characters of a hash that tell values apart and cannot be turned back.
const HASH_CHARS: usize = 12;
/// Of a placeholder: short, because models copy short words faithfully.
const PLACEHOLDER_CHARS: usize = 12;
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
                // Only what cannot be taken for its end.
                let is_name = |one: char| one.is_ascii_alphanumeric();
                let name = entity.replace(|one| !is_name(one), "_").to_ascii_uppercase();
                format!("[{name}_{hash}]")
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
        let mut holes = Holes::default();
        findings.iter().filter(|one| self.redacts(one)).for_each(|one| holes.found(one.clone()));
        let edit = |hole: Hole| match hole.stands {
            Stands::Text(value) => (hole.span, value),
            Stands::For(finding, value) => {
                let value = text.get(value).unwrap_or_default();
                (hole.span, self.placeholder(&finding, value, salt))
            }
        };
        let edits: Vec<_> = holes.take(text.len()).0.into_iter().map(edit).collect();
        replace(text, &edits)
    }
}

/// What is to be replaced in a text that arrives in pieces, the same as in its whole.
///
/// Of what overlaps, the first stands in the place of all. So a hole is only cut once nothing else can come that
/// overlaps it, and nothing of it leaves before. What only touches stays apart.
#[derive(Debug, Default)]
pub struct Holes {
    found: Vec<Finding>,
    texts: Vec<(Range<usize>, String)>,
}

/// A stretch that is replaced.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hole {
    /// Bytes of the whole text.
    pub span: Range<usize>,
    /// What goes there.
    pub stands: Stands,
}

/// What goes into a hole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Stands {
    /// This text.
    Text(String),
    /// What stands for a finding, whose value is these bytes of the whole text.
    For(Finding, Range<usize>),
}

impl Holes {
    /// Adds a finding that redacts.
    pub fn found(&mut self, finding: Finding) {
        self.found.push(finding);
    }

    /// Adds a stretch that another text replaces.
    pub fn put(&mut self, span: Range<usize>, text: String) {
        self.texts.push((span, text));
    }

    /// Takes the holes that are decided, in order, where nothing new can begin before the byte `decided`. Also gives
    /// the byte up to which text may leave: that one, or the beginning of the hole that it lies in.
    pub fn take(&mut self, decided: usize) -> (Vec<Hole>, usize) {
        let mut holes = self.all();
        let open = holes.partition_point(|hole| hole.span.end <= decided);
        let safe_to = holes.get(open).map_or(decided, |hole| hole.span.start.min(decided));
        holes.truncate(open);
        self.found.retain(|one| one.end > safe_to);
        self.texts.retain(|(span, _)| span.end > safe_to);
        (holes, safe_to)
    }

    /// Findings that overlap as one value; then these and the other texts, of which the longer goes first.
    fn all(&mut self) -> Vec<Hole> {
        self.found.sort();
        let text = |(span, text): &(Range<usize>, String)| Hole {
            span: span.clone(),
            stands: Stands::Text(text.clone()),
        };
        let found = joined(self.found.iter().map(|finding| Hole {
            span: finding.span(),
            stands: Stands::For(finding.clone(), finding.span()),
        }));
        let value = |hole: Hole| match hole.stands {
            Stands::For(finding, _) => {
                Hole { stands: Stands::For(finding, hole.span.clone()), ..hole }
            }
            Stands::Text(_) => hole,
        };
        let mut all: Vec<Hole> =
            self.texts.iter().map(text).chain(found.into_iter().map(value)).collect();
        all.sort_by_key(|hole| (hole.span.start, Reverse(hole.span.end)));
        joined(all.into_iter())
    }
}

/// Holes that overlap as one, with what goes into the first.
fn joined(holes: impl Iterator<Item = Hole>) -> Vec<Hole> {
    let mut joined: Vec<Hole> = Vec::new();
    for hole in holes {
        match joined.last_mut() {
            Some(last) if hole.span.start < last.span.end => {
                last.span.end = last.span.end.max(hole.span.end);
            }
            _ => joined.push(hole),
        }
    }
    joined
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
