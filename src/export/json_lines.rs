//! Executions as JSON, one a line, on standard output or at the end of a file.

use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;

use tokio::sync::mpsc::Receiver;
use tokio::task::spawn_blocking;

use super::{Item, next};
use crate::config::JsonLinesTo;
use crate::telemetry::events;
use crate::telemetry::metrics::{self, Exported};

pub(super) const SINK: &str = "json_lines";
/// They hold what is kept of prompts.
const OWNER_ONLY: u32 = 0o600;

pub(super) struct JsonLines {
    to: JsonLinesTo,
    /// Whether the last batch was not written whole: the next one begins on a line of its own.
    failed: bool,
}

impl JsonLines {
    pub(super) fn new(to: JsonLinesTo) -> Self {
        Self { to, failed: false }
    }

    pub(super) async fn run(mut self, mut queue: Receiver<Item>) {
        while let Some(items) = next(&mut queue).await {
            let count = items.len() as u64;
            let (to, torn) = (self.to.clone(), self.failed);
            let written = spawn_blocking(move || write(&to, torn, &items)).await;
            match written.unwrap_or_else(|panic| Err(io::Error::other(panic))) {
                Ok(()) => {
                    self.failed = false;
                    metrics::exported(SINK, Exported::Sent, count);
                }
                Err(error) => {
                    if !std::mem::replace(&mut self.failed, true) {
                        events::export_failed(SINK, &error.to_string());
                    }
                    metrics::exported(SINK, Exported::Failed, count);
                }
            }
        }
    }
}

/// A file is opened for each batch: whoever rotates it need tell nobody.
fn write(to: &JsonLinesTo, torn: bool, items: &[Item]) -> io::Result<()> {
    let first: &[u8] = if torn { b"\n" } else { b"" };
    let lines: Vec<&[u8]> =
        std::iter::once(first).chain(items.iter().map(|item| item.bytes.as_slice())).collect();
    let lines = lines.concat();
    match to {
        JsonLinesTo::StandardOutput => {
            let mut output = io::stdout().lock();
            output.write_all(&lines)?;
            output.flush()
        }
        JsonLinesTo::File(path) => {
            let mut options = File::options();
            options.append(true).create(true).mode(OWNER_ONLY).open(path)?.write_all(&lines)
        }
    }
}
