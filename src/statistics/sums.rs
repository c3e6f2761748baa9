//! What the analysis needs of the units of one arm in one phase: counts and sums.
//!
//! Sums can be added unit by unit or read from a store, and two sets of the same arm merge. Fields
//! are open because a store fills them.

use super::{Estimate, NoAnswer, real};

/// A residual this small against its total is rounding.
const ROUNDING: f64 = 1e-13;

/// So many of so many: requests that succeeded, units that gave feedback.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    successes: u64,
    trials: u64,
}

impl Counts {
    /// `None` when more succeeded than were tried.
    pub fn new(successes: u64, trials: u64) -> Option<Self> {
        (successes <= trials).then_some(Self { successes, trials })
    }

    /// Adds one trial.
    pub fn add(&mut self, success: bool) {
        self.successes += u64::from(success);
        self.trials += 1;
    }

    /// Adds the trials of the same arm from elsewhere.
    pub fn merge(&mut self, other: Self) {
        self.successes += other.successes;
        self.trials += other.trials;
    }

    /// How many succeeded.
    pub fn successes(self) -> u64 {
        self.successes
    }

    /// How many did not.
    pub fn failures(self) -> u64 {
        self.trials - self.successes
    }

    /// How many were tried.
    pub fn trials(self) -> u64 {
        self.trials
    }

    /// The share that succeeded, 0 to 1; `None` without trials.
    pub fn share(self) -> Option<f64> {
        (self.trials > 0).then(|| real(self.successes) / real(self.trials))
    }

    /// The share with its own variance (not that of a pooled share), every trial being a unit: what
    /// the delta method gives for one execution per unit. Needs two trials.
    pub fn estimate(self) -> Result<Estimate, NoAnswer> {
        if self.trials < 2 {
            return Err(NoAnswer::TooFewUnits);
        }
        let trials = real(self.trials);
        let share = real(self.successes) / trials;
        let variance = share * (1.0 - share) / (trials - 1.0);
        Ok(Estimate { value: share, variance, units: self.trials, df: f64::INFINITY })
    }
}

/// Sums over units of one number each: mean log latency, mean feedback, cost per user.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct MeanSums {
    /// Units that have the number.
    pub units: u64,
    /// Σ x.
    pub sum_x: f64,
    /// Σ x².
    pub sum_x2: f64,
}

impl MeanSums {
    /// The sums behind a mean and a standard deviation with n - 1 below, in the unit of the mean.
    pub fn of(units: u64, mean: f64, deviation: f64) -> Self {
        let count = real(units);
        let sum_x2 = deviation * deviation * (count - 1.0) + count * mean * mean;
        Self { units, sum_x: count * mean, sum_x2 }
    }

    /// Adds one unit.
    pub fn add(&mut self, x: f64) {
        self.units += 1;
        self.sum_x += x;
        self.sum_x2 += x * x;
    }

    /// Adds other units of the same arm.
    pub fn merge(&mut self, other: Self) {
        self.units += other.units;
        self.sum_x += other.sum_x;
        self.sum_x2 += other.sum_x2;
    }

    /// The mean for Welch's test, in the unit of x, with n - 1 degrees of freedom. Needs two units.
    pub fn estimate(self) -> Result<Estimate, NoAnswer> {
        if self.units < 2 {
            return Err(NoAnswer::TooFewUnits);
        }
        let units = real(self.units);
        let mean = self.sum_x / units;
        let residual = residual(self.sum_x2 - self.sum_x * mean, self.sum_x2)?;
        let variance = residual / (units - 1.0) / units;
        Ok(Estimate { value: mean, variance, units: self.units, df: units - 1.0 })
    }
}

/// Sums over units of a denominator d and a numerator x each: executions and successes, executions
/// and milliseconds, successes and cost.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct RatioSums {
    /// Units.
    pub units: u64,
    /// Σ d.
    pub sum_d: f64,
    /// Σ x.
    pub sum_x: f64,
    /// Σ d².
    pub sum_d2: f64,
    /// Σ x².
    pub sum_x2: f64,
    /// Σ x d.
    pub sum_xd: f64,
}

impl RatioSums {
    /// Adds one unit.
    pub fn add(&mut self, d: f64, x: f64) {
        self.merge(Self {
            units: 1,
            sum_d: d,
            sum_x: x,
            sum_d2: d * d,
            sum_x2: x * x,
            sum_xd: x * d,
        });
    }

    /// Adds other units of the same arm. Their units must be others: a unit counts once per phase.
    pub fn merge(&mut self, other: Self) {
        self.units += other.units;
        self.sum_d += other.sum_d;
        self.sum_x += other.sum_x;
        self.sum_d2 += other.sum_d2;
        self.sum_x2 += other.sum_x2;
        self.sum_xd += other.sum_xd;
    }

    /// Σ x / Σ d with the variance of the delta method, clustered by unit (Deng, Knoblich and Lu,
    /// 2018). Needs two units and something to divide by.
    ///
    /// (var x - 2 R cov + R² var d) is the variance of x - R d, whose mean is 0: computed so, an
    /// arm in which all executions succeed has exactly none.
    pub fn estimate(self) -> Result<Estimate, NoAnswer> {
        if self.units < 2 {
            return Err(NoAnswer::TooFewUnits);
        }
        if self.sum_d <= 0.0 {
            return Err(NoAnswer::NoDenominator);
        }
        let units = real(self.units);
        let ratio = self.sum_x / self.sum_d;
        let squares = self.sum_x2 - 2.0 * ratio * self.sum_xd + ratio * ratio * self.sum_d2;
        let residual = residual(squares, self.sum_x2)?;
        let mean_d = self.sum_d / units;
        let variance = residual / (units - 1.0) / (mean_d * mean_d * units);
        Ok(Estimate { value: ratio, variance, units: self.units, df: f64::INFINITY })
    }
}

/// A sum of squares that cannot be below 0, without what rounding left in it.
fn residual(squares: f64, total: f64) -> Result<f64, NoAnswer> {
    if !squares.is_finite() {
        return Err(NoAnswer::NotFinite);
    }
    Ok(if squares <= total * ROUNDING { 0.0 } else { squares })
}
