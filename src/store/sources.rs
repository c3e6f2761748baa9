//! The fallback order: database, last known good, environment, files.
//!
//! A source counts only if a catalog can be compiled from it. Where there are no files at all, the seeds
//! compiled into this binary stand in, so that guardrails are in force whatever is missing.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use jiff::Timestamp;

use super::snapshot::Snapshot;
use super::{Store, StoreError};
use crate::catalog::definitions::Definitions;
use crate::catalog::{Catalog, Source, files};
use crate::telemetry::events;

/// Everything a catalog may come from.
#[derive(Debug)]
pub struct Sources {
    /// The authority.
    pub store: Arc<dyn Store>,
    /// The copy of what it last said.
    pub snapshot: Snapshot,
    /// `AI_PROMPT_TEMPLATES_JSON`.
    pub environment: Option<String>,
    /// Holds `templates/` and `guardrails/`.
    pub config_dir: PathBuf,
}

/// Why a source gave no catalog.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// Which one.
    pub source: Source,
    /// Why; names the offending definition.
    pub why: String,
}

impl Sources {
    /// A catalog from the database. A good one is also kept as the last known good.
    pub async fn from_database(&self, generation: u64, now: Timestamp) -> Result<Catalog, Failure> {
        let failed = |why: String| Failure { source: Source::Database, why };
        let definitions =
            self.store.definitions().await.map_err(|error| failed(error.to_string()))?;
        let catalog = Catalog::compile(definitions, Source::Database, generation, now)
            .map_err(|error| failed(error.to_string()))?;
        let (snapshot, kept) = (self.snapshot.clone(), catalog.definitions.clone());
        let saved = tokio::task::spawn_blocking(move || snapshot.save(&kept)).await;
        if let Ok(Err(error)) = saved {
            events::snapshot_not_kept(&error.to_string());
        }
        Ok(catalog)
    }

    /// The best catalog there is without the database, and what the better sources lacked. Files that
    /// are there but broken give none: serving the seeds instead would switch the operator's guardrails
    /// off.
    pub fn without_database(
        &self,
        generation: u64,
        now: Timestamp,
    ) -> (Option<Catalog>, Vec<Failure>) {
        let mut failures = Vec::new();
        for source in [Source::Snapshot, Source::Environment, Source::File] {
            let compiled = self.read(source, &mut failures).and_then(|definitions| {
                let Some(definitions) = definitions else { return Ok(None) };
                Catalog::compile(definitions, source, generation, now)
                    .map(Some)
                    .map_err(|error| error.to_string())
            });
            match compiled {
                Ok(Some(catalog)) => return (Some(catalog), failures),
                Ok(None) => {}
                Err(why) => failures.push(Failure { source, why }),
            }
        }
        (None, failures)
    }

    fn read(
        &self,
        source: Source,
        notes: &mut Vec<Failure>,
    ) -> Result<Option<Definitions>, String> {
        match source {
            Source::Database => Ok(None),
            Source::Snapshot => self.snapshot.load().map_err(|error: StoreError| error.to_string()),
            Source::Environment => {
                self.environment.as_deref().map(|json| self.with_guardrails(json)).transpose()
            }
            Source::File => {
                let (definitions, are_seeds) = from_files(&self.config_dir)?;
                if are_seeds {
                    let folder = self.config_dir.display();
                    let why = format!(
                        "{folder} has no templates/ and no guardrails/; the built-in seeds serve"
                    );
                    notes.push(Failure { source, why });
                }
                Ok(Some(definitions))
            }
        }
    }

    /// The variable speaks of templates; guardrails come from the files unless it names its own, so
    /// that falling back never switches them off.
    fn with_guardrails(&self, json: &str) -> Result<Definitions, String> {
        let mut definitions = Definitions::from_json(json)?;
        if definitions.guardrails.is_empty() {
            definitions.guardrails = from_files(&self.config_dir)?.0.guardrails;
        }
        Ok(definitions)
    }
}

/// What the files define, or without any the seeds of this binary and `true`.
pub fn from_files(config_dir: &Path) -> Result<(Definitions, bool), String> {
    match read_files(config_dir)? {
        Some(definitions) => Ok((definitions, false)),
        None => Ok((files::seeds().map_err(|error| error.to_string())?, true)),
    }
}

/// Reads `templates/*.prompt` and `guardrails/*.toml`; `None` when neither folder is there.
fn read_files(config_dir: &Path) -> Result<Option<Definitions>, String> {
    let mut definitions = Definitions::default();
    let mut found = false;
    for folder in ["templates", "guardrails"] {
        let folder = config_dir.join(folder);
        let Ok(entries) = std::fs::read_dir(&folder) else { continue };
        found = true;
        let mut files: Vec<PathBuf> =
            entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
        files.sort();
        for file in files {
            let name = file.display().to_string();
            let content =
                std::fs::read_to_string(&file).map_err(|error| format!("{name}: {error}"))?;
            definitions.add_file(&name, &content).map_err(|error| error.to_string())?;
        }
    }
    Ok(found.then_some(definitions))
}
