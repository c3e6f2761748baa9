//! The fallback order: database, last known good, environment, files.
//!
//! A source counts only if a catalog can be compiled from it. Where there are no files at all, the seeds
//! compiled into this binary stand in, so that guardrails are in force whatever is missing.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use jiff::Timestamp;

use super::snapshot::Snapshot;
use super::{Marks, Store, StoreError};
use crate::catalog::definitions::Definitions;
use crate::catalog::{Blueprint, Catalog, Source, Tier, files};

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

/// What the database said.
#[derive(Debug, Clone, Default)]
pub struct Read {
    /// Everything it defines.
    pub definitions: Arc<Definitions>,
    /// Where they stand.
    pub revision: i64,
    /// By which the store tells what is still the same.
    pub marks: Arc<Marks>,
}

/// How much is read again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Depth {
    /// The rows that say they changed.
    Changes,
    /// Everything, files included.
    Everything,
}

impl Sources {
    /// What the database says. Of what is known, only what is different is read, unless rows were deleted.
    pub async fn database(&self, known: Option<&Read>, depth: Depth) -> Result<Read, Failure> {
        let failed =
            |error: StoreError| Failure { source: Source::Database, why: error.to_string() };
        if let Some(known) = known {
            let changed = match depth {
                Depth::Changes => self.store.changed(Some(known.revision)).await,
                Depth::Everything => self.store.differing(&known.marks).await,
            };
            let changed = changed.map_err(failed)?;
            let updated = known.definitions.updated(changed.definitions, false);
            // Fewer rows: some were deleted. An earlier revision: an older copy was put back.
            let is_newer = changed.revision >= known.revision || depth == Depth::Everything;
            if updated.counts() == changed.counts && is_newer {
                // Old marks only cost a second look, and a change should cost what changed.
                let marks = match depth {
                    Depth::Changes => known.marks.clone(),
                    Depth::Everything => Arc::new(known.marks.updated(changed.marks)),
                };
                let definitions = Arc::new(updated);
                return Ok(Read { definitions, revision: changed.revision, marks });
            }
        }
        let changed = self.store.changed(None).await.map_err(failed)?;
        let old = known.map(|known| known.definitions.clone()).unwrap_or_default();
        Ok(Read {
            definitions: Arc::new(old.updated(changed.definitions, true)),
            revision: changed.revision,
            marks: Arc::new(changed.marks),
        })
    }

    /// The definitions of the sources behind the snapshot, best first: they serve the names that the
    /// better sources leave unserved.
    pub fn tiers(&self) -> (Vec<Tier>, Vec<Failure>) {
        let (mut tiers, mut failures) = (Vec::new(), Vec::new());
        for source in [Source::Environment, Source::File] {
            match self.read(source, &mut Vec::new()) {
                Ok(Some(definitions)) => {
                    tiers.push(Tier { source, definitions: Arc::new(definitions) });
                }
                Ok(None) => {}
                Err(why) => failures.push(Failure { source, why }),
            }
        }
        (tiers, failures)
    }

    /// The best catalog there is without the database, and what the better sources lacked. Files that
    /// are there but broken give none: serving the seeds instead would switch the operator's guardrails
    /// off. No catalog and no new failure when the one in force says the same already.
    pub fn without_database(
        &self,
        generation: u64,
        now: Timestamp,
        current: Option<&Catalog>,
    ) -> (Option<Catalog>, Vec<Failure>) {
        let mut failures = Vec::new();
        let (tiers, _) = self.tiers();
        for source in [Source::Snapshot, Source::Environment, Source::File] {
            let definitions = match self.read(source, &mut failures) {
                Ok(Some(definitions)) => Arc::new(definitions),
                Ok(None) => continue,
                Err(why) => {
                    failures.push(Failure { source, why });
                    continue;
                }
            };
            let is_old = |one: &Catalog| one.source == source && one.definitions == definitions;
            if current.is_some_and(is_old) {
                return (None, failures);
            }
            let lesser: Vec<Tier> =
                tiers.iter().filter(|tier| tier.source > source).cloned().collect();
            let blueprint = Blueprint {
                definitions,
                source,
                generation,
                now,
                tiers: &lesser,
                previous: current,
            };
            match Catalog::build(blueprint) {
                Ok(catalog) => return (Some(catalog), failures),
                Err(error) => failures.push(Failure { source, why: error.to_string() }),
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

/// Reads what is below `templates/`, `guardrails/` and `experiments/`; `None` when none is there.
fn read_files(config_dir: &Path) -> Result<Option<Definitions>, String> {
    let mut definitions = Definitions::default();
    let mut found = false;
    for folder in files::FOLDERS {
        let mut folders = vec![config_dir.join(folder)];
        while let Some(folder) = folders.pop() {
            let Ok(entries) = std::fs::read_dir(&folder) else { continue };
            found = true;
            let mut paths: Vec<PathBuf> =
                entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
            paths.sort();
            for path in paths {
                if path.is_dir() {
                    folders.push(path);
                    continue;
                }
                let name = path.display().to_string();
                let content =
                    std::fs::read_to_string(&path).map_err(|error| format!("{name}: {error}"))?;
                let inside = path.strip_prefix(config_dir).unwrap_or(&path).display().to_string();
                definitions
                    .add_file(&inside, &content)
                    .map_err(|error| format!("{name}: {}", error.why))?;
            }
        }
    }
    Ok(found.then_some(definitions))
}

/// What the files below a directory define, which must be there.
pub fn from_directory(dir: &Path) -> Result<Definitions, String> {
    read_files(dir)?.ok_or_else(|| {
        format!(
            "{} has none of {}",
            dir.display(),
            files::FOLDERS.map(|one| format!("{one}/")).join(", ")
        )
    })
}
