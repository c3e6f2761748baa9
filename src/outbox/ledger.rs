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
    /// Bytes of journal and outbox together.
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
    /// Gone.
    pub lost: u64,
    /// Bytes in the journal and the table.
    pub bytes: u64,
    /// Whether the store took the last batch.
    pub store_reachable: bool,
    /// Whether the journal took the last record.
    pub writable: bool,
}

impl Standing {
    /// Accepted, and neither in the store nor given up.
    pub fn waiting(&self) -> u64 {
        self.journaled + self.filed
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
            lost: 0,
            bytes: 0,
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
        standing.writable && standing.bytes < self.rules.bytes_max
    }

    /// Takes a record in, unless the budget is spent: then it is lost.
    pub(super) fn admit(&self, bytes: u64) -> bool {
        let mut standing = self.lock();
        standing.accepted += 1;
        let fits = self.rules.refuses || standing.bytes + bytes <= self.rules.bytes_max;
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

    pub(super) fn set_writable(&self) {
        self.lock().writable = true;
    }

    /// A process before this one left these in the journal.
    pub(super) fn found_journaled(&self, count: u64, bytes: u64) {
        let mut standing = self.lock();
        standing.accepted += count;
        standing.journaled += count;
        standing.bytes += bytes;
    }

    /// These are in the table from before, or were put back into it.
    pub(super) fn found_filed(&self, count: u64, bytes: u64) {
        let mut standing = self.lock();
        standing.accepted += count;
        standing.filed += count;
        standing.bytes += bytes;
    }

    /// From the journal to the table, and what of it was spoilt to the dead letters.
    pub(super) fn filed(&self, count: u64, spoilt: u64, spoilt_bytes: u64) {
        let mut standing = self.lock();
        standing.journaled -= count + spoilt;
        standing.filed += count;
        standing.dead += spoilt;
        standing.bytes -= spoilt_bytes;
    }

    /// From the table to the store, and what it refused to the dead letters.
    pub(super) fn shipped(&self, stored: u64, dead: u64, bytes: u64) {
        let mut standing = self.lock();
        standing.filed -= stored + dead;
        standing.stored += stored;
        standing.dead += dead;
        standing.bytes -= bytes;
        if standing.waiting() == 0 {
            self.told.store(false, Relaxed);
        }
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
