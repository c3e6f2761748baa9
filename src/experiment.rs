//! Who sees which arm.
//!
//! Assignment is a pure function of experiment, unit and time: it needs no store, is the same in
//! every sidecar and can be recomputed in SQL. Knows nothing of templates, requests or statistics.

mod allocation;
mod assign;
mod groups;
mod reallocate;

pub use allocation::{Allocation, NotCovered, Range};
pub use assign::{BUCKETS, HASH_VERSION, Purpose, UNIT_BYTES_MAX, bucket, canonical, hashed};
pub use groups::{Group, Grouped, Groups};
pub use reallocate::{Mode, Moves, Reallocated, Refused, Target};

use std::collections::{HashMap, HashSet};

use jiff::Timestamp;

use crate::words::ids::{ExperimentId, TemplateId};

/// What is randomised.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Unit {
    /// The user a call names.
    User,
    /// The conversation a call names.
    Conversation,
    /// Every call by itself.
    Request,
    /// A named header of the call.
    Header(String),
}

impl Unit {
    /// Reads `user`, `conversation`, `request` or `header:NAME`.
    pub fn read(text: &str) -> Option<Self> {
        match text {
            "user" => Some(Self::User),
            "conversation" => Some(Self::Conversation),
            "request" => Some(Self::Request),
            other => other
                .strip_prefix("header:")
                .map(str::to_ascii_lowercase)
                .filter(|name| is_unit_header(name))
                .map(Self::Header),
        }
    }
}

/// Units are recorded: what opens doors must not be one.
const CREDENTIALS: [&str; 8] = [
    "api-key",
    "authorization",
    "cookie",
    "password",
    "proxy-authorization",
    "secret",
    "token",
    "x-goog-iam",
];

fn is_unit_header(name: &str) -> bool {
    let is_name = !name.is_empty()
        && name.bytes().all(|one| one.is_ascii_alphanumeric() || b"-_.".contains(&one));
    is_name && !CREDENTIALS.iter().any(|one| name.contains(one))
}

/// One arm.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Arm {
    /// `control`, `variant_a`, …
    pub key: String,
    /// The version this arm serves.
    pub template: TemplateId,
    /// The share asked for, in thousandths of a percent; 100 000 is everyone.
    pub weight: u32,
}

/// An experiment that runs on one template name, or is paused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Experiment {
    /// Its id.
    pub id: ExperimentId,
    /// Its salt: the id unless it was re-randomised.
    pub salt: String,
    /// What is randomised.
    pub unit: Unit,
    /// How many of the buckets are enrolled, in thousandths of a percent.
    pub enrolled: u32,
    /// As many were enrolled at some time: those above `enrolled` have left.
    pub enrolled_most: u32,
    /// Arms in their stored order; weights add up to 100 000.
    pub arms: Vec<Arm>,
    /// Which buckets belong to which arm.
    pub allocation: Allocation,
    /// Units whose arm is chosen by hand, by ordinal. They are not analysed.
    pub forced: HashMap<String, usize>,
    /// Units that never take part.
    pub excluded: HashSet<String>,
    /// Units that keep their arm whatever their bucket says, by ordinal.
    pub pinned: HashMap<String, usize>,
    /// While it is, nobody is assigned.
    pub is_paused: bool,
    /// First instant, inclusive.
    pub start: Option<Timestamp>,
    /// Last instant, exclusive.
    pub end: Option<Timestamp>,
}

/// Why a call got the arm it got, or none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// Enrolled.
    Assigned,
    /// Its arm was chosen by hand.
    Forced,
    /// Kept out by hand.
    Excluded,
    /// Paused.
    Paused,
    /// Before the start.
    NotStarted,
    /// At or after the end.
    Ended,
    /// The call names no unit of the kind this experiment randomises, or one of over 256 bytes.
    NoUnit,
    /// The unit's enrolment bucket is not among the enrolled.
    NotEnrolled,
    /// The same, but it was among the enrolled before.
    Left,
    /// No experiment decides, and it falls into a group of the template's own split.
    Group,
    /// No experiment decides, and it falls into no group that runs.
    NoGroup,
}

impl Reason {
    /// The word in records.
    pub fn name(self) -> &'static str {
        match self {
            Self::Assigned => "assigned",
            Self::Forced => "forced",
            Self::Excluded => "excluded",
            Self::Paused => "paused",
            Self::NotStarted => "not_started",
            Self::Ended => "ended",
            Self::NoUnit => "no_unit",
            Self::NotEnrolled => "not_enrolled",
            Self::Left => "left",
            Self::Group => "group",
            Self::NoGroup => "no_group",
        }
    }
}

/// A decision with everything needed to recompute it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Assignment<'e> {
    /// The arm, when enrolled.
    pub arm: Option<&'e Arm>,
    /// Why.
    pub reason: Reason,
    /// The unit's enrolment bucket, once it was computed.
    pub enroll_bucket: Option<u32>,
    /// The unit's variant bucket, once it was computed.
    pub variant_bucket: Option<u32>,
}

/// Splits that cannot be served.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SplitError {
    /// Weights must add up exactly.
    #[error("the weights add up to {0} %, they must add up to exactly 100")]
    Sum(String),
    /// A weight that is not a percentage with at most three decimals.
    #[error("the weight of {0:?} must be a percentage from 0 to 100 with at most 3 decimals")]
    Weight(String),
    /// An arm without a version, or a version without an arm.
    #[error("the arms are {expected:?}, but the split names {found:?}")]
    Arms {
        /// Keys that the versions call for.
        expected: Vec<String>,
        /// Keys of the split.
        found: Vec<String>,
    },
}

/// The key of the arm at a position: `control`, then `variant_a`, `variant_b`, …
pub fn arm_key(ordinal: usize) -> String {
    match ordinal.checked_sub(1).and_then(|index| u8::try_from(index).ok()) {
        None if ordinal == 0 => "control".to_owned(),
        Some(index) if index < 26 => format!("variant_{}", char::from(b'a' + index)),
        _ => format!("variant_{ordinal}"),
    }
}

/// A percentage in thousandths of a percent; `None` when it is out of range or finer than that.
pub fn millipercent(percent: f64) -> Option<u32> {
    let scaled = percent * 1000.0;
    let rounded = scaled.round();
    if !(0.0..=100_000.0).contains(&rounded) || (scaled - rounded).abs() > 1e-6 {
        return None;
    }
    (0..=BUCKETS).nth(to_index(rounded))
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "the caller checked 0 ≤ value ≤ 100 000"
)]
fn to_index(value: f64) -> usize {
    value as usize
}

/// Arms in ordinal order from the versions and the split, whatever order its keys came in.
pub fn arms(versions: &[TemplateId], split: &[(String, f64)]) -> Result<Vec<Arm>, SplitError> {
    let expected: Vec<String> = (0..versions.len()).map(arm_key).collect();
    let mut found: Vec<String> = split.iter().map(|(key, _)| key.clone()).collect();
    found.sort();
    let mut sorted = expected.clone();
    sorted.sort();
    if found != sorted {
        return Err(SplitError::Arms { expected, found });
    }
    let mut arms = Vec::with_capacity(versions.len());
    for (key, template) in expected.into_iter().zip(versions) {
        let percent =
            split.iter().find(|(name, _)| *name == key).map_or(0.0, |(_, weight)| *weight);
        let weight = millipercent(percent).ok_or_else(|| SplitError::Weight(key.clone()))?;
        arms.push(Arm { key, template: *template, weight });
    }
    let sum: u32 = arms.iter().map(|arm| arm.weight).sum();
    if sum != BUCKETS {
        return Err(SplitError::Sum(format!("{}.{:03}", sum / 1000, sum % 1000)));
    }
    Ok(arms)
}

impl Experiment {
    /// Whether it has a say now: it is paused, or its dates say so.
    pub fn decides(&self, now: Timestamp) -> bool {
        self.is_paused || self.schedule(now).is_none()
    }

    /// Decides for one unit at one instant. Order of checks: pause and schedule, forced, excluded,
    /// unit, enrolment, arm.
    pub fn assign(&self, now: Timestamp, unit: Option<&str>) -> Assignment<'_> {
        let none =
            |reason| Assignment { arm: None, reason, enroll_bucket: None, variant_bucket: None };
        if self.is_paused {
            return none(Reason::Paused);
        }
        if let Some(reason) = self.schedule(now) {
            return none(reason);
        }
        let Some(unit) = assign::usable(unit) else { return none(Reason::NoUnit) };
        if let Some(arm) = self.forced.get(unit.as_ref()).and_then(|arm| self.arms.get(*arm)) {
            return Assignment { arm: Some(arm), ..none(Reason::Forced) };
        }
        if self.excluded.contains(unit.as_ref()) {
            return none(Reason::Excluded);
        }
        let enroll = bucket(Purpose::Enroll, &self.salt, &unit);
        if enroll >= self.enrolled {
            let reason =
                if enroll < self.enrolled_most { Reason::Left } else { Reason::NotEnrolled };
            return Assignment { enroll_bucket: Some(enroll), ..none(reason) };
        }
        let variant = bucket(Purpose::Variant, &self.salt, &unit);
        let pinned = self.pinned.get(unit.as_ref()).copied();
        let arm = pinned.or_else(|| self.allocation.arm(enroll, variant));
        Assignment {
            arm: arm.and_then(|arm| self.arms.get(arm)),
            reason: Reason::Assigned,
            enroll_bucket: Some(enroll),
            variant_bucket: Some(variant),
        }
    }

    /// Why its dates keep it from deciding.
    fn schedule(&self, now: Timestamp) -> Option<Reason> {
        if self.start.is_some_and(|start| now < start) {
            return Some(Reason::NotStarted);
        }
        self.end.is_some_and(|end| now >= end).then_some(Reason::Ended)
    }

    /// The arms' shares as they were asked for.
    pub fn weights(&self) -> Vec<u32> {
        self.arms.iter().map(|arm| arm.weight).collect()
    }

    /// The arms' shares among those enrolled as they are, in thousandths of a percent.
    pub fn shares(&self) -> Vec<u32> {
        self.allocation.shares(self.enrolled, self.arms.len())
    }
}

#[cfg(test)]
mod tests;
