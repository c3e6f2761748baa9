//! Keeping the catalog in force the best there is, from start to end.
//!
//! A catalog from the database is never given up for a lesser source: when the database goes away, the
//! one in force stays. Building happens here, off to the side; publishing is one pointer.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use tokio::sync::{Mutex, Notify};
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use crate::catalog::definitions::Definitions;
use crate::catalog::{Blueprint, Catalog, Current, Source, Tier, Version};
use crate::guardrail::Action;
use crate::store::sources::{Depth, Failure, Read, Sources};
use crate::telemetry::{events, metrics};
use crate::words::clock;
use crate::words::ids::Tenant;

/// How long a start waits for the database before it serves from a fallback.
const START_PATIENCE: Duration = Duration::from_millis(1_500);
/// Between two attempts to listen for changes.
const LISTEN_RETRY: Duration = Duration::from_secs(1);

/// Guardrails that exist in metrics before they find anything.
const GUARDRAIL_SERIES_MAX: usize = 100;

/// Builds catalogs and puts them in force.
#[derive(Debug)]
pub struct Refresher {
    sources: Arc<Sources>,
    current: Arc<Current>,
    generation: AtomicU64,
    /// What the database said when the catalog in force was built from it.
    read: std::sync::Mutex<Option<Read>>,
    /// Environment and files, for the names that better sources leave unserved, and what is wrong with
    /// them.
    tiers: std::sync::Mutex<(Vec<Tier>, Vec<Failure>)>,
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

/// Nothing gave a catalog: not even the seeds of this binary compile.
#[derive(Debug, Clone, thiserror::Error)]
#[error("no source gave a catalog: {0}")]
pub struct NoCatalog(String);

impl Refresher {
    /// The first catalog, from the best source that answers soon.
    pub async fn start(sources: Sources) -> Result<Self, NoCatalog> {
        let (tiers, broken) = sources.tiers();
        let mut failures = broken.clone();
        // A database that answers this is given the time that all its rows need.
        let answers = tokio::time::timeout(START_PATIENCE, sources.store.revision()).await;
        let read = match answers {
            Ok(_) => sources.database(None, Depth::Everything).await,
            Err(_late) => {
                let why = "no answer in time".to_owned();
                Err(Failure { source: Source::Database, why })
            }
        };
        let built = match &read {
            Ok(read) => from_database(read.definitions.clone(), 1, tiers.clone(), None).await,
            Err(failure) => Err(failure.clone()),
        };
        let read = read.ok().filter(|_| built.is_ok());
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
            read: std::sync::Mutex::new(read),
            tiers: std::sync::Mutex::new((tiers, broken)),
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
        tiers.0.iter().find_map(|tier| {
            let templates = tier.definitions.templates.iter();
            let version = templates
                .filter(|one| one.tenant_id == *tenant && one.name == name)
                .filter(|one| one.is_active && one.ab_test_group.is_none())
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
        current: &Arc<Catalog>,
        next: u64,
        tiers: &[Tier],
    ) -> Result<Option<Catalog>, Failure> {
        let last = || self.read.lock().unwrap_or_else(PoisonError::into_inner);
        let known = last().clone();
        let read = self.sources.database(known.as_ref(), depth).await?;
        // What could not be built left what is known as it was, and is tried again.
        let is_same = known.is_some_and(|known| known.revision == read.revision);
        if depth == Depth::Changes && is_same {
            return Ok(None);
        }
        let (definitions, tiers) = (read.definitions.clone(), tiers.to_vec());
        let catalog = from_database(definitions, next, tiers, Some(current.clone())).await?;
        *last() = Some(read);
        Ok(Some(catalog))
    }

    /// The lesser sources, read again if everything is.
    fn tiers_again(&self, depth: Depth) -> (Vec<Failure>, Vec<Tier>) {
        let mut kept = self.tiers.lock().unwrap_or_else(PoisonError::into_inner);
        if depth == Depth::Everything {
            let (mut tiers, failures) = self.sources.tiers();
            // Those that can no longer be read serve on as they were.
            let is_broken = |tier: &&Tier| failures.iter().any(|one| one.source == tier.source);
            tiers.extend(kept.0.iter().filter(is_broken).cloned());
            tiers.sort_by_key(|tier| tier.source);
            *kept = (tiers, failures);
        }
        (kept.1.clone(), kept.0.clone())
    }

    fn report(&self, failures: Vec<Failure>) {
        let mut known = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        for failure in failures.iter().filter(|failure| !known.contains(failure)) {
            events::catalog_failed(failure.source.name(), &failure.why);
        }
        *known = failures;
    }

    /// Refreshes when something changed, or when something better than the source in force may be back.
    pub async fn run(&self, poll_interval: Duration, stop: CancellationToken) {
        let mut polls = tokio::time::interval(poll_interval);
        polls.set_missed_tick_behavior(MissedTickBehavior::Delay);
        polls.reset();
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                () = self.changed.notified() => {}
                _ = polls.tick() => {}
            }
            self.refresh().await;
        }
    }

    /// Keeps on disk what the database said. Beside refreshing, not between: a large catalog takes seconds
    /// to write the first time, and no change may wait for that.
    pub async fn keep(&self, retry: Duration, stop: CancellationToken) {
        let mut is_kept = true;
        loop {
            tokio::select! {
                () = stop.cancelled() => break,
                () = self.unsaved.notified() => {}
                () = tokio::time::sleep(retry), if !is_kept => {}
            }
            self.warm().await;
            is_kept = self.save().await;
        }
        self.save().await;
    }

    /// Prepares the catalog in force off to the side: calls that come earlier prepare what they need.
    async fn warm(&self) {
        let current = self.current.load();
        drop(tokio::task::spawn_blocking(move || current.warm()).await);
    }

    /// Whether what the database said is on disk.
    async fn save(&self) -> bool {
        let current = self.current.load();
        if current.source != Source::Database {
            return true;
        }
        let sources = self.sources.clone();
        let kept = tokio::task::spawn_blocking(move || sources.snapshot.save(&current.definitions));
        let why = match kept.await {
            Ok(Ok(())) => return true,
            Ok(Err(error)) => error.to_string(),
            Err(_panicked) => "the task failed".to_owned(),
        };
        events::snapshot_not_kept(&why);
        false
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

/// Compiles off to the side: thousands of expressions would hold up every call on this thread.
async fn from_database(
    definitions: Arc<Definitions>,
    generation: u64,
    tiers: Vec<Tier>,
    previous: Option<Arc<Catalog>>,
) -> Result<Catalog, Failure> {
    let source = Source::Database;
    let building = tokio::task::spawn_blocking(move || {
        Catalog::build(Blueprint {
            definitions,
            source,
            generation,
            now: clock::now(),
            tiers: &tiers,
            previous: previous.as_deref(),
        })
    });
    match building.await {
        Ok(built) => built.map_err(|error| Failure { source, why: error.to_string() }),
        Err(_panicked) => Err(Failure { source, why: "compiling failed".to_owned() }),
    }
}

fn announce(catalog: &Catalog) {
    let definitions = &catalog.definitions;
    metrics::catalog(catalog.source, catalog.generation);
    let active = definitions.guardrails.iter().filter(|one| one.is_active);
    for guardrail in active.take(GUARDRAIL_SERIES_MAX) {
        let default = Action::by_default(guardrail.severity, guardrail.blocking);
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
