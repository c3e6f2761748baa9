//! What is done again and again until the process stops.

use std::time::Duration;

use tokio::time::{Interval, MissedTickBehavior};
use tokio_util::sync::CancellationToken;

/// The beats of something that is done every so often. A round that is late moves those after it.
#[derive(Debug)]
pub struct Rounds {
    ticks: Interval,
    stop: CancellationToken,
}

impl Rounds {
    /// The first round is due at once.
    pub fn every(period: Duration, stop: CancellationToken) -> Self {
        let mut ticks = tokio::time::interval(period);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Self { ticks, stop }
    }

    /// Waits for the next round; `false` when there is none because the process stops.
    pub async fn next(&mut self) -> bool {
        tokio::select! {
            () = self.stop.cancelled() => false,
            _ = self.ticks.tick() => true,
        }
    }

    /// Does a round that may be cut; `None` when the process stops meanwhile.
    pub async fn cut<T>(&self, round: impl Future<Output = T>) -> Option<T> {
        self.stop.run_until_cancelled(round).await
    }
}
