//! A guardrail as its author writes it.

use serde::{Deserialize, Serialize};

use crate::words::ids::GuardrailId;

/// What a guardrail protects against.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// Personal data.
    Pii,
    /// Attempts to override the prompt.
    Injection,
    /// Abuse.
    Toxic,
    /// Credentials.
    Secret,
    /// Anything else.
    Custom,
}

impl Kind {
    /// The word in records and tables.
    pub fn name(self) -> &'static str {
        match self {
            Self::Pii => "pii",
            Self::Injection => "injection",
            Self::Toxic => "toxic",
            Self::Secret => "secret",
            Self::Custom => "custom",
        }
    }
}

/// How bad a violation is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Worth counting.
    Info,
    /// Worth looking at.
    Warning,
    /// Wrong.
    Error,
    /// Dangerous.
    Critical,
}

/// Which way a text travels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Direction {
    /// To Gemini.
    Request,
    /// Back to the application.
    Response,
}

/// Which part of a request a guardrail looks at.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Inspects {
    /// What the application sent: untrusted variables and all text of the body.
    #[default]
    Untrusted,
    /// That and the template's own text.
    Rendered,
}

/// What happens on a violation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Action {
    /// The call goes on; the violation is recorded.
    Warn,
    /// The span is replaced.
    Redact,
    /// The text goes nowhere.
    Block,
}

impl Action {
    /// The word in headers, metrics and records.
    pub fn name(self) -> &'static str {
        match self {
            Self::Warn => "warn",
            Self::Redact => "redact",
            Self::Block => "block",
        }
    }
}

/// The part of a guardrail that says what to look for.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RuleConfig {
    /// Directions; empty means both.
    pub applies_to: Vec<Direction>,
    /// Which part of a request.
    pub inspects: Inspects,
    /// Overrides what `blocking` says.
    pub action: Option<Action>,
    /// Words and phrases, matched without regard to ASCII case, as whole words.
    pub literals: Vec<String>,
    /// Regular expressions.
    pub patterns: Vec<PatternConfig>,
}

/// One regular expression.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PatternConfig {
    /// What it finds, for records and placeholders: `email`, `ssn`, …
    pub entity: String,
    /// The expression: bounded length, no look-around.
    pub regex: String,
    /// Whether a match may be part of a longer word.
    #[serde(default = "whole_word")]
    pub whole_word: bool,
    /// A further check of what was matched.
    #[serde(default)]
    pub validate: Option<Validate>,
}

fn whole_word() -> bool {
    true
}

/// Checks that a regular expression cannot express.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Validate {
    /// A US social security number that can have been issued.
    Ssn,
}

/// A guardrail of one tenant.
#[derive(Debug, Clone, PartialEq)]
pub struct Rule {
    /// Its id.
    pub id: GuardrailId,
    /// Its name, unique per tenant.
    pub name: String,
    /// What it protects against.
    pub kind: Kind,
    /// How bad a violation is.
    pub severity: Severity,
    /// Whether a violation stops the text.
    pub blocking: bool,
    /// What to look for.
    pub config: RuleConfig,
    /// Template names it is limited to; with `categories` also empty: everything.
    pub templates: Vec<String>,
    /// Template categories it is limited to.
    pub categories: Vec<String>,
}

impl Rule {
    /// What a violation does.
    pub fn action(&self) -> Action {
        let default = if self.blocking { Action::Block } else { Action::Warn };
        self.config.action.unwrap_or(default)
    }

    /// Whether it looks at texts going this way.
    pub fn looks_at(&self, direction: Direction) -> bool {
        self.config.applies_to.is_empty() || self.config.applies_to.contains(&direction)
    }

    /// Whether it looks at calls of this template (`None`: a call without one).
    pub fn covers(&self, template: Option<&str>, category: Option<&str>) -> bool {
        let listed = |list: &[String], name: Option<&str>| {
            name.is_some_and(|name| list.iter().any(|one| one == name))
        };
        (self.templates.is_empty() && self.categories.is_empty())
            || listed(&self.templates, template)
            || listed(&self.categories, category)
    }
}
