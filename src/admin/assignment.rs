//! Why a unit sees what it sees: every number of the decision, so that it can be done again by hand.

use axum::extract::State;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use super::Admin;
use super::call::{self, Id, Params};
use super::problem::Problem;
use super::write::row;
use crate::catalog::check;
use crate::catalog::definitions::{ExperimentDefinition, Status};
use crate::experiment::{Assignment, Experiment, Purpose, bucket, canonical, hashed};
use crate::store::Table;
use crate::words::clock;

/// Which unit.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(super) struct Asked {
    /// The tenant; `default` unless told otherwise.
    #[param(max_length = 128)]
    tenant: Option<String>,
    /// As the call names it: 1 to 256 bytes.
    #[param(min_length = 1, max_length = 256)]
    unit: String,
    /// When the call arrives; now unless told otherwise.
    #[param(value_type = Option<String>, format = DateTime)]
    at: Option<Timestamp>,
}

/// A decision with all it depends on.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Explanation {
    /// As it is hashed: a UUID in lower case with hyphens, everything else as it is.
    unit: String,
    #[schema(value_type = String, format = DateTime)]
    at: Timestamp,
    /// `draft`, `active`, `paused` or `completed`.
    status: String,
    /// Of the split in force, as in `phases`.
    phase: u32,
    /// The arm's key; null: the active version of the template serves.
    arm: Option<String>,
    template_id: Option<Uuid>,
    /// As in `assignment_reason` of executions; `draft` or `completed` of what does not run.
    reason: String,
    /// The arm of its buckets, whatever else decides; null: it is not among the enrolled.
    arm_of_buckets: Option<String>,
    salt: String,
    hash_version: u32,
    enroll: Hashed,
    variant: Hashed,
    /// Enrolment buckets below this take part.
    enrolled_below: u32,
    /// Each with its `ranges` of buckets, from and up to.
    #[schema(value_type = Vec<Object>)]
    arms: Value,
}

/// A bucket and how it is made: the first 15 hex digits of the MD5 of the text, modulo 100,000.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Hashed {
    text: String,
    bucket: u32,
}

#[utoipa::path(get, path = "/ab-tests/{id}/assignment", params(("id" = Uuid, Path), Asked),
    responses((status = 200, body = Explanation)))]
pub(super) async fn explain(
    State(admin): State<Admin>,
    Id(id): Id,
    Params(asked): Params<Asked>,
) -> Result<axum::Json<Explanation>, Problem> {
    let tenant = call::tenant(asked.tenant.as_deref())?;
    if !(1..=256).contains(&asked.unit.len()) {
        return Err(Problem::bad_request("unit must have 1 to 256 bytes"));
    }
    let row = row(&admin, Table::Experiments, &tenant, id).await?;
    let definition: ExperimentDefinition = row.definition(Table::Experiments)?;
    let experiment = check::experiment(&definition).map_err(Problem::conflict)?;
    let at = asked.at.unwrap_or_else(clock::now_micros);
    Ok(axum::Json(explanation(&definition, &experiment, &asked.unit, at)))
}

fn explanation(
    definition: &ExperimentDefinition,
    experiment: &Experiment,
    unit: &str,
    at: Timestamp,
) -> Explanation {
    let Assignment { arm, reason, .. } = experiment.assign(at, Some(unit));
    let unit = canonical(unit).into_owned();
    let hashed = |purpose| Hashed {
        text: hashed(purpose, &experiment.salt, &unit),
        bucket: bucket(purpose, &experiment.salt, &unit),
    };
    let (enroll, variant) = (hashed(Purpose::Enroll), hashed(Purpose::Variant));
    let by_bucket = experiment.allocation.arm(enroll.bucket, variant.bucket);
    let by_bucket = by_bucket.filter(|_| enroll.bucket < experiment.enrolled);
    let (status, arm, reason) = match definition.status {
        Status::Draft => ("draft", None, "draft"),
        Status::Active => ("active", arm, reason.name()),
        Status::Paused => ("paused", None, reason.name()),
        Status::Completed => ("completed", None, "completed"),
    };
    Explanation {
        unit,
        at,
        status: status.to_owned(),
        phase: definition.assignment.as_ref().map_or(0, |beside| beside.phase),
        arm: arm.map(|arm| arm.key.clone()),
        template_id: arm.map(|arm| arm.template.0),
        reason: reason.to_owned(),
        arm_of_buckets: by_bucket
            .and_then(|arm| experiment.arms.get(arm))
            .map(|arm| arm.key.clone()),
        salt: experiment.salt.clone(),
        hash_version: definition.hash_version,
        enroll,
        variant,
        enrolled_below: experiment.enrolled,
        arms: check::arms(experiment),
    }
}
