//! Executions as JSON, one a line, on standard output or at the end of a file.

use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;

use tokio::sync::mpsc::Receiver;
use tokio::task::spawn_blocking;

use super::{Books, Item, next};
use crate::config::JsonLinesTo;

pub(super) const SINK: &str = "json_lines";
/// They hold what is kept of prompts.
const OWNER_ONLY: u32 = 0o600;

pub(super) struct JsonLines {
    to: JsonLinesTo,
    books: Books,
}

impl JsonLines {
    pub(super) fn new(to: JsonLinesTo) -> Self {
        Self { to, books: Books::of(SINK) }
    }

    pub(super) async fn run(mut self, mut queue: Receiver<Item>) {
        while let Some(items) = next(&mut queue).await {
            let count = items.len() as u64;
            // What was not written whole is followed by a line of its own.
            let (to, torn) = (self.to.clone(), self.books.fails);
            let written = spawn_blocking(move || write(&to, torn, &items)).await;
            match written.unwrap_or_else(|panic| Err(io::Error::other(panic))) {
                Ok(()) => self.books.sent(count),
                Err(error) => self.books.failed(count, &error.to_string()),
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
