//! Looking as often as one likes: a confidence sequence and its always-valid p.
//!
//! Waudby-Smith, Arbour, Sinha, Kennedy and Ramdas (2024), two-sided. The interval is some 1.5
//! times as wide as that of a single look; that is the price.

use super::{Alpha, Comparison, Interval, NoAnswer, real};

/// The sample size for which a sequence is tightest when the experiment names none.
pub const TARGET_UNITS: u64 = 5000;

/// Below this many units in either arm, a sequence says nothing: it leans on means being nearly
/// normal.
pub const UNITS_PER_ARM_MIN: u64 = 100;

/// A sequence, fixed when the experiment starts. Changing it between looks voids what it promises.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sequence {
    rho_squared: f64,
}

impl Sequence {
    /// The sequence that is about tightest at `target` units in both arms, or at [`TARGET_UNITS`],
    /// for the alpha of the whole experiment. Parts of that alpha use the same sequence, so that p
    /// and interval decide alike at any of them.
    pub fn new(target: Option<u64>, alpha: Alpha) -> Self {
        let target = real(target.unwrap_or(TARGET_UNITS).max(1));
        let twice_ln = -2.0 * alpha.share().ln();
        Self { rho_squared: (twice_ln + (twice_ln + 1.0).ln()) / target }
    }

    /// How many standard errors the interval reaches to either side after `units` in both arms.
    pub fn critical(self, units: u64, alpha: Alpha) -> f64 {
        let rate = real(units) * self.rho_squared;
        // √N of the formula and the 1/N under its root leave (Nρ² + 1) / Nρ².
        (2.0 * (rate + 1.0) / rate * (0.5 * rate.ln_1p() - alpha.share().ln())).sqrt()
    }

    /// The interval of the difference, in the unit of the metric. [`NoAnswer::TooFewUnits`] below
    /// [`UNITS_PER_ARM_MIN`].
    pub fn interval(self, of: &Comparison, alpha: Alpha) -> Result<Interval, NoAnswer> {
        enough(of)?;
        Ok(Interval::around(of.difference(), of.se() * self.critical(of.units(), alpha)))
    }

    /// The always-valid p: below an alpha exactly when the interval at that alpha leaves out 0.
    /// [`NoAnswer::TooFewUnits`] below [`UNITS_PER_ARM_MIN`].
    pub fn p(self, of: &Comparison) -> Result<f64, NoAnswer> {
        enough(of)?;
        let rate = real(of.units()) * self.rho_squared;
        let z = of.difference() / of.se();
        let ln_e = 0.5 * (z * z * rate / (rate + 1.0) - rate.ln_1p());
        Ok((-ln_e).exp().min(1.0))
    }
}

fn enough(of: &Comparison) -> Result<(), NoAnswer> {
    if of.units_per_arm_min() < UNITS_PER_ARM_MIN { Err(NoAnswer::TooFewUnits) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::Sequence;
    use crate::statistics::tests::{assert_near, comparison_of};
    use crate::statistics::{Alpha, NoAnswer};

    const ALPHA: Alpha = Alpha::FIVE_PERCENT;

    /// Section 7.10.
    #[test]
    fn known_answer() {
        let sequence = Sequence::new(Some(5000), ALPHA);
        assert_near(sequence.rho_squared.sqrt(), 0.039_840_066_771_373_68, 1e-12);
        let one = comparison_of(2000, (0.95, 0.006_f64.powi(2)), (0.93, 0.0));
        let interval = sequence.interval(&one, ALPHA).unwrap();
        assert_near(0.5 * (interval.high - interval.low), 0.018_242_2, 5e-6);
        assert_near(sequence.p(&one).unwrap(), 0.022_319_2, 5e-6);
        assert!(!interval.contains(0.0));
        // Section 7.4: the price of looking at any time, where it is least.
        let wider = sequence.critical(5000, ALPHA) / 1.959_963_984_540_054;
        assert!((wider - 1.55).abs() < 0.005, "{wider}");
    }

    #[test]
    fn p_and_interval_decide_alike_at_every_level() {
        let sequence = Sequence::new(None, ALPHA);
        let mut significant = 0;
        for step in 0..400 {
            let difference = f64::from(step) * 1e-4;
            let one = comparison_of(700, (0.5, 3e-5), (0.5 + difference, 2e-5));
            for alpha in [ALPHA, ALPHA.split(2), ALPHA.split(5)] {
                let excludes = !sequence.interval(&one, alpha).unwrap().contains(0.0);
                assert_eq!(excludes, sequence.p(&one).unwrap() < alpha.share());
                significant += u32::from(excludes);
            }
        }
        assert!((200..1000).contains(&significant), "{significant}");
    }

    #[test]
    fn silent_below_a_hundred_units_in_either_arm() {
        let sequence = Sequence::new(None, ALPHA);
        let early = comparison_of(99, (0.0, 1e-9), (1.0, 1e-9));
        assert_eq!(sequence.p(&early), Err(NoAnswer::TooFewUnits));
        assert_eq!(sequence.interval(&early, ALPHA), Err(NoAnswer::TooFewUnits));
        let later = comparison_of(100, (0.0, 1e-9), (1.0, 1e-9));
        assert!(sequence.p(&later).unwrap() < 1e-100);
    }
}
