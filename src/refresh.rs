//! Keeping the catalog in force the best there is, from start to end.
//!
//! A catalog from the database is never given up for a lesser source: when the database goes away, the
//! one in force stays. Building happens here, off to the side; publishing is one pointer.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use tokio::sync::{Mutex, Notify};
use tokio_util::sync::CancellationToken;

use crate::catalog::{Catalog, Current, Source};
use crate::guardrail::Action;
use crate::store::sources::{Failure, Sources};
use crate::telemetry::{events, metrics};
use crate::words::clock;

/// How long a start waits for the database before it serves from a fallback.
const START_PATIENCE: Duration = Duration::from_millis(1_500);
/// Between two attempts to listen for changes.
const LISTEN_RETRY: Duration = Duration::from_secs(1);

/// Builds catalogs and puts them in force.
#[derive(Debug)]
pub struct Refresher {
    sources: Sources,
    current: Arc<Current>,
    generation: AtomicU64,
    /// Of the database, when it was last read.
    revision: AtomicI64,
    /// Why the best source did not serve, the last time it was asked.
    failures: std::sync::Mutex<Vec<Failure>>,
    /// One build at a time.
    building: Mutex<()>,
    /// Rings when somebody saw a change.
    changed: Notify,
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

/// Nothing gave a catalog: not even the seeds of this binary compile.
#[derive(Debug, Clone, thiserror::Error)]
#[error("no source gave a catalog: {0}")]
pub struct NoCatalog(String);

impl Refresher {
    /// The first catalog, from the best source that answers soon.
    pub async fn start(sources: Sources) -> Result<Self, NoCatalog> {
        let revision = AtomicI64::new(-1);
        let asked =
            tokio::time::timeout(START_PATIENCE, from_database(&sources, &revision, 1)).await;
        let (catalog, failures) = match asked {
            Ok(Ok(catalog)) => (Some(catalog), Vec::new()),
            Ok(Err(failure)) => fall_back(&sources, failure, 1),
            Err(_late) => {
                let why = "no answer in time".to_owned();
                fall_back(&sources, Failure { source: Source::Database, why }, 1)
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
        Ok(Self {
            sources,
            current: Arc::new(Current::new(catalog)),
            generation: AtomicU64::new(1),
            revision,
            failures: std::sync::Mutex::new(failures),
            building: Mutex::new(()),
            changed: Notify::new(),
        })
    }

    /// What is in force.
    pub fn current(&self) -> &Arc<Current> {
        &self.current
    }

    /// Better sources that gave no catalog when they were last asked.
    pub fn failures(&self) -> Vec<Failure> {
        self.failures.lock().map(|failures| failures.clone()).unwrap_or_default()
    }

    /// Builds a catalog now and puts it in force if it is at least as good as the one there.
    pub async fn reload(&self) -> Reloaded {
        let building = self.building.lock().await;
        let next = self.generation.load(Relaxed) + 1;
        let (catalog, failures) = match from_database(&self.sources, &self.revision, next).await {
            Ok(catalog) => (Some(catalog), Vec::new()),
            Err(failure) if self.current.load().source == Source::Database => (None, vec![failure]),
            Err(failure) => fall_back(&self.sources, failure, next),
        };
        for failure in &failures {
            if !self.failures().contains(failure) {
                events::catalog_failed(failure.source.name(), &failure.why);
            }
        }
        if let Ok(mut known) = self.failures.lock() {
            known.clone_from(&failures);
        }
        if let Some(catalog) = catalog.filter(|catalog| self.is_news(catalog)) {
            self.generation.store(next, Relaxed);
            announce(&catalog);
            self.current.publish(catalog);
        }
        drop(building);
        let current = self.current.load();
        Reloaded { source: current.source, generation: current.generation, failures }
    }

    /// Reloads when something changed, or when something better than the source in force may be back.
    pub async fn run(&self, poll_interval: Duration, stop: CancellationToken) {
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                () = self.changed.notified() => {}
                () = tokio::time::sleep(poll_interval) => {
                    if !self.is_stale().await {
                        continue;
                    }
                }
            }
            self.reload().await;
        }
    }

    /// Listens for announced changes, and again when the connection is lost.
    pub async fn listen(&self, stop: CancellationToken) {
        let mut heard = true;
        loop {
            let changed = || self.changed.notify_one();
            let listening = self.sources.store.listen(&changed);
            let ended = tokio::select! {
                () = stop.cancelled() => return,
                ended = listening => ended,
            };
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

    async fn is_stale(&self) -> bool {
        if self.current.load().source != Source::Database || !self.failures().is_empty() {
            return true;
        }
        match self.sources.store.revision().await {
            Ok(revision) => revision != self.revision.load(Relaxed),
            // Reloading finds out and says why.
            Err(_) => true,
        }
    }

    /// In fallback, the same definitions read again are no news.
    fn is_news(&self, catalog: &Catalog) -> bool {
        let current = self.current.load();
        catalog.source == Source::Database
            || catalog.source != current.source
            || catalog.definitions != current.definitions
    }
}

async fn from_database(
    sources: &Sources,
    known: &AtomicI64,
    generation: u64,
) -> Result<Catalog, Failure> {
    // Read before the definitions: a change in between is seen as one more change.
    let revision = sources
        .store
        .revision()
        .await
        .map_err(|error| Failure { source: Source::Database, why: error.to_string() })?;
    let catalog = sources.from_database(generation, clock::now()).await?;
    known.store(revision, Relaxed);
    Ok(catalog)
}

fn fall_back(
    sources: &Sources,
    failure: Failure,
    generation: u64,
) -> (Option<Catalog>, Vec<Failure>) {
    let (catalog, more) = sources.without_database(generation, clock::now());
    let mut failures = vec![failure];
    failures.extend(more);
    (catalog, failures)
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
