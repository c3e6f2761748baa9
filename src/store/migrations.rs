//! The migrations of both stores. The SQL lives under `migrations/`, compiled in.

use crate::words::digest;

/// A step of the schema and its way back.
#[derive(Debug)]
pub(super) struct Migration {
    pub(super) version: i32,
    pub(super) name: &'static str,
    pub(super) up: &'static str,
    pub(super) down: &'static str,
}

pub(super) const POSTGRES: [Migration; 1] = [Migration {
    version: 1,
    name: "core",
    up: include_str!("../../migrations/postgres/0001_core.up.sql"),
    down: include_str!("../../migrations/postgres/0001_core.down.sql"),
}];

pub(super) const SQLITE: [Migration; 1] = [Migration {
    version: 1,
    name: "core",
    up: include_str!("../../migrations/sqlite/0001_core.up.sql"),
    down: include_str!("../../migrations/sqlite/0001_core.down.sql"),
}];

/// A migration that this binary knows, and whether it has run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// Counted from 1.
    pub version: i32,
    /// Its name.
    pub name: String,
    /// When it ran.
    pub applied_at: Option<String>,
}

/// Where a schema stands.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MigrationState {
    /// Every migration of this binary.
    pub steps: Vec<Step>,
    /// Versions that ran but that this binary does not know: a newer one made them.
    pub unknown: Vec<i32>,
    /// Templates, guardrails and executions in the tables; 0 without tables.
    pub rows: [i64; 3],
}

impl MigrationState {
    /// Whether everything has run.
    pub fn is_current(&self) -> bool {
        !self.steps.is_empty() && self.steps.iter().all(|step| step.applied_at.is_some())
    }

    pub(super) fn new(migrations: &[Migration], applied: &[(i32, String)]) -> Self {
        let at =
            |version| applied.iter().find(|(one, _)| *one == version).map(|(_, at)| at.clone());
        let steps = migrations
            .iter()
            .map(|one| Step {
                version: one.version,
                name: one.name.to_owned(),
                applied_at: at(one.version),
            })
            .collect();
        let unknown = applied
            .iter()
            .map(|(version, _)| *version)
            .filter(|version| migrations.iter().all(|one| one.version != *version))
            .collect();
        Self { steps, unknown, rows: [0; 3] }
    }
}

/// What a migration did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Migrated {
    /// Versions that ran, or were undone.
    pub versions: Vec<i32>,
    /// Executions archived before they were dropped.
    pub archived: i64,
}

impl Migration {
    pub(super) fn checksum(&self) -> String {
        digest::sha256_hex(self.up.as_bytes())
    }
}
