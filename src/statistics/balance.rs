//! Whether the arms hold as many units as their weights call for (sample ratio mismatch).
//!
//! Assignment is a hash and exact; what is missing was lost on the way, and hardly by chance. Each
//! phase is tested by its own weights.

use super::health::Health;
use super::special::ln_gamma;
use super::tails::chi_square_above;
use super::{NoAnswer, real};

/// Below this p, the phase is invalid.
const INVALID_P: f64 = 0.001;
/// Below this p, a warning.
const WARNING_P: f64 = 0.01;
/// Fewer units say nothing.
const UNITS_MIN: u64 = 100;
/// A tenth of a percentage point: smaller deviations do no harm.
const DEVIATION_MIN: f64 = 0.001;
/// How sure the prior of the sequential test is that weights are what was configured.
const CONCENTRATION: f64 = 10_000.0;

/// One arm of a phase.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Share {
    /// Units that were counted.
    pub units: u64,
    /// The configured weight, on any scale that all arms share.
    pub weight: u32,
}

/// How well units fit weights, looked at once.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Balance {
    /// Pearson's statistic; infinite when an arm of weight 0 has units.
    pub chi_square: f64,
    /// Its p-value.
    pub p: f64,
    /// The largest distance of an arm's share from its weight, 0 to 1.
    pub deviation: f64,
    /// What that means.
    pub health: Health,
}

/// How well units fit weights, looked at any number of times.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SequentialBalance {
    /// ln of the Bayes factor against the weights.
    pub ln_bayes_factor: f64,
    /// The always-valid p at this look. The smallest of all looks is valid as well.
    pub p: f64,
    /// [`Health::Invalid`] when p is below 0.001: the automatic alarm.
    pub health: Health,
}

/// The chi-square test (Pearson, 1900; Fabijan et al., 2019). [`NoAnswer::NoSplit`] unless two arms
/// have a weight, [`NoAnswer::TooFewUnits`] without units.
pub fn check(arms: &[Share]) -> Result<Balance, NoAnswer> {
    let expected = expected(arms)?;
    let all = units(arms);
    if all == 0 {
        return Err(NoAnswer::TooFewUnits);
    }
    let mut chi_square = 0.0;
    let mut deviation: f64 = 0.0;
    for (arm, share) in arms.iter().zip(&expected) {
        let gap = real(arm.units) - share * real(all);
        deviation = deviation.max(gap.abs() / real(all));
        if gap.abs() > 0.0 {
            chi_square += gap * gap / (share * real(all));
        }
    }
    let weighted = expected.iter().filter(|share| **share > 0.0).count();
    let p = chi_square_above(chi_square, real(weighted as u64) - 1.0);
    let health = match all {
        0..UNITS_MIN => Health::TooEarly,
        _ if p < INVALID_P && deviation >= DEVIATION_MIN => Health::Invalid,
        _ if p < WARNING_P => Health::Warning,
        _ => Health::Sound,
    };
    Ok(Balance { chi_square, p, deviation, health })
}

/// The Bayes factor of a Dirichlet-multinomial with concentration 10 000 around the weights against
/// the weights themselves (Lindon and Malek, 2022). [`NoAnswer::NoSplit`] unless two arms have a
/// weight.
pub fn check_sequentially(arms: &[Share]) -> Result<SequentialBalance, NoAnswer> {
    let expected = expected(arms)?;
    let mut ln_bayes_factor = ln_gamma(CONCENTRATION) - ln_gamma(CONCENTRATION + real(units(arms)));
    for (arm, share) in arms.iter().zip(&expected).filter(|(arm, _)| arm.units > 0) {
        if *share <= 0.0 {
            ln_bayes_factor = f64::INFINITY;
            break;
        }
        let (prior, count) = (CONCENTRATION * share, real(arm.units));
        ln_bayes_factor += ln_gamma(prior + count) - ln_gamma(prior) - count * share.ln();
    }
    let p = (-ln_bayes_factor).exp().min(1.0);
    let health = if p < INVALID_P { Health::Invalid } else { Health::Sound };
    Ok(SequentialBalance { ln_bayes_factor, p, health })
}

fn units(arms: &[Share]) -> u64 {
    arms.iter().map(|arm| arm.units).sum()
}

fn expected(arms: &[Share]) -> Result<Vec<f64>, NoAnswer> {
    if arms.iter().filter(|arm| arm.weight > 0).count() < 2 {
        return Err(NoAnswer::NoSplit);
    }
    let all: f64 = arms.iter().map(|arm| f64::from(arm.weight)).sum();
    Ok(arms.iter().map(|arm| f64::from(arm.weight) / all).collect())
}

#[cfg(test)]
mod tests {
    use super::{Share, check, check_sequentially};
    use crate::statistics::NoAnswer;
    use crate::statistics::health::Health;
    use crate::statistics::tests::assert_near;

    fn arms<const N: usize>(units: [u64; N], weights: [u32; N]) -> Vec<Share> {
        units.into_iter().zip(weights).map(|(units, weight)| Share { units, weight }).collect()
    }

    /// Section 7.10.
    #[test]
    fn known_answers() {
        let two = check(&arms([10_250, 9750], [50_000, 50_000])).unwrap();
        assert_near(two.p, 0.000_406_95, 2e-5);
        assert_eq!(two.health, Health::Invalid);
        let three = check(&arms([5150, 2890, 1960], [50_000, 30_000, 20_000])).unwrap();
        assert_near(three.p, 0.009_403_56, 1e-6);
        assert_eq!(three.health, Health::Warning);
    }

    #[test]
    fn little_and_small_do_not_void() {
        let few = check(&arms([80, 19], [1, 1])).unwrap();
        assert!(few.p < 1e-8);
        assert_eq!(few.health, Health::TooEarly);
        // 0.09 percentage points off.
        let near = check(&arms([5_009_000, 4_991_000], [1, 1])).unwrap();
        assert!(near.p < 1e-7);
        assert_eq!(near.health, Health::Warning);
        let exact = check(&arms([500, 300, 200, 0], [50, 30, 20, 0])).unwrap();
        assert_near(exact.p, 1.0, 1e-12);
        assert_eq!(exact.health, Health::Sound);
    }

    #[test]
    fn units_where_none_belong_void() {
        let stray = arms([500, 480, 20], [50, 50, 0]);
        assert_eq!(check(&stray).unwrap().health, Health::Invalid);
        assert_eq!(check_sequentially(&stray).unwrap().health, Health::Invalid);
        assert_eq!(check(&arms([500, 0], [50, 0])), Err(NoAnswer::NoSplit));
        assert_eq!(check(&arms([0, 0], [50, 50])), Err(NoAnswer::TooFewUnits));
    }

    /// By scipy 1.17.1: sums of `gammaln`.
    #[test]
    fn the_sequential_test_agrees_with_scipy() {
        for (arms, expected, health) in [
            (arms([10_250, 9750], [1, 1]), 3.617_675_689_558_382, Health::Sound),
            (arms([5150, 2890, 1960], [50, 30, 20]), 1.648_286_191_113_584_2, Health::Sound),
            (arms([512_000, 488_000], [1, 1]), 282.868_053_155_753_5, Health::Invalid),
        ] {
            let sequential = check_sequentially(&arms).unwrap();
            assert_near(sequential.ln_bayes_factor, expected, 1e-8);
            assert_eq!(sequential.health, health);
        }
        assert_near(check_sequentially(&arms([0, 0], [1, 1])).unwrap().p, 1.0, 1e-12);
    }
}
