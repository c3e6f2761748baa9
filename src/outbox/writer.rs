//! Carries records from the journal to the table, in one thread.

use std::sync::Arc;
use std::thread;
use std::time::Duration;

use tokio::sync::Notify;
use uuid::Uuid;

use super::file::{DeadLetter, OutboxFile};
use super::journal::{Journal, Taken};
use super::ledger::Ledger;
use super::line;
use crate::execution::Execution;
use crate::export::Taps;
use crate::store::StoreError;
use crate::telemetry;

/// How long records wait for company. Their calls are over.
const GATHER: Duration = Duration::from_millis(5);
/// Before what failed is tried again.
const RETRY: Duration = Duration::from_millis(200);

/// What the thread works on.
#[derive(Debug)]
pub(super) struct Writer {
    pub(super) journal: Arc<Journal>,
    pub(super) file: Arc<OutboxFile>,
    pub(super) ledger: Arc<Ledger>,
    pub(super) filled: Arc<Notify>,
    pub(super) taps: Taps,
}

impl Writer {
    /// Runs until the journal is closed and empty. What the disk does not take then stays in the journal,
    /// for the next process.
    pub(super) fn run(&self) {
        loop {
            self.journal.wait(RETRY);
            if !self.journal.is_closed() {
                thread::sleep(GATHER);
            }
            match self.journal.take() {
                Ok(Some(taken)) => {
                    if self.carry(&taken).is_err() {
                        return;
                    }
                }
                Ok(None) if self.journal.is_closed() => return,
                Ok(None) => self.probe(),
                Err(error) => {
                    telemetry::events::journal_failed(&error.to_string());
                    if self.journal.is_closed() {
                        return;
                    }
                    thread::sleep(RETRY);
                }
            }
        }
    }

    /// Asks whether the disk takes records again, after it did not.
    fn probe(&self) {
        if !self.ledger.standing().writable && self.journal.probe().is_ok() {
            self.ledger.set_writable();
        }
    }

    /// Moves what was taken. Fails when the disk does not take it and the process ends.
    fn carry(&self, taken: &Taken) -> Result<(), StoreError> {
        let batch = Batch::read(taken);
        let (count, spoilt) = (batch.records.len() as u64, batch.spoilt.len() as u64);
        if taken.left_over {
            self.ledger.found_journaled(count + spoilt, batch.bytes + batch.spoilt_bytes);
        }
        self.keep(&batch)?;
        if spoilt > 0 {
            telemetry::events::executions_buried(spoilt);
        }
        if let Err(error) = self.journal.done(taken) {
            // It may be read again: its ids are known to the store then.
            telemetry::events::journal_failed(&error.to_string());
        }
        self.filled.notify_one();
        batch.records.iter().filter_map(|record| line::decode(record.as_bytes())).for_each(
            |json| {
                if let Ok(execution) = serde_json::from_str::<Execution>(json) {
                    telemetry::metrics::execution(&execution);
                    self.taps.offer(&execution, json);
                }
            },
        );
        Ok(())
    }

    fn keep(&self, batch: &Batch<'_>) -> Result<(), StoreError> {
        let mut told = false;
        loop {
            let Err(error) = self.file.append(&batch.records, &batch.spoilt, batch.spoilt_bytes)
            else {
                return Ok(());
            };
            if !std::mem::replace(&mut told, true) {
                telemetry::events::outbox_failed(&error.to_string());
            }
            if self.journal.is_closed() {
                return Err(error);
            }
            thread::sleep(RETRY);
        }
    }
}

/// Lines as they were read.
struct Batch<'t> {
    /// Whole, with their checksums.
    records: Vec<&'t str>,
    bytes: u64,
    spoilt: Vec<DeadLetter>,
    spoilt_bytes: u64,
}

impl<'t> Batch<'t> {
    fn read(taken: &'t Taken) -> Self {
        let mut batch = Self { records: Vec::new(), bytes: 0, spoilt: Vec::new(), spoilt_bytes: 0 };
        for one in line::lines(&taken.bytes) {
            match std::str::from_utf8(one).ok().filter(|one| line::decode(one.as_bytes()).is_some())
            {
                Some(record) => {
                    batch.bytes += one.len() as u64;
                    batch.records.push(record);
                }
                None => {
                    batch.spoilt_bytes += one.len() as u64;
                    batch.spoilt.push(DeadLetter {
                        id: format!("journal-{}", Uuid::new_v4().simple()),
                        reason: "it was spoilt on the disk".to_owned(),
                        execution: String::from_utf8_lossy(one).trim_end().to_owned(),
                    });
                }
            }
        }
        batch
    }
}
