//! Carries out the orders to erase what was recorded of users: at once, and again when something arrives late.

use std::sync::Arc;
use std::time::Duration;

use jiff::SignedDuration;
use tokio_util::sync::CancellationToken;

use crate::outbox::DeadLetters;
use crate::rounds::Rounds;
use crate::store::erasure::Erasure;
use crate::store::{Store, StoreError};
use crate::telemetry::events;
use crate::words::clock;

/// Between two rounds.
const EVERY: Duration = Duration::from_mins(1);
/// Between two parts of an order: others write too.
const BREATH: Duration = Duration::from_millis(5);
/// How long an order stands: a sidecar may be cut off from the store for as long.
const STANDS: SignedDuration = SignedDuration::from_hours(30 * 24);

/// What went of a user.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Gone {
    /// Executions of the store.
    pub executions: u64,
    /// Dead letters of this sidecar.
    pub dead_letters: u64,
    /// Whether nothing is left here that goes by this order. If not, the rounds go on with it.
    pub complete: bool,
}

/// Carries out an order that was committed, for about so long.
pub async fn carry_out(
    store: &dyn Store,
    dead_letters: &DeadLetters,
    erasure: &Erasure,
    patience: Duration,
) -> Result<Gone, StoreError> {
    let began = clock::monotonic();
    let dead_letters = dead_letters.erase(erasure).await?;
    let mut gone = Gone { executions: 0, dead_letters, complete: false };
    loop {
        let erased = store.erase(erasure).await?;
        gone.executions += erased.executions;
        gone.complete = !erased.more;
        if gone.complete || began.elapsed() >= patience {
            return Ok(gone);
        }
        tokio::time::sleep(BREATH).await;
    }
}

/// Carries out what stands, until `stop`.
pub async fn run(store: Arc<dyn Store>, dead_letters: DeadLetters, stop: CancellationToken) {
    let mut rounds = Rounds::every(EVERY, stop);
    while rounds.next().await {
        let Some(done) = rounds.cut(round(store.as_ref(), &dead_letters)).await else { return };
        match done {
            // Who has no tables has no orders; who is away is told of elsewhere.
            Ok(()) | Err(StoreError::NotMigrated | StoreError::Unavailable(_)) => {}
            Err(error) => events::erasure_failed(&error.to_string()),
        }
    }
}

/// One round: also for those who cannot wait a minute.
pub async fn round(store: &dyn Store, dead_letters: &DeadLetters) -> Result<(), StoreError> {
    let since = clock::now().checked_sub(STANDS).unwrap_or_default();
    for standing in store.erasures(since).await? {
        if standing.is_due {
            carry_out(store, dead_letters, &standing.erasure, EVERY).await?;
        } else {
            dead_letters.erase(&standing.erasure).await?;
        }
    }
    Ok(())
}
