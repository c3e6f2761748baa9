//! What was recorded, newest first.

use axum::Json;
use axum::extract::{Query, State, rejection::QueryRejection};
use serde::Deserialize;
use serde_json::{Value, json};

use super::Admin;
use super::problem::Problem;
use crate::execution::Outcome;
use crate::store::{Cursor, ExecutionQuery};
use crate::words::ids::Tenant;

const LIMIT_DEFAULT: u32 = 50;
const LIMIT_MAX: u32 = 500;

/// The query of the list.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Asked {
    tenant: Option<String>,
    limit: Option<u32>,
    cursor: Option<String>,
    template: Option<String>,
    user: Option<String>,
    outcome: Option<String>,
}

pub(super) async fn list(
    State(admin): State<Admin>,
    asked: Result<Query<Asked>, QueryRejection>,
) -> Result<Json<Value>, Problem> {
    let Query(asked) = asked.map_err(|error| Problem::bad_request(error.body_text()))?;
    let limit = asked.limit.unwrap_or(LIMIT_DEFAULT);
    if !(1..=LIMIT_MAX).contains(&limit) {
        return Err(Problem::bad_request(format!("limit must be from 1 to {LIMIT_MAX}")));
    }
    if let Some(outcome) = &asked.outcome {
        let known = Outcome::ALL.map(Outcome::name);
        if !known.contains(&outcome.as_str()) {
            return Err(Problem::bad_request(format!(
                "outcome must be one of {}",
                known.join(", ")
            )));
        }
    }
    let after = asked
        .cursor
        .as_deref()
        .map(Cursor::decode)
        .transpose()
        .map_err(|error| Problem::bad_request(error.to_string()))?;
    let query = ExecutionQuery {
        tenant: asked.tenant.map_or_else(Tenant::default, |name| Tenant(name.into())),
        // One more than asked for tells whether another page follows.
        limit: limit + 1,
        after,
        id: None,
        template: asked.template,
        user: asked.user,
        outcome: asked.outcome,
    };
    let mut items = admin.store.executions(&query).await?;
    let more = items.len() > limit as usize;
    items.truncate(limit as usize);
    let next_cursor =
        items.last().filter(|_| more).and_then(cursor_of).map(|cursor| cursor.encode());
    Ok(Json(json!({"items": items, "next_cursor": next_cursor})))
}

fn cursor_of(row: &Value) -> Option<Cursor> {
    let text = |name| row.get(name).and_then(Value::as_str);
    Some(Cursor { created_at: text("created_at")?.parse().ok()?, id: text("id")?.parse().ok()? })
}
