//! Who changed what, and whether the books were touched since.

use axum::extract::State;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use super::Admin;
use super::call::{self, Params};
use super::problem::Problem;
use crate::store::Store;
use crate::store::audit::{AuditQuery, Chained};

/// Entries read at once while the chain is checked.
const STRIDE: u32 = 1_000;

/// Which entries.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(super) struct Asked {
    /// The tenant; `default` unless told otherwise.
    tenant: Option<String>,
    /// Only `template`, `guardrail` or `experiment`.
    object_type: Option<String>,
    /// Only this object: an id; for a move of the pointer to an active version, the template's name.
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
    verified: bool,
    /// Entries checked.
    entries: u64,
    /// The hash of the last one. Whoever notes it elsewhere sees when the whole chain is rewritten.
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
        _ => Some(verify(admin.store.as_ref()).await?),
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

/// Walks the chain from its beginning.
async fn verify(store: &dyn Store) -> Result<Chain, Problem> {
    let mut chain = Chain { verified: true, entries: 0, head: None, broken_at: None };
    let mut after = -1;
    loop {
        let query = AuditQuery { after: Some(after), limit: STRIDE, ..AuditQuery::default() };
        let rows = store.audit(&query).await?;
        let Some(last) = rows.last() else { return Ok(chain) };
        after = last.sequence;
        for row in &rows {
            let is_whole = row.previous_hash == chain.head
                && row.hash.as_deref() == Some(&row.expected_hash());
            if !is_whole && chain.verified {
                (chain.verified, chain.broken_at) = (false, Some(row.sequence));
            }
            chain.head.clone_from(&row.hash);
            chain.entries += 1;
        }
    }
}
