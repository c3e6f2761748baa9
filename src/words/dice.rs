//! Chance, where many must not do the same at the same moment.

use std::time::Duration;

use uuid::Uuid;

/// A random part of a duration, from nothing to all of it.
pub fn part_of(duration: Duration) -> Duration {
    let dice = Uuid::new_v4().as_bytes().first().copied().unwrap_or_default();
    duration * u32::from(dice) / u32::from(u8::MAX)
}
