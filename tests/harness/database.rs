//! A database of the test's own, and a way to take it away.

use std::net::SocketAddr;
use std::os::unix::fs::MetadataExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use chaperone::store::{Postgres, Store};
use chaperone::words::secret::Secret;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
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
    /// The same as its superuser.
    root: String,
    host: String,
}

impl Database {
    pub async fn new() -> Self {
        let cluster = cluster();
        let name = format!("test_{}", uuid::Uuid::new_v4().simple());
        execute(&cluster, &format!("create database {name}")).await;
        let (base, _) = cluster.rsplit_once('/').unwrap();
        Self::at(&format!("{base}/{name}"))
    }

    /// One that is there already.
    pub fn at(url: &str) -> Self {
        let (base, _) = url.rsplit_once('/').unwrap();
        let host = base.rsplit('@').next().unwrap().to_owned();
        Self { url: url.to_owned(), root: url.to_owned(), host }
    }

    /// One that belongs to a user with a password: a superuser knows no limits.
    pub async fn owned() -> Self {
        let database = Self::new().await;
        let name = database.name();
        database
            .execute(&format!(
                "do $$ begin create role by_password;
                 exception when duplicate_object or unique_violation then null; end $$;
                 create role {name} login password 'right' in role by_password;
                 alter database {name} owner to {name}"
            ))
            .await;
        let url = format!("postgres://{name}:right@{}/{name}", database.host);
        Self { url, ..database }
    }

    /// The name of the database, and of its user if it has one of its own.
    pub fn name(&self) -> String {
        self.root.rsplit('/').next().unwrap().to_owned()
    }

    /// Ends every connection of its own user.
    pub async fn hang_up(&self) {
        let name = self.name();
        self.execute(&format!(
            "select pg_terminate_backend(pid) from pg_stat_activity where usename = '{name}'"
        ))
        .await;
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
        execute(&self.root, sql).await;
    }

    /// Says this in a transaction that stays open until what is given back is dropped.
    pub async fn hold(&self, sql: &str) -> Held {
        let (client, connection) =
            tokio_postgres::connect(&self.root, tokio_postgres::NoTls).await.unwrap();
        let driver = tokio::spawn(async move { drop(connection.await) });
        client.batch_execute(&format!("begin; {sql}")).await.unwrap();
        Held { _client: client, driver }
    }

    /// The number that an expression gives, if any.
    pub async fn number(&self, sql: &str) -> Option<f64> {
        let (client, connection) =
            tokio_postgres::connect(&self.root, tokio_postgres::NoTls).await.unwrap();
        let driver = tokio::spawn(connection);
        let sql = format!("select cast(({sql}) as double precision)");
        let number = client.query_one(&sql, &[]).await.unwrap().get(0);
        driver.abort();
        number
    }

    /// The first column of every row.
    pub async fn texts(&self, sql: &str) -> Vec<String> {
        let (client, connection) =
            tokio_postgres::connect(&self.root, tokio_postgres::NoTls).await.unwrap();
        let driver = tokio::spawn(connection);
        let rows = client.query(sql, &[]).await.unwrap();
        driver.abort();
        rows.iter().map(|row| row.get(0)).collect()
    }

    pub async fn count(&self, sql: &str) -> i64 {
        let (client, connection) =
            tokio_postgres::connect(&self.root, tokio_postgres::NoTls).await.unwrap();
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

/// An open transaction.
pub struct Held {
    _client: tokio_postgres::Client,
    driver: tokio::task::JoinHandle<()>,
}

impl Drop for Held {
    fn drop(&mut self) {
        self.driver.abort();
    }
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

/// A TCP relay in front of PostgreSQL: pulled, it refuses and cuts; frozen, it accepts and says nothing;
/// slow, it holds every answer back.
pub struct Cable {
    pub address: SocketAddr,
    delay_ms: Arc<AtomicU64>,
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
        let delay_ms = Arc::new(AtomicU64::new(0));
        let delayed = delay_ms.clone();
        tokio::spawn(async move {
            while let Ok((mut near, _)) = listener.accept().await {
                if is_pulled.load(Relaxed) {
                    continue;
                }
                let (target, cut) = (target.clone(), token.lock().unwrap().clone());
                let (frozen, delay_ms) = (is_frozen.clone(), delayed.clone());
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
                        () = relay(&mut near, &mut far, &delay_ms) => {}
                    }
                });
            }
        });
        Self { address, delay_ms, pulled, frozen, cut }
    }

    /// From now on every answer takes so much longer.
    pub fn slow(&self, delay: Duration) {
        self.delay_ms.store(u64::try_from(delay.as_millis()).unwrap(), Relaxed);
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

/// Carries bytes both ways until one side closes; those that come back are late by the delay.
async fn relay(near: &mut TcpStream, far: &mut TcpStream, delay_ms: &AtomicU64) {
    let (mut from_near, mut to_near) = near.split();
    let (mut from_far, mut to_far) = far.split();
    let (sent, mut received) = tokio::sync::mpsc::channel::<(Instant, Vec<u8>)>(1024);
    let take = async {
        let mut buffer = vec![0; 65536];
        while let Ok(read @ 1..) = from_far.read(&mut buffer).await {
            let due = Instant::now() + Duration::from_millis(delay_ms.load(Relaxed));
            sent.send((due, buffer[..read].to_vec())).await.unwrap();
        }
    };
    let give = async {
        while let Some((due, bytes)) = received.recv().await {
            tokio::time::sleep_until(due.into()).await;
            if to_near.write_all(&bytes).await.is_err() {
                break;
            }
        }
    };
    tokio::select! {
        _ = tokio::io::copy(&mut from_near, &mut to_far) => {}
        () = take => {}
        () = give => {}
    }
}
