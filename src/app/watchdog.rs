//! How late the runtime comes round: what holds up one of its threads holds up the calls on it.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::telemetry::metrics;
use crate::words::clock;

/// Between two looks.
const EVERY: Duration = Duration::from_millis(100);

/// Measures until `stop`.
pub(super) async fn run(stop: CancellationToken) {
    loop {
        let due = clock::monotonic() + EVERY;
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(EVERY) => {}
        }
        metrics::runtime_delay(clock::monotonic().saturating_duration_since(due).as_secs_f64());
    }
}
