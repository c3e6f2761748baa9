//! The identity of the audit trail: accepted = stored + waiting + dead-lettered + lost.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

/// Counts of one process; what a process before it left in the file counts as accepted here.
#[derive(Debug)]
pub struct Ledger {
    bytes_max: u64,
    accepted: AtomicU64,
    stored: AtomicU64,
    dead: AtomicU64,
    lost: AtomicU64,
    /// Bytes in the file.
    bytes: AtomicU64,
    store_reachable: AtomicBool,
    /// Whether the file took the last batch.
    writable: AtomicBool,
}

/// The counts at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Standing {
    /// Executions taken in.
    pub accepted: u64,
    /// In the store.
    pub stored: u64,
    /// In the queue or the file.
    pub waiting: u64,
    /// Refused by the store and kept aside.
    pub dead: u64,
    /// Gone.
    pub lost: u64,
    /// Bytes in the file.
    pub bytes: u64,
    /// Whether the store took the last batch.
    pub store_reachable: bool,
}

impl Ledger {
    pub(super) fn new(bytes_max: u64) -> Self {
        Self {
            bytes_max,
            accepted: AtomicU64::new(0),
            stored: AtomicU64::new(0),
            dead: AtomicU64::new(0),
            lost: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
            store_reachable: AtomicBool::new(true),
            writable: AtomicBool::new(true),
        }
    }

    /// The counts now.
    pub fn standing(&self) -> Standing {
        let (stored, dead, lost) =
            (self.stored.load(Relaxed), self.dead.load(Relaxed), self.lost.load(Relaxed));
        let accepted = self.accepted.load(Relaxed);
        Standing {
            accepted,
            stored,
            waiting: accepted.saturating_sub(stored + dead + lost),
            dead,
            lost,
            bytes: self.bytes.load(Relaxed),
            store_reachable: self.store_reachable.load(Relaxed),
        }
    }

    pub(super) fn has_room(&self) -> bool {
        self.writable.load(Relaxed) && self.has_bytes()
    }

    /// Whether the budget of the file allows another batch.
    pub(super) fn has_bytes(&self) -> bool {
        self.bytes.load(Relaxed) < self.bytes_max
    }

    pub(super) fn set_writable(&self, writable: bool) {
        self.writable.store(writable, Relaxed);
    }

    pub(super) fn accept(&self, count: u64) {
        self.accepted.fetch_add(count, Relaxed);
    }

    pub(super) fn lose(&self, count: u64) {
        self.lost.fetch_add(count, Relaxed);
    }

    pub(super) fn filed(&self, bytes: u64) {
        self.bytes.fetch_add(bytes, Relaxed);
    }

    pub(super) fn shipped(&self, stored: u64, dead: u64, bytes: u64) {
        self.stored.fetch_add(stored, Relaxed);
        self.dead.fetch_add(dead, Relaxed);
        self.bytes.fetch_sub(bytes.min(self.bytes.load(Relaxed)), Relaxed);
    }

    pub(super) fn set_store_reachable(&self, reachable: bool) -> bool {
        self.store_reachable.swap(reachable, Relaxed)
    }
}
