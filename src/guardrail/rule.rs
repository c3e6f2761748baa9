//! A guardrail as its author writes it.

use serde::{Deserialize, Serialize};

use super::validate::Validate;
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
    /// Worth counting: unless it blocks or names an action, its caller is not told.
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
    /// The violation is recorded and counted, and the caller is not told.
    Info,
    /// The call goes on; the violation is recorded.
    Warn,
    /// The span is replaced.
    Redact,
    /// The text goes nowhere.
    Block,
}

impl Action {
    /// What a guardrail does that names no action.
    pub fn by_default(severity: Severity, blocking: bool) -> Self {
        match (blocking, severity) {
            (true, _) => Self::Block,
            (false, Severity::Info) => Self::Info,
            (false, Severity::Warning | Severity::Error | Severity::Critical) => Self::Warn,
        }
    }

    /// Whether it does more than report.
    pub fn acts(self) -> bool {
        matches!(self, Self::Redact | Self::Block)
    }

    /// The word in headers, metrics and records.
    pub fn name(self) -> &'static str {
        match self {
            Self::Info => "info",
            Self::Warn => "warn",
            Self::Redact => "redact",
            Self::Block => "block",
        }
    }
}

/// Whether what a guardrail finds counts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// It warns, redacts or blocks.
    #[default]
    Enforce,
    /// It is recorded what it would have done.
    Shadow,
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
    /// Whether it acts or only counts.
    #[serde(skip_serializing_if = "is_default")]
    pub mode: Mode,
    /// Of a hundred calls, how many it looks at; all unless told otherwise.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sample_percent: Option<f64>,
    /// What happens when a text asks for more work than is allowed; by default what a violation does.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub on_limit: Option<Action>,
    /// Words and phrases, matched in any case and disguise, as whole words.
    pub literals: Vec<String>,
    /// Expressions.
    pub patterns: Vec<PatternConfig>,
    /// What is never reported.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub allow: Vec<Allow>,
    /// A text longer than this many bytes is a violation.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_bytes: Option<usize>,
    /// The text of a candidate of an answer that is not one JSON value is a violation.
    #[serde(skip_serializing_if = "is_default")]
    pub requires_json: bool,
    /// What stands in the place of what is redacted.
    #[serde(skip_serializing_if = "is_default")]
    pub redact: Redact,
}

impl RuleConfig {
    /// Whether it looks for anything that a request can hold. With nothing to look for it is refused.
    fn looks_for_more_than_json(&self) -> bool {
        let looks = !self.literals.is_empty() || !self.patterns.is_empty();
        looks || self.max_bytes.is_some() || !self.requires_json
    }
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// What stands in the place of what is redacted.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Redact {
    /// The form.
    #[serde(rename = "with")]
    pub form: RedactForm,
    /// Whether an answer gets the values back; needs `placeholder`.
    pub reversible: bool,
}

/// The form of what stands in the place of what is redacted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RedactForm {
    /// `[REDACTED:email]`.
    #[default]
    Label,
    /// `[EMAIL_3fa9c1d2e07b]`: the same value has the same one within a conversation.
    Placeholder,
    /// `***`, one for each character.
    Mask,
    /// The last four characters stay.
    #[serde(rename = "keep_last_4")]
    KeepLast4,
    /// The beginning of its SHA-256, under a key of this installation.
    Hash,
}

/// One expression.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PatternConfig {
    /// What it finds, for records and placeholders: `email`, `ssn`, …
    pub entity: String,
    /// A regular expression: bounded length, no look-around. With a group, the group is what is found.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub regex: String,
    /// Instead: an expression over words, in which a space stands for whatever is between two words.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub phrase: String,
    /// Whether a match may be part of a longer word.
    #[serde(default = "yes")]
    pub whole_word: bool,
    /// A further check of what was matched.
    #[serde(default)]
    pub validate: Option<Validate>,
    /// Bits of Shannon entropy a character that what was matched must have.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub entropy_min: Option<f64>,
    /// Words of which one must stand shortly before.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub context: Vec<String>,
    /// How many bytes before.
    #[serde(default = "context_bytes", skip_serializing_if = "is_context_bytes")]
    pub context_bytes: usize,
    /// Instead of what the guardrail does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub action: Option<Action>,
    /// Whether it is looked for.
    #[serde(default = "yes", skip_serializing_if = "is_yes")]
    pub is_active: bool,
}

impl Default for PatternConfig {
    fn default() -> Self {
        Self {
            entity: String::new(),
            regex: String::new(),
            phrase: String::new(),
            whole_word: true,
            validate: None,
            entropy_min: None,
            context: Vec::new(),
            context_bytes: context_bytes(),
            action: None,
            is_active: true,
        }
    }
}

fn yes() -> bool {
    true
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks for a reference")]
fn is_yes(value: &bool) -> bool {
    *value
}

fn context_bytes() -> usize {
    60
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks for a reference")]
fn is_context_bytes(bytes: &usize) -> bool {
    *bytes == context_bytes()
}

/// Something that is never reported.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Allow {
    /// What was found is exactly this, in any case.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
    /// Or all of it matches this expression.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub regex: Option<String>,
    /// Only where this was found.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub entity: Option<String>,
    /// Why.
    pub reason: String,
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
        self.config.action.unwrap_or_else(|| Action::by_default(self.severity, self.blocking))
    }

    /// Whether what it finds, by a pattern with this action of its own, is more than reported.
    pub(super) fn acts(&self, action: Option<Action>) -> bool {
        self.config.mode == Mode::Enforce && action.unwrap_or_else(|| self.action()).acts()
    }

    /// Whether it looks at texts going this way.
    pub fn looks_at(&self, direction: Direction) -> bool {
        let has_use = direction == Direction::Response || self.config.looks_for_more_than_json();
        has_use
            && (self.config.applies_to.is_empty() || self.config.applies_to.contains(&direction))
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
