//! The real binary, to be signalled and killed.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::{Child, ChildStderr, Command, Output, Stdio};
use std::sync::Arc;

use serde_json::Value;

use super::{TOKEN, TempDir};

/// Of the shell that starts it: how many blocks a file may have.
const FILE_BLOCKS: &str = "FILE_BLOCKS";

/// A running process; killed when it is dropped.
pub struct Binary {
    pub child: Child,
    pub data: String,
    pub control: String,
    log: PathBuf,
}

/// The command with nothing in its environment but this. A file that would grow too large is an error to it,
/// and not the end.
fn command(arguments: &[&str], environment: &[(&str, &str)]) -> Command {
    let mut command = Command::new("/bin/sh");
    let binary = env!("CARGO_BIN_EXE_chaperone");
    let start = "trap '' XFSZ; ulimit -S -f ${FILE_BLOCKS:-unlimited}; exec \"$0\" \"$@\"";
    command
        .args(["-c", start, binary])
        .args(arguments)
        .env_clear()
        .envs(environment.iter().copied());
    command
}

/// Runs the command to its end.
pub fn run(arguments: &[&str], environment: &[(&str, &str)], input: &str) -> Output {
    let mut command = command(arguments, environment);
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    child.wait_with_output().unwrap()
}

impl Binary {
    /// Serves in front of `upstream` and returns once it listens.
    pub fn start(upstream: &str, data_dir: &Arc<TempDir>, more: &[(&str, &str)]) -> Self {
        let (this, said) = Self::start_unread(upstream, data_dir, more);
        let (lines, path) = (said.lines(), this.log.clone());
        std::thread::spawn(move || {
            let mut file = std::fs::File::create(path).unwrap();
            for line in lines.map_while(Result::ok) {
                drop(writeln!(file, "{line}"));
            }
        });
        this
    }

    /// The same on a disk that is full: no file may grow.
    pub fn start_full(upstream: &str, data_dir: &Arc<TempDir>, more: &[(&str, &str)]) -> Self {
        let full: Vec<(&str, &str)> = more.iter().copied().chain([(FILE_BLOCKS, "0")]).collect();
        Self::start_unread(upstream, data_dir, &full).0
    }

    /// The same; what it says from then on is read by whoever called, or by nobody.
    pub fn start_unread(
        upstream: &str,
        data_dir: &Arc<TempDir>,
        more: &[(&str, &str)],
    ) -> (Self, BufReader<ChildStderr>) {
        let mut environment = BTreeMap::from([
            ("CHAPERONE_DATA__LISTEN", "127.0.0.1:0"),
            ("CHAPERONE_CONTROL__LISTEN", "127.0.0.1:0"),
            ("CHAPERONE_UPSTREAM__URL", upstream),
            ("CHAPERONE_CONTROL__SUPER_ADMIN_TOKEN", TOKEN),
            ("CHAPERONE_STORAGE__DATA_DIR", data_dir.path().to_str().unwrap()),
        ]);
        environment.extend(more.iter().copied());
        let environment: Vec<(&str, &str)> = environment.into_iter().collect();
        let mut child = command(&["serve"], &environment).stderr(Stdio::piped()).spawn().unwrap();
        let mut said = BufReader::new(child.stderr.take().unwrap());
        let mut line = String::new();
        while !line.contains("is listening") {
            line.clear();
            assert_ne!(said.read_line(&mut line).unwrap(), 0, "it ended");
        }
        let fields: Value = serde_json::from_str(&line).unwrap();
        let address = |name: &str| fields[name].as_str().unwrap().to_owned();
        let (data, control) = (address("data.listen"), address("control.listen"));
        let log = data_dir.path().join("log");
        (Self { child, data, control, log }, said)
    }

    /// Sends a signal by its name without `SIG`.
    pub fn signal(&self, name: &str) {
        let sent =
            Command::new("kill").args(["-s", name, &self.child.id().to_string()]).status().unwrap();
        assert!(sent.success());
    }

    /// Lets no file grow beyond so many bytes from now on, as a full disk would; `None`: as much as it likes.
    pub fn limit_files(&self, bytes: Option<u64>) {
        let soft = bytes.map_or_else(|| "unlimited".to_owned(), |bytes| bytes.to_string());
        let (pid, limit) = (self.child.id().to_string(), format!("--fsize={soft}:unlimited"));
        let set = Command::new("prlimit").args(["--pid", &pid, &limit]).status().unwrap();
        assert!(set.success());
    }

    /// `kill -9`.
    pub fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// What it has said since it listens.
    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap()
    }
}

impl Drop for Binary {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}
