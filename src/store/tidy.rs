//! What becomes of old executions, and of the partitions that hold the coming ones.

use jiff::civil::Date;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp, ToSpan};

use super::StoreError;
use crate::config::{PartitionBy, Retention};

/// Rows deleted in one transaction: nobody waits for it longer than some milliseconds.
pub(super) const ROWS_MAX: i64 = 500;
/// Partitions beyond the present one: the program may be down for long before a row has none.
const MONTHS_AHEAD: usize = 3;
const DAYS_AHEAD: usize = 14;

/// What was done in one go.
#[derive(Debug, Default)]
pub struct Tidied {
    /// Partitions that were made.
    pub made: Vec<String>,
    /// Partitions that were dropped, with what was in them.
    pub dropped: Vec<String>,
    /// Executions that were deleted one by one.
    pub rows: u64,
    /// Whether there is more to do at once.
    pub more: bool,
    /// What could not be done, if anything: the first of it. The rest was done nevertheless.
    pub failed: Option<StoreError>,
}

impl Tidied {
    /// Whether something was done; an error is kept if it is the first.
    pub(super) fn noted(&mut self, done: Result<bool, StoreError>) -> bool {
        done.unwrap_or_else(|error| {
            self.failed.get_or_insert(error);
            false
        })
    }
}

/// A stretch of time, from its beginning and up to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Period {
    pub(super) from: Timestamp,
    pub(super) to: Timestamp,
}

/// Executions from before this moment go; `None`: none.
pub(super) fn oldest_kept(retention: &Retention, now: Timestamp) -> Option<Timestamp> {
    let age = SignedDuration::from_hours(24 * i64::from(retention.days?));
    now.checked_sub(age).ok()
}

impl Period {
    /// That of now and those that follow.
    pub(super) fn coming(by: PartitionBy, now: Timestamp) -> Vec<(String, Self)> {
        let today = now.to_zoned(TimeZone::UTC).date();
        let (first, step, ahead) = match by {
            PartitionBy::Day => (today, 1.day(), DAYS_AHEAD),
            PartitionBy::Month => (today.first_of_month(), 1.month(), MONTHS_AHEAD),
        };
        let midnight = |date: Date| Some(date.to_zoned(TimeZone::UTC).ok()?.timestamp());
        first
            .series(step)
            .take(ahead + 1)
            .filter_map(|date| {
                let to = midnight(date.checked_add(step).ok()?)?;
                Some((name(by, date), Self { from: midnight(date)?, to }))
            })
            .collect()
    }

    /// What is left of it beside others: where months are asked for after days, or days after months.
    pub(super) fn without(&self, others: &[Self]) -> Vec<Self> {
        let mut left = vec![*self];
        for other in others {
            left = left.iter().flat_map(|one| one.cut(other)).collect();
        }
        left
    }

    fn cut(&self, other: &Self) -> impl Iterator<Item = Self> + use<> {
        let before = Self { from: self.from, to: self.to.min(other.from) };
        let after = Self { from: self.from.max(other.to), to: self.to };
        [before, after].into_iter().filter(|one| one.from < one.to)
    }

    /// Whether a partition of this length is one of those the operator asks for.
    pub(super) fn is_of(&self, by: PartitionBy) -> bool {
        let is_day = self.to.duration_since(self.from) <= SignedDuration::from_hours(24);
        is_day == (by == PartitionBy::Day)
    }
}

/// The name of a part of a period.
pub(super) fn part(name: &str, period: &Period, part: &Period) -> String {
    if part == period {
        return name.to_owned();
    }
    format!("{name}_from_{}", part.from.to_zoned(TimeZone::UTC).strftime("%d"))
}

fn name(by: PartitionBy, date: Date) -> String {
    match by {
        PartitionBy::Day => date.strftime("prompt_executions_%Y_%m_%d").to_string(),
        PartitionBy::Month => date.strftime("prompt_executions_%Y_%m").to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    #[test]
    fn periods_follow_each_other_over_the_end_of_a_year() {
        let months = Period::coming(PartitionBy::Month, at("2026-11-30T23:59:59Z"));
        let names: Vec<&str> = months.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(
            names,
            [
                "prompt_executions_2026_11",
                "prompt_executions_2026_12",
                "prompt_executions_2027_01",
                "prompt_executions_2027_02"
            ]
        );
        let days = Period::coming(PartitionBy::Day, at("2028-02-28T10:00:00Z"));
        assert_eq!((days.len(), days[1].0.as_str()), (15, "prompt_executions_2028_02_29"));
        for (by, periods) in [(PartitionBy::Month, months), (PartitionBy::Day, days)] {
            for pair in periods.windows(2) {
                assert_eq!(pair[0].1.to, pair[1].1.from);
                assert_eq!(pair[0].1.without(&[pair[1].1]), [pair[0].1]);
                assert_eq!(pair[0].1.without(&[pair[0].1]), []);
                assert!(pair[0].1.is_of(by), "{}", pair[0].0);
            }
        }
    }

    #[test]
    fn a_month_is_made_around_the_days_that_are_there() {
        let now = at("2026-11-30T23:59:59Z");
        let (name, month) = Period::coming(PartitionBy::Month, now).swap_remove(1);
        let day = |from: &str, to: &str| Period { from: at(from), to: at(to) };
        let days = [
            day("2026-11-30T00:00:00Z", "2026-12-01T00:00:00Z"),
            day("2026-12-01T00:00:00Z", "2026-12-02T00:00:00Z"),
            day("2026-12-09T00:00:00Z", "2026-12-10T00:00:00Z"),
        ];
        let left = month.without(&days);
        let names: Vec<String> = left.iter().map(|one| part(&name, &month, one)).collect();
        assert_eq!(
            left,
            [
                day("2026-12-02T00:00:00Z", "2026-12-09T00:00:00Z"),
                day("2026-12-10T00:00:00Z", "2027-01-01T00:00:00Z")
            ]
        );
        assert_eq!(
            names,
            ["prompt_executions_2026_12_from_02", "prompt_executions_2026_12_from_10"]
        );
        assert_eq!(part(&name, &month, &month), "prompt_executions_2026_12");
    }

    #[test]
    fn nothing_is_old_without_a_limit() {
        let mut retention =
            Retention { days: Some(2), partition_by: PartitionBy::Day, embedded_bytes_max: 1 };
        let now = at("2026-11-30T12:00:00Z");
        assert_eq!(oldest_kept(&retention, now), Some(at("2026-11-28T12:00:00Z")));
        retention.days = None;
        assert_eq!(oldest_kept(&retention, now), None);
    }
}
