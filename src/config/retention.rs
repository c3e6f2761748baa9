//! How long executions are kept in the store.

use super::reader::Reader;

const MIB: u64 = 1024 * 1024;
/// Thirteen months: a year can be compared with the one before.
const DAYS: u64 = 400;
const DAYS_MAX: u64 = 36_500;

/// The operator's choice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retention {
    /// Days after which executions are dropped; `None`: never.
    pub days: Option<u32>,
    /// How much time a partition of PostgreSQL holds.
    pub partition_by: PartitionBy,
    /// Bytes of the embedded store, beyond which its oldest executions go.
    pub embedded_bytes_max: u64,
}

/// The time a partition holds, in UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PartitionBy {
    /// From midnight to midnight.
    Day,
    /// From a month's first day to the next one's.
    Month,
}

pub(super) fn read(reader: &mut Reader) -> Retention {
    let section = "audit";
    let days = reader.number(section, "retention_days", DAYS, 0..=DAYS_MAX);
    Retention {
        days: u32::try_from(days).ok().filter(|days| *days > 0),
        partition_by: reader.choice(
            section,
            "partition_by",
            PartitionBy::Month,
            &[("day", PartitionBy::Day), ("month", PartitionBy::Month)],
        ),
        embedded_bytes_max: reader.number(
            section,
            "embedded_bytes_max",
            10 * 1024 * MIB,
            16 * MIB..=1024 * 1024 * MIB,
        ),
    }
}
