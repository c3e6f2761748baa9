//! Experiments without a difference, looked at again and again through all of the analysis: it must see
//! nothing more often than it promises (sections 7.10 and 13 of the specification).

use jiff::Timestamp;

use super::{
    ArmPlan, ArmSums, Collected, Design, Losses, Measured, Metric, Results, Rules, results,
};
use crate::statistics::nulls::Chance;
use crate::words::ids::ExperimentId;

const RUNS: u64 = 2000;
/// Of one run, in both arms; the first look is at 100 in each.
const UNITS: u32 = 5000;
/// Between two looks.
const UNITS_A_LOOK: u32 = 50;
/// Of the runs: 5 % and three deviations of chance.
const FALSE_ALARMS_MAX: f64 = 0.0646;
/// The usual test, peeked at so often, does worse than this.
const PEEKED_MIN: f64 = 0.2;
const CAP_MS: f64 = 5000.0;
const CAP_USD: f64 = 0.1;
const METRICS: [&str; 5] =
    ["success_rate", "response_time", "response_time_mean", "cost", "cost_per_success"];

#[test]
fn no_metric_raises_more_false_alarms_than_promised_however_often_one_looks() {
    let plan = design();
    let half = RUNS / 2;
    let (one, other) = std::thread::scope(|scope| {
        let first = scope.spawn(|| false_alarms(&plan, 0..half));
        (false_alarms(&plan, half..RUNS), first.join().expect("no panic"))
    });
    for (place, metric) in METRICS.iter().enumerate() {
        let share = |count: u32| f64::from(count) / super::metric::count(RUNS);
        let ours = share(one[place].ours + other[place].ours);
        let peeked = share(one[place].peeked + other[place].peeked);
        println!("{metric}: {:.2} %, the usual test {:.2} %", 100.0 * ours, 100.0 * peeked);
        assert!(ours <= FALSE_ALARMS_MAX, "{metric}: {ours} of the runs");
        assert!(peeked >= PEEKED_MIN, "{metric}: the usual test saw {peeked} only");
    }
}

/// Runs in which a metric was called significant at any look.
#[derive(Debug, Clone, Copy, Default)]
struct Seen {
    ours: u32,
    /// By p, which is of one look.
    peeked: u32,
}

fn false_alarms(plan: &Design, seeds: std::ops::Range<u64>) -> [Seen; METRICS.len()] {
    let mut all = [Seen::default(); METRICS.len()];
    for seed in seeds {
        let seen = run(plan, seed);
        for (all, [ours, peeked]) in all.iter_mut().zip(seen) {
            all.ours += u32::from(ours);
            all.peeked += u32::from(peeked);
        }
    }
    all
}

fn run(plan: &Design, seed: u64) -> [[bool; 2]; METRICS.len()] {
    let mut chance = Chance::new(seed);
    let mut arms = ["control", "variant_a"].map(|arm| ArmSums {
        phase: 1,
        arm: arm.to_owned(),
        ..ArmSums::default()
    });
    let mut seen = [[false; 2]; METRICS.len()];
    for number in 1..=UNITS {
        let place = usize::from(chance.share() < 0.5);
        add_unit(&mut arms[place], &mut chance);
        if number % UNITS_A_LOOK == 0 && arms.iter().all(|arm| arm.units >= 100) {
            let collected = Collected { sums: arms.to_vec(), ..Collected::default() };
            look(&results(plan, &collected, Timestamp::UNIX_EPOCH, &Losses::default()), &mut seen);
        }
    }
    seen
}

fn look(found: &Results, seen: &mut [[bool; 2]; METRICS.len()]) {
    for (seen, name) in seen.iter_mut().zip(METRICS) {
        let metric = found.metrics.iter().find(|one| one.metric == name).expect("it is read");
        let one = &metric.comparisons[0];
        seen[0] |= one.significant;
        seen[1] |= one.p.is_some_and(|p| p < 0.05);
    }
}

/// A unit of one to five calls that are alike: it succeeds in 81 % of them or in 99 %, and has a pace and a
/// length of answers of its own.
fn add_unit(arm: &mut ArmSums, chance: &mut Chance) {
    let success = if chance.share() < 0.5 { 0.81 } else { 0.99 };
    let (pace, length) = (0.5 * chance.normal(), chance.normal());
    let calls = 1 + [0.5, 0.7, 0.85, 0.95].iter().filter(|bound| chance.share() > **bound).count();
    let (mut successes, mut ms, mut log, mut usd) = (0_u32, 0.0, 0.0, 0.0);
    for _ in 0..calls {
        successes += u32::from(chance.share() < success);
        let ln_ms = 6.0 + pace + 0.8 * chance.normal();
        log += ln_ms;
        ms += ln_ms.exp().min(CAP_MS);
        usd += (-7.0 + length + chance.normal()).exp().min(CAP_USD);
    }
    let calls = calls as u64;
    let (n, s) = (super::metric::count(calls), f64::from(successes));
    log /= n;
    arm.units += 1;
    arm.executions += calls;
    arm.attempted += calls;
    arm.successes += u64::from(successes);
    arm.executions_sq += n * n;
    arm.successes_sq += s * s;
    arm.successes_executions += n * s;
    arm.latency_units += 1;
    arm.attempted_sq += n * n;
    arm.latency_ms += ms;
    arm.latency_ms_sq += ms * ms;
    arm.latency_ms_attempted += ms * n;
    arm.latency_log += log;
    arm.latency_log_sq += log * log;
    arm.cost_units += 1;
    arm.priced_sq += n * n;
    arm.cost_usd += usd;
    arm.cost_usd_sq += usd * usd;
    arm.cost_usd_priced += usd * n;
    arm.cost_usd_successes += usd * s;
}

fn design() -> Design {
    let arm = |key: &str| ArmPlan { key: key.to_owned(), template_id: None, weight: 50_000 };
    let beside =
        [Metric::ResponseTime, Metric::ResponseTimeMean, Metric::Cost, Metric::CostPerSuccess];
    Design {
        id: ExperimentId(uuid::Uuid::nil()),
        arms: vec![arm("control"), arm("variant_a")],
        primary: Measured::plain(Metric::SuccessRate),
        secondary: beside.map(Measured::plain).into(),
        rules: Rules::default(),
        per_request: false,
        hash_version: 1,
        target_units: None,
        start: None,
        end: None,
        is_completed: false,
    }
}
