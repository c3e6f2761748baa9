//! Making each part from the settings.

use std::fs::File;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::OnceLock;
use std::time::Duration;

use anyhow::Context;
use metrics_exporter_prometheus::PrometheusHandle;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::admin::{Role, Token, Tokens};
use crate::catalog::definitions::Definitions;
use crate::catalog::{Catalog, Current, Source};
use crate::config::Settings;
use crate::listen;
use crate::outbox::Recorder;
use crate::price::Prices;
use crate::proxy::{Accounted, Key, Pieces, Proxy, Rules};
use crate::store::snapshot::Snapshot;
use crate::store::sources::Sources;
use crate::store::{self, Postgres, Sqlite, Store};
use crate::telemetry::{events, metrics};
use crate::upstream::{Options, Upstream};
use crate::words::clock;
use crate::words::secret::Secret;

/// The price table of this binary, for installations without a file.
const PRICES: &str = include_str!("../../config/prices.toml");
const OWNER_ONLY_DIR: u32 = 0o700;
const OWNER_ONLY_FILE: u32 = 0o600;
const LOCK: &str = "lock";
/// How long a start waits for its migration before it serves from a fallback.
const MIGRATION_PATIENCE: Duration = Duration::from_secs(20);

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

/// Makes the data directory and the local file in it, both for the owner only: they hold prompts.
pub fn make_data_dir(path: &Path) -> anyhow::Result<()> {
    let made =
        std::fs::DirBuilder::new().recursive(true).mode(OWNER_ONLY_DIR).create(path).and_then(
            |()| {
                let file = open_owned(&path.join(store::LOCAL_FILE))?;
                file.set_permissions(std::fs::Permissions::from_mode(OWNER_ONLY_FILE))
            },
        );
    made.with_context(|| format!("storage.data_dir {}", path.display()))
}

/// Keeps a second process from working on the same local file; holds as long as the file is open.
pub(super) fn lock_data_dir(path: &Path) -> anyhow::Result<File> {
    let file = open_owned(&path.join(LOCK))
        .with_context(|| format!("storage.data_dir {}", path.display()))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(_taken) => {
            anyhow::bail!("storage.data_dir {}: another process uses it", path.display())
        }
    }
}

fn open_owned(path: &Path) -> std::io::Result<File> {
    File::options().write(true).create(true).truncate(false).mode(OWNER_ONLY_FILE).open(path)
}

/// Who may use the admin API.
pub(super) fn tokens(settings: &Settings, super_admin: &Secret) -> Tokens {
    let mut configured = vec![Token::new("super_admin", Role::SuperAdmin, super_admin)];
    if let Some(viewer) = &settings.control.viewer_token {
        configured.push(Token::new("viewer", Role::Viewer, viewer));
    }
    Tokens::new(configured, tokens_file(settings))
}

/// Where tokens are that are made and taken away while the process runs.
pub fn tokens_file(settings: &Settings) -> PathBuf {
    let default = || settings.storage.data_dir.join("admin-tokens.toml");
    settings.control.tokens_file.clone().unwrap_or_else(default)
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
            match tokio::time::timeout(MIGRATION_PATIENCE, store.migrate_up()).await {
                Ok(Ok(_)) => {}
                Ok(Err(error)) => events::not_migrated(&error.to_string()),
                Err(_late) => {
                    events::not_migrated("no answer in time; calls are served without it");
                }
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
    let definitions = store::sources::from_files(&settings.catalog.config_dir)
        .map_err(|why| anyhow::anyhow!(why))?
        .0;
    Ok(Catalog::compile(definitions, Source::File, 1, clock::now())?)
}

/// Everything the settings name, tried without starting anything: files, certificates, definitions.
pub fn check(settings: &Settings) -> Vec<anyhow::Error> {
    prepare_process();
    let mut problems = Vec::new();
    let mut keep = |tried: anyhow::Result<()>| problems.extend(tried.err());
    keep(file_catalog(settings).map(drop).context("catalog.config_dir"));
    keep(prices(&settings.catalog.config_dir).map(drop));
    keep(upstream(settings).map(drop));
    keep(key(settings).map(drop));
    if let Some(json) = &settings.catalog.environment_json {
        let compiled = Definitions::from_json(json).and_then(|definitions| {
            Catalog::compile(definitions, Source::Environment, 1, clock::now())
                .map_err(|error| error.to_string())
        });
        let compiled = compiled.map(drop).map_err(|why| anyhow::anyhow!(why));
        keep(compiled.context("AI_PROMPT_TEMPLATES_JSON"));
    }
    if let Some(database) = &settings.database {
        let (url, ca) = (&database.url, database.ca_file.as_deref());
        let opened = Postgres::new(url, database.pool_connections_max, ca);
        keep(opened.map(drop).context("database"));
    }
    if let Some(files) = &settings.data.tls {
        keep(listen::tls(&files.cert, &files.key).map(drop).context("data.tls_cert_file"));
    }
    problems
}

fn upstream(settings: &Settings) -> anyhow::Result<Upstream> {
    let upstream = &settings.upstream;
    let ca_pem = upstream
        .ca_file
        .as_ref()
        .map(|file| {
            std::fs::read(file).with_context(|| format!("upstream.ca_file {}", file.display()))
        })
        .transpose()?;
    Ok(Upstream::new(&Options {
        url: upstream.url.clone(),
        connect_timeout: upstream.connect_timeout,
        idle_timeout: upstream.idle_timeout,
        ca_pem,
    })?)
}

pub(super) fn proxy(
    settings: &Settings,
    catalog: Arc<Current>,
    recorder: Recorder,
) -> anyhow::Result<Proxy> {
    let data_dir = &settings.storage.data_dir;
    let accounted = Accounted::open(data_dir)
        .with_context(|| format!("storage.data_dir {}", data_dir.display()))?;
    Ok(Proxy {
        catalog,
        upstream: upstream(settings)?,
        key: key(settings)?,
        recorder,
        prices: Arc::new(prices(&settings.catalog.config_dir)?),
        accounted: Arc::new(accounted),
        pieces: Pieces::default(),
        streams: Arc::new(Semaphore::new(settings.limits.streams_max)),
        tunnels: TaskTracker::new(),
        drained: CancellationToken::new(),
        rules: Rules {
            limits: settings.limits.clone(),
            retries: settings.upstream.retries.clone(),
            response_head_timeout: settings.upstream.response_head_timeout,
            guardrails: settings.guardrails.clone(),
            routes: settings.routes.clone(),
            store_prompts: settings.audit.store_prompts,
            store_prompts_of: Arc::new(settings.audit.store_prompts_of.clone()),
            when_full: settings.audit.when_full,
            placeholder_key: super::token::placeholder_key(settings)?,
            speaks_tls: settings.data.tls.is_some(),
        },
    })
}

fn key(settings: &Settings) -> anyhow::Result<Option<Key>> {
    Ok(settings.upstream.api_key.as_ref().map(Key::open).transpose()?)
}

fn prices(config_dir: &Path) -> anyhow::Result<Prices> {
    let path = config_dir.join("prices.toml");
    match std::fs::read_to_string(&path) {
        Ok(text) => Prices::parse(&text).with_context(|| path.display().to_string()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Prices::parse(PRICES)?),
        Err(error) => Err(error).with_context(|| path.display().to_string()),
    }
}
