//! What an experiment has shown: estimates, intervals, health and a verdict, from sums per arm.
//!
//! Sums come in ([`Counts`], [`MeanSums`], [`RatioSums`]), one set for each phase and arm. Each
//! gives an [`Estimate`]; two make a [`Comparison`]; phases [`combine`] into one; an [`Analysis`]
//! turns it into an [`Answer`]. [`health`] and [`balance`] say whether to believe it, [`verdict`]
//! says what it means.
//!
//! Knows no clock, store or request. The special functions are our own: the crate that has them
//! (statrs) brings five packages and a t quantile that errs above 100 000 degrees of freedom.

pub mod balance;
pub mod bayes;
pub mod health;
pub mod multiple;
pub mod plan;
pub mod proportion;
pub mod quantile;
pub mod sketch;
pub mod tails;
pub mod uniformity;
pub mod verdict;

mod analysis;
mod estimate;
mod lift;
#[cfg(test)]
pub(crate) mod nulls;
mod phases;
mod sequence;
mod special;
mod sums;

pub use analysis::{Analysis, Answer, Scale};
pub use estimate::{Comparison, Estimate};
pub use lift::{Lift, fieller};
pub use phases::{combine, weigh_pairs};
pub use sequence::{Sequence, TARGET_UNITS, UNITS_PER_ARM_MIN};
pub use sums::{Counts, MeanSums, RatioSums};

/// A share of false alarms that is put up with: above 0, below 1. Two-sided everywhere.
#[derive(Debug, Clone, Copy, PartialEq, PartialOrd)]
pub struct Alpha(f64);

impl Alpha {
    /// What experiments use unless told otherwise.
    pub const FIVE_PERCENT: Self = Self(0.05);

    /// `None` unless it lies between 0 and 1, both excluded.
    pub fn new(share: f64) -> Option<Self> {
        (share > 0.0 && share < 1.0).then_some(Self(share))
    }

    /// The share.
    pub fn share(self) -> f64 {
        self.0
    }

    /// The part of each of `comparisons` that are read together (Bonferroni). For 0 or 1 the whole.
    #[must_use]
    pub fn split(self, comparisons: usize) -> Self {
        Self(self.0 / real(comparisons.max(1) as u64))
    }
}

/// A closed interval.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Interval {
    /// Its lower end.
    pub low: f64,
    /// Its upper end.
    pub high: f64,
}

impl Interval {
    /// `centre` plus and minus `half`.
    pub fn around(centre: f64, half: f64) -> Self {
        Self { low: centre - half, high: centre + half }
    }

    /// Whether a value lies in it, ends included.
    pub fn contains(self, value: f64) -> bool {
        self.low <= value && value <= self.high
    }

    /// Whether all of it lies closer to 0 than `bound`.
    pub fn is_within(self, bound: f64) -> bool {
        -bound < self.low && self.high < bound
    }
}

/// Which way a metric should go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Better {
    /// Success, scores.
    Higher,
    /// Latency, cost, violations.
    Lower,
}

impl Better {
    /// The difference with its sign so turned that above 0 is better.
    pub fn gain(self, difference: f64) -> f64 {
        match self {
            Self::Higher => difference,
            Self::Lower => -difference,
        }
    }
}

/// Why the data answer nothing yet. Not a fault: more data may help.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NoAnswer {
    /// An arm holds fewer units than the method needs.
    #[error("an arm has too few units")]
    TooFewUnits,
    /// A ratio over nothing.
    #[error("an arm has nothing to divide by")]
    NoDenominator,
    /// Every unit of both arms is the same: nothing tells how far chance reaches.
    #[error("the units of both arms do not differ")]
    NoSpread,
    /// A sum that is infinite or no number.
    #[error("a sum is not a finite number")]
    NotFinite,
    /// Fewer than two arms have a share in the split.
    #[error("fewer than two arms have a weight")]
    NoSplit,
}

/// A count as a real number. Exact up to 2⁵³, and no experiment counts further.
#[expect(clippy::cast_precision_loss, reason = "counts stay below 2⁵³")]
fn real(count: u64) -> f64 {
    count as f64
}

#[cfg(test)]
pub(crate) mod tests;
