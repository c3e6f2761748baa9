//! Keeps the store of executions within its bounds: partitions ahead, nothing older than agreed, in steps
//! that nobody has to wait for.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::config::Retention;
use crate::rounds::Rounds;
use crate::store::{Store, StoreError};
use crate::telemetry::{events, metrics};
use crate::words::clock;

/// Between two rounds.
const EVERY: Duration = Duration::from_mins(1);
/// Between two steps of a round: others write too.
const BREATH: Duration = Duration::from_millis(10);

/// Tidies up until `stop`.
pub async fn run(store: Arc<dyn Store>, retention: Retention, stop: CancellationToken) {
    let (mut rounds, mut fails) = (Rounds::every(EVERY, stop), false);
    while rounds.next().await {
        let Some(done) = rounds.cut(round(store.as_ref(), &retention)).await else { return };
        fails = match done {
            // Who has no tables is told so elsewhere.
            Ok(()) | Err(StoreError::NotMigrated) => false,
            Err(error) => {
                if !fails {
                    events::retention_failed(&error.to_string());
                }
                true
            }
        };
    }
}

/// One round: also for those who cannot wait a minute.
pub async fn round(store: &dyn Store, retention: &Retention) -> Result<(), StoreError> {
    loop {
        let tidied = store.tidy(retention, clock::now()).await?;
        for partition in &tidied.made {
            events::partition_made(partition);
        }
        for partition in &tidied.dropped {
            events::partition_dropped(partition);
        }
        if tidied.rows > 0 {
            metrics::executions_pruned(tidied.rows);
        }
        if let Some(error) = tidied.failed {
            return Err(error);
        }
        if !tidied.more {
            return Ok(());
        }
        tokio::time::sleep(BREATH).await;
    }
}
