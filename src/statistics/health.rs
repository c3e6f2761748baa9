//! Whether the data may be believed: movers, units without a name, lost rows, feedback that one arm
//! gives more often. The balance of the arms is in [`super::balance`].

use super::{Counts, proportion};

/// Above this share of units that saw two arms, a warning.
const CROSSED_MAX: f64 = 0.01;
/// Above this share of calls that named no unit, a warning.
const NAMELESS_MAX: f64 = 0.05;
/// Above this share of lost rows, a warning.
const LOST_MAX: f64 = 0.001;
/// Below this p, what should be alike in all arms is not.
const UNEVEN_P: f64 = 0.001;

/// What one check says; a later one is worse.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Health {
    /// Too little was seen to say.
    TooEarly,
    /// Nothing found.
    Sound,
    /// To be looked at; the verdict stands.
    Warning,
    /// The verdict is void.
    Invalid,
}

impl Health {
    /// The worst of several checks; [`Health::TooEarly`] when there are none.
    pub fn worst(checks: impl IntoIterator<Item = Self>) -> Self {
        checks.into_iter().max().unwrap_or(Self::TooEarly)
    }

    /// The word in records and answers.
    pub fn name(self) -> &'static str {
        match self {
            Self::TooEarly => "too_early",
            Self::Sound => "sound",
            Self::Warning => "warning",
            Self::Invalid => "invalid",
        }
    }
}

/// How alike a share is in all arms.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Evenness {
    /// The smallest two-sided p of a variant against control, times the number of variants
    /// (Bonferroni).
    pub p: f64,
    /// What that means.
    pub health: Health,
}

/// Units that moved to another arm, among all units. They are not analysed; they were picked by a
/// hash, so many of them are no more than a warning.
pub fn crossovers(moved: Counts) -> Health {
    at_most(moved, CROSSED_MAX)
}

/// Calls that named no unit, among all calls of the template.
pub fn without_unit(nameless: Counts) -> Health {
    at_most(nameless, NAMELESS_MAX)
}

/// Rows lost among rows due, control's first: many are a warning, many more in one arm void the
/// verdict.
pub fn lost_rows(arms: &[Counts]) -> Evenness {
    let evenness = evenness(arms);
    let mut all = Counts::default();
    for arm in arms {
        all.merge(*arm);
    }
    Evenness { health: evenness.health.max(at_most(all, LOST_MAX)), ..evenness }
}

/// Units that gave feedback among all units, control's first. Where one arm's units answer more
/// often, those who answer are not the same people, and scores of feedback compare nothing.
pub fn feedback(arms: &[Counts]) -> Evenness {
    evenness(arms)
}

fn evenness(arms: &[Counts]) -> Evenness {
    let Some((control, variants)) = arms.split_first() else {
        return Evenness { p: 1.0, health: Health::TooEarly };
    };
    let tests: Vec<f64> = variants
        .iter()
        .filter_map(|variant| proportion::test(*control, *variant).ok())
        .map(|(_, p)| p)
        .collect();
    if tests.is_empty() {
        return Evenness { p: 1.0, health: Health::TooEarly };
    }
    let count = super::real(tests.len() as u64);
    let p = tests.into_iter().fold(1.0, |least: f64, p| least.min(p * count));
    Evenness { p, health: if p < UNEVEN_P { Health::Invalid } else { Health::Sound } }
}

fn at_most(counts: Counts, bound: f64) -> Health {
    match counts.share() {
        None => Health::TooEarly,
        Some(share) if share > bound => Health::Warning,
        Some(_) => Health::Sound,
    }
}

#[cfg(test)]
mod tests {
    use super::{Health, crossovers, feedback, lost_rows, without_unit};
    use crate::statistics::tests::{assert_near, counts};

    #[test]
    fn shares_above_their_bound_warn() {
        for (health, expected) in [
            (crossovers(counts(10, 1000)), Health::Sound),
            (crossovers(counts(11, 1000)), Health::Warning),
            (without_unit(counts(50, 1000)), Health::Sound),
            (without_unit(counts(51, 1000)), Health::Warning),
            (without_unit(counts(0, 0)), Health::TooEarly),
            (lost_rows(&[counts(1, 1000), counts(1, 1000)]).health, Health::Sound),
            (lost_rows(&[counts(2, 1000), counts(2, 1000)]).health, Health::Warning),
            (lost_rows(&[counts(0, 100_000), counts(30, 100_000)]).health, Health::Invalid),
            (lost_rows(&[]).health, Health::TooEarly),
        ] {
            assert_eq!(health, expected);
        }
    }

    /// p by scipy 1.17.1: twice `norm.sf` of the pooled z.
    #[test]
    fn feedback_that_one_arm_gives_more_often_voids() {
        let even = feedback(&[counts(300, 1000), counts(320, 1000)]);
        assert_near(even.p, 0.333_562_809_837_058_2, 1e-9);
        assert_eq!(even.health, Health::Sound);
        let uneven = feedback(&[counts(300, 1000), counts(320, 1000), counts(380, 1000)]);
        assert_near(uneven.p, 3.183_830_193_198_93e-4, 1e-9);
        assert_eq!(uneven.health, Health::Invalid);
        assert_eq!(feedback(&[counts(3, 10)]).health, Health::TooEarly);
    }

    #[test]
    fn the_worst_counts() {
        assert_eq!(
            Health::worst([Health::Warning, Health::Invalid, Health::Sound]),
            Health::Invalid
        );
        assert_eq!(Health::worst([]), Health::TooEarly);
    }
}
