//! Making each part from the settings.

use std::os::unix::fs::DirBuilderExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::OnceLock;

use anyhow::Context;
use metrics_exporter_prometheus::PrometheusHandle;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use crate::catalog::{Catalog, Current};
use crate::config::Settings;
use crate::outbox::Recorder;
use crate::price::Prices;
use crate::proxy::{Proxy, Rules};
use crate::store::snapshot::Snapshot;
use crate::store::sources::Sources;
use crate::store::{Postgres, Sqlite, Store};
use crate::telemetry::metrics;
use crate::upstream::{Options, Upstream};
use crate::words::clock;

/// The price table of this binary, for installations without a file.
const PRICES: &str = include_str!("../../config/prices.toml");
const OWNER_ONLY: u32 = 0o700;

/// What is one per process: the cryptography of every TLS connection.
pub(super) fn prepare_process() {
    // A second application in one process (tests) finds it installed.
    drop(rustls::crypto::ring::default_provider().install_default());
}

/// The metrics recorder; one per process, shared by the applications in it.
pub(super) fn metrics() -> anyhow::Result<PrometheusHandle> {
    static HANDLE: OnceLock<Option<PrometheusHandle>> = OnceLock::new();
    HANDLE.get_or_init(|| metrics::install().ok()).clone().context("the metrics recorder")
}

pub(super) fn make_data_dir(path: &Path) -> anyhow::Result<()> {
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(OWNER_ONLY)
        .create(path)
        .with_context(|| format!("storage.data_dir {}", path.display()))
}

/// The configured store. Connects to nothing yet.
pub fn open_store(settings: &Settings) -> anyhow::Result<Arc<dyn Store>> {
    Ok(match &settings.database {
        Some(database) => {
            let (url, ca) = (&database.url, database.ca_file.as_deref());
            Arc::new(Postgres::new(url, database.pool_connections_max, ca)?)
        }
        None => Arc::new(Sqlite::new(&settings.storage.data_dir)?),
    })
}

/// The embedded store migrates itself; PostgreSQL only when configured to. A database that is away
/// does not keep the proxy from starting.
pub(super) async fn migrate_at_start(settings: &Settings, store: &dyn Store) -> anyhow::Result<()> {
    match &settings.database {
        None => drop(store.migrate_up().await.context("the embedded store")?),
        Some(database) if database.migrate_at_start => {
            if let Err(error) = store.migrate_up().await {
                tracing::warn!(error = %error, "the database was not migrated at start");
            }
        }
        Some(_) => {}
    }
    Ok(())
}

pub(super) fn sources(settings: &Settings, store: Arc<dyn Store>) -> Sources {
    Sources {
        store,
        snapshot: Snapshot::new(&settings.storage.data_dir),
        environment: settings.catalog.environment_json.clone(),
        config_dir: settings.catalog.config_dir.clone(),
    }
}

/// The catalog of the configuration directory, for commands that need no store.
pub fn file_catalog(settings: &Settings) -> anyhow::Result<Catalog> {
    let definitions = crate::store::sources::from_files(&settings.catalog.config_dir)
        .map_err(|why| anyhow::anyhow!(why))?;
    Ok(Catalog::compile(definitions, crate::catalog::Source::File, 1, clock::now())?)
}

pub(super) fn proxy(
    settings: &Settings,
    catalog: Arc<Current>,
    recorder: Recorder,
) -> anyhow::Result<Proxy> {
    let upstream = &settings.upstream;
    let ca_pem = upstream
        .ca_file
        .as_ref()
        .map(|file| {
            std::fs::read(file).with_context(|| format!("upstream.ca_file {}", file.display()))
        })
        .transpose()?;
    let upstream = Upstream::new(&Options {
        url: upstream.url.clone(),
        connect_timeout: upstream.connect_timeout,
        head_timeout: upstream.response_head_timeout,
        idle_timeout: upstream.idle_timeout,
        ca_pem,
    })?;
    Ok(Proxy {
        catalog,
        upstream,
        recorder,
        prices: Arc::new(prices(&settings.catalog.config_dir)?),
        streams: Arc::new(Semaphore::new(settings.limits.streams_max)),
        drained: CancellationToken::new(),
        rules: Rules {
            limits: settings.limits.clone(),
            guardrails: settings.guardrails.clone(),
            routes: settings.routes.clone(),
            store_prompts: settings.audit.store_prompts,
            when_full: settings.audit.when_full,
        },
    })
}

fn prices(config_dir: &Path) -> anyhow::Result<Prices> {
    let path = config_dir.join("prices.toml");
    match std::fs::read_to_string(&path) {
        Ok(text) => Prices::parse(&text).with_context(|| path.display().to_string()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Prices::parse(PRICES)?),
        Err(error) => Err(error).with_context(|| path.display().to_string()),
    }
}
