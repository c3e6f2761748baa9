//! The only place that reads a clock.
//!
//! Engines take time as an argument; loops and the rim ask here.

use std::time::{Duration, Instant};

use jiff::Timestamp;

/// The wall clock: for records, schedules and prices.
#[expect(clippy::disallowed_methods, reason = "this is the clock everyone else must use")]
pub fn now() -> Timestamp {
    Timestamp::now()
}

/// The wall clock to the microsecond, which is what both stores keep: what is told is what is read back.
pub fn now_micros() -> Timestamp {
    let now = now();
    Timestamp::from_microsecond(now.as_microsecond()).unwrap_or(now)
}

/// The monotonic clock: for durations and deadlines, immune to clock jumps.
#[expect(clippy::disallowed_methods, reason = "this is the clock everyone else must use")]
pub fn monotonic() -> Instant {
    Instant::now()
}

/// A duration in milliseconds with its fraction, as rows and headers show it.
pub fn millis(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1000.0
}
