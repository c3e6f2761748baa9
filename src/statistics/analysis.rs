//! One comparison read with one rule: p, interval and lift from the same critical value.
//!
//! Mixing rules is how other tools call a result significant whose interval holds 0.

use super::tails::{t_critical, t_two_sided};
use super::{Alpha, Better, Comparison, Interval, Lift, NoAnswer, Sequence, fieller};

/// How the data may be looked at.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Analysis {
    /// Once, at the planned end: the ordinary z or t test (Welch, 1947).
    Fixed,
    /// At any time.
    Sequential(Sequence),
}

/// What the compared values are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scale {
    /// Values as they are: shares, milliseconds, money.
    Linear,
    /// Natural logarithms: a difference is a ratio of geometric means.
    Log,
}

/// A comparison, read.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Answer {
    /// Variant minus control, on the scale of the estimates.
    pub difference: f64,
    /// Its standard error.
    pub se: f64,
    /// What is not ruled out for it.
    pub interval: Interval,
    /// Two-sided and not adjusted for other comparisons: below alpha exactly when `interval` leaves
    /// out 0.
    pub p: f64,
    /// Variant / control - 1; `None` when control's value is 0.
    pub lift: Option<f64>,
    /// What is not ruled out for it: holds 0 exactly when `interval` does.
    pub lift_range: Lift,
    /// Units of both arms.
    pub units: u64,
}

impl Analysis {
    /// Reads a comparison at one level. A sequence needs 100 units in each arm.
    pub fn answer(self, of: &Comparison, alpha: Alpha, scale: Scale) -> Result<Answer, NoAnswer> {
        let (interval, p, critical) = match self {
            Self::Fixed => {
                let critical = t_critical(alpha, of.df());
                let interval = Interval::around(of.difference(), critical * of.se());
                (interval, t_two_sided(of.difference() / of.se(), of.df()), critical)
            }
            Self::Sequential(sequence) => {
                let critical = sequence.critical(of.units(), alpha);
                (sequence.interval(of, alpha)?, sequence.p(of)?, critical)
            }
        };
        let (lift, lift_range) = match scale {
            Scale::Linear => (linear_lift(of), fieller(of, critical)),
            Scale::Log => (Some(of.difference().exp_m1()), Lift::Between(back(interval))),
        };
        let (difference, se, units) = (of.difference(), of.se(), of.units());
        Ok(Answer { difference, se, interval, p, lift, lift_range, units })
    }
}

impl Answer {
    /// Whether a harm metric calls for a stop: all that is not ruled out is worse than control by
    /// more than `tolerated` (0 or more, in the unit of the metric). Read at an alpha that is not
    /// split: a false alarm is cheap, a miss is not.
    pub fn harms(&self, better: Better, tolerated: f64) -> bool {
        let ends = [self.interval.low, self.interval.high];
        ends.iter().all(|end| better.gain(*end) < -tolerated)
    }
}

fn linear_lift(of: &Comparison) -> Option<f64> {
    let control = of.control().value;
    (control.abs() > 0.0).then(|| of.difference() / control)
}

fn back(logs: Interval) -> Interval {
    Interval { low: logs.low.exp_m1(), high: logs.high.exp_m1() }
}
