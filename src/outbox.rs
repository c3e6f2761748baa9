//! From the end of a call to the store, off the request path.
//!
//! One way in health and in trouble: a line in the journal, which the kernel has before the call ends;
//! then the outbox, a table of the local file (a row is a batch); then the store, and only then out of the
//! table. Whatever cannot be kept is counted as lost, exactly.

#[macro_use]
mod said;

mod dead;
mod file;
mod journal;
mod ledger;
mod letter;
mod line;
mod mend;
mod salvage;
mod shipper;
mod writer;

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::config::{Audit, Durability, WhenFull};
use crate::execution::Execution;
use crate::export::Taps;
use crate::store::StoreError;
use crate::telemetry;
use journal::Journal;
use ledger::Rules;
use writer::Writer;

pub use dead::{DeadLetters, Discard, Letter, Retried};
use file::Place;

pub use file::OutboxFile;
pub use ledger::{Ledger, Standing, Totals};
pub use shipper::ship;

/// The request path's end.
#[derive(Debug, Clone)]
pub struct Recorder(Arc<Door>);

#[derive(Debug)]
struct Door {
    journal: Arc<Journal>,
    ledger: Arc<Ledger>,
}

impl Recorder {
    /// Accepts an execution: when this returns, the kernel has it, and the disk where a power cut must not
    /// lose it, if it takes it. What cannot be kept is counted as lost.
    pub fn record(&self, execution: &Execution) {
        let Err(error) = self.keep(execution) else { return };
        self.0.ledger.misses(execution);
        if self.0.ledger.tells() {
            telemetry::events::executions_lost(&error.to_string());
        }
    }

    fn keep(&self, execution: &Execution) -> io::Result<()> {
        let Door { journal, ledger } = &*self.0;
        let line = line::encode(execution);
        let bytes = line.len() as u64;
        if !ledger.admit(bytes) {
            return Err(io::Error::other("the outbox is full"));
        }
        let position = journal.append(&line).inspect_err(|_| ledger.missed(bytes))?;
        if let Err(error) = journal.settle(position) {
            // It goes on to the outbox all the same: only a power cut may take it until then.
            if ledger.set_writable(false) {
                telemetry::events::journal_failed(&error.to_string());
            }
        }
        Ok(())
    }

    /// Whether a record made now would be kept.
    pub fn has_room(&self) -> bool {
        self.0.ledger.has_room()
    }

    /// The counts.
    pub fn ledger(&self) -> &Arc<Ledger> {
        &self.0.ledger
    }
}

impl Drop for Door {
    fn drop(&mut self) {
        self.journal.close();
    }
}

/// The running outbox.
#[derive(Debug)]
pub struct Outbox {
    /// For the request path.
    pub recorder: Recorder,
    /// For the shipper.
    pub file: Arc<OutboxFile>,
    /// Rings when the file has something new.
    pub filled: Arc<Notify>,
    /// The thread that fills the file; ends when every recorder is gone.
    pub writer: JoinHandle<()>,
    /// Cancelled when that thread has ended, for whatever reason.
    pub written: CancellationToken,
}

impl Outbox {
    /// For the admin.
    pub fn dead_letters(&self) -> DeadLetters {
        DeadLetters::new(self.file.clone(), self.filled.clone())
    }
}

/// Opens journal and outbox under `data_dir` and starts the thread between them, which shows what it carries
/// to `taps`. `is_shared`: the embedded store is in the same file.
pub fn start(
    data_dir: &Path,
    audit: &Audit,
    is_shared: bool,
    taps: Taps,
) -> Result<Outbox, StoreError> {
    let survives_power_cut = audit.durability == Durability::Power;
    let local = |error: io::Error| StoreError::Local(error.to_string());
    let refuses = audit.when_full == WhenFull::Refuse;
    let ledger = Arc::new(Ledger::new(Rules { bytes_max: audit.outbox_bytes_max, refuses }));
    let place = Place { data_dir: data_dir.to_owned(), is_shared };
    let file = Arc::new(OutboxFile::open(place, ledger.clone())?);
    let journal = Arc::new(Journal::open(data_dir, survives_power_cut).map_err(local)?);
    let filled = Arc::new(Notify::new());
    let writer = Writer {
        journal: journal.clone(),
        file: file.clone(),
        ledger: ledger.clone(),
        filled: filled.clone(),
        taps,
    };
    let written = CancellationToken::new();
    let end = written.clone().drop_guard();
    let thread = thread::Builder::new().name("outbox".to_owned()).spawn(move || {
        let _end = end;
        writer.run();
    });
    let recorder = Recorder(Arc::new(Door { journal, ledger }));
    Ok(Outbox { recorder, file, filled, writer: thread.map_err(local)?, written })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Environment, Settings};

    #[tokio::test]
    async fn the_end_of_the_writer_is_told() {
        let dir = std::env::temp_dir().join(format!("written-{}", uuid::Uuid::new_v4()));
        std::fs::create_dir(&dir).unwrap();
        let audit = Settings::read("", &Environment::new()).unwrap().audit;
        let outbox = start(&dir, &audit, false, Taps::default()).unwrap();
        assert!(!outbox.written.is_cancelled(), "it runs while somebody may record");
        drop(outbox.recorder);
        outbox.written.cancelled().await;
        outbox.writer.join().unwrap();
        std::fs::remove_dir_all(dir).unwrap();
    }
}
