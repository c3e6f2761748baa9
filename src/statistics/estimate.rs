//! One arm's number with its uncertainty, and a variant's against control's.

use super::{NoAnswer, real};

/// Values closer than this, relative to them, are the same value twice rounded.
const SAME: f64 = 1e-9;

/// What one arm says about a metric.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Estimate {
    /// The share, mean, ratio or quantile, in the unit of the metric.
    pub value: f64,
    /// The square of its standard error.
    pub variance: f64,
    /// Units behind it.
    pub units: u64,
    /// Degrees of freedom of the variance; infinite where a z test is used.
    pub df: f64,
}

/// A variant against control, in one phase or in several combined.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Comparison {
    control: Estimate,
    variant: Estimate,
}

impl Comparison {
    /// Needs finite numbers and a spread, in one arm at least or between the two.
    ///
    /// When both arms are constant and differ (all fail where all succeeded), how far chance
    /// reaches is taken from the units of both together. To answer "no spread" to the clearest of
    /// all results would keep a broken variant running.
    pub fn new(control: Estimate, variant: Estimate) -> Result<Self, NoAnswer> {
        let numbers = [control.value, control.variance, variant.value, variant.variance];
        if !numbers.iter().all(|number| number.is_finite()) {
            return Err(NoAnswer::NotFinite);
        }
        if control.variance + variant.variance > 0.0 {
            return Ok(Self { control, variant });
        }
        let gap = (variant.value - control.value).abs();
        if gap <= SAME * control.value.abs().max(variant.value.abs()) {
            return Err(NoAnswer::NoSpread);
        }
        let units = real(control.units + variant.units);
        let pooled =
            (real(control.units) * control.value + real(variant.units) * variant.value) / units;
        Ok(Self { control: about(control, pooled), variant: about(variant, pooled) })
    }

    /// Control's estimate.
    pub fn control(&self) -> Estimate {
        self.control
    }

    /// The variant's estimate.
    pub fn variant(&self) -> Estimate {
        self.variant
    }

    /// Variant minus control.
    pub fn difference(&self) -> f64 {
        self.variant.value - self.control.value
    }

    /// Its standard error; arms are independent, so variances add.
    pub fn se(&self) -> f64 {
        (self.control.variance + self.variant.variance).sqrt()
    }

    /// Units of both arms.
    pub fn units(&self) -> u64 {
        self.control.units + self.variant.units
    }

    /// Units of the smaller arm.
    pub fn units_per_arm_min(&self) -> u64 {
        self.control.units.min(self.variant.units)
    }

    /// Degrees of freedom by Satterthwaite (1946), as Welch (1947) uses them.
    pub fn df(&self) -> f64 {
        pooled_df([self.control, self.variant].map(|arm| (arm.variance, arm.df)))
    }
}

/// The degrees of freedom of a sum of independent variances; infinite when each is.
pub(super) fn pooled_df(parts: impl IntoIterator<Item = (f64, f64)>) -> f64 {
    let (sum, uncertain) =
        parts.into_iter().fold((0.0, 0.0), |(sum, uncertain), (variance, df)| {
            (sum + variance, uncertain + variance * variance / df)
        });
    if uncertain > 0.0 { sum * sum / uncertain } else { f64::INFINITY }
}

/// A constant arm with the variance its units have about another value.
fn about(arm: Estimate, value: f64) -> Estimate {
    let gap = arm.value - value;
    Estimate { variance: gap * gap / (real(arm.units) - 1.0).max(1.0), ..arm }
}
