//! A database of the test's own, and a way to take it away.

use std::net::SocketAddr;
use std::os::unix::fs::MetadataExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use chaperone::store::{Postgres, Store};
use chaperone::words::secret::Secret;
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

/// The superuser URL of the throw-away cluster.
fn cluster() -> String {
    std::env::var("CHAPERONE_TEST_POSTGRES_URL").expect(
        "these tests need PostgreSQL: run them through scripts/with-postgres.sh, as make test does",
    )
}

/// A fresh, empty database.
pub struct Database {
    pub url: String,
    host: String,
}

impl Database {
    pub async fn new() -> Self {
        let cluster = cluster();
        let name = format!("test_{}", uuid::Uuid::new_v4().simple());
        execute(&cluster, &format!("create database {name}")).await;
        let (base, _) = cluster.rsplit_once('/').unwrap();
        let host = base.rsplit('@').next().unwrap().to_owned();
        Self { url: format!("{base}/{name}"), host }
    }

    /// The same database through a cable that can be pulled.
    pub async fn through_cable(&self) -> (Cable, String) {
        let cable = Cable::new(&self.host).await;
        let url = self.url.replace(&self.host, &cable.address.to_string());
        (cable, url)
    }

    /// The same database through `PgBouncer` in transaction mode, until the pooler is dropped.
    pub async fn through_pooler(&self) -> (Pooler, String) {
        let port = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port();
        let (host, server_port) = self.host.rsplit_once(':').unwrap();
        let name = self.url.rsplit('/').next().unwrap();
        let dir = super::TempDir::new();
        let file = dir.path().join("pgbouncer.ini");
        let ini = format!(
            "[databases]\n{name} = host={host} port={server_port} user=postgres\n\
             [pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir =\n\
             auth_type = any\npool_mode = transaction\ndefault_pool_size = 3\n"
        );
        std::fs::write(&file, ini).unwrap();
        let mut pgbouncer = std::process::Command::new("pgbouncer");
        // It refuses to run as root, where it can become another user by itself.
        let is_root = std::fs::metadata("/proc/self").is_ok_and(|me| me.uid() == 0);
        if is_root {
            pgbouncer.args(["-u", "postgres"]);
        }
        let child = pgbouncer.arg("-q").arg(&file).spawn().unwrap();
        super::eventually("the pooler listens", async || {
            TcpStream::connect(("127.0.0.1", port)).await.ok()
        })
        .await;
        (Pooler { child, _dir: dir }, format!("postgres://postgres@127.0.0.1:{port}/{name}"))
    }

    pub fn store(&self) -> Postgres {
        drop(rustls::crypto::ring::default_provider().install_default());
        Postgres::new(&Secret::new(self.url.clone()), 2, None).unwrap()
    }

    pub async fn migrate(&self) {
        self.store().migrate_up().await.unwrap();
    }

    pub async fn execute(&self, sql: &str) {
        execute(&self.url, sql).await;
    }

    pub async fn count(&self, sql: &str) -> i64 {
        let (client, connection) =
            tokio_postgres::connect(&self.url, tokio_postgres::NoTls).await.unwrap();
        let driver = tokio::spawn(connection);
        let count = client.query_one(sql, &[]).await.unwrap().get(0);
        driver.abort();
        count
    }
}

async fn execute(url: &str, sql: &str) {
    let (client, connection) = tokio_postgres::connect(url, tokio_postgres::NoTls).await.unwrap();
    let driver = tokio::spawn(connection);
    client.batch_execute(sql).await.unwrap();
    driver.abort();
}

/// A running `PgBouncer`.
pub struct Pooler {
    child: std::process::Child,
    _dir: super::TempDir,
}

impl Drop for Pooler {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// A TCP relay in front of PostgreSQL: pulled, it refuses and cuts; frozen, it accepts and says nothing.
pub struct Cable {
    pub address: SocketAddr,
    pulled: Arc<AtomicBool>,
    frozen: Arc<AtomicBool>,
    cut: Arc<std::sync::Mutex<CancellationToken>>,
}

impl Cable {
    async fn new(target: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let pulled = Arc::new(AtomicBool::new(false));
        let cut = Arc::new(std::sync::Mutex::new(CancellationToken::new()));
        let frozen = Arc::new(AtomicBool::new(false));
        let (is_pulled, token, target) = (pulled.clone(), cut.clone(), target.to_owned());
        let is_frozen = frozen.clone();
        tokio::spawn(async move {
            while let Ok((mut near, _)) = listener.accept().await {
                if is_pulled.load(Relaxed) {
                    continue;
                }
                let (target, cut) = (target.clone(), token.lock().unwrap().clone());
                let frozen = is_frozen.clone();
                tokio::spawn(async move {
                    if frozen.load(Relaxed) {
                        cut.cancelled().await;
                        return;
                    }
                    let Ok(mut far) = TcpStream::connect(&target).await else { return };
                    tokio::select! {
                        () = cut.cancelled() => {
                            if frozen.load(Relaxed) {
                                // Open, and silent, until the test ends.
                                std::future::pending::<()>().await;
                            }
                        }
                        _ = tokio::io::copy_bidirectional(&mut near, &mut far) => {}
                    }
                });
            }
        });
        Self { address, pulled, frozen, cut }
    }

    pub fn pull(&self) {
        self.pulled.store(true, Relaxed);
        self.cut.lock().unwrap().cancel();
    }

    /// Connections stay open, and new ones are accepted, but nothing comes through.
    pub fn freeze(&self) {
        self.frozen.store(true, Relaxed);
        self.cut.lock().unwrap().cancel();
        *self.cut.lock().unwrap() = CancellationToken::new();
    }

    pub fn thaw(&self) {
        self.frozen.store(false, Relaxed);
        let silent = std::mem::take(&mut *self.cut.lock().unwrap());
        silent.cancel();
    }

    pub fn plug(&self) {
        *self.cut.lock().unwrap() = CancellationToken::new();
        self.pulled.store(false, Relaxed);
    }
}
