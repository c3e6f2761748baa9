//! The audit of admin changes: append-only, and chained, so that an edit of the past shows.
//!
//! Each entry carries the hash of the one before and its own, over every field. Rewriting one entry
//! breaks the chain there; rewriting all that follow changes the last hash, which whoever noted it
//! elsewhere will see.

use jiff::Timestamp;
use serde::Serialize;
use serde_json::value::RawValue;
use uuid::Uuid;

use crate::words::digest;
use crate::words::ids::Tenant;

/// The statement of both stores.
pub(super) const HEAD: &str = "select entries, sequence, hash from prompt_audit_head where id = 1";

/// What happened, before it has its place in the chain.
#[derive(Debug, Clone)]
pub struct Entry {
    /// Its id.
    pub id: Uuid,
    /// Whose object.
    pub tenant_id: Tenant,
    /// When, to the microsecond.
    pub at: Timestamp,
    /// Who: the name of the token.
    pub actor: String,
    /// What, such as `template.activate`.
    pub action: String,
    /// `template`, `guardrail`, `experiment` or `user`.
    pub object_type: &'static str,
    /// Which.
    pub object_id: String,
    /// The object before, as JSON.
    pub before: Option<String>,
    /// The object after, as JSON.
    pub after: Option<String>,
    /// Why, if the caller said so.
    pub reason: Option<String>,
    /// In which request.
    pub request_id: Option<String>,
}

/// An entry with its place in the chain.
#[derive(Debug, Clone, Serialize)]
#[expect(missing_docs, reason = "the columns of prompt_audit, documented at Entry")]
pub struct Chained {
    pub sequence: i64,
    pub id: Uuid,
    pub tenant_id: String,
    pub at: String,
    pub actor: String,
    pub action: String,
    pub object_type: String,
    pub object_id: Option<String>,
    pub before: Option<Box<RawValue>>,
    pub after: Option<Box<RawValue>>,
    pub reason: Option<String>,
    pub request_id: Option<String>,
    pub previous_hash: Option<String>,
    pub hash: Option<String>,
}

/// Where the chain ends, as noted beside it when the last entry was written.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Head {
    /// How many entries were ever written.
    pub entries: i64,
    /// Of the last one; `None`: none was.
    pub sequence: Option<i64>,
    /// Of the last one.
    pub hash: Option<String>,
}

/// Which entries.
#[derive(Debug, Clone, Default)]
pub struct AuditQuery {
    /// Whose; `None`: everyone's, as the chain runs through all of them.
    pub tenant: Option<Tenant>,
    /// Of this kind of object.
    pub object_type: Option<String>,
    /// Of this object.
    pub object_id: Option<String>,
    /// By this actor.
    pub actor: Option<String>,
    /// Newest first, from before this one; `None`: from the newest.
    pub before: Option<i64>,
    /// Oldest first instead, from behind this one.
    pub after: Option<i64>,
    /// Entries of a page.
    pub limit: u32,
}

impl Entry {
    /// Its time as it is stored and hashed.
    pub(super) fn time(&self) -> String {
        time(self.at)
    }

    /// The hash of this entry behind the one with `previous`.
    pub(super) fn hash(&self, previous: Option<&str>) -> String {
        hash(&[
            previous,
            Some(&self.id.to_string()),
            Some(&self.tenant_id.to_string()),
            Some(&self.time()),
            Some(&self.actor),
            Some(&self.action),
            Some(self.object_type),
            Some(&self.object_id),
            self.before.as_deref(),
            self.after.as_deref(),
            self.reason.as_deref(),
            self.request_id.as_deref(),
        ])
    }
}

impl Chained {
    /// The hash its fields call for.
    pub fn expected_hash(&self) -> String {
        hash(&[
            self.previous_hash.as_deref(),
            Some(&self.id.to_string()),
            Some(&self.tenant_id),
            Some(&self.at),
            Some(&self.actor),
            Some(&self.action),
            Some(&self.object_type),
            self.object_id.as_deref(),
            self.before.as_deref().map(RawValue::get),
            self.after.as_deref().map(RawValue::get),
            self.reason.as_deref(),
            self.request_id.as_deref(),
        ])
    }
}

/// The one way a time is written in the audit.
pub(super) fn time(at: Timestamp) -> String {
    format!("{at:.6}")
}

/// A stored text as it is; one that is no JSON (which no program of ours writes) is shown as a string.
pub(super) fn raw(text: Option<String>) -> Option<Box<RawValue>> {
    let text = text?;
    RawValue::from_string(text.clone())
        .or_else(|_not_json| serde_json::value::to_raw_value(&text))
        .ok()
}

/// SHA-256 over the fields as a JSON list: no field can run into the next.
fn hash(fields: &[Option<&str>]) -> String {
    let text = serde_json::to_string(fields).unwrap_or_default();
    digest::sha256_hex(text.as_bytes())
}
