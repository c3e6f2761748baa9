//! The identity of the audit trail: accepted = stored + in the outbox + dead-lettered + lost.
//!
//! Every execution is in exactly one of these places. A move is one step under one lock, so that the sum
//! is right whenever somebody looks.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::execution::Execution;
use crate::words::ids::ExperimentId;

/// Arms whose losses are told apart. More run on nobody's traffic; theirs count in the whole only.
const ARMS_MAX: usize = 1_000;

/// Counts of one process; what a process before it left in the outbox counts as accepted here.
#[derive(Debug)]
pub struct Ledger {
    rules: Rules,
    standing: Mutex<Standing>,
    /// Whether a loss was told since the last time that nothing waited.
    told: AtomicBool,
    /// Of what is gone, the calls that experiments analyse.
    gone: Mutex<Gone>,
}

/// By experiment and arm.
type Gone = HashMap<(ExperimentId, String), u64>;

/// What the operator decided.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rules {
    /// Bytes of journal, outbox and dead letters together.
    pub(super) bytes_max: u64,
    /// Whether calls are refused when the budget is spent. Those under way then may go beyond it: none of
    /// them may be lost.
    pub(super) refuses: bool,
}

/// The counts at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Standing {
    /// Executions taken in.
    pub accepted: u64,
    /// In the store.
    pub stored: u64,
    /// In the journal, not yet in the outbox's table.
    pub journaled: u64,
    /// In the outbox's table, not yet in the store.
    pub filed: u64,
    /// Refused by the store, or spoilt on the disk, and kept aside. One that is sent again counts as
    /// accepted once more.
    pub dead: u64,
    /// Of these, what is still kept aside: neither sent again nor removed.
    pub aside: Totals,
    /// Gone.
    pub lost: u64,
    /// Bytes in the journal and the table.
    pub bytes: u64,
    /// Local files that could not be read and were set aside: nobody knows what was in them.
    pub set_aside: u64,
    /// Whether the store took the last batch.
    pub store_reachable: bool,
    /// Whether the journal took the last record.
    pub writable: bool,
}

/// Executions and their bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Totals {
    /// How many.
    pub count: u64,
    /// Their bytes as they are kept.
    pub bytes: u64,
}

impl Standing {
    /// Accepted, and neither in the store nor given up.
    pub fn waiting(&self) -> u64 {
        self.journaled + self.filed
    }

    /// Bytes that the budget counts.
    pub fn bytes_kept(&self) -> u64 {
        self.bytes + self.aside.bytes
    }
}

impl Totals {
    pub(super) fn add(&mut self, bytes: usize) {
        self.count += 1;
        self.bytes += bytes as u64;
    }

    fn grow(&mut self, by: Self) {
        self.count += by.count;
        self.bytes += by.bytes;
    }

    fn shrink(&mut self, by: Self) {
        self.count = self.count.saturating_sub(by.count);
        self.bytes = self.bytes.saturating_sub(by.bytes);
    }
}

impl Ledger {
    pub(super) fn new(rules: Rules) -> Self {
        let standing = Standing {
            accepted: 0,
            stored: 0,
            journaled: 0,
            filed: 0,
            dead: 0,
            aside: Totals::default(),
            lost: 0,
            bytes: 0,
            set_aside: 0,
            store_reachable: true,
            writable: true,
        };
        Self {
            rules,
            standing: Mutex::new(standing),
            told: AtomicBool::new(false),
            gone: Mutex::default(),
        }
    }

    /// The counts now.
    pub fn standing(&self) -> Standing {
        *self.lock()
    }

    /// Whether a record made now would be kept.
    pub(super) fn has_room(&self) -> bool {
        let standing = self.lock();
        standing.writable && standing.bytes_kept() < self.rules.bytes_max
    }

    /// Takes a record in, unless the budget is spent: then it is lost.
    pub(super) fn admit(&self, bytes: u64) -> bool {
        let mut standing = self.lock();
        standing.accepted += 1;
        let fits = self.rules.refuses || standing.bytes_kept() + bytes <= self.rules.bytes_max;
        if fits {
            standing.journaled += 1;
            standing.bytes += bytes;
        } else {
            standing.lost += 1;
        }
        fits
    }

    /// The journal did not take what was admitted.
    pub(super) fn missed(&self, bytes: u64) {
        let mut standing = self.lock();
        standing.journaled -= 1;
        standing.lost += 1;
        standing.bytes -= bytes;
        standing.writable = false;
    }

    /// Notes which arm misses what was counted as lost.
    pub(super) fn misses(&self, execution: &Execution) {
        let (Some(experiment), Some(arm), Some("assigned")) = (
            execution.ab_test_experiment_id,
            &execution.ab_test_group,
            execution.assignment_reason.as_deref(),
        ) else {
            return;
        };
        let (mut gone, place) = (self.gone(), (experiment, arm.clone()));
        if gone.len() < ARMS_MAX || gone.contains_key(&place) {
            *gone.entry(place).or_default() += 1;
        }
    }

    /// What is gone of the calls that experiments analyse, by experiment and arm.
    pub fn lost_by_arm(&self) -> HashMap<(ExperimentId, String), u64> {
        self.gone().clone()
    }

    /// Whether this loss is to be told: of many in a row, the first.
    pub(super) fn tells(&self) -> bool {
        !self.told.swap(true, Relaxed)
    }

    pub(super) fn set_aside(&self, files: u64) {
        self.lock().set_aside = files;
    }

    /// Gives what was so before.
    pub(super) fn set_writable(&self, writable: bool) -> bool {
        std::mem::replace(&mut self.lock().writable, writable)
    }

    /// A process before this one left these in the journal.
    pub(super) fn found_journaled(&self, found: Totals) {
        let mut standing = self.lock();
        standing.accepted += found.count;
        standing.journaled += found.count;
        standing.bytes += found.bytes;
    }

    /// These are in the table from before.
    pub(super) fn found_filed(&self, found: Totals) {
        let mut standing = self.lock();
        standing.accepted += found.count;
        standing.filed += found.count;
        standing.bytes += found.bytes;
    }

    /// These are kept aside from before.
    pub(super) fn found_dead(&self, found: Totals) {
        let mut standing = self.lock();
        standing.accepted += found.count;
        standing.dead += found.count;
        standing.aside.grow(found);
    }

    /// From the journal to the table, and what of it was spoilt to the dead letters. `spoilt`: as it stood in
    /// the journal; `aside`: as it is kept.
    pub(super) fn filed(&self, count: u64, spoilt: Totals, aside: Totals) {
        let mut standing = self.lock();
        standing.journaled = standing.journaled.saturating_sub(count + spoilt.count);
        standing.filed += count;
        standing.dead += spoilt.count;
        standing.bytes = standing.bytes.saturating_sub(spoilt.bytes);
        standing.aside.grow(aside);
    }

    /// From the table to the store, and what it refused to the dead letters. `claimed`: what the rows said of
    /// themselves. They are wrong where the disk has spoilt their counts; what was found in them is right.
    pub(super) fn shipped(&self, claimed: Totals, stored: u64, dead: u64, aside: Totals) {
        let mut standing = self.lock();
        let left = claimed.count.min(standing.filed);
        standing.filed -= left;
        standing.accepted = (standing.accepted + stored + dead).saturating_sub(left);
        standing.stored += stored;
        standing.dead += dead;
        standing.bytes = standing.bytes.saturating_sub(claimed.bytes);
        standing.aside.grow(aside);
        if standing.waiting() == 0 {
            self.told.store(false, Relaxed);
        }
    }

    /// Nothing is in the table: what was counted to be there is gone. Gives how many.
    pub(super) fn missing(&self) -> u64 {
        let mut standing = self.lock();
        let missing = std::mem::take(&mut standing.filed);
        standing.lost += missing;
        missing
    }

    /// From the dead letters back to the table, as records of so many bytes.
    pub(super) fn raised(&self, letters: Totals, bytes: u64) {
        let mut standing = self.lock();
        standing.accepted += letters.count;
        standing.filed += letters.count;
        standing.bytes += bytes;
        standing.aside.shrink(letters);
    }

    /// Dead letters that are gone.
    pub(super) fn removed(&self, letters: Totals) {
        self.lock().aside.shrink(letters);
    }

    /// Gives what was so before.
    pub(super) fn set_store_reachable(&self, reachable: bool) -> bool {
        std::mem::replace(&mut self.lock().store_reachable, reachable)
    }

    fn gone(&self) -> MutexGuard<'_, Gone> {
        self.gone.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lock(&self) -> MutexGuard<'_, Standing> {
        // Counts are moved in steps that cannot panic.
        self.standing.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn totals(count: u64, bytes: u64) -> Totals {
        Totals { count, bytes }
    }

    fn filed(count: u64) -> Ledger {
        let ledger = Ledger::new(Rules { bytes_max: 1_000, refuses: false });
        for _ in 0..count {
            assert!(ledger.admit(10));
        }
        ledger.filed(count, Totals::default(), Totals::default());
        ledger
    }

    fn is_balanced(ledger: &Ledger) -> bool {
        let Standing { accepted, stored, dead, lost, .. } = ledger.standing();
        accepted == stored + dead + lost + ledger.standing().waiting()
    }

    #[test]
    fn rows_that_claim_what_they_do_not_hold_are_counted_by_what_is_found() {
        // Two rows of five: the first says seven, or four.
        for claimed in [7, 4] {
            let ledger = filed(10);
            ledger.shipped(totals(claimed, 50), 5, 0, Totals::default());
            assert!(is_balanced(&ledger));
            ledger.shipped(totals(5, 50), 4, 1, totals(1, 8));
            assert!(is_balanced(&ledger));
            assert_eq!(ledger.missing(), 5 - claimed.min(5));
            assert!(is_balanced(&ledger));
            let Standing { stored, dead, filed, bytes, .. } = ledger.standing();
            assert_eq!((stored, dead, filed, bytes), (9, 1, 0, 0));
        }
    }

    #[test]
    fn a_row_that_is_gone_is_lost_once_the_table_is_empty() {
        let ledger = filed(10);
        ledger.shipped(totals(7, 70), 7, 0, Totals::default());
        assert_eq!((ledger.missing(), ledger.missing()), (3, 0));
        assert!(is_balanced(&ledger));
        assert_eq!(ledger.standing().lost, 3);
    }

    #[test]
    fn dead_letters_use_the_budget_until_they_are_gone() {
        let ledger = filed(10);
        ledger.shipped(totals(10, 100), 0, 10, totals(10, 990));
        assert!(!ledger.admit(20), "the letters fill it");
        ledger.raised(totals(4, 396), 100);
        assert!(ledger.admit(20));
        ledger.removed(totals(6, 594));
        let Standing { dead, aside, accepted, lost, bytes, .. } = ledger.standing();
        assert_eq!((dead, aside, accepted, lost, bytes), (10, Totals::default(), 16, 1, 120));
        assert!(is_balanced(&ledger));
    }
}
