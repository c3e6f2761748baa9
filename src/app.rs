//! The application: builds every part, owns every task, and stops them in order.
//!
//! Start: local file, catalog, listeners, background. Stop: unready, no new connections, open exchanges
//! until the deadline, streams ended by a last frame, outbox to the store, done.

mod parts;
pub mod signals;
mod token;
mod watchdog;

use std::convert::Infallible;
use std::fs::File;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use hyper_util::service::TowerToHyperService;
use tokio::net::TcpListener;
use tokio::task::{JoinSet, spawn_blocking};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::admin::{Admin, Shared, Throttle, Unfinished};
use crate::analyst;
use crate::config::Settings;
use crate::erasure;
use crate::export;
use crate::listen::{self, Bounds, Lifetime};
use crate::outbox::{self, Ledger, Outbox};
use crate::proxy::Proxy;
use crate::refresh::Refresher;
use crate::retention;
use crate::store::Store;
use crate::telemetry::events;

pub use parts::{check, file_catalog, make_data_dir, open_store, tokens_file};

/// After the drain deadline: for last frames to reach their clients.
const LAST_WORDS: Duration = Duration::from_secs(2);
/// For the outbox to reach the store at the very end; what does not waits on the disk.
const FLUSH: Duration = Duration::from_secs(5);

/// A built application with its sockets bound.
pub struct App {
    settings: Settings,
    /// Held until the end.
    lock: File,
    data: TcpListener,
    tls: Option<TlsAcceptor>,
    control: TcpListener,
    proxy: Arc<Proxy>,
    admin: Admin,
    refresher: Arc<Refresher>,
    store: Arc<dyn Store>,
    outbox: Outbox,
    exports: export::Drains,
}

impl std::fmt::Debug for App {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("App")
    }
}

impl App {
    /// Builds everything that can fail, so that a running application only serves.
    pub async fn build(settings: Settings) -> anyhow::Result<Self> {
        parts::prepare_process();
        let metrics = parts::metrics()?;
        parts::make_data_dir(&settings.storage.data_dir)?;
        let lock = parts::lock_data_dir(&settings.storage.data_dir)?;
        let (taps, exports) = export::open(&settings.export, &settings.upstream.url)?;
        let (dir, is_shared) = (&settings.storage.data_dir, settings.database.is_none());
        let outbox = outbox::start(dir, &settings.audit, is_shared, taps).context("the outbox")?;
        let store = open_store(&settings)?;
        parts::migrate_at_start(&settings, store.as_ref()).await?;
        let refresher = Arc::new(Refresher::start(parts::sources(&settings, store.clone())).await?);
        let proxy = Arc::new(parts::proxy(
            &settings,
            refresher.current().clone(),
            outbox.recorder.clone(),
        )?);
        let super_admin = token::super_admin(&settings)?;
        let admin = Admin::new(Shared {
            store: store.clone(),
            refresher: refresher.clone(),
            ledger: outbox.recorder.ledger().clone(),
            dead_letters: outbox.dead_letters(),
            metrics,
            tokens: parts::tokens(&settings, &super_admin),
            throttle: Throttle::default(),
            unfinished: Unfinished::default(),
            allowed_hosts: settings.control.allowed_hosts.clone(),
            draining: false.into(),
        });
        let tls = match &settings.data.tls {
            Some(files) => {
                Some(listen::tls(&files.cert, &files.key).context("data.tls_cert_file")?)
            }
            None => None,
        };
        let bind = async |address: SocketAddr, key: &'static str| {
            listen::bind(address)
                .await
                .with_context(|| format!("{key}: cannot listen on {address}"))
        };
        let data = bind(settings.data.listen, "data.listen").await?;
        let control = bind(settings.control.listen, "control.listen").await?;
        Ok(Self {
            settings,
            lock,
            data,
            tls,
            control,
            proxy,
            admin,
            refresher,
            store,
            outbox,
            exports,
        })
    }

    /// Where the data plane listens.
    pub fn data_address(&self) -> std::io::Result<SocketAddr> {
        self.data.local_addr()
    }

    /// Where the control plane listens.
    pub fn control_address(&self) -> std::io::Result<SocketAddr> {
        self.control.local_addr()
    }

    /// Serves until `stop` resolves, then drains. A second `stop` aborts what is left.
    pub async fn run<S: Future<Output = ()>>(self, stop: impl Fn() -> S) -> anyhow::Result<()> {
        if self.proxy.key.is_some() && !self.settings.data.listen.ip().is_loopback() {
            events::key_for_everyone(&self.settings.data.listen.to_string());
        }
        let addresses = (self.data_address()?.to_string(), self.control_address()?.to_string());
        events::listening(&addresses.0, &addresses.1, &self.settings.upstream.url);
        let mut running = self.start();
        let defect = tokio::select! {
            () = stop() => None,
            what = running.defect() => Some(what),
        };
        running.drain(stop()).await;
        running.flush().await?;
        defect.map_or(Ok(()), |what| Err(anyhow::anyhow!(what)))
    }

    fn start(self) -> Running {
        let Self {
            settings,
            lock,
            data,
            tls,
            control,
            proxy,
            admin,
            refresher,
            store,
            outbox,
            exports,
        } = self;
        let (lifetime, control_lifetime) = (Lifetime::default(), Lifetime::default());
        let (background, shipping) = (CancellationToken::new(), CancellationToken::new());
        let (drained, tunnels) = (proxy.drained.clone(), proxy.tunnels.clone());
        let ledger = outbox.recorder.ledger().clone();
        let dead_letters = outbox.dead_letters();
        // The proxy holds the last recorder, so that the writer ends with it.
        drop(outbox.recorder);
        let mut listeners = JoinSet::new();
        let bounds = Bounds::data(&settings.limits);
        let data_service = service(proxy);
        listeners.spawn(listen::serve(data, tls, bounds, lifetime.clone(), move |_peer| {
            data_service.clone()
        }));
        let router = admin.clone().router();
        let control_service =
            move |peer: SocketAddr| TowerToHyperService::new(Admin::seen_from(&router, peer.ip()));
        let (bounds, until) = (Bounds::relaxed("control"), control_lifetime.clone());
        listeners.spawn(listen::serve(control, None, bounds, until, control_service));
        let mut tasks = JoinSet::new();
        let poll = settings.catalog.poll_interval;
        for task in [Refreshing::Following, Refreshing::Listening, Refreshing::Keeping] {
            let (refresher, until) = (refresher.clone(), background.clone());
            tasks.spawn(async move {
                match task {
                    Refreshing::Following => refresher.run(poll, until).await,
                    Refreshing::Listening => refresher.listen(until).await,
                    Refreshing::Keeping => refresher.keep(poll, until).await,
                }
            });
        }
        tasks.spawn(reload_on_signal(refresher, background.clone()));
        tasks.spawn(watchdog::run(background.clone()));
        tasks.spawn(analyst::run(store.clone(), ledger.clone(), background.clone()));
        tasks.spawn(erasure::run(store.clone(), dead_letters, background.clone()));
        let retention = settings.audit.retention;
        tasks.spawn(retention::run(store.clone(), retention, background.clone()));
        let mut shipper = JoinSet::new();
        let (file, filled) = (outbox.file, outbox.filled);
        shipper.spawn(outbox::ship(file, store, ledger.clone(), filled, shipping.clone()));
        Running {
            grace: settings.limits.drain,
            _lock: lock,
            admin,
            ledger,
            lifetime,
            control_lifetime,
            background,
            shipping,
            drained,
            tunnels,
            listeners,
            tasks,
            shipper,
            exports: exports.into_iter().collect(),
            writer: Some(outbox.writer),
            written: outbox.written,
        }
    }
}

/// What goes on beside the calls to keep the catalog the best there is.
enum Refreshing {
    Following,
    Listening,
    Keeping,
}

/// Everything that runs, in the order it stops.
struct Running {
    grace: Duration,
    _lock: File,
    admin: Admin,
    ledger: Arc<Ledger>,
    lifetime: Lifetime,
    control_lifetime: Lifetime,
    background: CancellationToken,
    shipping: CancellationToken,
    drained: CancellationToken,
    tunnels: TaskTracker,
    listeners: JoinSet<()>,
    tasks: JoinSet<()>,
    shipper: JoinSet<()>,
    exports: JoinSet<()>,
    writer: Option<std::thread::JoinHandle<()>>,
    written: CancellationToken,
}

impl Running {
    /// Tasks only end when they are told to: anything else is a defect, and half an application is
    /// worse than a restart.
    async fn defect(&mut self) -> &'static str {
        tokio::select! {
            _ = self.listeners.join_next() => "a listener ended",
            _ = self.tasks.join_next() => "a background task ended",
            _ = self.shipper.join_next() => "the shipper ended",
            () = self.written.cancelled() => "the writer of the outbox ended",
            Some(_) = self.exports.join_next() => "an export ended",
        }
    }

    /// Lets open exchanges end: by themselves until the deadline, then by a last frame, then by a cut.
    /// `hurry` skips to the cut.
    async fn drain(&mut self, hurry: impl Future<Output = ()>) {
        events::draining(u64::try_from(self.grace.as_millis()).unwrap_or(u64::MAX));
        self.admin.start_draining();
        self.lifetime.stop.cancel();
        self.lifetime.tasks.close();
        self.tunnels.close();
        let open = || async {
            self.lifetime.tasks.wait().await;
            self.tunnels.wait().await;
        };
        let patient = async {
            if tokio::time::timeout(self.grace, open()).await.is_err() {
                self.drained.cancel();
                drop(tokio::time::timeout(LAST_WORDS, open()).await);
            }
        };
        tokio::select! {
            () = patient => {}
            () = hurry => {}
        }
        self.drained.cancel();
        self.lifetime.abort.cancel();
        open().await;
    }

    /// Ends the rest and brings what was recorded to the store.
    async fn flush(mut self) -> anyhow::Result<()> {
        self.background.cancel();
        self.control_lifetime.stop.cancel();
        self.control_lifetime.abort.cancel();
        while self.listeners.join_next().await.is_some() {}
        self.control_lifetime.tasks.close();
        self.control_lifetime.tasks.wait().await;
        while self.tasks.join_next().await.is_some() {}
        let writer = self.writer.take();
        let writing = spawn_blocking(move || writer.is_none_or(|writer| writer.join().is_ok()));
        let written = matches!(tokio::time::timeout(FLUSH, writing).await, Ok(Ok(true)));
        self.shipping.cancel();
        let flushed = tokio::time::timeout(FLUSH, self.shipper.join_next()).await.is_ok();
        // They end with the writer, whose copies they carry.
        while let Ok(Some(_)) = tokio::time::timeout(FLUSH, self.exports.join_next()).await {}
        events::stopped(self.ledger.standing().waiting());
        anyhow::ensure!(written && flushed, "the outbox did not end cleanly");
        Ok(())
    }
}

async fn reload_on_signal(refresher: Arc<Refresher>, stop: CancellationToken) {
    let mut reloads = signals::Reloads::listen();
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = reloads.next() => drop(refresher.reload().await),
        }
    }
}

/// The data plane as a hyper service.
fn service(
    proxy: Arc<Proxy>,
) -> impl hyper::service::Service<
    http::Request<hyper::body::Incoming>,
    Response = crate::proxy::Reply,
    Error = Infallible,
    Future = impl Future<Output = Result<crate::proxy::Reply, Infallible>> + Send,
> + Clone
+ Send {
    hyper::service::service_fn(move |request| {
        let proxy = proxy.clone();
        async move { Ok(proxy.handle(request).await) }
    })
}
