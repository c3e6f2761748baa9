//! Keeping the catalog in force the best there is, from start to end.
//!
//! A catalog from the database is never given up for a lesser source: when the database goes away, the
//! one in force stays. Building happens here, off to the side; publishing is one pointer.

use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use tokio::sync::{Mutex, Notify};
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use crate::catalog::definitions::Definitions;
use crate::catalog::{Blueprint, Catalog, Current, Source, Tier, Version};
use crate::guardrail::Action;
use crate::store::sources::{Failure, Sources};
use crate::telemetry::{events, metrics};
use crate::words::clock;
use crate::words::ids::Tenant;

/// How long a start waits for the database before it serves from a fallback.
const START_PATIENCE: Duration = Duration::from_millis(1_500);
/// Between two attempts to listen for changes.
const LISTEN_RETRY: Duration = Duration::from_secs(1);

/// Builds catalogs and puts them in force.
#[derive(Debug)]
pub struct Refresher {
    sources: Arc<Sources>,
    current: Arc<Current>,
    generation: AtomicU64,
    /// Of the database, when it was last read.
    revision: AtomicI64,
    /// Environment and files, for the names that better sources leave unserved.
    tiers: std::sync::Mutex<Vec<Tier>>,
    /// Why the best source did not serve, the last time it was asked.
    failures: std::sync::Mutex<Vec<Failure>>,
    /// One build at a time.
    building: Mutex<()>,
    /// Rings when somebody saw a change.
    changed: Notify,
    /// Whether changes are heard of as they happen, and not by polling only.
    listening: AtomicBool,
    /// Rings when a catalog of the database is to be kept on disk.
    unsaved: Notify,
}

/// What a reload did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reloaded {
    /// Of the catalog in force now.
    pub source: Source,
    /// Of the catalog in force now.
    pub generation: u64,
    /// Better sources that gave no catalog.
    pub failures: Vec<Failure>,
}

/// How much is read again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Depth {
    /// The rows that say they changed.
    Changes,
    /// Everything, files included.
    Everything,
}

/// Nothing gave a catalog: not even the seeds of this binary compile.
#[derive(Debug, Clone, thiserror::Error)]
#[error("no source gave a catalog: {0}")]
pub struct NoCatalog(String);

impl Refresher {
    /// The first catalog, from the best source that answers soon.
    pub async fn start(sources: Sources) -> Result<Self, NoCatalog> {
        let (tiers, mut failures) = sources.tiers();
        // A database that answers this is given the time that all its rows need.
        let answers = tokio::time::timeout(START_PATIENCE, sources.store.revision()).await;
        let read = match answers {
            Ok(_) => sources.database(None).await,
            Err(_late) => {
                let why = "no answer in time".to_owned();
                Err(Failure { source: Source::Database, why })
            }
        };
        let mut revision = -1;
        let built = read.and_then(|(definitions, at)| {
            revision = at;
            from_database(definitions, 1, &tiers, None)
        });
        let catalog = match built {
            Ok(catalog) => Some(catalog),
            Err(failure) => {
                let (catalog, more) = sources.without_database(1, clock::now(), None);
                failures = std::iter::once(failure).chain(more).collect();
                catalog
            }
        };
        let Some(catalog) = catalog else {
            let whys: Vec<String> = failures.iter().map(|one| one.why.clone()).collect();
            events::catalog_impossible(&whys.join("; "));
            return Err(NoCatalog(whys.join("; ")));
        };
        for failure in &failures {
            events::catalog_failed(failure.source.name(), &failure.why);
        }
        announce(&catalog);
        let unsaved = Notify::new();
        unsaved.notify_one();
        Ok(Self {
            sources: Arc::new(sources),
            current: Arc::new(Current::new(catalog)),
            generation: AtomicU64::new(1),
            revision: AtomicI64::new(revision),
            tiers: std::sync::Mutex::new(tiers),
            failures: std::sync::Mutex::new(failures),
            building: Mutex::new(()),
            changed: Notify::new(),
            listening: AtomicBool::new(false),
            unsaved,
        })
    }

    /// What is in force.
    pub fn current(&self) -> &Arc<Current> {
        &self.current
    }

    /// The lesser source, and its version, that serve a name without an active version.
    pub fn fallback(&self, tenant: &Tenant, name: &str) -> Option<(Source, u32)> {
        let tiers = self.tiers.lock().unwrap_or_else(PoisonError::into_inner);
        tiers.iter().find_map(|tier| {
            let templates = tier.definitions.templates.iter();
            let version = templates
                .filter(|one| one.tenant_id == *tenant && one.name == name && one.is_active)
                .find(|one| Version::compile(one).is_ok())?;
            Some((tier.source, version.version))
        })
    }

    /// Whether changes are heard of as they happen, and not by polling only.
    pub fn is_listening(&self) -> bool {
        self.listening.load(Relaxed)
    }

    /// Better sources that gave no catalog when they were last asked.
    pub fn failures(&self) -> Vec<Failure> {
        self.failures.lock().map(|failures| failures.clone()).unwrap_or_default()
    }

    /// Reads everything again, files included, and puts it in force if it is at least as good as what
    /// is there.
    pub async fn reload(&self) -> Reloaded {
        self.rebuild(Depth::Everything).await
    }

    /// Puts what changed in the database in force.
    pub async fn refresh(&self) -> Reloaded {
        self.rebuild(Depth::Changes).await
    }

    async fn rebuild(&self, depth: Depth) -> Reloaded {
        let building = self.building.lock().await;
        let (mut failures, tiers) = self.tiers_again(depth);
        let (current, next) = (self.current.load(), self.generation.load(Relaxed) + 1);
        let from_database_now = self.of_database(depth, &current, next, &tiers).await;
        let catalog = match from_database_now {
            Ok(catalog) => catalog,
            Err(failure) if current.source == Source::Database => {
                failures.insert(0, failure);
                None
            }
            Err(failure) => {
                let known = (depth == Depth::Changes).then_some(current.as_ref());
                let (catalog, more) = self.sources.without_database(next, clock::now(), known);
                failures = std::iter::once(failure).chain(more).collect();
                catalog
            }
        };
        self.report(failures.clone());
        if let Some(catalog) = catalog {
            self.generation.store(next, Relaxed);
            announce(&catalog);
            self.current.publish(catalog);
            self.unsaved.notify_one();
        }
        drop(building);
        let current = self.current.load();
        Reloaded { source: current.source, generation: current.generation, failures }
    }

    /// A catalog of the database; `None` when the one in force says the same already.
    async fn of_database(
        &self,
        depth: Depth,
        current: &Catalog,
        next: u64,
        tiers: &[Tier],
    ) -> Result<Option<Catalog>, Failure> {
        let is_known = current.source == Source::Database;
        let known = is_known.then(|| {
            let revision = match depth {
                Depth::Changes => self.revision.load(Relaxed),
                // From before the first: every row is read, and what is the same stays the same.
                Depth::Everything => -1,
            };
            (current.definitions.clone(), revision)
        });
        let (definitions, revision) = self.sources.database(known).await?;
        let is_same = is_known && revision == self.revision.load(Relaxed);
        if depth == Depth::Changes && is_same && self.failures().is_empty() {
            return Ok(None);
        }
        let catalog = from_database(definitions, next, tiers, Some(current))?;
        self.revision.store(revision, Relaxed);
        Ok(Some(catalog))
    }

    /// The lesser sources, read again if everything is.
    fn tiers_again(&self, depth: Depth) -> (Vec<Failure>, Vec<Tier>) {
        let mut kept = self.tiers.lock().unwrap_or_else(PoisonError::into_inner);
        if depth == Depth::Changes {
            return (Vec::new(), kept.clone());
        }
        let (tiers, failures) = self.sources.tiers();
        // Those that can no longer be read serve on as they were.
        let mut again = tiers;
        again.extend(
            kept.iter()
                .filter(|tier| failures.iter().any(|one| one.source == tier.source))
                .cloned(),
        );
        again.sort_by_key(|tier| tier.source);
        kept.clone_from(&again);
        (failures, again)
    }

    fn report(&self, failures: Vec<Failure>) {
        let mut known = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        for failure in failures.iter().filter(|failure| !known.contains(failure)) {
            events::catalog_failed(failure.source.name(), &failure.why);
        }
        *known = failures;
    }

    /// Refreshes when something changed, or when something better than the source in force may be
    /// back; keeps on disk what the database said.
    pub async fn run(&self, poll_interval: Duration, stop: CancellationToken) {
        let mut polls = tokio::time::interval(poll_interval);
        polls.set_missed_tick_behavior(MissedTickBehavior::Delay);
        polls.reset();
        loop {
            tokio::select! {
                () = stop.cancelled() => break,
                () = self.unsaved.notified() => {
                    self.keep().await;
                    continue;
                }
                () = self.changed.notified() => {}
                _ = polls.tick() => {}
            }
            self.refresh().await;
        }
        self.keep().await;
    }

    async fn keep(&self) {
        let current = self.current.load();
        if current.source == Source::Database {
            let sources = self.sources.clone();
            let kept = tokio::task::spawn_blocking(move || sources.keep(&current.definitions));
            if kept.await.is_err() {
                events::snapshot_not_kept("the task failed");
            }
        }
    }

    /// Listens for announced changes, and again when the connection is lost.
    pub async fn listen(&self, stop: CancellationToken) {
        let mut heard = true;
        loop {
            let changed = || {
                self.listening.store(true, Relaxed);
                self.changed.notify_one();
            };
            let listening = self.sources.store.listen(&changed);
            let ended = tokio::select! {
                () = stop.cancelled() => return,
                ended = listening => ended,
            };
            self.listening.store(false, Relaxed);
            if let Err(error) = ended
                && std::mem::take(&mut heard)
            {
                events::listener_lost(&error.to_string());
            }
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(LISTEN_RETRY) => {}
            }
            heard |= self.current.load().source == Source::Database && self.failures().is_empty();
        }
    }
}

fn from_database(
    definitions: Arc<Definitions>,
    generation: u64,
    tiers: &[Tier],
    previous: Option<&Catalog>,
) -> Result<Catalog, Failure> {
    let (source, now) = (Source::Database, clock::now());
    Catalog::build(Blueprint { definitions, source, generation, now, tiers, previous })
        .map_err(|error| Failure { source, why: error.to_string() })
}

fn announce(catalog: &Catalog) {
    let definitions = &catalog.definitions;
    metrics::catalog(catalog.source, catalog.generation);
    for guardrail in definitions.guardrails.iter().filter(|one| one.is_active) {
        let default = if guardrail.blocking { Action::Block } else { Action::Warn };
        let action = guardrail.rule_config.action.unwrap_or(default).name();
        metrics::guardrail_known(&guardrail.name, action);
    }
    events::catalog_published(
        catalog.source.name(),
        catalog.generation,
        definitions.templates.len(),
        definitions.guardrails.len(),
    );
}
