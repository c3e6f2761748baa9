//! Executions that the store refused, another try for them, and their end. They wait in the local file of the
//! sidecar that is asked.

use axum::Json;
use axum::extract::State;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::{IntoParams, ToSchema};

use super::Admin;
use super::call::{self, Call, Params};
use super::names;
use super::problem::Problem;
use crate::outbox::{Discard, Letter};
use crate::store::Change;
use crate::store::audit::Entry;
use crate::words::ids::Tenant;

/// Which dead letters.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(super) struct Asked {
    /// Dead letters of a page, 1 to 500; 50 unless told otherwise.
    #[param(minimum = 1, maximum = 500)]
    limit: Option<u32>,
    /// Of the page, from `next_cursor` of the page before.
    cursor: Option<String>,
}

/// An execution that was kept aside.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct DeadLetter {
    /// The execution's id, or a place where the disk spoilt one.
    id: String,
    /// What the store said of it.
    reason: String,
    /// When it was kept aside.
    #[schema(format = DateTime)]
    at: String,
    /// The columns of `prompt_executions`; text, where the disk spoilt it.
    #[schema(value_type = Object)]
    execution: Value,
}

/// Dead letters in the order of their ids.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct DeadLetterPage {
    items: Vec<DeadLetter>,
    /// Of the next page; null on the last.
    next_cursor: Option<String>,
}

#[utoipa::path(get, path = "/dead-letters", params(Asked), responses((status = 200, body = DeadLetterPage)))]
pub(super) async fn list(
    State(admin): State<Admin>,
    Params(asked): Params<Asked>,
) -> Result<Json<DeadLetterPage>, Problem> {
    let limit = call::limit(asked.limit)?;
    let mut letters = admin.dead_letters.list(asked.cursor, limit + 1).await?;
    let more = letters.len() > limit as usize;
    letters.truncate(limit as usize);
    let next_cursor = letters.last().filter(|_| more).map(|letter| letter.id.clone());
    let items = letters.into_iter().map(shown).collect();
    Ok(Json(DeadLetterPage { items, next_cursor }))
}

fn shown(letter: Letter) -> DeadLetter {
    let Letter { id, reason, execution, at } = letter;
    let execution = serde_json::from_str(&execution).unwrap_or(Value::String(execution));
    DeadLetter { id, reason, at, execution }
}

/// Which are sent again.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Again {
    /// One; all of them unless told.
    id: Option<String>,
}

/// What became of them.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct RetriedBody {
    /// Back in the outbox, on their way to the store.
    retried: u64,
    /// Spoilt on the disk: they stay where they are.
    unreadable: u64,
}

#[utoipa::path(post, path = "/dead-letters/retry", request_body = Again,
    responses((status = 200, body = RetriedBody)))]
pub(super) async fn retry(
    State(admin): State<Admin>,
    call: Call,
) -> Result<Json<RetriedBody>, Problem> {
    let again: Again = call.body()?;
    let id = again.id.clone();
    let retried = admin.dead_letters.retry(again.id).await?;
    match id {
        Some(id) if retried.sent + retried.kept == 0 => {
            Err(Problem::unprocessable(format!("id: this sidecar has no dead letter {id}")))
        }
        Some(_) if retried.sent == 0 => {
            Err(Problem::conflict("it was spoilt on the disk: what is left of it is no execution"))
        }
        _ => Ok(Json(RetriedBody { retried: retried.sent, unreadable: retried.kept })),
    }
}

/// Which are removed: one, or the old ones.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(super) struct Useless {
    /// The one with this id.
    id: Option<String>,
    /// All that were kept aside before this moment.
    #[param(value_type = Option<String>, format = DateTime)]
    before: Option<Timestamp>,
    /// Why, for the audit.
    #[param(max_length = 1000)]
    reason: Option<String>,
}

/// What went.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct DiscardedBody {
    /// Dead letters that are gone for good.
    discarded: u64,
}

#[utoipa::path(delete, path = "/dead-letters", params(Useless),
    responses((status = 200, body = DiscardedBody)))]
pub(super) async fn discard(
    State(admin): State<Admin>,
    Params(useless): Params<Useless>,
    call: Call,
) -> Result<Json<DiscardedBody>, Problem> {
    let which = match (useless.id, useless.before) {
        (Some(id), None) => Discard::One(id),
        (None, Some(at)) => Discard::Before(at),
        _ => return Err(Problem::bad_request("give either id or before")),
    };
    let object = match &which {
        Discard::One(id) => id.clone(),
        Discard::Before(at) => format!("before {at}"),
    };
    let entry = Entry {
        reason: names::reason(useless.reason)?,
        ..call.entry("dead_letter.discard", ("dead_letter", object), &Tenant::default())
    };
    admin.store.commit(&Change { audit: vec![entry], ..Change::default() }).await?;
    Ok(Json(DiscardedBody { discarded: admin.dead_letters.discard(which).await? }))
}
