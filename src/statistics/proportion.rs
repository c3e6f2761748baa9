//! Two shares where every request is a unit of its own, looked at once.
//!
//! Where users come back, requests are no units: this test then raised three times the false
//! alarms. Use [`super::RatioSums`] there. For a sequence, [`Counts::estimate`] gives what it
//! needs.

use super::tails::{normal_critical, normal_two_sided};
use super::{Alpha, Counts, Interval, NoAnswer, real};

/// Below this expected count in any cell, the normal approximation is not used.
const EXPECTED_MIN: f64 = 5.0;
/// Tables as probable as the observed one are counted as such in spite of rounding.
const AS_PROBABLE: f64 = 1.0 + 1e-7;

/// Which test gave the p-value.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Test {
    /// The z of the pooled share.
    PooledZ(f64),
    /// Fisher's exact test. Intervals beside it are approximate.
    FisherExact,
}

impl Test {
    /// The word in answers.
    pub fn name(self) -> &'static str {
        match self {
            Self::PooledZ(_) => "pooled_z",
            Self::FisherExact => "fisher_exact",
        }
    }
}

/// Two shares compared. The decision comes from `p`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Proportions {
    /// The test.
    pub test: Test,
    /// Its two-sided p-value.
    pub p: f64,
    /// Variant minus control.
    pub difference: f64,
    /// Newcombe's interval of the difference.
    pub interval: Interval,
    /// Katz's interval of variant / control - 1; `None` when an arm has no success.
    pub lift: Option<Interval>,
    /// Wilson's interval of control's share.
    pub control: Interval,
    /// Wilson's interval of the variant's share.
    pub variant: Interval,
}

/// Compares two shares at one level. [`NoAnswer::TooFewUnits`] when an arm has no trials.
pub fn compare(control: Counts, variant: Counts, alpha: Alpha) -> Result<Proportions, NoAnswer> {
    let (test, p) = test(control, variant)?;
    Ok(Proportions {
        test,
        p,
        difference: share(variant)? - share(control)?,
        interval: newcombe(control, variant, alpha)?,
        lift: katz(control, variant, alpha),
        control: wilson(control, alpha)?,
        variant: wilson(variant, alpha)?,
    })
}

/// The test and its two-sided p-value: the pooled z, or Fisher's exact test when a cell is expected
/// to hold fewer than 5. [`NoAnswer::TooFewUnits`] when an arm has no trials.
pub fn test(control: Counts, variant: Counts) -> Result<(Test, f64), NoAnswer> {
    let (control_share, variant_share) = (share(control)?, share(variant)?);
    let mut both = control;
    both.merge(variant);
    let smaller_arm = real(control.trials().min(variant.trials()));
    let rarer = real(both.successes().min(both.failures()));
    if smaller_arm * rarer / real(both.trials()) < EXPECTED_MIN {
        return Ok((Test::FisherExact, fisher(control, variant)));
    }
    let pooled = share(both)?;
    let weight = 1.0 / real(control.trials()) + 1.0 / real(variant.trials());
    let z = (variant_share - control_share) / (pooled * (1.0 - pooled) * weight).sqrt();
    Ok((Test::PooledZ(z), normal_two_sided(z)))
}

/// Fisher's exact test (1935), two-sided: all tables with these margins that are at most as
/// probable.
fn fisher(control: Counts, variant: Counts) -> f64 {
    let successes = control.successes() + variant.successes();
    let (own, other) = (variant.trials(), control.trials());
    let least = successes.saturating_sub(other);
    let most = successes.min(own);
    // Probabilities relative to the first table; each follows from the one before. Their logarithms
    // are kept because the first may be very improbable.
    let mut logs = vec![0.0];
    let mut at = 0.0;
    for count in least..most {
        let up = real(own - count) * real(successes - count);
        let down = real(count + 1) * real(other + count + 1 - successes);
        at += (up / down).ln();
        logs.push(at);
    }
    let peak = logs.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let position = usize::try_from(variant.successes() - least).unwrap_or(usize::MAX);
    let observed = logs.get(position).map_or(0.0, |log| (log - peak).exp());
    let chances = || logs.iter().map(|log| (log - peak).exp());
    let at_most: f64 = chances().filter(|chance| *chance <= observed * AS_PROBABLE).sum();
    (at_most / chances().sum::<f64>()).min(1.0)
}

/// The score interval of one share (Wilson, 1927). [`NoAnswer::TooFewUnits`] without trials.
pub fn wilson(counts: Counts, alpha: Alpha) -> Result<Interval, NoAnswer> {
    let share = share(counts)?;
    let trials = real(counts.trials());
    let z = normal_critical(alpha);
    let square = z * z;
    let centre = share + square / (2.0 * trials);
    let half = z * (share * (1.0 - share) / trials + square / (4.0 * trials * trials)).sqrt();
    let scale = 1.0 + square / trials;
    let interval = Interval::around(centre / scale, half / scale);
    Ok(Interval { low: interval.low.max(0.0), high: interval.high.min(1.0) })
}

/// The hybrid score interval of variant minus control (Newcombe, 1998, his method 10).
/// [`NoAnswer::TooFewUnits`] when an arm has no trials.
pub fn newcombe(control: Counts, variant: Counts, alpha: Alpha) -> Result<Interval, NoAnswer> {
    let (of_control, of_variant) = (share(control)?, share(variant)?);
    let (around_control, around_variant) = (wilson(control, alpha)?, wilson(variant, alpha)?);
    let difference = of_variant - of_control;
    let down = (of_variant - around_variant.low).hypot(around_control.high - of_control);
    let up = (around_variant.high - of_variant).hypot(of_control - around_control.low);
    Ok(Interval { low: difference - down, high: difference + up })
}

/// The interval of variant / control - 1 from the normal logarithm of the ratio (Katz, Baptista,
/// Azen and Pike, 1978). `None` when an arm has no success.
pub fn katz(control: Counts, variant: Counts, alpha: Alpha) -> Option<Interval> {
    if control.successes() == 0 || variant.successes() == 0 {
        return None;
    }
    let spread = |counts: Counts| 1.0 / real(counts.successes()) - 1.0 / real(counts.trials());
    let ln_ratio = (variant.share()? / control.share()?).ln();
    let half = normal_critical(alpha) * (spread(control) + spread(variant)).sqrt();
    Some(Interval { low: (ln_ratio - half).exp_m1(), high: (ln_ratio + half).exp_m1() })
}

fn share(counts: Counts) -> Result<f64, NoAnswer> {
    counts.share().ok_or(NoAnswer::TooFewUnits)
}

#[cfg(test)]
mod tests {
    use super::{Test, compare, katz, newcombe, test, wilson};
    use crate::statistics::tests::{assert_interval, assert_near, counts};
    use crate::statistics::{Alpha, Counts, NoAnswer};

    const ALPHA: Alpha = Alpha::FIVE_PERCENT;

    /// Section 7.10.
    #[test]
    fn known_answers() {
        let large = compare(counts(440, 500), counts(462, 500), ALPHA).unwrap();
        let Test::PooledZ(z) = large.test else { panic!("the cells are large") };
        assert_near(z, 2.339_949, 5e-7);
        assert_near(large.p, 0.019_286_4, 3e-6);
        assert_near(large.difference, 0.044, 1e-12);
        assert_interval(large.interval, (0.007_067_4, 0.081_315_5), 5e-6);
        assert_interval(large.lift.unwrap(), (0.007_837_8, 0.093_926_0), 5e-6);
        let (small, p) = test(counts(7, 12), counts(12, 12)).unwrap();
        assert_eq!(small, Test::FisherExact);
        assert_near(p, 0.037_267_1, 2e-6);
    }

    /// By statsmodels 0.15.0 (`proportion_confint`, `confint_proportions_2indep`) and scipy 1.17.1
    /// (`fisher_exact`).
    #[test]
    fn agrees_with_statsmodels_and_scipy() {
        for (counts, expected) in [
            (counts(440, 500), (0.848_580_401_375_589_4, 0.905_625_099_873_630_9)),
            (counts(0, 20), (0.0, 0.161_125_158_052_819_4)),
            (counts(20, 20), (0.838_874_841_947_180_4, 1.0)),
        ] {
            assert_interval(wilson(counts, ALPHA).unwrap(), expected, 1e-12);
        }
        let rare = newcombe(counts(0, 30), counts(1, 20), ALPHA).unwrap();
        assert_interval(rare, (-0.070_731_212_545_015_2, 0.236_131_193_446_742_1), 1e-10);
        for (control, variant, expected) in [
            ((1, 200), (9, 800), 0.696_490_084_002_387_3),
            ((3, 10_000), (0, 10), 1.0),
            ((3, 10_000), (10, 10), 1.032_146_351_982_5e-31),
        ] {
            let p = |one: (u64, u64), other: (u64, u64)| {
                test(counts(one.0, one.1), counts(other.0, other.1)).unwrap().1
            };
            assert_near(p(control, variant), expected, 1e-9);
            assert_near(p(variant, control), expected, 1e-9);
        }
    }

    #[test]
    fn edges() {
        assert_eq!(test(Counts::default(), counts(1, 2)), Err(NoAnswer::TooFewUnits));
        assert_near(test(counts(500, 500), counts(400, 400)).unwrap().1, 1.0, 1e-12);
        assert!(katz(counts(0, 500), counts(3, 500), ALPHA).is_none());
        assert!(Counts::new(3, 2).is_none());
        // Rare failures among millions: the exact test stays quick.
        let (rare, p) = test(counts(4_999_997, 5_000_000), counts(4_999_999, 5_000_000)).unwrap();
        assert_eq!(rare, Test::FisherExact);
        assert_near(p, 0.625, 1e-6);
    }
}
