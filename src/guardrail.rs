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

#[cfg(test)]
mod tests;
