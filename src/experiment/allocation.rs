//! Which buckets belong to which arm, and how that changes when a split does.
//!
//! Buckets form a square: enrolment one way, variant the other. It is cut into bands of enrolment,
//! and each band into stretches of variant buckets, each of one arm. One band is the rule; `grow`
//! adds one. An allocation always covers the whole square, so every unit that is enrolled has an arm.

use serde::{Deserialize, Serialize};

use super::BUCKETS;

/// Parts of a weight: a split of a band adds up to this.
type Weight = u32;

/// The buckets of one arm in one band, both half open.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Range {
    /// Enrolment buckets, from and up to.
    pub enroll: [u32; 2],
    /// Variant buckets, from and up to.
    pub variant: [u32; 2],
}

/// A range is beside another, over another, or outside the square.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the ranges of the arms must cover all {BUCKETS} by {BUCKETS} buckets exactly once")]
pub struct NotCovered;

/// Who gets what, as buckets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Allocation {
    bands: Vec<Band>,
}

/// Up to an enrolment bucket, exclusive, starting where the band before ends.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Band {
    end: u32,
    stretches: Vec<Stretch>,
}

/// Up to a variant bucket, exclusive, starting where the stretch before ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stretch {
    end: u32,
    /// The ordinal of the arm.
    arm: usize,
}

/// One stretch with both its ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Piece {
    start: u32,
    end: u32,
    arm: usize,
}

impl Piece {
    fn len(self) -> u32 {
        self.end - self.start
    }
}

impl Allocation {
    /// One band; arms one after the other in their order.
    pub fn new(weights: &[Weight]) -> Self {
        Self { bands: vec![Band::new(BUCKETS, weights)] }
    }

    /// From the ranges of each arm, as they were stored.
    pub fn from_ranges(arms: &[Vec<Range>]) -> Result<Self, NotCovered> {
        let mut all: Vec<(Range, usize)> = Vec::new();
        for (arm, ranges) in arms.iter().enumerate() {
            all.extend(ranges.iter().map(|range| (*range, arm)));
        }
        all.sort_by_key(|(range, _)| (range.enroll, range.variant));
        let mut bands: Vec<Band> = Vec::new();
        for some in all.chunk_by(|(one, _), (next, _)| one.enroll == next.enroll) {
            let [start, end] = some.first().ok_or(NotCovered)?.0.enroll;
            let is_next = start == bands.last().map_or(0, |band| band.end) && end > start;
            let mut reached = 0;
            let mut stretches = Vec::new();
            for (Range { variant, .. }, arm) in some {
                if !is_next || variant[0] != reached || variant[1] <= reached {
                    return Err(NotCovered);
                }
                reached = variant[1];
                stretches.push(Stretch { end: reached, arm: *arm });
            }
            if reached != BUCKETS {
                return Err(NotCovered);
            }
            bands.push(Band { end, stretches });
        }
        let is_whole = bands.last().is_some_and(|band| band.end == BUCKETS);
        is_whole.then_some(Self { bands }).ok_or(NotCovered)
    }

    /// The ranges of each of so many arms: what is stored.
    pub fn ranges(&self, arms: usize) -> Vec<Vec<Range>> {
        let mut all = vec![Vec::new(); arms];
        let mut start = 0;
        for band in &self.bands {
            for piece in band.pieces() {
                if let Some(ranges) = all.get_mut(piece.arm) {
                    let variant = [piece.start, piece.end];
                    ranges.push(Range { enroll: [start, band.end], variant });
                }
            }
            start = band.end;
        }
        all
    }

    /// The ordinal of the arm that holds two buckets.
    pub fn arm(&self, enroll: u32, variant: u32) -> Option<usize> {
        let band = self.bands.iter().find(|band| enroll < band.end)?;
        band.stretches.iter().find(|one| variant < one.end).map(|one| one.arm)
    }

    /// The share of each of so many arms among those enrolled, in thousandths of a percent; adds up
    /// to 100 000. What rounding leaves goes to the largest remainders.
    pub fn shares(&self, enrolled: u32, arms: usize) -> Vec<Weight> {
        let enrolled = if enrolled == 0 { BUCKETS } else { enrolled };
        let mut areas = vec![0_u64; arms];
        let mut start = 0;
        for band in &self.bands {
            let height = u64::from(band.end.min(enrolled).saturating_sub(start));
            for piece in band.pieces() {
                if let Some(area) = areas.get_mut(piece.arm) {
                    *area += height * u64::from(piece.len());
                }
            }
            start = band.end;
        }
        rounded(&areas, u64::from(enrolled))
    }

    /// Another split with as few moves as it takes: in each band, arms that shrink give up their
    /// highest buckets, and arms that grow take what is free, lowest first, in their order.
    #[must_use]
    pub fn min_move(&self, weights: &[Weight]) -> Self {
        Self { bands: self.bands.iter().map(|band| band.min_move(weights)).collect() }
    }

    /// Another split for enrolment buckets from `from` on; those below stay as they are.
    #[must_use]
    pub fn grow(&self, from: u32, weights: &[Weight]) -> Self {
        let mut bands = Vec::new();
        let mut start = 0;
        for band in &self.bands {
            if start < from {
                bands.push(Band { end: band.end.min(from), ..band.clone() });
            }
            start = band.end;
        }
        if from < BUCKETS {
            bands.push(Band::new(BUCKETS, weights));
        }
        Self { bands }
    }

    /// How much of the square below an enrolment bucket has another arm in `other`: of
    /// `enrolled * 100 000` pairs of buckets.
    pub fn moved(&self, other: &Self, enrolled: u32) -> u64 {
        let mut moved = 0;
        let mut start = 0;
        while start < enrolled {
            let at = |one: &Self| one.bands.iter().find(|band| start < band.end).cloned();
            let (Some(old), Some(new)) = (at(self), at(other)) else { break };
            let end = old.end.min(new.end).min(enrolled);
            moved += u64::from(end - start) * u64::from(old.differs(&new));
            start = end;
        }
        moved
    }
}

impl Band {
    fn new(end: u32, weights: &[Weight]) -> Self {
        let mut reached = 0;
        let mut stretches = Vec::new();
        for (arm, weight) in weights.iter().enumerate().filter(|(_, weight)| **weight > 0) {
            reached += weight;
            stretches.push(Stretch { end: reached, arm });
        }
        Self { end, stretches }
    }

    fn pieces(&self) -> impl Iterator<Item = Piece> {
        let mut start = 0;
        self.stretches.iter().map(move |one| {
            let piece = Piece { start, end: one.end, arm: one.arm };
            start = one.end;
            piece
        })
    }

    fn min_move(&self, weights: &[Weight]) -> Self {
        let mut held: Vec<Piece> = self.pieces().collect();
        let mut free = Vec::new();
        for (arm, weight) in weights.iter().enumerate() {
            let surplus = held_by(&held, arm).saturating_sub(*weight);
            free.extend(give_up(&mut held, arm, surplus));
        }
        free.sort_unstable();
        for (arm, weight) in weights.iter().enumerate() {
            let wanted = weight.saturating_sub(held_by(&held, arm));
            held.extend(take(&mut free, arm, wanted));
        }
        held.sort_unstable();
        let mut stretches: Vec<Stretch> = Vec::new();
        for piece in held {
            match stretches.last_mut() {
                Some(last) if last.arm == piece.arm => last.end = piece.end,
                _ => stretches.push(Stretch { end: piece.end, arm: piece.arm }),
            }
        }
        Self { end: self.end, stretches }
    }

    /// How many variant buckets have another arm in `other`.
    fn differs(&self, other: &Self) -> u32 {
        let overlap =
            |one: Piece, two: Piece| one.end.min(two.end).saturating_sub(one.start.max(two.start));
        self.pieces()
            .map(|old| {
                let others = other.pieces().filter(|new| new.arm != old.arm);
                others.map(|new| overlap(old, new)).sum::<u32>()
            })
            .sum()
    }
}

fn held_by(pieces: &[Piece], arm: usize) -> u32 {
    pieces.iter().filter(|piece| piece.arm == arm).map(|piece| piece.len()).sum()
}

/// Takes the highest `surplus` buckets from an arm.
fn give_up(pieces: &mut Vec<Piece>, arm: usize, mut surplus: u32) -> Vec<Piece> {
    let mut free = Vec::new();
    for piece in pieces.iter_mut().rev().filter(|piece| piece.arm == arm) {
        let given = piece.len().min(surplus);
        if given > 0 {
            free.push(Piece { start: piece.end - given, ..*piece });
            piece.end -= given;
            surplus -= given;
        }
    }
    pieces.retain(|piece| piece.len() > 0);
    free
}

/// Takes the lowest `wanted` buckets of what is free for an arm.
fn take(free: &mut Vec<Piece>, arm: usize, mut wanted: u32) -> Vec<Piece> {
    let mut taken = Vec::new();
    for piece in free.iter_mut() {
        let some = piece.len().min(wanted);
        if some > 0 {
            taken.push(Piece { start: piece.start, end: piece.start + some, arm });
            piece.start += some;
            wanted -= some;
        }
    }
    free.retain(|piece| piece.len() > 0);
    taken
}

/// Areas as parts of 100 000 that add up.
fn rounded(areas: &[u64], whole: u64) -> Vec<Weight> {
    let mut shares: Vec<Weight> =
        areas.iter().map(|area| Weight::try_from(area / whole).unwrap_or(BUCKETS)).collect();
    let mut left = BUCKETS.saturating_sub(shares.iter().sum());
    let mut by_remainder: Vec<usize> = (0..areas.len()).collect();
    by_remainder
        .sort_by_key(|arm| std::cmp::Reverse(areas.get(*arm).map_or(0, |area| area % whole)));
    for arm in by_remainder {
        if let Some(share) = shares.get_mut(arm).filter(|_| left > 0) {
            *share += 1;
            left -= 1;
        }
    }
    shares
}
