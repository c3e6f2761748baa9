//! The application: builds every part, owns every task, and stops them in order.
//!
//! Start: local file, catalog, listeners, background. Stop: unready, no new connections, open exchanges
//! until the deadline, streams ended by a last frame, outbox to the store, done.

mod parts;
pub mod signals;
mod token;

use std::convert::Infallible;
use std::fs::File;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use hyper_util::service::TowerToHyperService;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use crate::admin::{Admin, Shared, Tokens};
use crate::config::Settings;
use crate::listen::{self, Bounds, Lifetime};
use crate::outbox::{self, Outbox};
use crate::proxy::Proxy;
use crate::refresh::Refresher;
use crate::store::Store;
use crate::telemetry::events;

pub use parts::{check, file_catalog, make_data_dir, open_store};

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
        let survives_power_cut = settings.audit.durability == crate::config::Durability::Power;
        let outbox = outbox::start(
            &settings.storage.data_dir,
            settings.audit.outbox_bytes_max,
            survives_power_cut,
        )
        .context("the outbox")?;
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
            metrics,
            tokens: Tokens::new(&super_admin, settings.control.viewer_token.as_ref()),
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
        Ok(Self { settings, lock, data, tls, control, proxy, admin, refresher, store, outbox })
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
        let addresses = (self.data_address()?.to_string(), self.control_address()?.to_string());
        events::listening(&addresses.0, &addresses.1, &self.settings.upstream.url);
        let (lifetime, background) = (Lifetime::default(), CancellationToken::new());
        let Self { settings, lock, data, tls, control, proxy, admin, refresher, store, outbox } =
            self;
        let drained = proxy.drained.clone();
        let ledger = outbox.recorder.ledger().clone();
        drop(outbox.recorder);

        let mut listeners = JoinSet::new();
        listeners.spawn(listen::serve(
            data,
            tls,
            Bounds::data(&settings.limits),
            lifetime.clone(),
            service(proxy),
        ));
        let control_lifetime = Lifetime::default();
        let control_service = TowerToHyperService::new(admin.clone().router());
        let control_bounds = Bounds::relaxed("control");
        listeners.spawn(listen::serve(
            control,
            None,
            control_bounds,
            control_lifetime.clone(),
            control_service,
        ));

        let mut tasks = JoinSet::new();
        let poll = settings.catalog.poll_interval;
        let (one, two, three) = (refresher.clone(), refresher.clone(), refresher);
        let (stop_one, stop_two) = (background.clone(), background.clone());
        tasks.spawn(async move { one.run(poll, stop_one).await });
        tasks.spawn(async move { two.listen(stop_two).await });
        tasks.spawn(reload_on_signal(three, background.clone()));
        let shipping = CancellationToken::new();
        let shipper =
            outbox::ship(outbox.file, store, ledger.clone(), outbox.filled, shipping.clone());
        let mut shippers = JoinSet::new();
        shippers.spawn(shipper);

        tokio::select! {
            () = stop() => {}
            // A background task only ends when it is told to: anything else is a defect, and half an
            // application is worse than a restart.
            _ = tasks.join_next() => anyhow::bail!("a background task ended"),
            _ = shippers.join_next() => anyhow::bail!("the shipper ended"),
        }
        events::draining(u64::try_from(settings.limits.drain.as_millis()).unwrap_or(u64::MAX));
        admin.start_draining();
        tokio::select! {
            () = drain(&lifetime, &drained, settings.limits.drain) => {}
            () = stop() => {}
        }
        lifetime.abort.cancel();
        lifetime.tasks.wait().await;
        background.cancel();
        control_lifetime.stop.cancel();
        control_lifetime.abort.cancel();
        while listeners.join_next().await.is_some() {}
        while tasks.join_next().await.is_some() {}
        // The last recorder is gone: the writer empties its queue and ends.
        let writer = outbox.writer;
        let written = tokio::task::spawn_blocking(move || writer.join().is_ok()).await;
        shipping.cancel();
        let flushed = tokio::time::timeout(FLUSH, shippers.join_next()).await.is_ok();
        drop(lock);
        events::stopped(ledger.standing().waiting);
        anyhow::ensure!(written.unwrap_or(false) && flushed, "the outbox did not end cleanly");
        Ok(())
    }
}

/// Waits for open exchanges; at the deadline, streams are told to end.
async fn drain(lifetime: &Lifetime, drained: &CancellationToken, deadline: Duration) {
    lifetime.stop.cancel();
    lifetime.tasks.close();
    if tokio::time::timeout(deadline, lifetime.tasks.wait()).await.is_err() {
        drained.cancel();
        drop(tokio::time::timeout(LAST_WORDS, lifetime.tasks.wait()).await);
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
