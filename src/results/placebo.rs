//! Experiments without a difference, made of recorded calls: the same calls, split by many salts, through
//! the same analysis. It must see nothing more often than it promises.

use std::collections::HashMap;

use serde::Serialize;

use super::metric::count;
use crate::experiment::{BUCKETS, Purpose, bucket};
use crate::statistics::balance::{self, Share};
use crate::statistics::{
    Alpha, Analysis, Comparison, Estimate, MeanSums, NoAnswer, RatioSums, Scale, Sequence,
    uniformity,
};

/// Below this p, p-values are not spread evenly.
const UNEVEN_P: f64 = 0.01;
/// Deviations of a share of false alarms that are put up with as chance.
const DEVIATIONS: f64 = 3.0;
/// A split this improbable is counted as out of balance.
const BALANCE_P: f64 = 0.01;

/// What is needed of a call.
#[derive(Debug, Clone, PartialEq)]
pub struct Call {
    /// Whose.
    pub unit: String,
    /// Whether it succeeded.
    pub success: bool,
    /// How long it took, if it reached Gemini.
    pub response_ms: Option<f64>,
    /// What it cost, if that is known.
    pub cost_usd: Option<f64>,
}

/// How it is tried.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Trial {
    /// Splits.
    pub salts: u32,
    /// Looks at each, evenly over the calls.
    pub looks: u32,
    /// The share of false alarms that is promised.
    pub alpha: Alpha,
}

/// What came of it.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[expect(missing_docs, reason = "the names say it; docs/experiments-numbers.md explains them")]
pub struct Placebo {
    pub executions: usize,
    pub units: usize,
    pub salts: u32,
    pub looks: u32,
    pub alpha: f64,
    pub metrics: Vec<MetricPlacebo>,
    pub balance: BalancePlacebo,
    /// Whether everything is as promised.
    pub passed: bool,
}

/// One metric over all splits.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[expect(missing_docs, reason = "the names say it; docs/experiments-numbers.md explains them")]
pub struct MetricPlacebo {
    pub metric: &'static str,
    /// Splits that gave an answer at the last look.
    pub answered: usize,
    /// False alarms of the usual test at the last look.
    pub fixed_false_positive_rate: Option<f64>,
    /// False alarms of the confidence sequence at any look.
    pub sequential_false_positive_rate: Option<f64>,
    /// The largest distance of the p-values from an even spread, and how probable it is.
    pub uniformity_distance: Option<f64>,
    pub uniformity_p: Option<f64>,
    pub passed: bool,
}

/// How evenly the splits divide units.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[expect(missing_docs, reason = "the names say it; docs/experiments-numbers.md explains them")]
pub struct BalancePlacebo {
    /// Splits whose chi-square test has a p below 0.01: a hundredth of them is chance.
    pub out_of_balance_rate: f64,
    pub largest_deviation: f64,
    pub passed: bool,
}

/// What one unit did up to a look.
#[derive(Debug, Clone, Copy, Default)]
struct Tally {
    executions: u64,
    successes: u64,
    attempted: u64,
    log_ms: f64,
    priced: u64,
    cost_usd: f64,
}

/// Sums of one arm.
#[derive(Debug, Clone, Copy, Default)]
struct Arm {
    units: u64,
    success: RatioSums,
    time: MeanSums,
    cost: RatioSums,
}

/// A metric of an arm, by name and scale.
type Reading = (&'static str, Scale, fn(&Arm) -> Result<Estimate, NoAnswer>);

const READINGS: [Reading; 3] = [
    ("success_rate", Scale::Linear, |arm| arm.success.estimate()),
    ("response_time", Scale::Log, |arm| arm.time.estimate()),
    ("cost", Scale::Linear, |arm| arm.cost.estimate()),
];

/// Half of the units by their bucket, as an experiment with this salt would.
pub fn by_hash(salt: u32, unit: &str) -> bool {
    bucket(Purpose::Variant, &format!("aa-{salt}"), unit) >= BUCKETS / 2
}

/// Splits `calls`, in the order they came, once for each salt; `is_variant` says which units see the
/// placebo.
pub fn placebo(calls: &[Call], trial: Trial, is_variant: impl Fn(u32, &str) -> bool) -> Placebo {
    let (units, looks) = tallies(calls, trial.looks.max(1));
    let sequence = Sequence::new(None, trial.alpha);
    let mut p_values: [Vec<f64>; 3] = Default::default();
    let mut alarms = [0_u64; 3];
    let (mut uneven, mut largest) = (0_u64, 0.0_f64);
    for salt in 0..trial.salts {
        let sides: Vec<bool> = units.iter().map(|unit| is_variant(salt, unit)).collect();
        let mut seen = [false; 3];
        for (index, look) in looks.iter().enumerate() {
            let arms = split(look, &sides);
            for ((reading, seen), p_values) in READINGS.iter().zip(&mut seen).zip(&mut p_values) {
                let Some(comparison) = compare(&arms, reading) else { continue };
                let answer = |analysis: Analysis| {
                    analysis.answer(&comparison, trial.alpha, reading.1).ok().map(|one| one.p)
                };
                let always = answer(Analysis::Sequential(sequence));
                *seen |= always.is_some_and(|p| p < trial.alpha.share());
                if index + 1 == looks.len() {
                    p_values.extend(answer(Analysis::Fixed));
                }
            }
        }
        for (alarms, seen) in alarms.iter_mut().zip(seen) {
            *alarms += u64::from(seen);
        }
        if let Some(balance) = looks.last().and_then(|look| balanced(&split(look, &sides))) {
            uneven += u64::from(balance.p < BALANCE_P);
            largest = largest.max(balance.deviation);
        }
    }
    let metrics: Vec<MetricPlacebo> = READINGS
        .iter()
        .zip(p_values.iter().zip(alarms))
        .map(|((name, ..), (p_values, alarms))| judge(name, p_values, alarms, trial))
        .collect();
    let rate = count(uneven) / f64::from(trial.salts.max(1));
    let balance = BalancePlacebo {
        out_of_balance_rate: rate,
        largest_deviation: largest,
        passed: rate <= allowed(BALANCE_P, trial.salts),
    };
    Placebo {
        executions: calls.len(),
        units: units.len(),
        salts: trial.salts,
        looks: trial.looks,
        alpha: trial.alpha.share(),
        passed: balance.passed && metrics.iter().all(|one| one.passed),
        metrics,
        balance,
    }
}

/// The units, and what each had done by each look.
fn tallies(calls: &[Call], looks: u32) -> (Vec<&str>, Vec<Vec<Tally>>) {
    let mut places: HashMap<&str, usize> = HashMap::new();
    let mut units: Vec<&str> = Vec::new();
    let mut now: Vec<Tally> = Vec::new();
    let mut seen: Vec<Vec<Tally>> = Vec::new();
    let stride = calls.len().div_ceil(looks as usize).max(1);
    for (index, call) in calls.iter().enumerate() {
        let place = *places.entry(&call.unit).or_insert_with(|| {
            units.push(&call.unit);
            now.push(Tally::default());
            units.len() - 1
        });
        if let Some(tally) = now.get_mut(place) {
            tally.add(call);
        }
        if (index + 1).is_multiple_of(stride) || index + 1 == calls.len() {
            seen.push(now.clone());
        }
    }
    (units, seen)
}

impl Tally {
    fn add(&mut self, call: &Call) {
        self.executions += 1;
        self.successes += u64::from(call.success);
        if let Some(ms) = call.response_ms {
            self.attempted += 1;
            self.log_ms += ms.max(0.001).ln();
        }
        if let Some(cost) = call.cost_usd {
            self.priced += 1;
            self.cost_usd += cost;
        }
    }
}

/// Both arms at one look. Units that came later are not in it.
fn split(look: &[Tally], sides: &[bool]) -> [Arm; 2] {
    let mut arms = [Arm::default(); 2];
    for (tally, side) in look.iter().zip(sides) {
        let [control, variant] = &mut arms;
        let arm = if *side { variant } else { control };
        arm.units += 1;
        arm.success.add(count(tally.executions), count(tally.successes));
        if tally.attempted > 0 {
            arm.time.add(tally.log_ms / count(tally.attempted));
        }
        if tally.priced > 0 {
            arm.cost.add(count(tally.priced), tally.cost_usd);
        }
    }
    arms
}

fn compare([control, variant]: &[Arm; 2], reading: &Reading) -> Option<Comparison> {
    let (_, _, estimate) = reading;
    Comparison::new(estimate(control).ok()?, estimate(variant).ok()?).ok()
}

fn balanced(arms: &[Arm; 2]) -> Option<balance::Balance> {
    let shares = arms.map(|arm| Share { units: arm.units, weight: BUCKETS / 2 });
    balance::check(&shares).ok()
}

fn judge(metric: &'static str, p_values: &[f64], alarms: u64, trial: Trial) -> MetricPlacebo {
    let alpha = trial.alpha.share();
    let spread = uniformity::check(p_values);
    let of = |alarms: u64| count(alarms) / f64::from(trial.salts.max(1));
    let fixed = p_values.iter().filter(|p| **p < alpha).count() as u64;
    let answered = !p_values.is_empty();
    let limit = allowed(alpha, trial.salts);
    MetricPlacebo {
        metric,
        answered: p_values.len(),
        fixed_false_positive_rate: answered.then(|| of(fixed)),
        sequential_false_positive_rate: answered.then(|| of(alarms)),
        uniformity_distance: spread.map(|one| one.distance),
        uniformity_p: spread.map(|one| one.p),
        // A metric of which these calls say nothing is no failure.
        passed: !answered
            || (of(alarms) <= limit
                && of(fixed) <= limit
                && spread.is_some_and(|one| one.p >= UNEVEN_P)),
    }
}

/// A rate of `share` in so many tries, with what chance adds.
fn allowed(share: f64, tries: u32) -> f64 {
    share + DEVIATIONS * (share * (1.0 - share) / f64::from(tries.max(1))).sqrt()
}

#[cfg(test)]
mod tests {
    use super::{Call, Trial, by_hash, placebo};
    use crate::statistics::Alpha;

    const TRIAL: Trial = Trial { salts: 300, looks: 10, alpha: Alpha::FIVE_PERCENT };

    /// Users who come back, each with a level of their own.
    fn calls() -> Vec<Call> {
        let mut state = 3_u64;
        let mut below = |bound: u64| {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            u32::try_from((state >> 33) % bound).unwrap()
        };
        (0..6000)
            .map(|_| {
                let user = below(900);
                let ms = f64::from(100 + 10 * (user % 60) + below(400));
                Call {
                    unit: format!("user-{user}"),
                    success: below(100) >= user % 20,
                    response_ms: Some(ms),
                    cost_usd: (user % 30 > 0).then_some(ms / 1e5),
                }
            })
            .collect()
    }

    #[test]
    fn splits_by_the_hash_show_no_difference() {
        let found = placebo(&calls(), TRIAL, by_hash);
        assert!(found.passed, "{found:?}");
        assert_eq!((found.executions, found.units, found.metrics.len()), (6000, 898, 3));
        for metric in &found.metrics {
            assert_eq!(metric.answered, 300);
            assert!(metric.fixed_false_positive_rate.unwrap() > 0.01, "{metric:?}");
            assert!(metric.sequential_false_positive_rate.unwrap() < 0.05, "{metric:?}");
            assert!(metric.uniformity_p.unwrap() > 0.01, "{metric:?}");
        }
    }

    #[test]
    fn a_split_that_knows_the_outcome_is_found_out() {
        // Slow users see the placebo more often than not.
        let leaks = |salt: u32, unit: &str| {
            let user: u32 = unit.strip_prefix("user-").unwrap().parse().unwrap();
            by_hash(salt, unit) || (user % 60 > 40 && user.is_multiple_of(4))
        };
        let found = placebo(&calls(), TRIAL, leaks);
        assert!(!found.passed && !found.balance.passed, "{found:?}");
        let time = &found.metrics[1];
        assert!(!time.passed && time.uniformity_p.unwrap() < 1e-6, "{time:?}");
        // Too few calls to say anything are no failure, and no success of anything either.
        let few = placebo(&calls()[..3], TRIAL, by_hash);
        assert_eq!((few.units, few.metrics[2].uniformity_p), (3, None));
    }
}
