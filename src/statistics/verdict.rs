//! What an experiment means: one word from the checks, the intervals and the time it ran.

use std::time::Duration;

use super::health::Health;
use super::proportion::Proportions;
use super::{Alpha, Analysis, Answer, Better, Interval, UNITS_PER_ARM_MIN};

/// How long an experiment runs before a variant may be called fit to ship: load and people change
/// by the hour. A week is better.
pub const RUNTIME_MIN: Duration = Duration::from_hours(72);

/// The state of an experiment's question.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// An arm holds fewer than 100 units, or the metric has no answer.
    InsufficientData,
    /// A health check voids whatever the numbers say.
    Invalid,
    /// Nothing is decided yet.
    Running,
    /// A variant beats control; the best of them when several do.
    VariantBetter {
        /// Its place among the variants, from 0.
        variant: usize,
    },
    /// Control beats every variant.
    ControlBetter,
    /// No variant differs from control by as much as matters.
    Equivalent,
    /// A variant did harm and the experiment was stopped.
    HarmStopped,
}

impl Verdict {
    /// The word in records and answers.
    pub fn name(self) -> &'static str {
        match self {
            Self::InsufficientData => "insufficient_data",
            Self::Invalid => "invalid",
            Self::Running => "running",
            Self::VariantBetter { .. } => "variant_better",
            Self::ControlBetter => "control_better",
            Self::Equivalent => "equivalent",
            Self::HarmStopped => "harm_stopped",
        }
    }
}

/// One variant against control on the primary metric.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Contrast {
    /// Variant minus control.
    pub difference: f64,
    /// Its interval at alpha split by the number of variants.
    pub interval: Interval,
    /// Its p-value before any adjustment.
    pub p: f64,
}

impl From<&Answer> for Contrast {
    fn from(answer: &Answer) -> Self {
        Self { difference: answer.difference, interval: answer.interval, p: answer.p }
    }
}

impl From<&Proportions> for Contrast {
    fn from(shares: &Proportions) -> Self {
        Self { difference: shares.difference, interval: shares.interval, p: shares.p }
    }
}

/// When the primary metric may be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reading {
    /// Now: the analysis is sequential, or a fixed one has reached its end or its size.
    Open,
    /// Not before its end: the analysis is fixed and still collecting.
    Sealed,
}

/// How far an experiment has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// Units of all arms.
    pub units: u64,
    /// How many it wants, when it says.
    pub target_units: Option<u64>,
    /// Whether its end has passed or it was stopped.
    pub has_ended: bool,
}

impl Reading {
    /// A fixed analysis is sealed until the end or the target, whichever comes first. What it then
    /// reads is its one look: the caller keeps it.
    pub fn of(analysis: Analysis, progress: Progress) -> Self {
        let is_full = progress.target_units.is_some_and(|target| progress.units >= target);
        match analysis {
            Analysis::Sequential(_) => Self::Open,
            Analysis::Fixed if progress.has_ended || is_full => Self::Open,
            Analysis::Fixed => Self::Sealed,
        }
    }
}

/// All that a verdict is made of.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Evidence<'e> {
    /// Each variant against control, in their stored order.
    pub contrasts: &'e [Contrast],
    /// Units of the smallest arm.
    pub units_per_arm_min: u64,
    /// The alpha of the whole experiment.
    pub alpha: Alpha,
    /// Where the primary metric should go.
    pub better: Better,
    /// The smallest difference that matters, on the scale of the differences; without one nothing
    /// is equivalent.
    pub minimal_effect: Option<f64>,
    /// The worst of the health checks.
    pub health: Health,
    /// Whether a harm metric stopped the experiment ([`Answer::harms`]).
    pub harm_stopped: bool,
    /// How long the experiment ran.
    pub runtime: Duration,
    /// How long it must run, [`RUNTIME_MIN`] unless told otherwise.
    pub runtime_min: Duration,
    /// Whether the metric may be read.
    pub reading: Reading,
}

/// How one variant stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Standing {
    Better,
    Worse,
    Equivalent,
    Open,
}

/// The verdict.
///
/// A contrast is significant when its p is below alpha over the number of variants: the same
/// decision as that of the interval of an [`Answer`] beside it. (Newcombe's is close to its p, not
/// the same; Holm's adjusted p, which is reported, can reach alpha for a further variant a little
/// earlier.) An interval within the minimal effect is equivalent even where it leaves out 0: what
/// does not matter is no win. A harm stop stands before everything else, because it was acted upon;
/// control may win before the minimal time, because nothing is shipped.
pub fn verdict(evidence: &Evidence<'_>) -> Verdict {
    if evidence.harm_stopped {
        return Verdict::HarmStopped;
    }
    if evidence.health == Health::Invalid {
        return Verdict::Invalid;
    }
    if evidence.contrasts.is_empty() || evidence.units_per_arm_min < UNITS_PER_ARM_MIN {
        return Verdict::InsufficientData;
    }
    if evidence.reading == Reading::Sealed {
        return Verdict::Running;
    }
    let standings: Vec<Standing> =
        evidence.contrasts.iter().map(|contrast| standing(contrast, evidence)).collect();
    let all = |wanted: Standing| standings.iter().all(|one| *one == wanted);
    if all(Standing::Worse) {
        return Verdict::ControlBetter;
    }
    if evidence.runtime < evidence.runtime_min {
        return Verdict::Running;
    }
    if let Some(variant) = best(evidence, &standings) {
        return Verdict::VariantBetter { variant };
    }
    if all(Standing::Equivalent) { Verdict::Equivalent } else { Verdict::Running }
}

fn standing(contrast: &Contrast, evidence: &Evidence<'_>) -> Standing {
    if evidence.minimal_effect.is_some_and(|effect| contrast.interval.is_within(effect)) {
        return Standing::Equivalent;
    }
    let level = evidence.alpha.split(evidence.contrasts.len());
    if contrast.p >= level.share() || contrast.p.is_nan() {
        Standing::Open
    } else if evidence.better.gain(contrast.difference) > 0.0 {
        Standing::Better
    } else {
        Standing::Worse
    }
}

fn best(evidence: &Evidence<'_>, standings: &[Standing]) -> Option<usize> {
    let gain = |contrast: &Contrast| evidence.better.gain(contrast.difference);
    let better = evidence.contrasts.iter().zip(standings).enumerate();
    better
        .filter(|(_, (_, standing))| **standing == Standing::Better)
        .max_by(|(_, (one, _)), (_, (other, _))| gain(one).total_cmp(&gain(other)))
        .map(|(variant, _)| variant)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{Contrast, Evidence, Progress, RUNTIME_MIN, Reading, Verdict, verdict};
    use crate::statistics::health::Health;
    use crate::statistics::{Alpha, Analysis, Better, Interval, Sequence};

    const BETTER: Contrast = contrast(0.03, 0.01, 0.001);
    const MUCH_BETTER: Contrast = contrast(0.05, 0.01, 0.0001);
    const WORSE: Contrast = contrast(-0.03, 0.01, 0.001);
    const OPEN: Contrast = contrast(0.01, 0.02, 0.3);
    const TINY: Contrast = contrast(0.002, 0.001, 0.001);

    const fn contrast(difference: f64, half: f64, p: f64) -> Contrast {
        let interval = Interval { low: difference - half, high: difference + half };
        Contrast { difference, interval, p }
    }

    fn of(contrasts: &[Contrast]) -> Evidence<'_> {
        Evidence {
            contrasts,
            units_per_arm_min: 2000,
            alpha: Alpha::FIVE_PERCENT,
            better: Better::Higher,
            minimal_effect: Some(0.005),
            health: Health::Warning,
            harm_stopped: false,
            runtime: Duration::from_hours(24 * 7),
            runtime_min: RUNTIME_MIN,
            reading: Reading::Open,
        }
    }

    #[test]
    fn contrasts_decide() {
        for (contrasts, expected) in [
            (&[][..], Verdict::InsufficientData),
            (&[BETTER], Verdict::VariantBetter { variant: 0 }),
            (&[WORSE, BETTER, MUCH_BETTER], Verdict::VariantBetter { variant: 2 }),
            (&[WORSE], Verdict::ControlBetter),
            (&[WORSE, OPEN], Verdict::Running),
            (&[OPEN], Verdict::Running),
            (&[TINY], Verdict::Equivalent),
            (&[TINY, TINY], Verdict::Equivalent),
            (&[TINY, OPEN], Verdict::Running),
            // 0.03 is below 0.05 and not below a half of it.
            (&[contrast(0.03, 0.029, 0.03)], Verdict::VariantBetter { variant: 0 }),
            (&[contrast(0.03, 0.031, 0.03), OPEN], Verdict::Running),
        ] {
            assert_eq!(verdict(&of(contrasts)), expected, "{contrasts:?}");
        }
    }

    #[test]
    fn what_lowers_a_cost_is_better() {
        let cheaper = Evidence { better: Better::Lower, ..of(&[WORSE]) };
        assert_eq!(verdict(&cheaper), Verdict::VariantBetter { variant: 0 });
    }

    #[test]
    fn a_fixed_analysis_is_read_at_its_end_or_size() {
        let sequence = Analysis::Sequential(Sequence::new(None, Alpha::FIVE_PERCENT));
        let half = Progress { units: 500, target_units: Some(1000), has_ended: false };
        for (analysis, progress, expected) in [
            (sequence, half, Reading::Open),
            (Analysis::Fixed, half, Reading::Sealed),
            (Analysis::Fixed, Progress { target_units: None, ..half }, Reading::Sealed),
            (Analysis::Fixed, Progress { units: 1000, ..half }, Reading::Open),
            (Analysis::Fixed, Progress { has_ended: true, ..half }, Reading::Open),
        ] {
            assert_eq!(Reading::of(analysis, progress), expected, "{progress:?}");
        }
    }

    #[test]
    fn what_comes_before_the_numbers() {
        let good = of(&[BETTER]);
        let early = Duration::from_hours(71);
        for (evidence, expected) in [
            (Evidence { health: Health::Invalid, ..good }, Verdict::Invalid),
            (Evidence { units_per_arm_min: 99, ..good }, Verdict::InsufficientData),
            (Evidence { runtime: early, ..good }, Verdict::Running),
            (Evidence { runtime: early, ..of(&[TINY]) }, Verdict::Running),
            (Evidence { runtime: early, ..of(&[WORSE]) }, Verdict::ControlBetter),
            (Evidence { reading: Reading::Sealed, ..good }, Verdict::Running),
            (
                Evidence { harm_stopped: true, health: Health::Invalid, ..good },
                Verdict::HarmStopped,
            ),
            (
                Evidence { minimal_effect: None, ..of(&[TINY]) },
                Verdict::VariantBetter { variant: 0 },
            ),
        ] {
            assert_eq!(verdict(&evidence), expected, "{evidence:?}");
        }
    }
}
