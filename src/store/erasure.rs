//! Orders to erase what was recorded of a user, and how far they are carried out.

use jiff::Timestamp;
use uuid::Uuid;

use super::tidy::ROWS_MAX;
use crate::words::digest;
use crate::words::ids::Tenant;

/// An order. It is carried out in parts, and again whenever something of before it arrives late.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Erasure {
    /// Its id.
    pub id: Uuid,
    /// Whose user.
    pub tenant: Tenant,
    /// The user's key as calls gave it.
    pub user: String,
    /// What was recorded before it goes.
    pub requested_at: Timestamp,
}

impl Erasure {
    /// What is left of the user's key in the end, and what the audit says instead of it.
    pub fn user_sha256(&self) -> String {
        digest::sha256_hex(self.user.as_bytes())
    }
}

/// An order that stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Standing {
    /// The order.
    pub erasure: Erasure,
    /// Whether the store holds something for it to erase.
    pub is_due: bool,
}

/// What a part of an order came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Erased {
    /// Executions that went.
    pub executions: u64,
    /// Whether there may be more.
    pub more: bool,
}

impl Erased {
    pub(super) fn of(executions: i64) -> Self {
        let more = executions >= ROWS_MAX;
        Self { executions: u64::try_from(executions).unwrap_or_default(), more }
    }
}
