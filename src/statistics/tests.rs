//! Answers known beforehand, and what the parts promise together.

use super::health::Health;
use super::nulls::{self, Chance, Data, Seen};
use super::uniformity;
use super::{
    Alpha, Analysis, Better, Comparison, Counts, Estimate, Interval, MeanSums, NoAnswer, RatioSums,
    Scale, Sequence,
};

const ALPHA: Alpha = Alpha::FIVE_PERCENT;

/// Asserts equality up to a relative error.
#[track_caller]
pub(super) fn assert_near(value: f64, expected: f64, relative: f64) {
    let near = (value - expected).abs() <= relative * expected.abs().max(f64::MIN_POSITIVE);
    assert!(near, "{value:?} is not {expected:?}");
}

#[track_caller]
pub(super) fn assert_interval(interval: Interval, expected: (f64, f64), relative: f64) {
    for (end, expected) in [(interval.low, expected.0), (interval.high, expected.1)] {
        let near = (end - expected).abs() <= relative * expected.abs().max(1e-12);
        assert!(near, "{interval:?} is not {expected:?}");
    }
}

pub(super) fn counts(successes: u64, trials: u64) -> Counts {
    Counts::new(successes, trials).unwrap()
}

/// Values with their standard errors.
pub(super) fn comparison(control: (f64, f64), variant: (f64, f64)) -> Comparison {
    comparison_of(1000, (control.0, control.1 * control.1), (variant.0, variant.1 * variant.1))
}

/// Values with their variances, so many units in each arm.
pub(super) fn comparison_of(units: u64, control: (f64, f64), variant: (f64, f64)) -> Comparison {
    let of = |(value, variance)| Estimate { value, variance, units, df: f64::INFINITY };
    Comparison::new(of(control), of(variant)).unwrap()
}

/// Values by a congruence, three to seven per unit, units of their own level.
pub(crate) fn clustered(seed: u64) -> Vec<Vec<f64>> {
    let mut state = seed;
    let mut next = || {
        state = (state * 16_807) % 2_147_483_647;
        state
    };
    (0..200)
        .map(|_| {
            let level = f64::from(u32::try_from(next() % 400).unwrap());
            let count = 3 + next() % 5;
            (0..count).map(|_| level + f64::from(u32::try_from(next() % 300).unwrap())).collect()
        })
        .collect()
}

fn between(control: Result<Estimate, NoAnswer>, variant: Result<Estimate, NoAnswer>) -> Comparison {
    Comparison::new(control.unwrap(), variant.unwrap()).unwrap()
}

fn ratios(units: &[(f64, f64)]) -> RatioSums {
    let mut sums = RatioSums::default();
    for (d, x) in units {
        sums.add(*d, *x);
    }
    sums
}

/// Section 7.10.
#[test]
fn welch() {
    let control = MeanSums::of(800, 410.0, 250.0);
    let variant = MeanSums::of(820, 385.0, 240.0);
    let one = between(control.estimate(), variant.estimate());
    assert_near(one.difference() / one.se(), -2.052_431, 5e-7);
    assert_near(one.df(), 1611.0913, 5e-8);
    let answer = Analysis::Fixed.answer(&one, ALPHA, Scale::Linear).unwrap();
    assert_near(answer.p, 0.040_289_0, 2e-6);
    assert_interval(answer.interval, (-48.891_638, -1.108_362), 5e-7);
    let lift = answer.lift_range.interval().unwrap();
    assert_interval(lift, (-0.115_798_4, -0.002_788_8), 2e-5);
    assert_near(answer.lift.unwrap(), -25.0 / 410.0, 1e-9);
}

/// Section 7.10.
#[test]
fn delta() {
    let control = ratios(&[(3.0, 3.0), (1.0, 0.0), (5.0, 4.0), (2.0, 2.0), (4.0, 4.0), (1.0, 1.0)]);
    let variant = ratios(&[(2.0, 2.0), (6.0, 6.0), (1.0, 1.0), (3.0, 2.0), (2.0, 2.0)]);
    let one = between(control.estimate(), variant.estimate());
    assert_near(one.control().value, 0.875, 1e-12);
    assert_near(one.variant().value, 0.928_571_4, 5e-8);
    assert_near(one.se(), 0.108_842_6, 5e-7);
    let answer = Analysis::Fixed.answer(&one, ALPHA, Scale::Linear).unwrap();
    assert_near(answer.p, 0.622_583_8, 1e-7);
}

/// By scipy 1.17.1, `ttest_ind` of the logarithms without equal variances, and `exp` of its
/// interval.
#[test]
fn geometric_means() {
    let mut arms = [MeanSums::default(); 2];
    let values = [[120.0, 340.0, 95.0, 410.0, 230.0], [180.0, 520.0, 260.0, 610.0, 300.0]];
    for (arm, values) in arms.iter_mut().zip(values) {
        for value in values {
            arm.add(f64::ln(value));
        }
    }
    let one = between(arms[0].estimate(), arms[1].estimate());
    let answer = Analysis::Fixed.answer(&one, ALPHA, Scale::Log).unwrap();
    assert_near(one.df(), 7.590_405_898_208_877, 1e-10);
    assert_near(answer.p, 0.208_133_343_846_947_87, 1e-10);
    assert_near(answer.lift.unwrap(), 0.648_773_372_662_152_5, 1e-10);
    assert_interval(
        answer.lift_range.interval().unwrap(),
        (-0.292_536_875_900_262_7, 2.842_537_570_928_551_6),
        1e-9,
    );
}

#[test]
fn sums_merge_as_if_added_one_by_one() {
    let units = [(3.0, 3.0), (1.0, 0.0), (5.0, 4.0), (2.0, 2.0)];
    let (head, tail) = units.split_at(1);
    let mut merged = ratios(head);
    merged.merge(ratios(tail));
    assert_eq!(merged, ratios(&units));
    let mut means = MeanSums::default();
    let mut other = MeanSums::default();
    let mut whole = MeanSums::default();
    for (index, x) in [4.0, 8.0, 1.0, 2.0].into_iter().enumerate() {
        let part = if index < 2 { &mut means } else { &mut other };
        part.add(x);
        whole.add(x);
    }
    means.merge(other);
    assert_eq!(means, whole);
    let mut shares = counts(2, 3);
    shares.add(true);
    shares.merge(counts(0, 4));
    assert_eq!(shares, counts(3, 8));
    // One call per unit: the delta method and the share agree.
    let one_each = ratios(&[(1.0, 1.0), (1.0, 0.0), (1.0, 1.0), (1.0, 1.0)]).estimate().unwrap();
    let share = counts(3, 4).estimate().unwrap();
    assert_near(one_each.value, share.value, 1e-12);
    assert_near(one_each.variance, share.variance, 1e-12);
}

#[test]
fn what_cannot_be_answered_says_why() {
    assert_eq!(ratios(&[(1.0, 1.0)]).estimate(), Err(NoAnswer::TooFewUnits));
    assert_eq!(ratios(&[(0.0, 0.0), (0.0, 0.0)]).estimate(), Err(NoAnswer::NoDenominator));
    assert_eq!(ratios(&[(1.0, 1.0), (1.0, f64::NAN)]).estimate(), Err(NoAnswer::NotFinite));
    assert_eq!(counts(1, 1).estimate(), Err(NoAnswer::TooFewUnits));
    let certain = counts(500, 500).estimate().unwrap();
    assert_eq!(Comparison::new(certain, certain), Err(NoAnswer::NoSpread));
    // A cost that never varies, summed with rounding: no spread, and no effect made of it.
    let mut costs = [MeanSums::default(); 2];
    (0..1000).for_each(|index| costs[usize::from(index < 300)].add(0.1));
    let [control, variant] = costs.map(|arm| arm.estimate().unwrap());
    assert_eq!(Comparison::new(control, variant), Err(NoAnswer::NoSpread));
}

#[test]
fn a_variant_that_always_fails_is_seen() {
    let control = ratios(&[(2.0, 2.0); 100]).estimate();
    let variant = ratios(&[(2.0, 0.0); 100]).estimate();
    let sequence = Analysis::Sequential(Sequence::new(None, ALPHA));
    let answer = sequence.answer(&between(control, variant), ALPHA, Scale::Linear).unwrap();
    assert!(answer.p < 1e-6, "{answer:?}");
    assert!(answer.harms(Better::Higher, 0.0));
    assert!(answer.harms(Better::Higher, 0.5));
    assert!(!answer.harms(Better::Lower, 0.0));
    assert!(!answer.harms(Better::Higher, 0.9));
}

/// Section 7.10 through the whole path: sums, comparison, sequence, lift.
#[test]
fn p_interval_and_lift_decide_alike() {
    let sequence = Analysis::Sequential(Sequence::new(None, ALPHA));
    for analysis in [Analysis::Fixed, sequence] {
        let mut significant = 0;
        for successes in 820..=980 {
            let one = between(counts(900, 1000).estimate(), counts(successes, 1000).estimate());
            for alpha in [ALPHA, ALPHA.split(3)] {
                let answer = analysis.answer(&one, alpha, Scale::Linear).unwrap();
                let decided = answer.p < alpha.share();
                significant += u32::from(decided);
                assert_eq!(decided, !answer.interval.contains(0.0));
                assert_eq!(decided, !answer.lift_range.contains(0.0));
            }
        }
        assert!((100..300).contains(&significant), "{significant}");
    }
}

#[test]
fn looking_all_the_time_raises_no_false_alarms() {
    const RUNS: u32 = 300;
    let sequence = Analysis::Sequential(Sequence::new(None, ALPHA));
    let data = [
        Data::Success(0.95),
        Data::Latency { sigma: 1.0, cap: f64::INFINITY },
        Data::LogLatency,
        Data::ReturningSuccess,
        Data::ReturningLatency,
    ];
    for data in data {
        let runs: Vec<Seen> =
            (0..RUNS).map(|seed| nulls::run(data, sequence, 2400, u64::from(seed))).collect();
        let count = |saw: fn(&Seen) -> bool| runs.iter().filter(|seen| saw(seen)).count();
        // 5 % of 300 and three deviations; the usual test, peeked at, does far worse.
        let (ours, peeked) = (count(|seen| seen.ours), count(|seen| seen.peeked));
        assert!(ours <= 26, "{data:?}: {ours} false alarms");
        assert!(peeked >= 45, "{data:?}: the usual test raised {peeked} only");
    }
}

#[test]
fn without_an_effect_p_values_spread_evenly() {
    let p_values: Vec<f64> = (0..400)
        .map(|seed| {
            let mut chance = Chance::new(seed);
            let mut arms = [MeanSums::default(); 2];
            for arm in &mut arms {
                (0..200).for_each(|_| arm.add(chance.normal()));
            }
            let one = between(arms[0].estimate(), arms[1].estimate());
            Analysis::Fixed.answer(&one, ALPHA, Scale::Log).unwrap().p
        })
        .collect();
    let uniformity = uniformity::check(&p_values).unwrap();
    assert!(uniformity.p > 0.01, "{uniformity:?}");
}

#[test]
fn words() {
    assert_eq!(Health::Invalid.name(), "invalid");
    assert!(
        Alpha::new(0.0).is_none() && Alpha::new(1.0).is_none() && Alpha::new(f64::NAN).is_none()
    );
}
