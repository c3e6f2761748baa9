//! Carries records from the journal to the table, in one thread.

use std::sync::Arc;
use std::thread;
use std::time::Duration;

use tokio::sync::Notify;
use uuid::Uuid;

use super::file::OutboxFile;
use super::journal::{Journal, Taken};
use super::ledger::{Ledger, Totals};
use super::letter::{self, DeadLetter};
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
                Some(taken) if self.carry(&taken).is_err() => return,
                Some(_) => {}
                None if self.journal.is_closed() => return,
                None => self.probe(),
            }
        }
    }

    /// Asks whether the disk takes records again, after it did not.
    fn probe(&self) {
        if !self.ledger.standing().writable && self.journal.probe().is_ok() {
            self.ledger.set_writable(true);
        }
    }

    /// Moves what was taken. Fails when the disk does not take it and the process ends.
    fn carry(&self, taken: &Taken) -> Result<(), StoreError> {
        let batch = Batch::read(taken);
        if taken.records.is_none() {
            let count = (batch.records.len() + batch.spoilt.len()) as u64;
            self.ledger.found_journaled(Totals { count, bytes: taken.span });
        }
        self.keep(&batch)?;
        if !batch.spoilt.is_empty() {
            telemetry::events::executions_buried(batch.spoilt.len() as u64);
        }
        if let Err(error) = self.journal.done(taken)
            && self.ledger.set_writable(false)
        {
            // The next process may read it again: its ids are known to the store then.
            telemetry::events::journal_failed(&error.to_string());
        }
        self.filled.notify_one();
        self.show(&batch);
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

    /// To metrics and other sinks.
    fn show(&self, batch: &Batch<'_>) {
        for json in batch.records.iter().filter_map(|record| line::decode(record.as_bytes())) {
            if let Ok(execution) = serde_json::from_str::<Execution>(json) {
                telemetry::metrics::execution(&execution);
                self.taps.offer(&execution, json);
            }
        }
    }
}

/// Lines as they were read.
struct Batch<'t> {
    /// Whole, with their checksums.
    records: Vec<&'t str>,
    spoilt: Vec<DeadLetter>,
    /// As it stood in the journal.
    spoilt_bytes: u64,
}

impl<'t> Batch<'t> {
    fn read(taken: &'t Taken) -> Self {
        let (mut records, mut rest) = (Vec::new(), Vec::new());
        for one in line::lines(&taken.bytes) {
            match std::str::from_utf8(one).ok().filter(|one| line::decode(one.as_bytes()).is_some())
            {
                Some(record) => records.push(record),
                None => rest.push(one),
            }
        }
        let missing = match taken.records {
            Some(all) => all.saturating_sub(records.len() as u64),
            None => rest.len() as u64,
        };
        let place = format!("journal-{}", Uuid::new_v4().simple());
        let bytes: usize = records.iter().map(|record| record.len()).sum();
        let spoilt_bytes = taken.span.saturating_sub(bytes as u64);
        Self { records, spoilt: letter::spoilt(&place, missing, &rest), spoilt_bytes }
    }
}
