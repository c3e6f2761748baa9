//! Guardrails: text in, findings out.
//!
//! All literals of a tenant's guardrails are one Aho-Corasick automaton; a regular expression runs
//! only around the literals that each of its matches must contain. Matching untrusted text cannot
//! fail. Knows nothing of bodies, HTTP or storage: the proxy maps spans back onto bodies.

mod anchors;
mod classes;
mod clean;
mod compile;
mod encoded;
mod engine;
mod first;
mod gate;
mod growth;
mod heads;
mod json;
mod kinds;
mod letters;
mod literals;
mod loose;
mod part;
mod pattern;
mod phrase;
mod quads;
mod reading;
mod redact;
mod rule;
mod scan;
mod seeds;
mod shapes;
mod shares;
mod sieve;
mod stood;
mod sweep;
mod validate;
mod verify;
mod window;

pub use clean::TextKey;
pub use compile::{Guardrails, RuleError};
pub use pattern::CONTEXT_BYTES_MAX;
pub use redact::{Hole, Holes, Salt, Stands, replace};
pub use rule::{
    Action, Allow, Direction, Inspects, Kind, Mode, PatternConfig, Redact, RedactForm, Rule,
    RuleConfig, Severity,
};
pub use scan::{Finding, RuleSet};
pub use validate::Validate;
pub use window::{Progress, Window};

use serde::{Deserialize, Serialize};

use crate::words::digest;
use seeds::Seed;

/// Stretches of a long text that are tried as the worst.
const WORST_STRETCHES: usize = 4;

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

impl From<Action> for Verdict {
    fn from(action: Action) -> Self {
        match action {
            Action::Info => Self::Allow,
            Action::Warn => Self::Warn,
            Action::Redact => Self::Redact,
            Action::Block => Self::Block,
        }
    }
}

impl Guardrails {
    /// The verdict over findings: the strictest action among them.
    pub fn judge(&self, findings: &[Finding]) -> Verdict {
        findings
            .iter()
            .filter_map(|finding| self.action(finding))
            .map(Verdict::from)
            .max()
            .unwrap_or_default()
    }

    /// Whether any guardrail looks at a share of the calls only.
    pub fn samples(&self) -> bool {
        self.has_samples
    }

    /// Whether a guardrail looks at a call: the same answer however often it is asked.
    pub fn is_sampled(&self, rule: usize, call: &str) -> bool {
        let Some(rule) = self.rules().get(rule) else { return false };
        let Some(percent) = rule.config.sample_percent else { return true };
        let [first, second, ..] = digest::sha256(format!("{}\0{call}", rule.name).as_bytes());
        f64::from(u16::from_be_bytes([first, second])) < percent / 100.0 * 65_536.0
    }

    /// Whether a finding is to be replaced.
    pub fn redacts(&self, finding: &Finding) -> bool {
        self.action(finding) == Some(Action::Redact)
    }

    /// Texts of about `bytes` bytes on which these guardrails have the most to do: their own words
    /// without an end, and long runs of what expressions are made of.
    pub fn worst_texts(&self, bytes: usize) -> Vec<String> {
        let own = self.rules().iter().flat_map(|rule| &rule.config.literals).cloned();
        let anchors = self.patterns.iter().flat_map(|one| match &one.engine.seed {
            Seed::Literals(anchors) => {
                let literals = anchors.iter().flat_map(|one| &one.literals);
                literals.map(|needle| needle.text.clone()).collect::<Vec<_>>()
            }
            _ => Vec::new(),
        });
        let expressions = self.rules().iter().flat_map(|rule| &rule.config.patterns);
        let expressions =
            expressions.map(|pattern| format!("{} {}", pattern.regex, pattern.phrase));
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
            .flat_map(|unit| worst_of(unit, bytes))
            .collect()
    }
}

/// Stretches of a text that is long enough, or the text over and over.
fn worst_of(unit: &str, bytes: usize) -> Vec<String> {
    let stretch = |from: usize| {
        let from = unit.floor_char_boundary(from);
        let to = unit.floor_char_boundary((from + bytes).min(unit.len()));
        unit.get(from..to).unwrap_or_default().to_owned()
    };
    if unit.len() <= bytes {
        return vec![unit.repeat(bytes / unit.len())];
    }
    let last = unit.len() - bytes;
    (0..=WORST_STRETCHES).map(|part| stretch(last * part / WORST_STRETCHES)).collect()
}

#[cfg(test)]
mod tests;
