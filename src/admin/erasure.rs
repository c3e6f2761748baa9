//! Erasing what was recorded of one user.

use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use serde_json::json;
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use super::Admin;
use super::call::{self, Call, Params};
use super::names;
use super::problem::Problem;
use crate::erasure;
use crate::experiment::UNIT_BYTES_MAX;
use crate::store::Change;
use crate::store::audit::Entry;
use crate::store::erasure::Erasure;
use crate::words::clock;

/// How long one request erases: the answer must be there within two seconds.
const PATIENCE: Duration = Duration::from_millis(800);

/// Of whom.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(super) struct Whom {
    /// The tenant; `default` unless told otherwise.
    tenant: Option<String>,
    /// The user's key as calls give it (`x-chaperone-user`).
    #[param(min_length = 1, max_length = 256)]
    user: String,
    /// Why, for the audit. It should not name the user.
    #[param(max_length = 1000)]
    reason: Option<String>,
}

/// What went.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct ErasedBody {
    /// The order's id.
    id: Uuid,
    /// SHA-256 of the user's key in UTF-8: the audit knows the user by it.
    user_sha256: String,
    /// Executions of the store that are gone.
    executions: u64,
    /// Dead letters of this sidecar that are gone.
    dead_letters: u64,
    /// Whether all that was in the store is gone. If not (202), the rest goes within minutes.
    complete: bool,
}

/// Erases every execution of a user that was recorded so far. What still arrives of that time goes too.
#[utoipa::path(delete, path = "/executions", params(Whom),
    responses((status = 200, body = ErasedBody), (status = 202, body = ErasedBody)))]
pub(super) async fn erase(
    State(admin): State<Admin>,
    Params(whom): Params<Whom>,
    call: Call,
) -> Result<Response, Problem> {
    let erasure = whom.order()?;
    let user_sha256 = erasure.user_sha256();
    let entry = Entry {
        after: Some(json!({"order": erasure.id, "before": erasure.requested_at}).to_string()),
        reason: names::reason(whom.reason)?,
        ..call.entry("user.erase", ("user", user_sha256.clone()), &erasure.tenant)
    };
    let erasures = vec![erasure.clone()];
    admin.store.commit(&Change { erasures, audit: vec![entry], ..Change::default() }).await?;
    let gone =
        erasure::carry_out(admin.store.as_ref(), &admin.dead_letters, &erasure, PATIENCE).await?;
    let status = if gone.complete { StatusCode::OK } else { StatusCode::ACCEPTED };
    let body = ErasedBody {
        id: erasure.id,
        user_sha256,
        executions: gone.executions,
        dead_letters: gone.dead_letters,
        complete: gone.complete,
    };
    Ok((status, Json(body)).into_response())
}

impl Whom {
    fn order(&self) -> Result<Erasure, Problem> {
        // Calls with longer keys are refused.
        if !(1..=UNIT_BYTES_MAX).contains(&self.user.len()) {
            let detail = format!("user must have 1 to {UNIT_BYTES_MAX} bytes");
            return Err(Problem::bad_request(detail));
        }
        Ok(Erasure {
            id: Uuid::now_v7(),
            tenant: call::tenant(self.tenant.as_deref())?,
            user: self.user.clone(),
            requested_at: clock::now_micros(),
        })
    }
}
