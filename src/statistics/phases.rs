//! Several phases of one experiment, with splits of their own, as one comparison.

use super::estimate::pooled_df;
use super::{Comparison, Estimate, real};

/// Each phase's comparison weighted by its share of all units; variances add with squared weights.
///
/// Never pool the units of phases: with 90/10, then 10/90, and a base rate that fell in between, a
/// variant that is better in both phases can lose when pooled. A phase that gives no comparison is
/// left out by the caller, who says so. `None` without phases.
pub fn combine(phases: &[Comparison]) -> Option<Comparison> {
    let pairs: Vec<[Estimate; 2]> =
        phases.iter().map(|phase| [phase.control(), phase.variant()]).collect();
    let [control, variant] = weigh_pairs(&pairs)?;
    Comparison::new(control, variant).ok()
}

/// The two arms' estimates of all phases, control's first, weighted in the same way: also of phases that
/// give no comparison. `None` without units.
pub fn weigh_pairs(phases: &[[Estimate; 2]]) -> Option<[Estimate; 2]> {
    let units = |[control, variant]: &[Estimate; 2]| control.units + variant.units;
    let all: u64 = phases.iter().map(units).sum();
    let share = |pair| real(units(pair)) / real(all);
    let arm = |pick: fn(&[Estimate; 2]) -> Estimate| {
        weigh(&phases.iter().map(|pair| (share(pair), pick(pair))).collect::<Vec<_>>())
    };
    (all > 0).then(|| [arm(|[control, _]| *control), arm(|[_, variant]| *variant)])
}

fn weigh(parts: &[(f64, Estimate)]) -> Estimate {
    let variance = |(weight, part): &(f64, Estimate)| weight * weight * part.variance;
    Estimate {
        value: parts.iter().map(|(weight, part)| weight * part.value).sum(),
        variance: parts.iter().map(variance).sum(),
        units: parts.iter().map(|(_, part)| part.units).sum(),
        df: pooled_df(parts.iter().map(|part| (variance(part), part.1.df))),
    }
}

#[cfg(test)]
mod tests {
    use super::combine;
    use crate::statistics::tests::{assert_near, counts};
    use crate::statistics::{Alpha, Analysis, Comparison, Scale};

    fn phase(control: (u64, u64), variant: (u64, u64)) -> Comparison {
        let estimate = |(successes, trials)| counts(successes, trials).estimate().unwrap();
        Comparison::new(estimate(control), estimate(variant)).unwrap()
    }

    /// Section 7.7: the base falls from 95 % to 75 % while the split turns from 90/10 to 10/90.
    #[test]
    fn a_variant_better_in_each_phase_is_better_in_all() {
        let phases = [phase((8550, 9000), (960, 1000)), phase((750, 1000), (6840, 9000))];
        let both = combine(&phases).unwrap();
        assert_near(both.difference(), 0.01, 1e-12);
        // By hand: half the square root of the four variances p (1 - p) / (n - 1).
        let variances =
            [0.95 * 0.05 / 8999.0, 0.96 * 0.04 / 999.0, 0.1875 / 999.0, 0.1824 / 8999.0];
        assert_near(both.se(), 0.5 * variances.iter().sum::<f64>().sqrt(), 1e-12);
        assert_eq!(both.units(), 20_000);
        let pooled = phase((9300, 10_000), (7800, 10_000));
        assert!(pooled.difference() < -0.1, "{}", pooled.difference());
    }

    #[test]
    fn one_phase_is_itself() {
        let one = phase((440, 500), (462, 500));
        let combined = combine(&[one]).unwrap();
        let answer = |of: &Comparison| {
            Analysis::Fixed.answer(of, Alpha::FIVE_PERCENT, Scale::Linear).unwrap()
        };
        assert_eq!(answer(&combined), answer(&one));
        assert!(combine(&[]).is_none());
    }
}
