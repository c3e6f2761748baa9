//! Another split while an experiment runs: what it would move is told before it is done.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use super::Admin;
use super::call::{self, Call, Id, Params};
use super::experiments::COLLECTION;
use super::lifecycle::{Cause, Held};
use super::names::Check;
use super::problem::Problem;
use super::write::{Plan, etag, row};
use crate::catalog::check;
use crate::catalog::definitions::{ExperimentDefinition, Status};
use crate::experiment::{self, Experiment, Mode, Moves, Reallocated, Refused, Target};
use crate::store::{Exposure, Row, Table};
use crate::words::clock;
use crate::words::ids::Tenant;

/// Units that are looked at to find out who was served what.
const EXPOSURES_MAX: u32 = 200_000;
/// Units that may keep an arm against their bucket: every sidecar holds them in memory.
const PINNED_MAX: usize = 10_000;

/// Whose, and whether only to tell.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(super) struct Asked {
    /// The tenant; `default` unless told otherwise.
    #[param(max_length = 128)]
    tenant: Option<String>,
    /// Only tell what would move.
    #[serde(default)]
    preview: bool,
}

/// What is wanted. What is left out stays as it is.
#[derive(Debug, Clone, Default, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Wanted {
    /// Percentages by arm, exactly 100 in all; an arm is taken out with 0.
    #[schema(value_type = Option<Object>)]
    traffic_split: Option<Map<String, Value>>,
    /// How much of the traffic takes part.
    enrollment_percentage: Option<f64>,
    /// `min_move` unless told otherwise: as few units as it takes. `grow`: nobody, the split holds for who is
    /// enrolled anew. `sticky`: nobody who was ever served an arm. `rerandomise`: everybody, results begin anew.
    #[schema(value_type = Option<ModeName>)]
    mode: Option<String>,
    /// Why, for the audit.
    reason: Option<String>,
}

/// Who may move.
#[derive(ToSchema)]
#[schema(rename_all = "snake_case")]
#[expect(dead_code, reason = "names the words of an enum of the engine")]
pub(super) enum ModeName {
    Grow,
    MinMove,
    Sticky,
    Rerandomise,
}

/// What a reallocation moves, or has moved.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Reallocation {
    /// Whether nothing was changed.
    preview: bool,
    #[schema(value_type = ModeName)]
    mode: String,
    /// Of the enrolled units, how many change their arm, in percent. With `sticky`, of those never served.
    moved_percentage: f64,
    /// Of all units, how many are enrolled anew.
    joining_percentage: f64,
    /// Of all units, how many are enrolled no longer; they see the active version.
    leaving_percentage: f64,
    enrollment_percentage: f64,
    /// Units that keep the arm they were served against their bucket.
    pinned_units: usize,
    /// Of the split that begins, or would.
    phase: u32,
    /// As they will be: `weight_millipercent` is the share among those enrolled.
    #[schema(value_type = Vec<Object>)]
    arms: Value,
}

impl Wanted {
    fn read(call: &Call) -> Result<(Self, Mode), Problem> {
        let wanted: Self = call.body()?;
        let mut check = Check::default();
        check.reason(wanted.reason.as_deref());
        let mode = wanted.mode.as_deref().map_or(Some(Mode::MinMove), Mode::read);
        if mode.is_none() {
            check.refuse("mode", format!("must be {}", Mode::ALL.map(Mode::name).join(", ")));
        }
        let is_empty = wanted.traffic_split.is_none() && wanted.enrollment_percentage.is_none();
        if is_empty && mode != Some(Mode::Rerandomise) {
            check.refuse("traffic_split", "give traffic_split, enrollment_percentage or both");
        }
        check.done()?;
        Ok((wanted, mode.unwrap_or(Mode::MinMove)))
    }
}

/// An experiment as it would be, but for its phase.
struct Next {
    definition: ExperimentDefinition,
    experiment: Experiment,
    moves: Moves,
    mode: Mode,
}

#[utoipa::path(post, path = "/ab-tests/{id}/reallocate", params(("id" = Uuid, Path), Asked),
    request_body = Wanted, responses((status = 200, body = Reallocation)))]
pub(super) async fn reallocate(
    State(admin): State<Admin>,
    Id(id): Id,
    Params(asked): Params<Asked>,
    call: Call,
) -> Result<Response, Problem> {
    let tenant = call::tenant(asked.tenant.as_deref())?;
    let (wanted, mode) = Wanted::read(&call)?;
    if asked.preview {
        let held = running(&admin, &tenant, id, &call).await?;
        let next = next(&admin, &held, &wanted, mode).await?;
        let phase = phase_of(&held.old) + 1;
        return Ok(axum::Json(next.told(true, phase)).into_response());
    }
    let told = Mutex::new(None);
    let note = |done: Reallocation| {
        *told.lock().unwrap_or_else(PoisonError::into_inner) = Some(done);
    };
    let made = call
        .make(&admin, async || {
            let held = running(&admin, &tenant, id, &call).await?;
            let next = next(&admin, &held, &wanted, mode).await?;
            if mode != Mode::Rerandomise && next.definition == held.old {
                note(next.told(false, phase_of(&held.old)));
                return Ok(Plan::nothing(id));
            }
            let mut new = next.definition.clone();
            let cause = Cause {
                mode: mode.name(),
                moved_percentage: Some(next.moves.moved_percentage()),
                actor: &call.caller.name,
                reason: wanted.reason.clone(),
                at: clock::now_micros(),
            };
            let turn = cause.begin(&mut new)?;
            note(next.told(false, phase_of(&new)));
            Ok(held.plan(&call, new, ("experiment.reallocate", wanted.reason.clone()), turn))
        })
        .await?;
    let row = row(&admin, Table::Experiments, &tenant, id).await?;
    let told = told.into_inner().unwrap_or_else(PoisonError::into_inner);
    match told {
        Some(told) => Ok(made.answer(&told, &etag(&row), COLLECTION)),
        None => {
            replayed(&admin, &row).await.map(|told| made.answer(&told, &etag(&row), COLLECTION))
        }
    }
}

fn phase_of(definition: &ExperimentDefinition) -> u32 {
    definition.assignment.as_ref().map_or(0, |beside| beside.phase)
}

/// What a retry with the same key is told: the newest split as the log of phases has it.
async fn replayed(admin: &Admin, row: &Row) -> Result<Reallocation, Problem> {
    let definition: ExperimentDefinition = row.definition(Table::Experiments)?;
    let phases = admin.store.phases(definition.id).await?;
    let is_split = |mode: &str| Mode::read(mode).is_some();
    let last = phases.into_iter().rev().find(|phase| is_split(&phase.mode));
    let last = last.ok_or_else(|| Problem::conflict("its split was never changed"))?;
    Ok(Reallocation {
        preview: false,
        mode: last.mode,
        moved_percentage: last.moved_percentage.unwrap_or(0.0),
        joining_percentage: 0.0,
        leaving_percentage: 0.0,
        enrollment_percentage: last.enrollment_percentage,
        pinned_units: definition.assignment.map_or(0, |beside| beside.pinned_units.len()),
        phase: last.phase,
        arms: last.arms,
    })
}

/// An experiment whose split may change: it is active, and not over.
async fn running(admin: &Admin, tenant: &Tenant, id: Uuid, call: &Call) -> Result<Held, Problem> {
    let held = Held::read(admin, tenant, id, call).await?;
    if held.old.status == Status::Active && !held.is_over(clock::now_micros()) {
        Ok(held)
    } else {
        Err(Problem::conflict("only the split of an experiment that is active can be changed"))
    }
}

async fn next(admin: &Admin, held: &Held, wanted: &Wanted, mode: Mode) -> Result<Next, Problem> {
    let current = check::experiment(&held.old).map_err(Problem::conflict)?;
    let mut definition = held.old.clone();
    if let Some(split) = &wanted.traffic_split {
        definition.traffic_split.clone_from(split);
    }
    definition.enrollment_percentage =
        wanted.enrollment_percentage.unwrap_or(definition.enrollment_percentage);
    let plain = ExperimentDefinition { arms: None, ..definition.clone() };
    let target = check::experiment(&plain).map_err(Problem::unprocessable)?;
    let (weights, enrolled) = (target.weights(), target.enrolled);
    let Reallocated { allocation, enrolled_most, moves } =
        current.reallocated(&Target { mode, weights, enrolled }).map_err(refused)?;
    let mut experiment =
        Experiment { allocation, enrolled_most, pinned: current.pinned.clone(), ..target };
    let beside = definition.assignment.get_or_insert_default();
    beside.enrolled_most = f64::from(enrolled_most) / 1000.0;
    match mode {
        Mode::Rerandomise => {
            let salt = Uuid::now_v7().to_string();
            definition.salt = Some(salt.clone());
            beside.pinned_units.clear();
            experiment.pinned.clear();
            experiment.salt = salt;
        }
        Mode::Sticky => {
            let exposures = admin.store.exposures(held.old.id, EXPOSURES_MAX + 1).await?;
            beside.pinned_units.extend(pinned(&current, &experiment, &exposures)?);
            if beside.pinned_units.len() > PINNED_MAX {
                return Err(too_many(beside.pinned_units.len()));
            }
        }
        Mode::Grow | Mode::MinMove => {}
    }
    definition.arms = Some(check::arms(&experiment));
    Ok(Next { definition, experiment, moves, mode })
}

fn refused(why: Refused) -> Problem {
    match why {
        Refused::NoRoom { .. } => Problem::conflict(why.to_string()),
        Refused::Weights { .. } => Problem::unprocessable(why.to_string()),
    }
}

/// Units that were served an arm and would move from it, with that arm.
fn pinned(
    current: &Experiment,
    next: &Experiment,
    exposures: &[Exposure],
) -> Result<BTreeMap<String, String>, Problem> {
    if exposures.len() > EXPOSURES_MAX as usize {
        return Err(too_many(exposures.len()));
    }
    let now = clock::now_micros();
    let moves = |exposure: &Exposure| {
        let arm =
            |of: &Experiment| of.assign(now, Some(&exposure.unit)).arm.map(|arm| arm.key.clone());
        let (before, after) = (arm(current), arm(next));
        let keeps = before.as_ref() == Some(&exposure.arm);
        let unit = experiment::canonical(&exposure.unit).into_owned();
        (keeps && after.is_some() && after != before).then(|| (unit, exposure.arm.clone()))
    };
    Ok(exposures.iter().filter_map(moves).collect())
}

fn too_many(units: usize) -> Problem {
    Problem::conflict(format!(
        "sticky can keep {PINNED_MAX} units in their arms out of {EXPOSURES_MAX} that were served, here are \
         {units}; use grow, which moves nobody, or min_move"
    ))
}

impl Next {
    fn told(&self, preview: bool, phase: u32) -> Reallocation {
        let share = |buckets: u32| f64::from(buckets) / 1000.0;
        let beside = self.definition.assignment.as_ref();
        Reallocation {
            preview,
            mode: self.mode.name().to_owned(),
            moved_percentage: self.moves.moved_percentage(),
            joining_percentage: share(self.moves.joining),
            leaving_percentage: share(self.moves.leaving),
            enrollment_percentage: self.definition.enrollment_percentage,
            pinned_units: beside.map_or(0, |beside| beside.pinned_units.len()),
            phase,
            arms: check::arms(&self.experiment),
        }
    }
}
