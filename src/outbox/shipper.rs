//! Carries batches from the local file to the store, for ever.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::task::spawn_blocking;
use tokio_util::sync::CancellationToken;

use super::file::{Load, OutboxFile};
use super::ledger::Ledger;
use crate::execution::Execution;
use crate::store::{Store, StoreError};
use crate::telemetry;

/// Rows of the file that go in one statement.
const ROWS_MAX: u32 = 16;
/// How long new rows gather before they are carried.
const GATHER: Duration = Duration::from_millis(100);
const RETRY_FIRST: Duration = Duration::from_millis(500);
const RETRY_LAST: Duration = Duration::from_secs(15);

/// Ships until `stop`, then once more until the file is empty or the store fails.
pub async fn ship(
    file: Arc<OutboxFile>,
    store: Arc<dyn Store>,
    ledger: Arc<Ledger>,
    filled: Arc<Notify>,
    stop: CancellationToken,
) {
    let mut retry = RETRY_FIRST;
    loop {
        let stopping = stop.is_cancelled();
        let wait = match ship_once(&file, store.as_ref(), &ledger).await {
            Ok(true) => {
                retry = RETRY_FIRST;
                continue;
            }
            Ok(false) if stopping => return,
            Ok(false) => None,
            Err(_) if stopping => return,
            Err(_) => {
                let wait = retry;
                retry = (retry * 2).min(RETRY_LAST);
                Some(wait)
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

/// One load. `false` when there was nothing.
async fn ship_once(
    file: &Arc<OutboxFile>,
    store: &dyn Store,
    ledger: &Ledger,
) -> Result<bool, StoreError> {
    let load = blocking(file, |file| file.oldest(ROWS_MAX)).await?;
    if load.bytes == 0 {
        return Ok(false);
    }
    let dead = match store.insert_executions(&load.executions).await {
        Ok(()) => Vec::new(),
        Err(StoreError::Refused(_)) => one_by_one(store, &load.executions).await?,
        Err(error) => {
            if ledger.set_store_reachable(false) {
                telemetry::events::store_lost(&error.to_string());
            }
            return Err(error);
        }
    };
    if !ledger.set_store_reachable(true) {
        telemetry::events::store_found();
    }
    settle(file, ledger, load, dead).await?;
    Ok(true)
}

/// Finds the executions that the store will never take; the rest goes on.
async fn one_by_one(
    store: &dyn Store,
    executions: &[Execution],
) -> Result<Vec<(Execution, String)>, StoreError> {
    let mut dead = Vec::new();
    for execution in executions {
        match store.insert_executions(std::slice::from_ref(execution)).await {
            Ok(()) => {}
            Err(StoreError::Refused(reason)) => dead.push((execution.clone(), reason)),
            Err(error) => return Err(error),
        }
    }
    Ok(dead)
}

async fn settle(
    file: &Arc<OutboxFile>,
    ledger: &Ledger,
    load: Load,
    dead: Vec<(Execution, String)>,
) -> Result<(), StoreError> {
    let bytes = load.bytes;
    let stored = (load.executions.len() - dead.len()) as u64;
    let mut letters: Vec<(String, String, String)> = dead
        .into_iter()
        .map(|(execution, reason)| {
            let json = serde_json::to_string(&execution).unwrap_or_default();
            (execution.request_id, reason, json)
        })
        .collect();
    let mut buried = letters.len() as u64;
    for (index, (count, batch)) in load.unreadable.iter().enumerate() {
        buried += count;
        let id = format!("batch-{}-{index}", load.first);
        letters.push((id, "does not read as executions".to_owned(), batch.clone()));
    }
    if buried > 0 {
        telemetry::events::executions_buried(buried);
    }
    blocking(file, move |file| file.settle(&load, &letters)).await?;
    ledger.shipped(stored, buried, bytes);
    Ok(())
}

async fn blocking<T: Send + 'static>(
    file: &Arc<OutboxFile>,
    work: impl FnOnce(&OutboxFile) -> Result<T, StoreError> + Send + 'static,
) -> Result<T, StoreError> {
    let file = file.clone();
    spawn_blocking(move || work(&file))
        .await
        .map_err(|error| StoreError::Unavailable(error.to_string()))?
}
