//! What the stores say of outcomes: feedback taken in, and what is kept of an experiment's results.

use jiff::Timestamp;
use serde_json::Value;
use uuid::Uuid;

use crate::results::Milestone;
use crate::words::digest;
use crate::words::ids::Tenant;

/// A word on an execution.
#[derive(Debug, Clone)]
pub struct Feedback {
    /// Whose execution.
    pub tenant: Tenant,
    /// Which.
    pub execution_id: Uuid,
    /// What is said: `helpful`, `score`, …
    pub key: String,
    /// True, false or a number.
    pub value: Value,
    /// For a retry that must not speak twice.
    pub idempotency_key: Option<String>,
    /// Who says it.
    pub by: String,
    /// Executions before it are too old to be spoken of.
    pub not_before: Timestamp,
}

impl Feedback {
    /// What an idempotency key stands for.
    pub(super) fn fingerprint(&self) -> String {
        let value = digest::canonical(&self.value);
        let text = format!("{}\n{}\n{value}", self.execution_id, self.key);
        digest::sha256_hex(text.as_bytes())
    }
}

/// What became of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Heard {
    /// It is the word that counts now.
    Stored(Exposure),
    /// It was said before, under the same key: nothing changed.
    Again(Exposure),
    /// The key was used for another word.
    KeyTaken,
    /// The execution is too old.
    TooLate(Exposure),
    /// The store has no such execution.
    NoExecution,
}

/// Where the execution stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exposure {
    /// When it was.
    pub at: Timestamp,
    /// The experiment it was part of.
    pub experiment_id: Option<Uuid>,
    /// The arm it had.
    pub arm: Option<String>,
}

/// What is kept of an experiment's results.
#[derive(Debug, Clone)]
pub struct Kept {
    /// Whose results.
    pub experiment_id: Uuid,
    /// The column `results`.
    pub results: Value,
    /// The column `statistical_significance`.
    pub significance: Option<f64>,
    /// Those not known before are added.
    pub milestones: Vec<Milestone>,
}
