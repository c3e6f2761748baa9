//! Carries batches from the outbox to the store, for ever.

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use tokio::sync::Notify;
use tokio::task::spawn_blocking;
use tokio_util::sync::CancellationToken;

use super::file::{Load, OutboxFile};
use super::ledger::Ledger;
use super::letter::DeadLetter;
use crate::store::{Store, StoreError};
use crate::telemetry;
use crate::words::{clock, dice};

/// Bytes of a batch: from where it starts to grow, and to where.
const BATCH_BYTES_MIN: usize = 256 * 1024;
const BATCH_BYTES_MAX: usize = 4 * 1024 * 1024;
/// A batch that was stored faster than this may be followed by a bigger one, or by one more beside it.
const BRISK: Duration = Duration::from_millis(500);
/// One that took longer is followed by fewer.
const SLOW: Duration = Duration::from_secs(2);
/// How long new rows gather before they are carried.
const GATHER: Duration = Duration::from_millis(100);
/// Between attempts: never more than one a second asks a store that did not take the last.
const RETRY_FIRST: Duration = Duration::from_secs(1);
const RETRY_LAST: Duration = Duration::from_secs(15);

/// What carries one batch.
#[derive(Debug, Clone)]
struct Carrier {
    file: Arc<OutboxFile>,
    store: Arc<dyn Store>,
    ledger: Arc<Ledger>,
}

/// How much is under way at once, by how the store takes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Pace {
    batch_bytes: usize,
    batches: usize,
    batches_max: usize,
}

/// Ships until `stop`, then once more until the outbox is empty or the store fails.
pub async fn ship(
    file: Arc<OutboxFile>,
    store: Arc<dyn Store>,
    ledger: Arc<Ledger>,
    filled: Arc<Notify>,
    stop: CancellationToken,
) {
    let mut pace = Pace::slowest(store.batches_at_once());
    let carrier = Carrier { file, store, ledger };
    let mut retry = RETRY_FIRST;
    loop {
        let stopping = stop.is_cancelled();
        let wait = match carrier.ship_all(&mut pace).await {
            _ if stopping => return,
            Ok(()) => {
                retry = RETRY_FIRST;
                None
            }
            Err(_) => {
                let wait = retry;
                retry = (retry * 2).min(RETRY_LAST);
                // Many sidecars do not come back at once.
                Some(wait + dice::part_of(wait / 2))
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

impl Pace {
    fn slowest(batches_max: usize) -> Self {
        Self { batch_bytes: BATCH_BYTES_MIN, batches: 1, batches_max: batches_max.max(1) }
    }

    /// Bigger batches first: they cost the store less than more of them.
    fn stored(&mut self, took: Duration) {
        if took >= SLOW {
            self.batches = (self.batches - 1).max(1);
        } else if took < BRISK && self.batch_bytes < BATCH_BYTES_MAX {
            self.batch_bytes = (self.batch_bytes * 2).min(BATCH_BYTES_MAX);
        } else if took < BRISK {
            self.batches = (self.batches + 1).min(self.batches_max);
        }
    }

    fn failed(&mut self) {
        self.batch_bytes = (self.batch_bytes / 2).max(BATCH_BYTES_MIN);
        self.batches = 1;
    }
}

impl Carrier {
    /// Ships until nothing waits or the store fails. Ends when nothing is under way any more: a row that is
    /// read again before it has left the table would be counted twice.
    async fn ship_all(&self, pace: &mut Pace) -> Result<(), StoreError> {
        let mut under_way = FuturesUnordered::new();
        let (mut behind, mut ended) = (0, None);
        loop {
            while ended.is_none() && under_way.len() < pace.batches {
                match self.load(behind, pace.batch_bytes).await {
                    // From the oldest on again, unless they were seen just now.
                    Ok(load) if load.is_empty() && (behind == 0 || !under_way.is_empty()) => {
                        ended = under_way.is_empty().then_some(Ok(()));
                        break;
                    }
                    Ok(load) if load.is_empty() => behind = 0,
                    Ok(load) => {
                        behind = load.last;
                        under_way.push(self.carry(load));
                    }
                    Err(error) => ended = Some(Err(error)),
                }
            }
            match (under_way.next().await, &ended) {
                (Some(Ok(took)), _) => pace.stored(took),
                (Some(Err(error)), _) => {
                    pace.failed();
                    ended = Some(Err(error));
                }
                (None, Some(_)) => return ended.unwrap_or(Ok(())),
                (None, None) => {}
            }
        }
    }

    /// One batch; gives how long the store took.
    async fn carry(&self, load: Load) -> Result<Duration, StoreError> {
        let began = clock::monotonic();
        let records: Vec<&str> = load.records.iter().map(String::as_str).collect();
        let dead = match self.store(&records).await {
            Ok(dead) => dead,
            Err(error) => {
                if self.ledger.set_store_reachable(false) {
                    telemetry::events::store_lost(&error.to_string());
                }
                return Err(error);
            }
        };
        let took = clock::monotonic().duration_since(began);
        if !self.ledger.set_store_reachable(true) {
            telemetry::events::store_found();
        }
        self.settle(load, dead).await?;
        Ok(took)
    }

    /// Stores what the store takes; gives what it never will. Of a refused batch, halves are tried, so that
    /// one bad record among thousands costs a dozen statements.
    async fn store(&self, records: &[&str]) -> Result<Vec<DeadLetter>, StoreError> {
        let mut dead = Vec::new();
        let mut parts = vec![records];
        while let Some(part) = parts.pop() {
            match (self.store.insert_records(part).await, part) {
                (Ok(()), _) => {}
                (Err(StoreError::Refused(reason) | StoreError::Exists(reason)), [record]) => {
                    dead.push(DeadLetter::refused(record, reason));
                }
                (Err(StoreError::Refused(_) | StoreError::Exists(_)), part) => {
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

    async fn load(&self, behind: i64, bytes_max: usize) -> Result<Load, StoreError> {
        self.blocking(move |file| file.oldest(behind, bytes_max)).await
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pace_follows_the_store() {
        let (brisk, slow) = (Duration::from_millis(20), Duration::from_secs(3));
        let mut pace = Pace::slowest(3);
        for _ in 0..4 {
            pace.stored(brisk);
        }
        assert_eq!((pace.batch_bytes, pace.batches), (BATCH_BYTES_MAX, 1), "bigger ones first");
        for _ in 0..5 {
            pace.stored(brisk);
        }
        assert_eq!(pace.batches, 3, "then more at once, within what the store takes");
        pace.stored(Duration::from_secs(1));
        assert_eq!(pace.batches, 3);
        pace.stored(slow);
        assert_eq!(pace.batches, 2);
        pace.failed();
        assert_eq!((pace.batch_bytes, pace.batches), (BATCH_BYTES_MAX / 2, 1));
        for _ in 0..9 {
            pace.stored(slow);
            pace.failed();
        }
        assert_eq!(pace, Pace::slowest(3));
    }
}
