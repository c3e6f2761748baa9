//! Guardrails: text in, findings out.
//!
//! All literals of a tenant's guardrails are one Aho-Corasick automaton; a regular expression runs
//! only around the literals that each of its matches must contain. Matching untrusted text cannot
//! fail. Knows nothing of JSON, HTTP or storage: the proxy maps spans back onto bodies.

mod anchors;
mod compile;
mod rule;
mod scan;
mod verify;
mod window;

pub use compile::{Guardrails, RuleError};
pub use rule::{Action, Direction, Inspects, Kind, PatternConfig, Rule, RuleConfig, Severity};
pub use scan::{Finding, RuleSet};
pub use window::{Progress, Window};

use std::ops::Range;

use serde::{Deserialize, Serialize};

/// What the guardrails decided about one text, in rising order.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// Nothing was found.
    #[default]
    Allow,
    /// Something was found; the call goes on.
    Warn,
    /// Spans are replaced before the text goes on.
    Redact,
    /// The text goes nowhere.
    Block,
}

impl Verdict {
    /// The word in headers, metrics and records.
    pub fn name(self) -> &'static str {
        match self {
            Self::Allow => "allow",
            Self::Warn => "warn",
            Self::Redact => "redact",
            Self::Block => "block",
        }
    }
}

impl Guardrails {
    /// The verdict over findings: the strictest action among them.
    pub fn judge(&self, findings: &[Finding]) -> Verdict {
        findings
            .iter()
            .filter_map(|finding| self.rules().get(finding.rule))
            .map(|rule| match rule.action() {
                Action::Warn => Verdict::Warn,
                Action::Redact => Verdict::Redact,
                Action::Block => Verdict::Block,
            })
            .max()
            .unwrap_or_default()
    }

    /// Whether a finding is to be replaced.
    pub fn redacts(&self, finding: &Finding) -> bool {
        self.rules().get(finding.rule).is_some_and(|rule| rule.action() == Action::Redact)
    }

    /// What stands in a text in place of a redacted span.
    pub fn placeholder(&self, finding: &Finding) -> String {
        format!("[REDACTED:{}]", self.entity(finding))
    }
}

impl Guardrails {
    /// A whole text with what has to be redacted replaced.
    pub fn redacted(&self, text: &str, findings: &[Finding]) -> String {
        let redacting = findings.iter().filter(|one| self.redacts(one));
        let edits: Vec<_> = redacting.map(|one| (one.span(), self.placeholder(one))).collect();
        replace(text, &edits)
    }

    /// Texts of about `bytes` bytes on which these guardrails have the most to do: their own words
    /// without an end, and long runs of what expressions are made of.
    pub fn worst_texts(&self, bytes: usize) -> Vec<String> {
        let own = self.rules().iter().flat_map(|rule| &rule.config.literals).cloned();
        let anchors = self.patterns.iter().flat_map(|one| one.engine.anchors.iter().cloned());
        let expressions = self.rules().iter().flat_map(|rule| &rule.config.patterns);
        let expressions = expressions.map(|pattern| pattern.regex.clone());
        let words = |words: Vec<String>, gap: &str| words.join(gap);
        let mut units: Vec<String> = vec![
            words(own.collect(), " "),
            words(anchors.clone().collect(), " "),
            words(anchors.collect(), ""),
            words(expressions.collect(), " "),
        ];
        units.extend(["a", "0", " ", "a1", "a ", "1-", "a.b@"].map(str::to_owned));
        units
            .iter()
            .filter(|unit| !unit.is_empty())
            .map(|unit| unit.repeat((bytes / unit.len()).max(1)))
            .collect()
    }
}

/// Puts other text in the place of spans, which are in order of their start. Overlapping spans become one hole with the placeholder of the first.
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

#[cfg(test)]
mod tests;
