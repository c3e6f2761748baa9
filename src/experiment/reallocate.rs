//! Another split or another enrolment while an experiment runs, and what that moves, said before it
//! is done.

use super::{Allocation, BUCKETS, Experiment};

/// Who may move.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Nobody: only units that are enrolled anew get the new split.
    Grow,
    /// As few as it takes.
    MinMove,
    /// Nobody who was ever served an arm; of the others as few as it takes.
    Sticky,
    /// Everybody, by a new salt.
    Rerandomise,
}

impl Mode {
    /// Every mode.
    pub const ALL: [Self; 4] = [Self::Grow, Self::MinMove, Self::Sticky, Self::Rerandomise];

    /// The word in requests and in the log of phases.
    pub fn name(self) -> &'static str {
        match self {
            Self::Grow => "grow",
            Self::MinMove => "min_move",
            Self::Sticky => "sticky",
            Self::Rerandomise => "rerandomise",
        }
    }

    /// Reads the word.
    pub fn read(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|mode| mode.name() == word)
    }
}

/// What is wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// Who may move.
    pub mode: Mode,
    /// The new share of each arm, in thousandths of a percent; adds up to 100 000.
    pub weights: Vec<u32>,
    /// How many buckets are enrolled.
    pub enrolled: u32,
}

/// What a reallocation does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reallocated {
    /// The buckets of the arms from then on.
    pub allocation: Allocation,
    /// As many were enrolled at some time since the last new salt.
    pub enrolled_most: u32,
    /// What it moves.
    pub moves: Moves,
}

/// What a reallocation moves, in parts of the buckets. Shares of units are these shares, because
/// the hash spreads units evenly.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Moves {
    /// Pairs of buckets that are enrolled before and after, and change their arm.
    pub moved: u64,
    /// Pairs of buckets that were enrolled before.
    pub enrolled: u64,
    /// Enrolment buckets that come in.
    pub joining: u32,
    /// Enrolment buckets that go out.
    pub leaving: u32,
}

impl Moves {
    /// The share of the enrolled units that changes its arm, in percent with three decimals.
    pub fn moved_percentage(&self) -> f64 {
        let whole = u128::from(self.enrolled.max(1));
        let thousandths = (u128::from(self.moved) * u128::from(BUCKETS) * 2 + whole) / (whole * 2);
        u32::try_from(thousandths).map_or(100.0, |share| f64::from(share) / 1000.0)
    }
}

/// Why a reallocation cannot be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// `grow` needs units that were never enrolled.
    #[error(
        "grow needs more enrolment than there ever was, {}.{:03} %; raise enrollment_percentage above \
         it, or use min_move", .most / 1000, .most % 1000
    )]
    NoRoom {
        /// The most that was enrolled, in thousandths of a percent.
        most: u32,
    },
    /// A share for each arm, and no other.
    #[error(
        "the split must have a share for each of the {expected} arms, adding up to exactly 100"
    )]
    Weights {
        /// How many arms there are.
        expected: usize,
    },
}

impl Experiment {
    /// What a reallocation would do. `sticky` is `min_move` in buckets: who keeps an arm in spite of
    /// its bucket is for the caller to find.
    pub fn reallocated(&self, target: &Target) -> Result<Reallocated, Refused> {
        let Target { mode, weights, enrolled } = target;
        let sum: u64 = weights.iter().map(|weight| u64::from(*weight)).sum();
        if weights.len() != self.arms.len() || sum != u64::from(BUCKETS) {
            return Err(Refused::Weights { expected: self.arms.len() });
        }
        let most = self.enrolled_most.max(self.enrolled);
        let allocation = match mode {
            Mode::Grow if *enrolled <= most => return Err(Refused::NoRoom { most }),
            Mode::Grow => self.allocation.grow(most, weights),
            Mode::MinMove | Mode::Sticky => self.allocation.min_move(weights),
            Mode::Rerandomise => Allocation::new(weights),
        };
        let enrolled_before = u64::from(self.enrolled) * u64::from(BUCKETS);
        let stay = self.enrolled.min(*enrolled);
        let moves = match mode {
            Mode::Grow | Mode::MinMove | Mode::Sticky => Moves {
                moved: self.allocation.moved(&allocation, stay),
                enrolled: enrolled_before,
                joining: enrolled.saturating_sub(self.enrolled),
                leaving: self.enrolled.saturating_sub(*enrolled),
            },
            Mode::Rerandomise => self.shuffled(weights, *enrolled),
        };
        let enrolled_most =
            if *mode == Mode::Rerandomise { *enrolled } else { most.max(*enrolled) };
        Ok(Reallocated { allocation, enrolled_most, moves })
    }

    /// What a new salt moves: old and new buckets say nothing about each other.
    fn shuffled(&self, weights: &[u32], enrolled: u32) -> Moves {
        let same: u64 = self
            .shares()
            .iter()
            .zip(weights)
            .map(|(old, new)| u64::from(*old) * u64::from(*new))
            .sum();
        let whole = u64::from(BUCKETS);
        let (old, new) = (u64::from(self.enrolled), u64::from(enrolled));
        let share = |part: u64| u32::try_from(part / whole).unwrap_or(BUCKETS);
        // Of those enrolled, so many are enrolled again, and of these so many get another arm.
        let moved =
            u128::from(old * new) * u128::from(whole * whole - same) / u128::from(whole * whole);
        Moves {
            moved: u64::try_from(moved).unwrap_or(u64::MAX),
            enrolled: old * whole,
            joining: share((whole - old) * new),
            leaving: share(old * (whole - new)),
        }
    }
}
