//! From the end of a call to the store, off the request path.
//!
//! One way in health and in trouble: a bounded queue, then the local file (a row is a batch), then the
//! store, and only then out of the file. Whatever cannot be kept is counted as lost, exactly.

mod file;
mod ledger;
mod shipper;

use std::path::Path;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use tokio::sync::{Notify, mpsc};

use crate::execution::Execution;
use crate::store::StoreError;
use crate::telemetry;

pub use file::OutboxFile;
pub use ledger::{Ledger, Standing};
pub use shipper::ship;

/// Executions between the request path and the file.
const QUEUE_MAX: usize = 65_536;
/// Executions of one row of the file.
const BATCH_MAX: usize = 512;
/// How long a batch waits for company. The call is over; only the record waits.
const GATHER: Duration = Duration::from_millis(5);
/// Before a batch that the disk did not take is tried again.
const RETRY: Duration = Duration::from_millis(200);

/// The request path's end: takes executions, never waits.
#[derive(Debug, Clone)]
pub struct Recorder {
    queue: mpsc::Sender<Execution>,
    ledger: Arc<Ledger>,
}

impl Recorder {
    /// Accepts an execution, or counts it as lost when the queue is full.
    pub fn record(&self, execution: Execution) {
        self.ledger.accept(1);
        if self.queue.try_send(execution).is_err() {
            self.ledger.lose(1);
            telemetry::events::executions_lost(1, "the queue is full");
        }
    }

    /// Whether a record made now would be kept.
    pub fn has_room(&self) -> bool {
        self.queue.capacity() > 0 && self.ledger.has_room()
    }

    /// The counts.
    pub fn ledger(&self) -> &Arc<Ledger> {
        &self.ledger
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
    /// The thread that writes the file; ends when every recorder is gone.
    pub writer: JoinHandle<()>,
}

/// Opens the file under `data_dir` and starts the thread that fills it.
pub fn start(
    data_dir: &Path,
    bytes_max: u64,
    survives_power_cut: bool,
) -> Result<Outbox, StoreError> {
    let file = Arc::new(OutboxFile::open(data_dir, survives_power_cut)?);
    let ledger = Arc::new(Ledger::new(bytes_max));
    let left_over = file.totals()?;
    // Left by the process before: accepted there, to be stored here.
    ledger.accept(left_over.executions);
    ledger.filed(left_over.bytes);
    let (sender, queue) = mpsc::channel(QUEUE_MAX);
    let filled = Arc::new(Notify::new());
    let writer = thread::Builder::new()
        .name("outbox".to_owned())
        .spawn({
            let (file, ledger, filled) = (file.clone(), ledger.clone(), filled.clone());
            move || fill(queue, &file, &ledger, &filled)
        })
        .map_err(|error| StoreError::Unavailable(error.to_string()))?;
    Ok(Outbox { recorder: Recorder { queue: sender, ledger }, file, filled, writer })
}

/// Moves executions from the queue to the file until the queue is closed and empty.
fn fill(mut queue: mpsc::Receiver<Execution>, file: &OutboxFile, ledger: &Ledger, filled: &Notify) {
    while let Some(first) = queue.blocking_recv() {
        thread::sleep(GATHER);
        let mut batch = vec![first];
        while batch.len() < BATCH_MAX
            && let Ok(next) = queue.try_recv()
        {
            batch.push(next);
        }
        for execution in &batch {
            telemetry::metrics::execution(execution);
        }
        let count = batch.len() as u64;
        if !ledger.has_bytes() {
            ledger.lose(count);
            telemetry::events::executions_lost(count, "the outbox is full");
            continue;
        }
        match keep(&batch, &queue, file, ledger) {
            Ok(bytes) => {
                ledger.filed(bytes);
                filled.notify_one();
            }
            Err(error) => {
                ledger.lose(count);
                telemetry::events::executions_lost(count, &error.to_string());
            }
        }
    }
}

/// Writes a batch, again and again while the queue has room for what comes meanwhile.
fn keep(
    batch: &[Execution],
    queue: &mpsc::Receiver<Execution>,
    file: &OutboxFile,
    ledger: &Ledger,
) -> Result<u64, StoreError> {
    loop {
        let written = file.append(batch);
        ledger.set_writable(written.is_ok());
        if written.is_ok() || queue.is_closed() || queue.len() > QUEUE_MAX / 2 {
            return written;
        }
        thread::sleep(RETRY);
    }
}
