//! Whether what was counted may be believed: the checks of an experiment, phase by phase.

use std::collections::HashMap;

use serde::Serialize;

use super::collected::{ArmSums, Collected, ModelSeen, Phase};
use super::design::Design;
use super::metric::Metric;
use crate::statistics::Counts;
use crate::statistics::balance::{self, Share};
use crate::statistics::health::{self, Health};
use crate::words::ids::ExperimentId;

/// Phases whose arms are not a matter of their weights alone: who was enrolled before stays where they were.
const BY_HISTORY: [&str; 2] = ["grow", "sticky"];

/// Executions that this sidecar took in, and how many of them it lost.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Losses {
    /// Lost.
    pub lost: u64,
    /// Taken in.
    pub accepted: u64,
    /// Gone for good, by experiment and arm.
    pub by_arm: HashMap<(ExperimentId, String), u64>,
}

/// All checks, and the worst of them.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[expect(missing_docs, reason = "the names say it; docs/experiments-numbers.md explains them")]
pub struct Soundness {
    /// `too_early`, `sound`, `warning` or `invalid`: the worst of the checks that decide.
    pub status: &'static str,
    /// Units by arm against the weights of the phase.
    pub sample_ratio: Vec<PhaseBalance>,
    pub crossovers: Checked,
    /// Calls without a unit, of all calls on the template.
    pub no_unit: Checked,
    /// Of this sidecar, since it started.
    pub lost_rows: LostRows,
    /// Which models answered: another one in the same arm is another treatment.
    pub models: ModelDrift,
    /// Units that gave feedback, by key. Decides only where feedback is the primary metric.
    pub feedback: Vec<FeedbackBalance>,
}

/// A share with its verdict.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[expect(missing_docs, reason = "the names say it")]
pub struct Checked {
    pub status: &'static str,
    pub count: u64,
    pub of: u64,
}

/// What was lost, of everything and of each arm.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct LostRows {
    /// `warning` where more than one in a thousand is lost; `invalid` where one arm lost more than another.
    pub status: &'static str,
    /// Lost, dead letters included.
    pub count: u64,
    /// Taken in.
    pub of: u64,
    /// By arm, control first: gone for good, of these and the stored ones.
    pub by_arm: Vec<[u64; 2]>,
    /// That arms lost as differently as that by chance.
    pub p: f64,
}

/// The balance of one phase.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[expect(missing_docs, reason = "the names say it")]
pub struct PhaseBalance {
    pub phase: u32,
    pub status: &'static str,
    pub units: Vec<u64>,
    pub weights: Vec<u32>,
    pub chi_square_p: Option<f64>,
    /// Valid at any time; below 0.001 is the automatic alarm.
    pub sequential_p: Option<f64>,
    /// The largest distance of an arm's share from its weight.
    pub deviation: Option<f64>,
    /// Why there is no test.
    pub why_none: Option<&'static str>,
}

/// Whether an arm was answered by one model only.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ModelDrift {
    /// `sound`; `warning` where an arm was answered by several in one phase.
    pub status: &'static str,
    /// What to do about it.
    pub advice: Option<&'static str>,
    /// All of them, by phase and arm, in the order in which they came.
    pub seen: Vec<ModelSeen>,
}

/// How evenly feedback came.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[expect(missing_docs, reason = "the names say it")]
pub struct FeedbackBalance {
    pub key: String,
    pub status: &'static str,
    pub p: f64,
    /// By arm, control first: units that gave it, of all.
    pub units: Vec<[u64; 2]>,
}

/// Runs the checks; also gives the worst of those that decide.
pub(super) fn check(
    design: &Design,
    collected: &Collected,
    losses: &Losses,
) -> (Soundness, Health) {
    let balances: Vec<(PhaseBalance, Health)> = collected
        .phases_counted()
        .into_iter()
        .map(|phase| of_phase(phase, design, collected))
        .collect();
    let units = total(collected, |arm| arm.units);
    let crossed = total(collected, |arm| arm.crossed_units);
    let reasons: u64 = collected.reasons.values().sum();
    let nameless = collected.reasons.get("no_unit").copied().unwrap_or_default();
    let crossovers = checked(crossed, units + crossed, health::crossovers);
    let no_unit = checked(nameless, reasons, health::without_unit);
    let lost = lost_rows(design, collected, losses);
    let (models, drift) = models(collected);
    let feedback = feedback(design, collected);
    let decides = |balance: &&(FeedbackBalance, Health)| {
        design.primary.metric == Metric::Custom { key: balance.0.key.clone() }
    };
    let worst = Health::worst(
        balances
            .iter()
            .map(|one| one.1)
            .chain([crossovers.1, no_unit.1, lost.1])
            .chain(drift)
            .chain(feedback.iter().filter(decides).map(|one| one.1)),
    );
    let soundness = Soundness {
        status: worst.name(),
        sample_ratio: balances.into_iter().map(|one| one.0).collect(),
        crossovers: crossovers.0,
        no_unit: no_unit.0,
        lost_rows: lost.0,
        models,
        feedback: feedback.into_iter().map(|one| one.0).collect(),
    };
    (soundness, worst)
}

fn total(collected: &Collected, one: fn(&ArmSums) -> u64) -> u64 {
    collected.counted().map(one).sum()
}

fn checked(count: u64, of: u64, check: impl FnOnce(Counts) -> Health) -> (Checked, Health) {
    let health = Counts::new(count, of).map_or(Health::TooEarly, check);
    (Checked { status: health.name(), count, of }, health)
}

/// The stored ones are those of all sidecars: that makes all shares smaller alike.
fn lost_rows(design: &Design, collected: &Collected, losses: &Losses) -> (LostRows, Health) {
    let (count, of) = (losses.lost, losses.accepted);
    let by_arm: Vec<[u64; 2]> = design
        .arms
        .iter()
        .map(|arm| {
            let lost = losses.by_arm.get(&(design.id, arm.key.clone())).copied().unwrap_or(0);
            let stored = collected.counted().filter(|one| one.arm == arm.key);
            [lost, lost + stored.map(|one| one.executions).sum::<u64>()]
        })
        .collect();
    let arms: Vec<Counts> =
        by_arm.iter().filter_map(|[lost, all]| Counts::new(*lost, *all)).collect();
    let evenness = health::lost_rows(&arms);
    let (_, whole) = checked(count, of, |counts| health::lost_rows(&[counts]).health);
    let health = evenness.health.max(whole);
    (LostRows { status: health.name(), count, of, by_arm, p: evenness.p }, health)
}

/// A call in a hundred may go elsewhere: somebody tries another model by hand.
fn models(collected: &Collected) -> (ModelDrift, Option<Health>) {
    let first = collected.first_phase();
    let seen: Vec<ModelSeen> =
        collected.models.iter().filter(|one| one.phase >= first).cloned().collect();
    let mut arms = seen.chunk_by(|one, next| (one.phase, &one.arm) == (next.phase, &next.arm));
    let drifts = arms.any(|models| {
        let all: u64 = models.iter().map(|one| one.executions).sum();
        models.iter().filter(|one| one.executions * 100 > all).count() > 1
    });
    let advice = "another model answers than before, or several do: begin a new phase \
                  (reallocate, mode rerandomise), and name the model in the versions";
    let drift = drifts.then_some(Health::Warning);
    let status = drift.unwrap_or(Health::Sound).name();
    (ModelDrift { status, advice: drift.map(|_| advice), seen }, drift)
}

fn of_phase(phase: u32, design: &Design, collected: &Collected) -> (PhaseBalance, Health) {
    let known = collected.phases.iter().find(|one| one.phase == phase);
    let shares: Vec<Share> = design
        .arms
        .iter()
        .map(|arm| Share {
            units: units_in(phase, &arm.key, collected),
            weight: weight(known, &arm.key).unwrap_or(arm.weight),
        })
        .collect();
    let by_history = known.is_some_and(|one| BY_HISTORY.contains(&one.mode.as_str()));
    let once = (!by_history).then(|| balance::check(&shares).ok()).flatten();
    let always = (!by_history).then(|| balance::check_sequentially(&shares).ok()).flatten();
    let health = Health::worst(
        once.map(|one| one.health).into_iter().chain(
            // The alarm needs as many units as the test.
            always
                .filter(|_| once.is_some_and(|one| one.health != Health::TooEarly))
                .map(|one| one.health),
        ),
    );
    let why_none = match (by_history, once) {
        (true, _) => Some("in this phase who was enrolled before stayed where they were"),
        (false, None) => Some("fewer than two arms have a weight, or there are no units"),
        (false, Some(_)) => None,
    };
    let balance = PhaseBalance {
        phase,
        status: health.name(),
        units: shares.iter().map(|share| share.units).collect(),
        weights: shares.iter().map(|share| share.weight).collect(),
        chi_square_p: once.map(|one| one.p),
        sequential_p: always.map(|one| one.p),
        deviation: once.map(|one| one.deviation),
        why_none,
    };
    (balance, health)
}

/// Movers too: the split decides where they are.
fn units_in(phase: u32, arm: &str, collected: &Collected) -> u64 {
    let here = |one: &&ArmSums| one.phase == phase && one.arm == arm;
    collected.sums.iter().filter(here).map(|one| one.units + one.crossed_units).sum()
}

fn weight(phase: Option<&Phase>, arm: &str) -> Option<u32> {
    phase?.arms.iter().find(|one| one.key == arm).map(|one| one.weight_millipercent)
}

fn feedback(design: &Design, collected: &Collected) -> Vec<(FeedbackBalance, Health)> {
    let first = collected.first_phase();
    let mut keys: Vec<&str> = collected.feedback.iter().map(|one| one.key.as_str()).collect();
    keys.sort_unstable();
    keys.dedup();
    keys.into_iter()
        .map(|key| {
            let units: Vec<[u64; 2]> = design
                .arms
                .iter()
                .map(|arm| {
                    let gave = collected
                        .feedback
                        .iter()
                        .filter(|one| one.key == key && one.arm == arm.key && one.phase >= first);
                    let all = collected.counted().filter(|one| one.arm == arm.key);
                    [gave.map(|one| one.units).sum(), all.map(|one| one.units).sum()]
                })
                .collect();
            let counts: Vec<Counts> =
                units.iter().filter_map(|[gave, all]| Counts::new(*gave, *all)).collect();
            let evenness = health::feedback(&counts);
            let status = evenness.health.name();
            (FeedbackBalance { key: key.to_owned(), status, p: evenness.p, units }, evenness.health)
        })
        .collect()
}
