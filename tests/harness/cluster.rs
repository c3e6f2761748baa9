//! A `PostgreSQL` of a test's own, to be killed.

use std::os::unix::fs::{MetadataExt, chown};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use tokio::net::TcpListener;

use super::database::Database;
use super::{TempDir, eventually};

/// A running cluster; gone when it is dropped.
pub struct Cluster {
    dir: TempDir,
    port: u16,
    postmaster: Child,
}

impl Cluster {
    pub async fn start() -> Self {
        let dir = TempDir::new();
        if let Some((user, group)) = unprivileged() {
            chown(dir.path(), Some(user), Some(group)).unwrap();
        }
        let made = server("initdb")
            .args(["-U", "postgres", "-A", "trust", "-E", "UTF8", "--no-locale", "--no-sync", "-D"])
            .arg(dir.path().join("data"))
            .stdout(Stdio::null())
            .status();
        assert!(made.unwrap().success());
        let port = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port();
        let postmaster = postmaster(&dir, port);
        let cluster = Self { dir, port, postmaster };
        cluster.listens().await;
        cluster
    }

    /// Its one database.
    pub fn database(&self) -> Database {
        Database::at(&format!("postgres://postgres@127.0.0.1:{}/postgres", self.port))
    }

    /// `kill -9`: nobody is told, nothing is put in order.
    pub fn kill(&mut self) {
        self.postmaster.kill().unwrap();
        self.postmaster.wait().unwrap();
    }

    /// Starts it again on what is on the disk. It does not start while a process of the last one lives.
    pub async fn start_again(&mut self) {
        eventually("the cluster starts again", async || {
            if self.postmaster.try_wait().unwrap().is_some() {
                self.postmaster = postmaster(&self.dir, self.port);
            }
            self.answers().await
        })
        .await;
    }

    /// Stops every process of it where it stands, or lets them go on: connections stay, nothing answers.
    pub fn freeze(&self, frozen: bool) {
        let signal = if frozen { "STOP" } else { "CONT" };
        let postmaster = self.postmaster.id().to_string();
        let children = Command::new("ps").args(["-o", "pid=", "--ppid", &postmaster]).output();
        let children = String::from_utf8(children.unwrap().stdout).unwrap();
        // Those that end meanwhile are as good as stopped.
        drop(
            Command::new("kill")
                .args(["-s", signal, &postmaster])
                .args(children.split_whitespace())
                .stderr(Stdio::null())
                .status(),
        );
    }

    /// As after a failover to a standby, or back: sessions end, and new ones may only read.
    pub async fn read_only(&self, only: bool) {
        let database = self.database();
        let word = if only { "on" } else { "off" };
        database.execute(&format!("alter system set default_transaction_read_only = {word}")).await;
        database.execute("select pg_reload_conf()").await;
        database
            .execute(
                "select pg_terminate_backend(pid) from pg_stat_activity \
                 where application_name = 'chaperone'",
            )
            .await;
    }

    async fn listens(&self) {
        eventually("the cluster listens", async || self.answers().await).await;
    }

    /// Listening is not enough: it may still be starting up.
    async fn answers(&self) -> Option<()> {
        let url = self.database().url;
        tokio_postgres::connect(&url, tokio_postgres::NoTls).await.ok().map(drop)
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        drop(self.postmaster.kill());
        drop(self.postmaster.wait());
    }
}

fn postmaster(dir: &TempDir, port: u16) -> Child {
    server("postgres")
        .args(["-c", "fsync=off", "-c", "unix_socket_directories=", "-p", &port.to_string(), "-D"])
        .arg(dir.path().join("data"))
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

/// One of the server's programs, as somebody it agrees to run as.
fn server(program: &str) -> Command {
    let bin =
        std::env::var("CHAPERONE_TEST_POSTGRES_BIN").expect("scripts/with-postgres.sh sets it");
    let mut command = Command::new(PathBuf::from(bin).join(program));
    command.current_dir("/");
    if let Some((user, group)) = unprivileged() {
        command.uid(user).gid(group);
    }
    command
}

/// Who `PostgreSQL` runs as where the tests run as root, which it refuses.
fn unprivileged() -> Option<(u32, u32)> {
    let is_root = std::fs::metadata("/proc/self").is_ok_and(|me| me.uid() == 0);
    is_root.then(|| {
        let users = std::fs::read_to_string("/etc/passwd").unwrap();
        let postgres = users.lines().find(|user| user.starts_with("postgres:")).unwrap();
        let number = |place: usize| postgres.split(':').nth(place).unwrap().parse().unwrap();
        (number(2), number(3))
    })
}
