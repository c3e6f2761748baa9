//! Carries batches from the outbox to the store, for ever.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::task::spawn_blocking;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::file::{DeadLetter, Load, OutboxFile};
use super::ledger::Ledger;
use crate::execution::Execution;
use crate::store::{Store, StoreError};
use crate::telemetry;
use crate::words::clock;

/// Bytes that go at once: from where a batch starts to grow, and to where.
const BATCH_BYTES_MIN: u64 = 256 * 1024;
const BATCH_BYTES_MAX: u64 = 4 * 1024 * 1024;
/// A batch that was stored faster than this may be followed by a bigger one.
const BRISK: Duration = Duration::from_millis(500);
/// How long new rows gather before they are carried.
const GATHER: Duration = Duration::from_millis(100);
/// Between attempts: never more than one a second asks a store that did not take the last.
const RETRY_FIRST: Duration = Duration::from_secs(1);
const RETRY_LAST: Duration = Duration::from_secs(15);

/// What carries.
#[derive(Debug)]
struct Shipper {
    file: Arc<OutboxFile>,
    store: Arc<dyn Store>,
    ledger: Arc<Ledger>,
    batch_bytes: u64,
}

/// Ships until `stop`, then once more until the outbox is empty or the store fails.
pub async fn ship(
    file: Arc<OutboxFile>,
    store: Arc<dyn Store>,
    ledger: Arc<Ledger>,
    filled: Arc<Notify>,
    stop: CancellationToken,
) {
    let mut shipper = Shipper { file, store, ledger, batch_bytes: BATCH_BYTES_MIN };
    let mut retry = RETRY_FIRST;
    loop {
        let stopping = stop.is_cancelled();
        let wait = match shipper.ship_once().await {
            Ok(true) => {
                retry = RETRY_FIRST;
                continue;
            }
            Ok(false) | Err(_) if stopping => return,
            Ok(false) => None,
            Err(_) => {
                let wait = retry;
                retry = (retry * 2).min(RETRY_LAST);
                Some(wait + jitter(wait))
            }
        };
        tokio::select! {
            () = stop.cancelled() => {}
            () = pause(wait, &filled) => {}
        }
    }
}

async fn pause(wait: Option<Duration>, filled: &Notify) {
    match wait {
        Some(wait) => tokio::time::sleep(wait).await,
        None => {
            filled.notified().await;
            tokio::time::sleep(GATHER).await;
        }
    }
}

/// Up to half of it, so that many sidecars do not come back at once.
fn jitter(wait: Duration) -> Duration {
    let dice = Uuid::new_v4().as_bytes().first().copied().unwrap_or_default();
    wait * u32::from(dice) / 512
}

impl Shipper {
    /// One batch. `false` when there was nothing.
    async fn ship_once(&mut self) -> Result<bool, StoreError> {
        let most = self.batch_bytes;
        let load = self.blocking(move |file| file.oldest(most)).await?;
        if load.bytes == 0 {
            return Ok(false);
        }
        let began = clock::monotonic();
        let records: Vec<&str> = load.records.iter().map(String::as_str).collect();
        let dead = match self.store(&records).await {
            Ok(dead) => dead,
            Err(error) => {
                self.batch_bytes = (self.batch_bytes / 2).max(BATCH_BYTES_MIN);
                if self.ledger.set_store_reachable(false) {
                    telemetry::events::store_lost(&error.to_string());
                }
                return Err(error);
            }
        };
        if !self.ledger.set_store_reachable(true) {
            telemetry::events::store_found();
        }
        if clock::monotonic().duration_since(began) < BRISK {
            self.batch_bytes = (self.batch_bytes * 2).min(BATCH_BYTES_MAX);
        }
        self.settle(load, dead).await?;
        Ok(true)
    }

    /// Stores what the store takes; gives what it never will. Of a refused batch, halves are tried, so that
    /// one bad record among thousands costs a dozen statements.
    async fn store(&self, records: &[&str]) -> Result<Vec<DeadLetter>, StoreError> {
        let mut dead = Vec::new();
        let mut parts = vec![records];
        while let Some(part) = parts.pop() {
            match (self.store.insert_records(part).await, part) {
                (Ok(()), _) => {}
                (Err(StoreError::Refused(reason)), [record]) => {
                    dead.push(letter(record, reason));
                }
                (Err(StoreError::Refused(_)), part) => {
                    let (first, second) = part.split_at(part.len() / 2);
                    parts.extend([second, first]);
                }
                (Err(error), _) => return Err(error),
            }
        }
        Ok(dead)
    }

    async fn settle(&self, mut load: Load, mut dead: Vec<DeadLetter>) -> Result<(), StoreError> {
        let stored = (load.records.len() - dead.len()) as u64;
        dead.append(&mut load.spoilt);
        let buried = dead.len() as u64;
        self.blocking(move |file| file.settle(&load, stored, &dead)).await?;
        if buried > 0 {
            telemetry::events::executions_buried(buried);
        }
        Ok(())
    }

    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&OutboxFile) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let file = self.file.clone();
        spawn_blocking(move || work(&file))
            .await
            .map_err(|error| StoreError::Unavailable(error.to_string()))?
    }
}

fn letter(record: &str, reason: String) -> DeadLetter {
    let id = serde_json::from_str::<Execution>(record).map(|execution| execution.request_id);
    let id = id.unwrap_or_else(|_| Uuid::new_v4().to_string());
    DeadLetter { id, reason, execution: record.to_owned() }
}
