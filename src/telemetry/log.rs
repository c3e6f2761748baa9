//! The log: one sentence and fields a line, on standard error.

use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

/// These libraries may print headers and bodies below this level.
const QUIET: [&str; 6] = ["hyper", "hyper_util", "reqwest", "rustls", "tokio_postgres", "h2"];

/// Starts logging; `level` is a filter such as `info` or `warn,chaperone=debug`.
pub fn start(level: &str, json: bool) {
    let mut filter: Targets =
        level.parse().unwrap_or_else(|_| Targets::new().with_default(LevelFilter::INFO));
    for library in QUIET {
        filter = filter.with_target(library, LevelFilter::WARN);
    }
    let registry = tracing_subscriber::registry().with(filter);
    let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr).with_target(false);
    // A second start in one process (tests) keeps the first.
    let started = if json {
        registry.with(lines.json().flatten_event(true)).try_init()
    } else {
        registry.with(lines.with_ansi(false)).try_init()
    };
    drop(started);
}
