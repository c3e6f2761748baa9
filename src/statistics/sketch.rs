//! Quantiles of more values than one wants to sort: counts in buckets whose bounds grow by a fixed ratio.
//!
//! Masson, Rim and Lee (2019). A quantile is off by at most [`RELATIVE_ERROR`] of itself; sketches of parts
//! merge into the sketch of the whole. Stores count the buckets, with the same two numbers.

use std::collections::BTreeMap;

/// By how much of itself a quantile may be off.
pub const RELATIVE_ERROR: f64 = 0.01;
/// ln of the ratio of two bounds, (1 + e) / (1 - e): a value lies in bucket ⌈ln(value) / this⌉.
pub const LN_RATIO: f64 = 0.020_000_666_706_669_43;
/// Smaller values count as this one.
pub const LEAST: f64 = 0.001;

/// Counts by bucket.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Sketch(BTreeMap<i32, u64>);

impl Sketch {
    /// Adds one value.
    #[expect(clippy::cast_possible_truncation, reason = "logarithms of doubles fit")]
    pub fn add(&mut self, value: f64) {
        self.put((value.max(LEAST).ln() / LN_RATIO).ceil() as i32, 1);
    }

    /// Adds what was counted of a bucket.
    pub fn put(&mut self, bucket: i32, count: u64) {
        *self.0.entry(bucket).or_default() += count;
    }

    /// Adds another part of the whole.
    pub fn merge(&mut self, other: &Self) {
        other.0.iter().for_each(|(bucket, count)| self.put(*bucket, *count));
    }

    /// The value at the nearest rank of `q`; `None` without values.
    pub fn quantile(&self, q: f64) -> Option<f64> {
        let all: u64 = self.0.values().sum();
        let rank = (super::real(all) * q).ceil().max(1.0);
        let mut seen = 0;
        let bucket = self.0.iter().find(|(_, count)| {
            seen += **count;
            super::real(seen) >= rank
        });
        // The middle of the bucket, as far from either bound.
        bucket.map(|(bucket, _)| (f64::from(*bucket) * LN_RATIO).exp() * (1.0 - RELATIVE_ERROR))
    }
}

#[cfg(test)]
mod tests {
    use super::{LN_RATIO, RELATIVE_ERROR, Sketch};

    #[test]
    fn quantiles_are_within_the_error_and_parts_merge() {
        assert!((LN_RATIO - (1.01_f64 / 0.99).ln()).abs() < 1e-15);
        let mut state = 1_u64;
        let mut values: Vec<f64> = (0..5000)
            .map(|_| {
                state = state * 16_807 % 2_147_483_647;
                // From a tenth to some ten thousand.
                (f64::from(u32::try_from(state % 1_000_000).unwrap()) / 86_000.0 - 2.3).exp()
            })
            .collect();
        let (mut parts, mut whole) = ([Sketch::default(), Sketch::default()], Sketch::default());
        for (index, value) in values.iter().enumerate() {
            parts[index % 2].add(*value);
            whole.add(*value);
        }
        let [mut one, other] = parts;
        one.merge(&other);
        assert_eq!(one, whole);
        values.sort_by(f64::total_cmp);
        for (q, index) in [(0.0, 0), (0.5, 2499), (0.9, 4499), (0.99, 4949), (1.0, 4999)] {
            let (exact, shown) = (values[index], whole.quantile(q).unwrap());
            assert!(
                (shown - exact).abs() <= exact * RELATIVE_ERROR * 1.000_001,
                "{q}: {shown}, {exact}"
            );
        }
        assert_eq!(Sketch::default().quantile(0.5), None);
    }
}
