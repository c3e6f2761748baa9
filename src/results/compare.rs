//! From sums to results: each metric, each variant against control, and the verdict over all.

use std::time::Duration;

use jiff::Timestamp;

use super::collected::{ArmSums, Collected};
use super::design::{ArmPlan, Design, Measured};
use super::metric::{Metric, count};
use super::report::{
    ArmResult, Belief, Comparison, Harm, MetricResult, ParametersUsed, Progress, Results, Side,
    Watermark,
};
use super::soundness::{self, Losses};
use crate::statistics::multiple::{benjamini_hochberg, holm, significance};
use crate::statistics::plan::Plan;
use crate::statistics::proportion::{self, Proportions, Test};
use crate::statistics::verdict::{Contrast, Evidence, Reading, Verdict, verdict};
use crate::statistics::{
    self, Alpha, Analysis, Better, Counts, Interval, NoAnswer, Scale, Sequence, TARGET_UNITS,
    UNITS_PER_ARM_MIN,
};

/// What a plan wants to be sure of.
const POWER: f64 = 0.8;
/// Quantiles of the response time that are compared, in percent: the median, and what the slow calls take.
const QUANTILES: [u8; 2] = [50, 95];
const SECONDS_PER_HOUR: f64 = 3600.0;
const SEALED: &str = "the analysis is fixed: it is read once, at its end or its size";

/// How a metric stands in an experiment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Role {
    Primary,
    Secondary,
    Harm,
    Exploratory,
}

/// A comparison, and what the verdict takes of it.
struct Compared {
    shown: Comparison,
    contrast: Option<Contrast>,
    harms: bool,
}

/// Puts together what an experiment has shown by `now`.
pub fn results(design: &Design, collected: &Collected, now: Timestamp, losses: &Losses) -> Results {
    let study = Study::new(design, collected, now);
    let (health, worst) = soundness::check(design, collected, losses);
    let primary = study.compare(&design.primary, Role::Primary);
    let mut metrics = vec![study.metric(&design.primary, Role::Primary, &primary)];
    for measured in &design.secondary {
        let compared = study.compare(measured, Role::Secondary);
        metrics.push(study.metric(measured, Role::Secondary, &compared));
    }
    let mut harm = study.known_harm();
    for metric in [Metric::SuccessRate, Metric::BlockedRate] {
        let measured = Measured::plain(metric);
        let compared = study.compare(&measured, Role::Harm);
        let seen = compared.iter().find(|one| one.harms);
        if let Some(one) = seen.filter(|_| harm.is_none()) {
            harm = Some(study.harm(&one.shown.arm, &measured.metric.name(), now));
        }
        metrics.push(study.metric(&measured, Role::Harm, &compared));
    }
    for percent in QUANTILES.into_iter().filter(|_| collected.latencies.is_some()) {
        let measured = Measured::plain(Metric::ResponseTimeQuantile { percent });
        let compared = study.compare(&measured, Role::Exploratory);
        metrics.push(study.metric(&measured, Role::Exploratory, &compared));
    }
    let harm_stopped = harm.as_ref().is_some_and(|one| one.stops);
    let verdict = study.verdict(&primary, worst, harm_stopped);
    let better_arm = match verdict {
        Verdict::VariantBetter { variant } => {
            study.variants().nth(variant).map(|arm| arm.key.clone())
        }
        Verdict::ControlBetter => design.arms.first().map(|arm| arm.key.clone()),
        _ => None,
    };
    let adjusted = metrics.first().map(|one| one.comparisons.as_slice()).unwrap_or_default();
    let least = adjusted.iter().filter_map(|one| one.p_adjusted).reduce(f64::min);
    let is_sealed = study.reading == Reading::Sealed;
    Results {
        computed_at: now,
        watermark: study.watermark(),
        parameters: study.parameters(),
        progress: study.progress(),
        arms: design.arms.iter().map(|arm| study.arm(arm)).collect(),
        statistical_significance: least.map(significance).filter(|_| !is_sealed),
        metrics,
        health,
        harm,
        verdict: verdict.name(),
        better_arm,
        reading: if is_sealed { "sealed" } else { "open" },
        is_final: design.rules.fixed && !is_sealed,
    }
}

struct Study<'s> {
    design: &'s Design,
    collected: &'s Collected,
    now: Timestamp,
    phases: Vec<u32>,
    sequence: Sequence,
    analysis: Analysis,
    reading: Reading,
}

impl<'s> Study<'s> {
    fn new(design: &'s Design, collected: &'s Collected, now: Timestamp) -> Self {
        let frozen = collected.parameters.as_ref().map(|frozen| frozen.target_units);
        let sequence = Sequence::new(frozen.or(design.target_units), design.rules.alpha);
        let analysis =
            if design.rules.fixed { Analysis::Fixed } else { Analysis::Sequential(sequence) };
        let has_ended = design.is_completed || design.end.is_some_and(|end| end <= now);
        let units = collected.counted().map(|one| one.units).sum();
        let progress =
            statistics::verdict::Progress { units, target_units: design.target_units, has_ended };
        Self {
            design,
            collected,
            now,
            phases: collected.phases_counted(),
            sequence,
            analysis,
            reading: Reading::of(analysis, progress),
        }
    }

    fn variants(&self) -> impl Iterator<Item = &'s ArmPlan> {
        self.design.arms.iter().skip(1)
    }

    fn sums(&self, phase: u32, arm: &str) -> Option<&'s ArmSums> {
        self.collected.sums.iter().find(|one| one.phase == phase && one.arm == arm)
    }

    /// The level at which an interval of this role is read.
    fn level(&self, role: Role) -> Alpha {
        let variants = self.design.arms.len().saturating_sub(1);
        match role {
            Role::Primary => self.design.rules.alpha.split(variants),
            Role::Secondary | Role::Harm | Role::Exploratory => self.design.rules.alpha,
        }
    }

    fn compare(&self, measured: &Measured, role: Role) -> Vec<Compared> {
        let mut compared: Vec<Compared> =
            self.variants().map(|arm| self.contrast(measured, role, arm)).collect();
        let decisive = |one: &Compared| one.contrast.map_or(1.0, |contrast| contrast.p);
        let p_values: Vec<f64> = compared.iter().map(decisive).collect();
        let adjusted = match role {
            Role::Primary => holm(&p_values),
            Role::Secondary | Role::Exploratory => benjamini_hochberg(&p_values),
            Role::Harm => p_values,
        };
        let hidden = self.reading == Reading::Sealed;
        for (one, adjusted) in compared.iter_mut().zip(adjusted) {
            one.shown.p_adjusted = one.contrast.map(|_| adjusted).filter(|_| !hidden);
        }
        compared
    }

    /// One variant against control: each phase by itself, then all of them weighted.
    fn contrast(&self, measured: &Measured, role: Role, arm: &ArmPlan) -> Compared {
        let mut left_out = Vec::new();
        let mut why = NoAnswer::TooFewUnits;
        let (mut pairs, mut comparisons) = (Vec::new(), Vec::new());
        for phase in &self.phases {
            let pair = self.in_phase(&measured.metric, *phase, &arm.key);
            pairs.extend(pair);
            match pair.and_then(|[control, variant]| statistics::Comparison::new(control, variant))
            {
                Ok(comparison) => comparisons.push(comparison),
                Err(none) => {
                    left_out.push(*phase);
                    why = none;
                }
            }
        }
        let shown = self.empty(measured, arm, left_out);
        let Some(comparison) = statistics::combine(&comparisons) else {
            // Arms that do not differ have their numbers all the same.
            let [control, variant] = statistics::weigh_pairs(&pairs)
                .map_or([None; 2], |pair| self.sides(&measured.metric, arm, pair).map(Some));
            let why_none = Some(why.to_string());
            let shown = Comparison { control, variant, why_none, ..shown };
            return Compared { shown, contrast: None, harms: false };
        };
        let pair = [comparison.control(), comparison.variant()];
        let [control, variant] = self.sides(&measured.metric, arm, pair).map(Some);
        let shown = Comparison {
            control,
            variant,
            difference: Some(comparison.difference()),
            se: Some(comparison.se()),
            always_valid_p: self.sequence.p(&comparison).ok(),
            ..shown
        };
        self.read(measured, role, &comparison, shown)
    }

    fn sides(&self, metric: &Metric, arm: &ArmPlan, pair: [statistics::Estimate; 2]) -> [Side; 2] {
        let executions = |arm: &ArmPlan| metric.executions(&arm.key, self.collected);
        let side = |estimate: statistics::Estimate, n_executions| Side {
            n_units: estimate.units,
            n_executions,
            estimate: estimate.value,
            se: estimate.variance.sqrt(),
            interval: None,
        };
        let [control, variant] = pair;
        [side(control, self.control().map_or(0, executions)), side(variant, executions(arm))]
    }

    /// Reads a comparison by the one rule that decides.
    fn read(
        &self,
        measured: &Measured,
        role: Role,
        comparison: &statistics::Comparison,
        shown: Comparison,
    ) -> Compared {
        let (level, scale) = (self.level(role), measured.metric.scale());
        let once = Analysis::Fixed.answer(comparison, level, scale).ok();
        let pair = self.shares(&measured.metric, &shown.arm);
        let shares =
            pair.and_then(|(control, variant)| proportion::compare(control, variant, level).ok());
        let p = shares.map(|one| one.p).or(once.map(|one| one.p));
        // Harm is looked for at every look, whatever the analysis.
        let analysis =
            if role == Role::Harm { Analysis::Sequential(self.sequence) } else { self.analysis };
        let (answer, why) = match analysis.answer(comparison, level, scale) {
            Ok(answer) => (Some(answer), None),
            Err(none) => (None, Some(none.to_string())),
        };
        let harms = role == Role::Harm
            && answer
                .is_some_and(|one| one.harms(measured.better, self.design.rules.harm_tolerated));
        let sealed = self.reading == Reading::Sealed && role != Role::Harm;
        let belief = pair.map(|(control, variant)| Belief::of(control, variant, measured.better));
        let test = shares.map(|one| one.test.name());
        let shares = shares.filter(|_| matches!(analysis, Analysis::Fixed));
        let contrast = shares.as_ref().map(Contrast::from).or(answer.as_ref().map(Contrast::from));
        let lift_interval = match shares {
            Some(shares) => shares.lift,
            None => answer.and_then(|one| one.lift_range.interval()),
        };
        let ends = |one: Interval| [one.low, one.high];
        let significant = contrast.is_some_and(|one| one.p < level.share());
        let around = |side: Option<Side>, arm: fn(&Proportions) -> Interval| {
            let interval = shares.as_ref().map(arm).map(ends).filter(|_| !sealed);
            side.map(|side| Side { interval, ..side })
        };
        let shown = Comparison {
            control: around(shown.control, |shares| shares.control),
            variant: around(shown.variant, |shares| shares.variant),
            interval: contrast.map(|one| ends(one.interval)).filter(|_| !sealed),
            interval_approximate: shares.is_some_and(|one| one.test == Test::FisherExact),
            p: p.filter(|_| !sealed),
            test,
            belief: belief.filter(|_| !sealed),
            lift: lift(comparison, scale),
            lift_interval: lift_interval.map(ends).filter(|_| !sealed),
            significant: significant && !sealed,
            why_none: if sealed { Some(SEALED.to_owned()) } else { why },
            ..shown
        };
        Compared { shown, contrast, harms }
    }

    /// What both arms say in one phase, control first.
    fn in_phase(
        &self,
        metric: &Metric,
        phase: u32,
        arm: &str,
    ) -> Result<[statistics::Estimate; 2], NoAnswer> {
        let control = self.control().and_then(|control| self.sums(phase, &control.key));
        let control = control.ok_or(NoAnswer::TooFewUnits)?;
        let variant = self.sums(phase, arm).ok_or(NoAnswer::TooFewUnits)?;
        let estimate = |arm| metric.estimate(arm, self.collected);
        Ok([estimate(control)?, estimate(variant)?])
    }

    /// Two shares of one phase, where each request is a unit: they have tests of their own.
    fn shares(&self, metric: &Metric, arm: &str) -> Option<(Counts, Counts)> {
        let [phase] = self.phases.as_slice() else { return None };
        let control = self.control().and_then(|control| self.sums(*phase, &control.key));
        let pair = metric.counts(control?).zip(metric.counts(self.sums(*phase, arm)?));
        pair.filter(|_| self.design.per_request)
    }

    fn control(&self) -> Option<&'s ArmPlan> {
        self.design.arms.first()
    }

    fn empty(&self, measured: &Measured, arm: &ArmPlan, left_out: Vec<u32>) -> Comparison {
        let reached = self.collected.milestone("significant", &measured.metric.name(), &arm.key);
        Comparison {
            arm: arm.key.clone(),
            control: None,
            variant: None,
            difference: None,
            se: None,
            interval: None,
            interval_approximate: false,
            p: None,
            test: None,
            belief: None,
            always_valid_p: None,
            p_adjusted: None,
            lift: None,
            lift_interval: None,
            significant: false,
            ever_significant_at: reached.map(|one| one.at),
            phases_left_out: left_out,
            why_none: None,
        }
    }

    fn metric(&self, measured: &Measured, role: Role, compared: &[Compared]) -> MetricResult {
        let mut comparisons: Vec<Comparison> =
            compared.iter().map(|one| one.shown.clone()).collect();
        // Nothing dates what is read only when somebody asks.
        let is_dated = role != Role::Exploratory;
        for one in comparisons.iter_mut().filter(|one| one.significant && is_dated) {
            one.ever_significant_at.get_or_insert(self.now);
        }
        let (role, adjustment) = match role {
            Role::Primary => ("primary", "holm"),
            Role::Secondary => ("secondary", "benjamini_hochberg"),
            Role::Harm => ("harm", "none"),
            Role::Exploratory => ("exploratory", "benjamini_hochberg"),
        };
        let is_share = matches!(measured.metric, Metric::SuccessRate | Metric::BlockedRate);
        let method = match (self.design.per_request && is_share, self.analysis) {
            (true, Analysis::Fixed) => "two proportions, pooled z or Fisher; Newcombe, Katz",
            _ => measured.metric.method(),
        };
        MetricResult {
            metric: measured.metric.name(),
            role,
            unit: measured.metric.unit(),
            better: if measured.better == Better::Higher { "higher" } else { "lower" },
            method,
            adjustment,
            comparisons,
        }
    }

    fn verdict(
        &self,
        primary: &[Compared],
        health: statistics::health::Health,
        harm_stopped: bool,
    ) -> Verdict {
        // A variant without an answer is open.
        let open = Contrast {
            difference: 0.0,
            interval: Interval { low: f64::NEG_INFINITY, high: f64::INFINITY },
            p: 1.0,
        };
        let answered = primary.iter().any(|one| one.contrast.is_some());
        let contrasts: Vec<Contrast> = if answered {
            primary.iter().map(|one| one.contrast.unwrap_or(open)).collect()
        } else {
            Vec::new()
        };
        let units = |one: &Compared| {
            [one.shown.control, one.shown.variant].map(|side| side.map_or(0, |side| side.n_units))
        };
        verdict(&Evidence {
            contrasts: &contrasts,
            units_per_arm_min: primary.iter().flat_map(units).min().unwrap_or_default(),
            alpha: self.design.rules.alpha,
            better: self.design.primary.better,
            minimal_effect: self.design.primary.minimal_effect,
            health,
            harm_stopped,
            runtime: self.runtime().unwrap_or_default(),
            runtime_min: self.design.rules.runtime_min,
            reading: self.reading,
        })
    }

    fn known_harm(&self) -> Option<Harm> {
        let first = self.collected.milestones.iter().filter(|one| one.kind == "harm");
        let first = first.min_by_key(|one| one.at)?;
        Some(self.harm(&first.arm, &first.metric, first.at))
    }

    fn harm(&self, arm: &str, metric: &str, at: Timestamp) -> Harm {
        let stops = self.design.rules.harm_stop;
        Harm { arm: arm.to_owned(), metric: metric.to_owned(), at, stops }
    }

    /// From the start, or from the first execution where no start is known.
    fn runtime(&self) -> Option<Duration> {
        let first = self.collected.counted().filter_map(|one| one.first_seen_at).min();
        let start = self.design.start.or(first)?;
        let end = self.design.end.map_or(self.now, |end| end.min(self.now));
        Some(end.duration_since(start).unsigned_abs()).filter(|_| end > start)
    }

    fn watermark(&self) -> Watermark {
        let total = |one: fn(&ArmSums) -> u64| self.collected.counted().map(one).sum();
        Watermark {
            executions: total(|one| one.executions),
            units: total(|one| one.units),
            feedback: self.collected.feedback.iter().map(|one| one.count).sum(),
            last_seen_at: self.collected.counted().filter_map(|one| one.last_seen_at).max(),
        }
    }

    fn parameters(&self) -> ParametersUsed {
        let (rules, frozen) = (&self.design.rules, self.collected.parameters.as_ref());
        let target = frozen.map(|frozen| frozen.target_units).or(self.design.target_units);
        ParametersUsed {
            analysis: if rules.fixed { "fixed" } else { "sequential" },
            alpha: rules.alpha.share(),
            alpha_per_variant: self.level(Role::Primary).share(),
            target_units: target.unwrap_or(TARGET_UNITS),
            units_per_arm_min: UNITS_PER_ARM_MIN,
            latency_cap_ms: frozen.and_then(|frozen| frozen.latency_cap_ms),
            cost_cap_usd: frozen.and_then(|frozen| frozen.cost_cap_usd),
            cap_calls: frozen.map_or(0, |frozen| frozen.calls),
            frozen_at: frozen.map(|frozen| frozen.frozen_at),
            hash_version: self.design.hash_version,
            minimal_effect: self.design.primary.minimal_effect,
            runtime_min_hours: rules.runtime_min.as_secs_f64() / SECONDS_PER_HOUR,
            harm_stop: rules.harm_stop,
            harm_tolerated: rules.harm_tolerated,
            first_phase: self.collected.first_phase(),
        }
    }

    fn progress(&self) -> Progress {
        let units = self.watermark().units;
        let target = self.design.target_units;
        let hours = self.runtime().map(|runtime| runtime.as_secs_f64() / SECONDS_PER_HOUR);
        let left = target
            .zip(hours)
            .filter(|_| units > 0)
            .map(|(target, hours)| count(target.saturating_sub(units)) * hours / count(units));
        let percent = target.map(|target| count(units) * 100.0 / count(target));
        Progress {
            units,
            target_units: target,
            percent,
            runtime_hours: hours,
            hours_left: left,
            smallest_effect_at_target: self.smallest_effect(),
        }
    }

    fn smallest_effect(&self) -> Option<f64> {
        let control = self.control()?;
        let sums = self.collected.counted().filter(|one| one.arm == control.key);
        let (successes, executions) = sums.fold((0, 0), |(successes, executions), one| {
            (successes + one.successes, executions + one.executions)
        });
        let base = Counts::new(successes, executions)?.share()?;
        let per_arm = self.design.target_units? / self.design.arms.len().max(1) as u64;
        Plan::new(self.level(Role::Primary), POWER)?.smallest_effect(base, per_arm, Better::Higher)
    }

    fn arm(&self, plan: &ArmPlan) -> ArmResult {
        let mut all = ArmSums::default();
        for one in self.collected.counted().filter(|one| one.arm == plan.key) {
            all.units += one.units;
            all.executions += one.executions;
            all.attempted += one.attempted;
            all.successes += one.successes;
            all.blocked += one.blocked;
            all.quota += one.quota;
            all.client_left += one.client_left;
            all.unpriced += one.unpriced;
            all.crossed_units += one.crossed_units;
            all.prompt_tokens += one.prompt_tokens;
            all.cached_tokens += one.cached_tokens;
        }
        let of_arm = self.collected.feedback.iter().filter(|one| one.arm == plan.key);
        ArmResult {
            arm: plan.key.clone(),
            template_id: plan.template_id,
            units: all.units,
            executions: all.executions,
            attempted: all.attempted,
            successes: all.successes,
            blocked: all.blocked,
            quota: all.quota,
            client_left: all.client_left,
            unpriced: all.unpriced,
            crossed_units: all.crossed_units,
            cached_token_share: (all.prompt_tokens > 0.0)
                .then(|| all.cached_tokens / all.prompt_tokens),
            feedback: of_arm.map(|one| one.count).sum(),
        }
    }
}

/// Read straight from the values: also while intervals are sealed.
fn lift(comparison: &statistics::Comparison, scale: Scale) -> Option<f64> {
    let (control, difference) = (comparison.control().value, comparison.difference());
    match scale {
        Scale::Linear => (control.abs() > 0.0).then(|| difference / control),
        Scale::Log => Some(difference.exp_m1()),
    }
}
