//! What was recorded, newest first.

use axum::Json;
use axum::extract::State;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::{IntoParams, ToSchema};

use super::Admin;
use super::call::{self, Id, Params, Whose};
use super::problem::Problem;
use crate::execution::Outcome;
use crate::store::{Cursor, ExecutionQuery};

/// Which executions.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(super) struct Asked {
    /// The tenant; `default` unless told otherwise.
    tenant: Option<String>,
    /// Executions of a page, 1 to 500; 50 unless told otherwise.
    #[param(minimum = 1, maximum = 500)]
    limit: Option<u32>,
    /// Of the page, from `next_cursor` of the page before.
    cursor: Option<String>,
    /// Only of this template.
    template: Option<String>,
    /// Only of this user.
    user: Option<String>,
    /// Only with this outcome.
    outcome: Option<String>,
}

/// Executions, newest first: the columns of `prompt_executions`.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct ExecutionPage {
    #[schema(value_type = Vec<Object>)]
    items: Vec<Value>,
    /// Of the next page; null on the last.
    next_cursor: Option<String>,
}

#[utoipa::path(get, path = "/executions", params(Asked), responses((status = 200, body = ExecutionPage)))]
pub(super) async fn list(
    State(admin): State<Admin>,
    Params(asked): Params<Asked>,
) -> Result<Json<ExecutionPage>, Problem> {
    let limit = call::limit(asked.limit)?;
    if let Some(outcome) = &asked.outcome {
        let known = Outcome::ALL.map(Outcome::name);
        if !known.contains(&outcome.as_str()) {
            let known = known.join(", ");
            return Err(Problem::bad_request(format!("outcome must be one of {known}")));
        }
    }
    let after = asked
        .cursor
        .as_deref()
        .map(Cursor::decode)
        .transpose()
        .map_err(|error| Problem::bad_request(error.to_string()))?;
    let query = ExecutionQuery {
        tenant: call::tenant(asked.tenant.as_deref())?,
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
    items.iter_mut().for_each(in_utc);
    Ok(Json(ExecutionPage { items, next_cursor }))
}

#[utoipa::path(get, path = "/executions/{id}", params(("id" = Uuid, Path), Whose),
    responses((status = 200, description = "The columns of prompt_executions", body = Object)))]
pub(super) async fn read(
    State(admin): State<Admin>,
    Id(id): Id,
    Params(whose): Params<Whose>,
) -> Result<Json<Value>, Problem> {
    let tenant = whose.tenant()?;
    let query = ExecutionQuery {
        tenant: tenant.clone(),
        limit: 1,
        id: Some(id),
        ..ExecutionQuery::default()
    };
    let found = admin.store.executions(&query).await?.into_iter().next();
    let mut row = found
        .ok_or_else(|| Problem::not_found(format!("tenant {tenant} has no execution {id}")))?;
    in_utc(&mut row);
    Ok(Json(row))
}

/// Times as every other answer writes them, whatever the database's zone.
fn in_utc(row: &mut Value) {
    let Some(at) = row.get_mut("created_at") else { return };
    if let Some(time) = at.as_str().and_then(|text| text.parse::<Timestamp>().ok()) {
        *at = Value::from(format!("{time:.6}"));
    }
}

fn cursor_of(row: &Value) -> Option<Cursor> {
    let text = |name| row.get(name).and_then(Value::as_str);
    Some(Cursor { created_at: text("created_at")?.parse().ok()?, id: text("id")?.parse().ok()? })
}
