//! Who changed what, and whether the books were touched since.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use axum::extract::State;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use super::Admin;
use super::call::{self, Params};
use super::problem::Problem;
use crate::store::Store;
use crate::store::audit::{AuditQuery, Chained, Head};
use crate::words::clock;

/// Entries read at once while the chain is checked.
const STRIDE: u32 = 1_000;
/// How long one request checks: the answer must be there within two seconds.
const PATIENCE: Duration = Duration::from_millis(800);

/// Which entries.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(super) struct Asked {
    /// The tenant; `default` unless told otherwise.
    tenant: Option<String>,
    /// Only `template`, `guardrail`, `experiment` or `user`.
    object_type: Option<String>,
    /// Only this object: an id; for a move of the pointer to an active version, the template's name; for a user, SHA-256 of the key.
    object_id: Option<String>,
    /// Only by this token.
    actor: Option<String>,
    /// Whether to check the whole chain; true unless told otherwise.
    verify: Option<bool>,
    /// Entries of a page, 1 to 500; 50 unless told otherwise.
    #[param(minimum = 1, maximum = 500)]
    limit: Option<u32>,
    /// Of the page, from `next_cursor` of the page before.
    cursor: Option<String>,
}

/// Entries, newest first, and the state of the chain they hang on.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct AuditPage {
    items: Vec<AuditEntry>,
    /// Of the next page; null on the last.
    next_cursor: Option<String>,
    /// Null when it was not asked for.
    chain: Option<Chain>,
}

/// One change.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct AuditEntry {
    sequence: i64,
    id: Uuid,
    tenant_id: String,
    #[schema(format = DateTime)]
    at: String,
    /// The name of the token.
    actor: String,
    /// Such as `template.activate`.
    action: String,
    object_type: String,
    object_id: Option<String>,
    before: Option<Value>,
    after: Option<Value>,
    reason: Option<String>,
    request_id: Option<String>,
    /// Of the entry before, whoever's it is.
    previous_hash: Option<String>,
    /// SHA-256 over all fields of this entry and the hash before.
    hash: Option<String>,
}

/// Whether every entry of every tenant is as it was written, and in its place.
#[derive(Debug, PartialEq, Eq, Serialize, ToSchema)]
pub(super) struct Chain {
    /// False when an entry is not as it was written, or is gone.
    verified: bool,
    /// Whether the whole chain was checked. A long one takes several requests: each goes on where the one
    /// before stopped.
    complete: bool,
    /// Entries checked.
    entries: i64,
    /// Entries ever written, as noted beside the chain; more than `entries` of a complete check are gone.
    written: Option<i64>,
    /// The hash of the last one checked. Whoever notes it elsewhere sees when the whole chain is rewritten.
    head: Option<String>,
    /// The first entry that is not as it was written.
    broken_at: Option<i64>,
}

#[utoipa::path(get, path = "/audit", params(Asked), responses((status = 200, body = AuditPage)))]
pub(super) async fn list(
    State(admin): State<Admin>,
    Params(asked): Params<Asked>,
) -> Result<axum::Json<AuditPage>, Problem> {
    let limit = call::limit(asked.limit)?;
    let bad_cursor = |_| Problem::bad_request("cursor must be next_cursor of the page before");
    let query = AuditQuery {
        tenant: Some(call::tenant(asked.tenant.as_deref())?),
        object_type: asked.object_type,
        object_id: asked.object_id,
        actor: asked.actor,
        before: asked.cursor.map(|text| text.parse()).transpose().map_err(bad_cursor)?,
        after: None,
        limit: limit + 1,
    };
    let mut rows = admin.store.audit(&query).await?;
    let more = rows.len() > limit as usize;
    rows.truncate(limit as usize);
    let next_cursor = rows.last().filter(|_| more).map(|last| last.sequence.to_string());
    let chain = match asked.verify {
        Some(false) => None,
        _ => Some(verify(admin.store.as_ref(), &admin.unfinished, PATIENCE).await?),
    };
    let items = rows.into_iter().map(entry).collect();
    Ok(axum::Json(AuditPage { items, next_cursor, chain }))
}

fn entry(row: Chained) -> AuditEntry {
    let json = |text: Option<Box<serde_json::value::RawValue>>| {
        text.and_then(|text| serde_json::from_str(text.get()).ok())
    };
    AuditEntry {
        sequence: row.sequence,
        id: row.id,
        tenant_id: row.tenant_id,
        at: row.at,
        actor: row.actor,
        action: row.action,
        object_type: row.object_type,
        object_id: row.object_id,
        before: json(row.before),
        after: json(row.after),
        reason: row.reason,
        request_id: row.request_id,
        previous_hash: row.previous_hash,
        hash: row.hash,
    }
}

/// How far a check of the chain has come.
#[derive(Debug, Default)]
struct Walk {
    entries: i64,
    sequence: Option<i64>,
    hash: Option<String>,
    broken_at: Option<i64>,
}

/// A check that a later request goes on with.
#[derive(Debug, Default)]
pub struct Unfinished(Mutex<Option<Walk>>);

impl Walk {
    fn pass(&mut self, row: &Chained) {
        let is_whole =
            row.previous_hash == self.hash && row.hash.as_deref() == Some(&row.expected_hash());
        if !is_whole {
            self.broken_at = self.broken_at.or(Some(row.sequence));
        }
        self.entries += 1;
        self.sequence = Some(row.sequence);
        self.hash.clone_from(&row.hash);
    }

    /// Whether it stands where the chain ended when its end was noted.
    fn is_at(&self, head: &Head) -> bool {
        (self.entries, self.sequence, &self.hash) == (head.entries, head.sequence, &head.hash)
    }
}

/// Walks the chain from its beginning, or from where the last request had to stop.
async fn verify(
    store: &dyn Store,
    unfinished: &Unfinished,
    patience: Duration,
) -> Result<Chain, Problem> {
    let began = clock::monotonic();
    let unfinished = || unfinished.0.lock().unwrap_or_else(PoisonError::into_inner);
    let mut walk = unfinished().take().unwrap_or_default();
    // Before the entries: those that are written meanwhile come behind it.
    let head = store.audit_head().await?;
    let mut has_end = head.as_ref().is_none_or(|head| walk.is_at(head));
    let complete = loop {
        let after = Some(walk.sequence.unwrap_or(-1));
        let query = AuditQuery { after, limit: STRIDE, ..AuditQuery::default() };
        let rows = store.audit(&query).await?;
        if rows.is_empty() {
            break true;
        }
        for row in &rows {
            walk.pass(row);
            has_end |= head.as_ref().is_some_and(|head| walk.is_at(head));
        }
        if began.elapsed() >= patience {
            break false;
        }
    };
    let chain = Chain {
        verified: walk.broken_at.is_none() && (has_end || !complete),
        complete,
        entries: walk.entries,
        written: head.map(|head| head.entries),
        head: walk.hash.clone(),
        broken_at: walk.broken_at,
    };
    if !complete {
        *unfinished() = Some(walk);
    }
    Ok(chain)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use uuid::Uuid;

    use super::{STRIDE, Unfinished, verify};
    use crate::store::audit::Entry;
    use crate::store::{Change, Sqlite, Store};
    use crate::words::clock;
    use crate::words::ids::Tenant;

    fn entry(number: u32) -> Entry {
        Entry {
            id: Uuid::now_v7(),
            tenant_id: Tenant::default(),
            at: clock::now_micros(),
            actor: "ann".to_owned(),
            action: "template.update".to_owned(),
            object_type: "template",
            object_id: number.to_string(),
            before: None,
            after: None,
            reason: None,
            request_id: None,
        }
    }

    #[tokio::test]
    async fn a_long_chain_is_checked_over_several_requests() {
        let dir = std::env::temp_dir().join(format!("chaperone-audit-{}", Uuid::new_v4()));
        std::fs::create_dir_all(&dir).unwrap();
        let store = Sqlite::new(&dir).unwrap();
        store.migrate_up().await.unwrap();
        let write = async |count| {
            let audit = (0..count).map(entry).collect();
            store.commit(&Change { audit, ..Change::default() }).await.unwrap();
        };
        write(STRIDE * 2 + 1).await;
        let unfinished = Unfinished::default();
        for (entries, complete) in [(1, false), (2, false)] {
            let chain = verify(&store, &unfinished, Duration::ZERO).await.unwrap();
            let expected = (true, i64::from(STRIDE) * entries, complete);
            assert_eq!((chain.verified, chain.entries, chain.complete), expected);
        }
        // What is written meanwhile is part of it.
        write(1).await;
        let patience = Duration::from_mins(1);
        for _ in 0..2 {
            let chain = verify(&store, &unfinished, patience).await.unwrap();
            let all = i64::from(STRIDE) * 2 + 2;
            assert_eq!((chain.verified, chain.complete, chain.entries), (true, true, all));
            assert_eq!(chain.written, Some(all));
        }
        std::fs::remove_dir_all(dir).unwrap();
    }
}
