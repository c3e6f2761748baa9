//! The log: one sentence and fields a line, on standard error.
//!
//! Nobody who speaks waits for whoever reads: a thread writes, and what it has no room for is dropped and
//! counted.

use std::io::{self, Write};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::thread;
use std::time::Duration;

use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use super::metrics;

/// These libraries may print headers and bodies below this level.
const QUIET: [&str; 6] = ["hyper", "hyper_util", "reqwest", "rustls", "tokio_postgres", "h2"];
/// Lines that may wait.
const LINES_MAX: usize = 1_024;
/// How long the end of the process waits for the last lines.
const LAST_LINES: Duration = Duration::from_secs(1);

/// Where lines are left.
#[derive(Debug, Clone)]
struct Lines(SyncSender<Said>);

#[derive(Debug)]
enum Said {
    Line(Vec<u8>),
    /// Everything before it is written when this is answered.
    Flush(SyncSender<()>),
}

/// The end of the log: dropped, it waits a moment for what was said to be written.
#[derive(Debug)]
pub struct Log(Lines);

/// Starts logging; `level` is a filter such as `info` or `warn,chaperone=debug`.
pub fn start(level: &str, json: bool) -> io::Result<Log> {
    let mut filter: Targets =
        level.parse().unwrap_or_else(|_| Targets::new().with_default(LevelFilter::INFO));
    for library in QUIET {
        filter = filter.with_target(library, LevelFilter::WARN);
    }
    let (sender, said) = sync_channel(LINES_MAX);
    let lines = Lines(sender);
    thread::Builder::new().name("log".to_owned()).spawn(move || write(&said))?;
    let registry = tracing_subscriber::registry().with(filter);
    let layer = tracing_subscriber::fmt::layer().with_writer(lines.clone()).with_target(false);
    // A second start in one process (tests) keeps the first.
    let started = if json {
        registry.with(layer.json().flatten_event(true)).try_init()
    } else {
        registry.with(layer.with_ansi(false)).try_init()
    };
    drop(started);
    Ok(Log(lines))
}

/// A closed standard error is no error: there is nobody to tell.
fn write(said: &Receiver<Said>) {
    for one in said {
        match one {
            Said::Line(line) => drop(io::stderr().write_all(&line)),
            Said::Flush(done) => drop(done.send(())),
        }
    }
}

impl Drop for Log {
    fn drop(&mut self) {
        let (done, answered) = sync_channel(1);
        if self.0.0.try_send(Said::Flush(done)).is_ok() {
            let _written_or_late = answered.recv_timeout(LAST_LINES);
        }
    }
}

impl Write for Lines {
    /// Takes a line whole, or drops it.
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        match self.0.try_send(Said::Line(line.to_vec())) {
            Ok(()) => {}
            Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => {
                metrics::log_line_dropped();
            }
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl MakeWriter<'_> for Lines {
    type Writer = Self;

    fn make_writer(&self) -> Self {
        self.clone()
    }
}
