//! What users and evaluators say of a call. The arm comes from the record of the call, never from whoever
//! speaks.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;
use uuid::Uuid;

use super::Admin;
use super::call::{Call, Params, Whose};
use super::names::Check;
use super::problem::Problem;
use crate::results::is_key;
use crate::store::outcomes::{Exposure, Feedback, Heard};
use crate::words::clock;

/// How long after a call something may be said of it.
const LATE_MAX: SignedDuration = SignedDuration::from_hours(7 * 24);
const IDEMPOTENCY_CHARS_MAX: usize = 255;
/// Scores beyond it are mistakes.
const VALUE_MAX: f64 = 1e9;

/// A word on one call.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct NewFeedback {
    /// The call's `x-chaperone-request-id`.
    execution_id: Uuid,
    /// What is said: 1 to 64 letters, digits, `_ - .`.
    #[schema(min_length = 1, max_length = 64)]
    key: String,
    /// True, false, or a number from -1e9 to 1e9. The last one of an execution and a key counts.
    #[schema(value_type = f64)]
    value: Value,
    /// For a retry that must not speak twice: with the same key nothing changes, whatever was said since.
    #[schema(min_length = 1, max_length = 255)]
    idempotency_key: Option<String>,
}

/// What became of it.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct FeedbackBody {
    execution_id: Uuid,
    key: String,
    #[schema(value_type = f64)]
    value: Value,
    /// Whether this was said before, under the same idempotency key.
    replayed: bool,
    /// The experiment the call was part of.
    experiment_id: Option<Uuid>,
    /// The arm it had.
    arm: Option<String>,
    #[schema(value_type = String, format = DateTime)]
    exposed_at: Timestamp,
}

#[utoipa::path(post, path = "/feedback", params(Whose), request_body = NewFeedback,
    responses((status = 200, body = FeedbackBody)))]
pub(super) async fn give(
    State(admin): State<Admin>,
    Params(whose): Params<Whose>,
    call: Call,
) -> Result<Json<FeedbackBody>, Problem> {
    let new: NewFeedback = call.body()?;
    new.check()?;
    let not_before = clock::now().checked_sub(LATE_MAX).unwrap_or(Timestamp::UNIX_EPOCH);
    let feedback = Feedback {
        tenant: whose.tenant()?,
        execution_id: new.execution_id,
        key: new.key,
        value: new.value,
        idempotency_key: new.idempotency_key.or_else(|| call.key.clone()),
        by: call.caller.name.clone(),
        not_before,
    };
    let heard = admin.store.feedback(&feedback).await?;
    let (exposure, replayed) = taken(heard, &feedback)?;
    let Exposure { at, experiment_id, arm } = exposure;
    let Feedback { execution_id, key, value, .. } = feedback;
    let exposed_at = at;
    Ok(Json(FeedbackBody { execution_id, key, value, replayed, experiment_id, arm, exposed_at }))
}

impl NewFeedback {
    fn check(&self) -> Result<(), Problem> {
        let mut check = Check::default();
        if !is_key(&self.key) {
            check.refuse("key", "must have 1 to 64 letters, digits, _ - or .");
        }
        let fits = self.value.is_boolean()
            || self.value.as_f64().is_some_and(|value| value.abs() <= VALUE_MAX);
        if !fits {
            check.refuse("value", "must be true, false, or a number from -1e9 to 1e9");
        }
        let once = self.idempotency_key.as_ref().map(|key| key.chars().count());
        if once.is_some_and(|chars| !(1..=IDEMPOTENCY_CHARS_MAX).contains(&chars)) {
            let detail = format!("must have 1 to {IDEMPOTENCY_CHARS_MAX} characters");
            check.refuse("idempotency_key", detail);
        }
        check.done()
    }
}

fn taken(heard: Heard, feedback: &Feedback) -> Result<(Exposure, bool), Problem> {
    match heard {
        Heard::Stored(exposure) => Ok((exposure, false)),
        Heard::Again(exposure) => Ok((exposure, true)),
        Heard::KeyTaken => {
            Err(Problem::unprocessable("idempotency_key was used for another word; take a new one"))
        }
        Heard::TooLate(exposure) => Err(Problem::conflict(format!(
            "the execution was at {}; feedback is taken for 7 days",
            exposure.at
        ))),
        Heard::NoExecution => Err(Problem::new(
            StatusCode::NOT_FOUND,
            format!(
                "tenant {} has no execution {}; one of this minute may not be stored yet: send it again",
                feedback.tenant, feedback.execution_id
            ),
        )),
    }
}
