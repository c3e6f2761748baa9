//! The migrations of both stores. The SQL lives under `migrations/`, compiled in.

use super::StoreError;
use crate::words::digest;

/// A step of the schema and its way back.
#[derive(Debug)]
pub(super) struct Migration {
    pub(super) version: i32,
    pub(super) name: &'static str,
    pub(super) up: &'static str,
    pub(super) down: &'static str,
}

pub(super) const POSTGRES: [Migration; 8] = [
    Migration {
        version: 1,
        name: "core",
        up: include_str!("../../migrations/postgres/0001_core.up.sql"),
        down: include_str!("../../migrations/postgres/0001_core.down.sql"),
    },
    Migration {
        version: 2,
        name: "control",
        up: include_str!("../../migrations/postgres/0002_control.up.sql"),
        down: include_str!("../../migrations/postgres/0002_control.down.sql"),
    },
    Migration {
        version: 3,
        name: "audit_head",
        up: include_str!("../../migrations/postgres/0003_audit_head.up.sql"),
        down: include_str!("../../migrations/postgres/0003_audit_head.down.sql"),
    },
    Migration {
        version: 4,
        name: "lifecycle",
        up: include_str!("../../migrations/postgres/0004_lifecycle.up.sql"),
        down: include_str!("../../migrations/postgres/0004_lifecycle.down.sql"),
    },
    Migration {
        version: 5,
        name: "outcomes",
        up: include_str!("../../migrations/postgres/0005_outcomes.up.sql"),
        down: include_str!("../../migrations/postgres/0005_outcomes.down.sql"),
    },
    Migration {
        version: 6,
        name: "experiments",
        up: include_str!("../../migrations/postgres/0006_experiments.up.sql"),
        down: include_str!("../../migrations/postgres/0006_experiments.down.sql"),
    },
    Migration {
        version: 7,
        name: "erasures",
        up: include_str!("../../migrations/postgres/0007_erasures.up.sql"),
        down: include_str!("../../migrations/postgres/0007_erasures.down.sql"),
    },
    Migration {
        version: 8,
        name: "list_cost",
        up: include_str!("../../migrations/postgres/0008_list_cost.up.sql"),
        down: include_str!("../../migrations/postgres/0008_list_cost.down.sql"),
    },
];

pub(super) const SQLITE: [Migration; 8] = [
    Migration {
        version: 1,
        name: "core",
        up: include_str!("../../migrations/sqlite/0001_core.up.sql"),
        down: include_str!("../../migrations/sqlite/0001_core.down.sql"),
    },
    Migration {
        version: 2,
        name: "control",
        up: include_str!("../../migrations/sqlite/0002_control.up.sql"),
        down: include_str!("../../migrations/sqlite/0002_control.down.sql"),
    },
    Migration {
        version: 3,
        name: "audit_head",
        up: include_str!("../../migrations/sqlite/0003_audit_head.up.sql"),
        down: include_str!("../../migrations/sqlite/0003_audit_head.down.sql"),
    },
    Migration {
        version: 4,
        name: "lifecycle",
        up: include_str!("../../migrations/sqlite/0004_lifecycle.up.sql"),
        down: include_str!("../../migrations/sqlite/0004_lifecycle.down.sql"),
    },
    Migration {
        version: 5,
        name: "outcomes",
        up: include_str!("../../migrations/sqlite/0005_outcomes.up.sql"),
        down: include_str!("../../migrations/sqlite/0005_outcomes.down.sql"),
    },
    Migration {
        version: 6,
        name: "experiments",
        up: include_str!("../../migrations/sqlite/0006_experiments.up.sql"),
        down: include_str!("../../migrations/sqlite/0006_experiments.down.sql"),
    },
    Migration {
        version: 7,
        name: "erasures",
        up: include_str!("../../migrations/sqlite/0007_erasures.up.sql"),
        down: include_str!("../../migrations/sqlite/0007_erasures.down.sql"),
    },
    Migration {
        version: 8,
        name: "list_cost",
        up: include_str!("../../migrations/sqlite/0008_list_cost.up.sql"),
        down: include_str!("../../migrations/sqlite/0008_list_cost.down.sql"),
    },
];

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

    /// Versions that have run, newest first.
    pub(super) fn applied_above(&self, to: i32) -> Vec<i32> {
        let applied = self.steps.iter().filter(|step| step.applied_at.is_some());
        let mut versions: Vec<i32> =
            applied.map(|step| step.version).filter(|version| *version > to).collect();
        versions.reverse();
        versions
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
    /// Whether it has run, going by the checksum on record; an error if it ran with another text.
    pub(super) fn has_run(&self, recorded: Option<&str>) -> Result<bool, StoreError> {
        match recorded {
            None => Ok(false),
            Some(checksum) if checksum == self.checksum() => Ok(true),
            Some(_) => Err(StoreError::Migration(format!(
                "migration {} ran here with another text than this binary's",
                self.version
            ))),
        }
    }

    pub(super) fn checksum(&self) -> String {
        digest::sha256_hex(self.up.as_bytes())
    }
}
