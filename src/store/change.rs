//! A change of the catalog as data: what must still be as it was read, what is put in its place, and
//! what the books say about it. A store carries it out whole or not at all.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use uuid::Uuid;

use super::Table;
use super::audit::Entry;
use super::erasure::Erasure;
use crate::catalog::definitions::Definitions;
use crate::words::ids::{ExperimentId, TemplateId, Tenant};

/// Everything that happens in one transaction.
#[derive(Debug, Clone, Default)]
pub struct Change {
    /// Rows that must not have moved since they were read.
    pub expects: Vec<Expect>,
    /// Rows to make, or to bring up to date where their id exists; in this order.
    pub puts: Definitions,
    /// Turns in the life of experiments.
    pub turns: Vec<Turn>,
    /// Moves of the pointer to the active version.
    pub activations: Vec<Activation>,
    /// Orders to erase what was recorded of users.
    pub erasures: Vec<Erasure>,
    /// What the audit says: every change says something.
    pub audit: Vec<Entry>,
    /// Under which key a retry finds that this has been done.
    pub done: Option<Done>,
}

/// A row as it was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Expect {
    /// Its table.
    pub table: Table,
    /// Its id.
    pub id: Uuid,
    /// Its revision; `None`: it must not be there.
    pub revision: Option<i64>,
}

/// An experiment's phase ends, and perhaps another begins.
#[derive(Debug, Clone, PartialEq)]
pub struct Turn {
    /// Whose.
    pub experiment: ExperimentId,
    /// When the phase that is open, if any, ends.
    pub at: Timestamp,
    /// The one that begins.
    pub begins: Option<Phase>,
}

/// A stretch of time in which the split of an experiment stands still.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Phase {
    /// Whose.
    pub experiment_id: ExperimentId,
    /// Counted from 1.
    pub phase: u32,
    /// What began it: `start`, `pause`, `resume`, or how the split was changed.
    pub mode: String,
    /// `ordinal`, `key`, `template_id`, `weight_millipercent` (the share among those enrolled) and
    /// `ranges` of each arm.
    pub arms: Value,
    /// How much of the traffic takes part.
    pub enrollment_percentage: f64,
    /// The share of the enrolled units that changed their arm when it began.
    pub moved_percentage: Option<f64>,
    /// What is hashed with the unit.
    pub salt: String,
    /// By which the buckets are made.
    pub hash_version: u32,
    /// Who began it.
    pub actor: String,
    /// Why.
    pub reason: Option<String>,
    /// First instant, inclusive.
    pub started_at: Timestamp,
    /// Last instant, exclusive; `None`: it lasts.
    pub ended_at: Option<Timestamp>,
}

/// One move of the pointer to the active version of a name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Activation {
    /// Its id.
    pub id: Uuid,
    /// Whose.
    pub tenant_id: Tenant,
    /// The template's name.
    pub template_name: String,
    /// Active from here on; `None`: nothing.
    pub template_id: Option<TemplateId>,
    /// What a rollback from here brings back; `None`: nothing was active before.
    pub restores_id: Option<TemplateId>,
    /// What was done.
    pub action: Move,
    /// Who did it.
    pub actor: String,
    /// Why.
    pub reason: Option<String>,
    /// In which request.
    pub request_id: Option<String>,
    /// When.
    pub at: Timestamp,
}

/// How the pointer to the active version moved.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Move {
    /// To a version.
    Activate,
    /// To nothing.
    Deactivate,
    /// Back.
    Rollback,
}

/// What a request with an `Idempotency-Key` did: a retry does not do it again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Done {
    /// Who asked: keys of different callers do not meet.
    pub actor: String,
    /// The key.
    pub key: String,
    /// SHA-256 of method, path and body.
    pub fingerprint: String,
    /// The status it was answered with.
    pub status: u16,
    /// What it made or changed.
    pub object_id: String,
}

impl Change {
    /// Rows it writes: a large one is given more time.
    pub(super) fn rows(&self) -> usize {
        let Definitions { templates, guardrails, experiments } = &self.puts;
        templates.len() + guardrails.len() + experiments.len() + self.audit.len()
    }
}
