//! Known answers through the whole of it: sums in, results out.

use jiff::{SignedDuration, Timestamp};

use super::{
    ArmLatencies, ArmPlan, ArmSums, Collected, Comparison, Design, FeedbackSums, Losses, Measured,
    Metric, MetricResult, Milestone, ModelSeen, Phase, PhaseArm, Results, Rules, results,
};
use crate::statistics::MeanSums;
use crate::statistics::tests::clustered;
use crate::words::ids::ExperimentId;

fn start() -> Timestamp {
    "2026-11-01T00:00:00Z".parse().unwrap()
}

fn days(days: i64) -> Timestamp {
    start() + SignedDuration::from_hours(24 * days)
}

fn design(arms: &[&str]) -> Design {
    let weight = 100_000 / u32::try_from(arms.len()).unwrap();
    let plan = |key: &&str| ArmPlan { key: (*key).to_owned(), template_id: None, weight };
    Design {
        id: ExperimentId(uuid::Uuid::nil()),
        arms: arms.iter().map(plan).collect(),
        primary: Measured::plain(Metric::SuccessRate),
        secondary: Vec::new(),
        rules: Rules::default(),
        per_request: false,
        hash_version: 1,
        target_units: None,
        start: Some(start()),
        end: None,
        is_completed: false,
    }
}

fn fixed(design: Design) -> Design {
    let rules = Rules { fixed: true, ..design.rules };
    Design { rules, is_completed: true, ..design }
}

/// Units of one call each.
fn calls(phase: u32, arm: &str, successes: u32, units: u32) -> ArmSums {
    let (s, n) = (f64::from(successes), f64::from(units));
    ArmSums {
        phase,
        arm: arm.to_owned(),
        units: units.into(),
        executions: units.into(),
        attempted: units.into(),
        successes: successes.into(),
        executions_sq: n,
        successes_sq: s,
        successes_executions: s,
        ..ArmSums::default()
    }
}

/// Units of several calls, some of which succeed.
fn units(arm: &str, units: &[(u32, u32)]) -> ArmSums {
    let mut sums = ArmSums { phase: 1, arm: arm.to_owned(), ..ArmSums::default() };
    for (executions, successes) in units {
        let (n, s) = (f64::from(*executions), f64::from(*successes));
        sums.units += 1;
        sums.executions += u64::from(*executions);
        sums.successes += u64::from(*successes);
        sums.executions_sq += n * n;
        sums.successes_sq += s * s;
        sums.successes_executions += n * s;
    }
    sums
}

fn of(sums: impl IntoIterator<Item = ArmSums>) -> Collected {
    Collected { sums: sums.into_iter().collect(), ..Collected::default() }
}

fn read(design: &Design, collected: &Collected) -> Results {
    results(design, collected, days(10), &Losses::default())
}

fn metric<'r>(results: &'r Results, role: &str, name: &str) -> &'r MetricResult {
    results.metrics.iter().find(|one| one.role == role && one.metric == name).unwrap()
}

fn primary(results: &Results) -> &Comparison {
    &results.metrics[0].comparisons[0]
}

fn near(value: Option<f64>, expected: f64, tolerance: f64) {
    let value = value.unwrap();
    assert!((value - expected).abs() <= tolerance, "{value} is not {expected}");
}

/// Section 7.10 of the specification: the delta method.
#[test]
fn clustered_success() {
    let collected = of([
        units("control", &[(3, 3), (1, 0), (5, 4), (2, 2), (4, 4), (1, 1)]),
        units("variant_a", &[(2, 2), (6, 6), (1, 1), (3, 2), (2, 2)]),
    ]);
    let found = read(&fixed(design(&["control", "variant_a"])), &collected);
    let one = primary(&found);
    near(one.control.map(|side| side.estimate), 0.875, 1e-12);
    near(one.variant.map(|side| side.estimate), 0.928_571_4, 1e-7);
    near(one.se, 0.108_842_6, 1e-7);
    near(one.p, 0.622_583_8, 1e-7);
    assert_eq!((one.always_valid_p, one.significant), (None, false), "far too few for a sequence");
    assert_eq!((found.verdict, found.is_final), ("insufficient_data", true));
    let counted: Vec<(u64, u64)> =
        found.arms.iter().map(|arm| (arm.units, arm.executions)).collect();
    assert_eq!(counted, [(6, 16), (5, 14)]);
}

/// Section 7.10: two proportions, where each request is a unit.
#[test]
fn two_shares_of_requests() {
    // All that does not succeed is blocked.
    let collected = of([("control", 440), ("variant_a", 462)].map(|(arm, successes)| {
        let blocked = f64::from(500 - successes);
        ArmSums {
            blocked: u64::from(500 - successes),
            blocked_sq: blocked,
            blocked_executions: blocked,
            ..calls(1, arm, successes, 500)
        }
    }));
    let per_request = Design { per_request: true, ..design(&["control", "variant_a"]) };
    let found = read(&fixed(per_request.clone()), &collected);
    let one = primary(&found);
    near(one.p, 0.019_286_4, 1e-7);
    let ([low, high], [least, most]) = (one.interval.unwrap(), one.lift_interval.unwrap());
    near(Some(low), 0.007_067_4, 1e-7);
    near(Some(high), 0.081_315_5, 1e-7);
    near(Some(least), 0.007_837_8, 1e-7);
    near(Some(most), 0.093_926_0, 1e-7);
    assert_eq!((found.verdict, found.better_arm.as_deref()), ("variant_better", Some("variant_a")));
    near(found.statistical_significance, 0.9807, 1e-9);
    assert_eq!((one.test, one.interval_approximate), (Some("pooled_z"), false));
    let belief = one.belief.unwrap();
    near(Some(belief.variant_better), 0.990_262_3, 5e-8);
    near(Some(belief.expected_loss), 6.239_435e-5, 5e-12);
    // Wilson's, by statsmodels 0.15.0.
    let [low, high] = one.control.and_then(|side| side.interval).unwrap();
    near(Some(low), 0.848_580_401_375_589_4, 1e-12);
    near(Some(high), 0.905_625_099_873_630_9, 1e-12);
    // What is better by being lower is believed in the other way round.
    let fewer_blocks = metric(&found, "harm", "blocked_rate").comparisons[0].belief.unwrap();
    near(Some(fewer_blocks.variant_better), 0.990_262_3, 5e-8);
    near(Some(fewer_blocks.expected_loss), 6.239_435e-5, 5e-12);
    // Looked at any number of times, the same data say less.
    let open = read(&per_request, &collected);
    assert!(!primary(&open).significant && open.verdict == "running");
    assert!(primary(&open).always_valid_p.unwrap() > 0.05);
}

/// Section 7.10: few requests.
#[test]
fn few_requests_are_tested_exactly() {
    let collected = of([calls(1, "control", 7, 12), calls(1, "variant_a", 12, 12)]);
    let per_request = Design { per_request: true, ..design(&["control", "variant_a"]) };
    let found = read(&fixed(per_request), &collected);
    let one = primary(&found);
    near(one.p, 0.037_267_1, 5e-8);
    assert_eq!((one.test, one.interval_approximate), (Some("fisher_exact"), true));
}

/// One number of each unit, with this mean and deviation among them.
fn means(arm: &str, units: u64, mean: f64, deviation: f64) -> FeedbackSums {
    let sums = MeanSums::of(units, mean, deviation);
    FeedbackSums {
        phase: 1,
        arm: arm.to_owned(),
        key: "score".to_owned(),
        units,
        count: units,
        mean_sum: sums.sum_x,
        mean_sq_sum: sums.sum_x2,
    }
}

fn scored(feedback: [FeedbackSums; 2]) -> (Design, Collected) {
    let score = Measured::plain(Metric::Custom { key: "score".to_owned() });
    let plan = Design { primary: score, ..design(&["control", "variant_a"]) };
    let sums = of([calls(1, "control", 1, 1), calls(1, "variant_a", 1, 1)]);
    (plan, Collected { feedback: feedback.into(), ..sums })
}

/// Section 7.10: Welch, with Fieller's lift.
#[test]
fn means_of_units() {
    let (plan, collected) =
        scored([means("control", 800, 410.0, 250.0), means("variant_a", 820, 385.0, 240.0)]);
    let found = read(&fixed(plan), &collected);
    let one = primary(&found);
    near(one.difference.zip(one.se).map(|(gap, se)| gap / se), -2.052_431, 5e-7);
    near(one.p, 0.040_289_0, 5e-8);
    let ([low, high], [least, most]) = (one.interval.unwrap(), one.lift_interval.unwrap());
    near(Some(low), -48.891_638, 5e-7);
    near(Some(high), -1.108_362, 5e-7);
    near(Some(least), -0.115_798_4, 5e-8);
    near(Some(most), -0.002_788_8, 5e-8);
}

/// Section 7.10: the confidence sequence, after 4 000 units in all of 5 000.
#[test]
fn a_sequence_of_looks() {
    // So that each arm's variance is half of 0.006².
    let deviation = 0.006 * f64::sqrt(1000.0);
    let (plan, collected) = scored([
        means("control", 2000, 0.95, deviation),
        means("variant_a", 2000, 0.93, deviation),
    ]);
    let found = read(&Design { target_units: Some(5000), ..plan }, &collected);
    let one = primary(&found);
    let [low, high] = one.interval.unwrap();
    near(Some(0.5 * (high - low)), 0.018_242_2, 5e-8);
    near(one.always_valid_p, 0.022_319_2, 5e-8);
    assert!(one.significant);
}

/// The same steps in numpy 2, as beside the engine; their difference by hand.
#[test]
fn quantiles_of_the_response_time() {
    let sampled =
        |arm: &str, seed| ArmLatencies { phase: 1, arm: arm.to_owned(), units: clustered(seed) };
    let counted = of([calls(1, "control", 900, 1000), calls(1, "variant_a", 900, 1000)]);
    let plan = fixed(design(&["control", "variant_a"]));
    assert!(read(&plan, &counted).metrics.iter().all(|one| one.role != "exploratory"));
    let sample = vec![sampled("control", 1), sampled("variant_a", 7)];
    let calls: Vec<u64> =
        sample.iter().map(|arm| arm.units.iter().map(Vec::len).sum::<usize>() as u64).collect();
    let found = read(&plan, &Collected { latencies: Some(sample), ..counted.clone() });
    let median = metric(&found, "exploratory", "response_time_p50");
    assert_eq!(
        (median.unit, median.better, median.adjustment),
        ("ms", "lower", "benjamini_hochberg")
    );
    let one = &median.comparisons[0];
    near(one.control.map(|side| side.estimate), 359.0, 1e-9);
    near(one.variant.map(|side| side.estimate), 355.0, 1e-9);
    near(one.se, 11.224_696_052_342_386_f64.hypot(13.265_549_880_041_004), 1e-9);
    let reach = 1.959_963_984_540_054 * one.se.unwrap();
    let [low, high] = one.interval.unwrap();
    near(Some(low), -4.0 - reach, 1e-9);
    near(Some(high), -4.0 + reach, 1e-9);
    let side = |side: Option<super::Side>| side.map(|side| (side.n_units, side.n_executions));
    assert_eq!(side(one.control), Some((200, calls[0])));
    assert_eq!(side(one.variant), Some((200, calls[1])));
    assert_eq!(one.ever_significant_at, None);
    near(
        metric(&found, "exploratory", "response_time_p95").comparisons[0]
            .control
            .map(|side| side.estimate),
        589.0,
        1e-9,
    );
    // A call or none: said, and not made up.
    let none = read(&plan, &Collected { latencies: Some(Vec::new()), ..counted });
    let none = &metric(&none, "exploratory", "response_time_p95").comparisons[0];
    assert_eq!(
        (none.difference, none.why_none.as_deref()),
        (None, Some("an arm has too few units"))
    );
}

/// Section 7.7: better in each phase, worse when pooled.
#[test]
fn phases_are_weighed_and_not_pooled() {
    let collected = of([
        calls(1, "control", 8550, 9000),
        calls(1, "variant_a", 960, 1000),
        calls(2, "control", 750, 1000),
        calls(2, "variant_a", 6840, 9000),
    ]);
    let found = read(&design(&["control", "variant_a"]), &collected);
    near(primary(&found).difference, 0.01, 1e-12);
    assert_eq!(primary(&found).control.unwrap().n_units, 10_000);

    // After a re-randomisation nothing of before counts.
    let phase = |number, mode: &str| Phase {
        phase: number,
        mode: mode.to_owned(),
        arms: Vec::new(),
        started_at: start(),
        ended_at: None,
    };
    let phases = vec![phase(1, "start"), phase(2, "rerandomise")];
    let anew = read(&design(&["control", "variant_a"]), &Collected { phases, ..collected });
    assert_eq!((anew.parameters.first_phase, anew.watermark.executions), (2, 10_000));
    near(primary(&anew).variant.map(|side| side.estimate), 0.76, 1e-12);
}

#[test]
fn harm_stops_and_stays() {
    let collected = of([calls(1, "control", 950, 1000), calls(1, "variant_a", 800, 1000)]);
    let plan = design(&["control", "variant_a"]);
    let found = read(&plan, &collected);
    let harm = found.harm.clone().unwrap();
    assert_eq!(
        (harm.metric.as_str(), harm.stops, found.verdict),
        ("success_rate", true, "harm_stopped")
    );
    let patient = Rules { harm_stop: false, ..Rules::default() };
    let warned = read(&Design { rules: patient, ..plan.clone() }, &collected);
    assert!(warned.harm.is_some_and(|harm| !harm.stops));
    assert_eq!((warned.verdict, warned.better_arm.as_deref()), ("control_better", Some("control")));
    let tolerant = Rules { harm_tolerated: 0.3, ..Rules::default() };
    assert!(read(&Design { rules: tolerant, ..plan.clone() }, &collected).harm.is_none());

    // More blocks are harm too; and what was reached stays.
    let blocked = |arm, blocked: u32| {
        let count = f64::from(blocked);
        ArmSums {
            blocked: blocked.into(),
            blocked_sq: count,
            blocked_executions: count,
            ..calls(1, arm, 900, 1000)
        }
    };
    let stopped = read(&plan, &of([blocked("control", 10), blocked("variant_a", 90)]));
    assert_eq!(stopped.harm.unwrap().metric, "blocked_rate");
    let milestone = Milestone {
        metric: "success_rate".to_owned(),
        arm: "variant_a".to_owned(),
        kind: "harm".to_owned(),
        p: None,
        at: days(2),
    };
    let even = of([calls(1, "control", 900, 1000), calls(1, "variant_a", 900, 1000)]);
    let later = read(&plan, &Collected { milestones: vec![milestone], ..even });
    assert_eq!((later.verdict, later.harm.unwrap().at), ("harm_stopped", days(2)));
}

#[test]
fn a_fixed_analysis_hides_what_it_would_say() {
    let collected = of([calls(1, "control", 700, 1000), calls(1, "variant_a", 900, 1000)]);
    let rules = Rules { fixed: true, ..Rules::default() };
    let plan = Design { rules, target_units: Some(5000), ..design(&["control", "variant_a"]) };
    let sealed = read(&plan, &collected);
    let one = primary(&sealed);
    assert_eq!((one.p, one.interval, one.p_adjusted, one.significant), (None, None, None, false));
    assert_eq!((sealed.reading, sealed.verdict, sealed.is_final), ("sealed", "running", false));
    assert_eq!(sealed.statistical_significance, None);
    near(sealed.progress.percent, 40.0, 1e-9);
    near(sealed.progress.hours_left, 360.0, 1e-6);
    let full = read(&Design { target_units: Some(2000), ..plan }, &collected);
    assert_eq!((full.verdict, full.is_final), ("variant_better", true));
}

#[test]
fn several_variants_are_adjusted_and_dated() {
    let collected = of([
        calls(1, "control", 900, 1000),
        calls(1, "variant_a", 935, 1000),
        calls(1, "variant_b", 970, 1000),
    ]);
    let found = read(&fixed(design(&["control", "variant_a", "variant_b"])), &collected);
    let [a, b] = found.metrics[0].comparisons.as_slice() else { panic!("two variants") };
    assert!(a.p.unwrap() > b.p.unwrap());
    near(a.p_adjusted, a.p.unwrap(), 1e-15);
    near(b.p_adjusted, 2.0 * b.p.unwrap(), 1e-15);
    near(Some(found.parameters.alpha_per_variant), 0.025, 1e-12);
    assert_eq!(
        (found.better_arm.as_deref(), b.ever_significant_at),
        (Some("variant_b"), Some(days(10)))
    );
    let reached = Milestone {
        metric: "success_rate".to_owned(),
        arm: "variant_a".to_owned(),
        kind: "significant".to_owned(),
        p: Some(0.01),
        at: days(1),
    };
    let wobble = of([calls(1, "control", 900, 1000), calls(1, "variant_a", 902, 1000)]);
    let wobble = Collected { milestones: vec![reached], ..wobble };
    let found = read(&design(&["control", "variant_a"]), &wobble);
    let one = primary(&found);
    assert_eq!((one.significant, one.ever_significant_at), (false, Some(days(1))));
}

#[test]
fn early_or_small_is_no_win() {
    let collected = of([calls(1, "control", 7000, 10_000), calls(1, "variant_a", 7500, 10_000)]);
    let plan = design(&["control", "variant_a"]);
    let early = results(&plan, &collected, days(2), &Losses::default());
    assert!(primary(&early).significant && early.verdict == "running");
    assert_eq!(read(&plan, &collected).verdict, "variant_better");
    let indifferent = Measured { minimal_effect: Some(0.2), ..plan.primary.clone() };
    assert_eq!(read(&Design { primary: indifferent, ..plan }, &collected).verdict, "equivalent");
}

#[test]
fn what_is_not_sound_is_said() {
    let plan = design(&["control", "variant_a"]);
    let uneven = of([calls(1, "control", 9225, 10_250), calls(1, "variant_a", 8775, 9750)]);
    let found = read(&plan, &uneven);
    near(found.health.sample_ratio[0].chi_square_p, 0.000_406_95, 1e-8);
    assert_eq!((found.verdict, found.health.status), ("invalid", "invalid"));
    let arms = [("control", 50_000), ("variant_a", 30_000), ("variant_b", 20_000)];
    let arms = arms.map(|(key, weight)| ArmPlan { key: key.to_owned(), template_id: None, weight });
    let three = of([
        calls(1, "control", 5000, 5150),
        calls(1, "variant_a", 2800, 2890),
        calls(1, "variant_b", 1900, 1960),
    ]);
    let three = read(&Design { arms: arms.into(), ..plan.clone() }, &three).health;
    near(three.sample_ratio[0].chi_square_p, 0.009_403_56, 5e-9);
    assert_eq!((three.sample_ratio[0].status, three.status), ("warning", "warning"));
    // By the weights of the phase, not those of today; and where history decides, not at all.
    let arm = |key: &str, weight| PhaseArm { key: key.to_owned(), weight_millipercent: weight };
    let phase = |mode: &str| Phase {
        phase: 1,
        mode: mode.to_owned(),
        arms: vec![arm("control", 51_250), arm("variant_a", 48_750)],
        started_at: start(),
        ended_at: None,
    };
    let weighed = read(&plan, &Collected { phases: vec![phase("start")], ..uneven.clone() });
    assert_eq!(weighed.health.sample_ratio[0].status, "sound");
    let sticky = read(&plan, &Collected { phases: vec![phase("sticky")], ..uneven });
    assert!(sticky.health.sample_ratio[0].why_none.is_some());

    let even = of([
        ArmSums { crossed_units: 15, ..calls(1, "control", 900, 1000) },
        ArmSums { crossed_units: 15, ..calls(1, "variant_a", 900, 1000) },
    ]);
    let reasons = [("assigned".to_owned(), 900), ("no_unit".to_owned(), 100)].into();
    let shaky = Collected { reasons, ..even };
    let losses = Losses { lost: 2, accepted: 1000, ..Losses::default() };
    let lossy = results(&plan, &shaky, days(10), &losses);
    for check in [&lossy.health.crossovers, &lossy.health.no_unit] {
        assert_eq!(check.status, "warning", "{check:?}");
    }
    let lost = &lossy.health.lost_rows;
    assert_eq!((lost.status, lost.count, lost.of), ("warning", 2, 1000));
    assert_ne!(lossy.verdict, "invalid");
}

#[test]
fn arms_that_do_not_differ_show_their_numbers() {
    let alike = of([calls(1, "control", 290, 290), calls(1, "variant_a", 310, 310)]);
    let found = read(&design(&["control", "variant_a"]), &alike);
    let one = primary(&found);
    let shown = [one.control, one.variant].map(|side| side.map(|one| (one.estimate, one.n_units)));
    assert_eq!(shown, [Some((1.0, 290)), Some((1.0, 310))]);
    assert_eq!(
        (one.difference, one.why_none.as_deref()),
        (None, Some("the units of both arms do not differ"))
    );
    assert_eq!(found.verdict, "insufficient_data");
}

#[test]
fn an_arm_that_loses_more_than_the_other_voids() {
    let plan = design(&["control", "variant_a"]);
    let even = of([calls(1, "control", 900, 1000), calls(1, "variant_a", 900, 1000)]);
    let told = |control, variant| {
        let by_arm = [("control", control), ("variant_a", variant), ("elsewhere", 500)]
            .map(|(arm, lost)| ((plan.id, arm.to_owned()), lost));
        let losses = Losses { lost: 20, accepted: 1_000_000, by_arm: by_arm.into() };
        let found = results(&plan, &even, days(10), &losses);
        (found.health.lost_rows, found.verdict)
    };
    let (alike, verdict) = told(9, 11);
    assert_eq!((alike.status, verdict), ("warning", "running"));
    assert_eq!(alike.by_arm, [[9, 1009], [11, 1011]]);
    // erfc(z / √2) of the pooled z, by Python's math.
    let (apart, verdict) = told(0, 20);
    assert_eq!((apart.status, verdict), ("invalid", "invalid"));
    near(Some(apart.p), 8.580_644_871_747_945e-6, 1e-12);
    assert_eq!(told(0, 0).0.status, "sound");
}

#[test]
fn another_model_in_an_arm_is_told_and_a_stray_call_is_not() {
    let seen = |arm: &str, model: &str, executions: u64| ModelSeen {
        phase: 1,
        arm: arm.to_owned(),
        model: model.to_owned(),
        executions,
        first_seen_at: start(),
        last_seen_at: days(1),
    };
    let even = of([calls(1, "control", 900, 1000), calls(1, "variant_a", 900, 1000)]);
    let plan = design(&["control", "variant_a"]);
    let told = |models: Vec<ModelSeen>| read(&plan, &Collected { models, ..even.clone() }).health;
    // Arms may have models of their own.
    let apart = told(vec![
        seen("control", "m-1", 990),
        seen("control", "m-9", 9),
        seen("variant_a", "m-2", 999),
    ]);
    assert_eq!((apart.models.status, apart.models.advice, apart.status), ("sound", None, "sound"));
    let drifted = told(vec![seen("control", "m-1", 900), seen("control", "m-1.1", 100)]);
    assert_eq!((drifted.models.status, drifted.status), ("warning", "warning"));
    assert!(drifted.models.advice.is_some() && drifted.models.seen.len() == 2);
}

#[test]
fn feedback_is_read_per_unit_and_checked_for_who_gives_it() {
    let said = |arm: &str, units: u64, mean: f64| FeedbackSums {
        phase: 1,
        arm: arm.to_owned(),
        key: "score".to_owned(),
        units,
        count: 2 * units,
        mean_sum: super::metric::count(units) * mean,
        mean_sq_sum: super::metric::count(units) * (mean * mean + 1.0),
    };
    let asked = |control, variant| Collected {
        feedback: vec![said("control", control, 3.0), said("variant_a", variant, 3.5)],
        ..of([calls(1, "control", 900, 1000), calls(1, "variant_a", 900, 1000)])
    };
    let score = Measured::plain(Metric::Custom { key: "score".to_owned() });
    let plan = Design { primary: score, ..design(&["control", "variant_a"]) };
    let found = read(&plan, &asked(400, 410));
    near(primary(&found).difference, 0.5, 1e-9);
    assert_eq!((found.verdict, found.health.feedback[0].status), ("variant_better", "sound"));
    // Where one arm's users answer more often, those who answer are not the same people.
    let uneven = read(&plan, &asked(400, 500));
    assert_eq!((uneven.verdict, uneven.health.feedback[0].status), ("invalid", "invalid"));
    let beside = read(&design(&["control", "variant_a"]), &asked(400, 500));
    assert_ne!(beside.verdict, "invalid");
    assert_eq!(metric(&beside, "harm", "success_rate").adjustment, "none");
}
