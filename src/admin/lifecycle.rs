//! The life of an experiment: started, paused, resumed, stopped, each with its entry in the log of phases.
//!
//! Its dates act by themselves. One whose end has passed is over whatever its row says; the row follows
//! when somebody needs the name.

use axum::extract::State;
use axum::response::Response;
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::Value;
use utoipa::ToSchema;
use uuid::Uuid;

use super::Admin;
use super::activation::Why;
use super::call::{Call, Id, Params, Whose};
use super::experiments::{self, ExperimentBody, put};
use super::names::Check;
use super::planning::SIZE_DEFAULT;
use super::problem::Problem;
use super::write::{Plan, etag, row};
use crate::catalog::check;
use crate::catalog::definitions::{Design, ExperimentDefinition, Status};
use crate::experiment::HASH_VERSION;
use crate::statistics::Alpha;
use crate::store::{Phase, Row, RowQuery, Table, Turn};
use crate::words::clock;
use crate::words::ids::Tenant;

/// An experiment as it was read.
pub(super) struct Held {
    pub(super) row: Row,
    pub(super) old: ExperimentDefinition,
}

impl Held {
    /// Reads one that is to be changed.
    pub(super) async fn read(
        admin: &Admin,
        tenant: &Tenant,
        id: Uuid,
        call: &Call,
    ) -> Result<Self, Problem> {
        let row = row(admin, Table::Experiments, tenant, id).await?;
        call.check(&etag(&row))?;
        Self::of(row)
    }

    fn of(row: Row) -> Result<Self, Problem> {
        let old = row.definition(Table::Experiments)?;
        Ok(Self { row, old })
    }

    /// Whether its end has passed.
    pub(super) fn is_over(&self, now: Timestamp) -> bool {
        self.old.end_date.is_some_and(|end| end <= now)
    }

    /// The plan that puts `new` in its place.
    pub(super) fn plan(
        &self,
        call: &Call,
        new: ExperimentDefinition,
        why: (&str, Option<String>),
        turn: Turn,
    ) -> Plan {
        let mut plan = put(call, (Some(&self.row), Some(&self.old)), new, why);
        plan.change.turns.push(turn);
        plan
    }
}

/// What begins a phase.
pub(super) struct Cause<'c> {
    pub(super) mode: &'static str,
    pub(super) moved_percentage: Option<f64>,
    pub(super) actor: &'c str,
    pub(super) reason: Option<String>,
    pub(super) at: Timestamp,
}

impl Cause<'_> {
    /// The next phase of an experiment that is as it will be but for the phase's number and its arms.
    pub(super) fn begin(self, new: &mut ExperimentDefinition) -> Result<Turn, Problem> {
        let experiment = check::experiment(new).map_err(Problem::conflict)?;
        let arms = check::arms(&experiment);
        let beside = new.assignment.get_or_insert_default();
        beside.phase += 1;
        let phase = Phase {
            experiment_id: new.id,
            phase: beside.phase,
            mode: self.mode.to_owned(),
            arms: arms.clone(),
            enrollment_percentage: new.enrollment_percentage,
            moved_percentage: self.moved_percentage,
            salt: experiment.salt,
            hash_version: new.hash_version,
            actor: self.actor.to_owned(),
            reason: self.reason,
            started_at: self.at,
            ended_at: None,
        };
        new.arms = Some(arms);
        Ok(Turn { experiment: new.id, at: self.at, begins: Some(phase) })
    }
}

#[utoipa::path(post, path = "/ab-tests/{id}/start", params(("id" = Uuid, Path), Whose), request_body = Why,
    responses((status = 200, body = ExperimentBody)))]
pub(super) async fn start(
    State(admin): State<Admin>,
    Id(id): Id,
    Params(whose): Params<Whose>,
    call: Call,
) -> Result<Response, Problem> {
    let (tenant, why) = (whose.tenant()?, Why::read(&call)?);
    let made = call
        .make(&admin, async || {
            let held = Held::read(&admin, &tenant, id, &call).await?;
            let now = clock::now_micros();
            if held.old.status == Status::Active && !held.is_over(now) {
                return Ok(Plan::nothing(id));
            }
            let mut check = Check::default();
            match held.old.status {
                Status::Active | Status::Completed => {
                    check.refuse("status", "a completed experiment cannot be started again");
                }
                Status::Paused => check.refuse("status", "it is paused; resume it"),
                Status::Draft => {}
            }
            let over = runnable(&admin, &held, now, check).await?;
            let mut new = held.old.clone();
            freeze(&mut new, now);
            let at = new.start_date.map_or(now, |start| start.max(now));
            new.start_date.get_or_insert(now);
            new.status = Status::Active;
            // The split as it was drafted, from the first bucket on.
            new.arms = None;
            let most = new.enrollment_percentage;
            new.assignment.get_or_insert_default().enrolled_most = most;
            let cause = cause(&call, "start", why.reason.as_deref(), at);
            let turn = cause.begin(&mut new)?;
            let plan = held.plan(&call, new, ("experiment.start", why.reason.clone()), turn);
            Ok(before(plan, &call, over))
        })
        .await?;
    experiments::answer(&admin, &tenant, &made).await
}

/// Writes down what the analysis goes by: nothing of it may depend on what is seen later.
fn freeze(new: &mut ExperimentDefinition, now: Timestamp) {
    let chosen = new.design.take().unwrap_or_default();
    new.design = Some(Design {
        alpha: Some(chosen.alpha.unwrap_or(Alpha::FIVE_PERCENT.share())),
        baseline: chosen.baseline,
        target_sample_size: Some(new.target_sample_size.unwrap_or(SIZE_DEFAULT)),
        hash_version: Some(HASH_VERSION),
        frozen_at: Some(now),
    });
}

fn cause<'c>(call: &'c Call, mode: &'static str, reason: Option<&str>, at: Timestamp) -> Cause<'c> {
    let (actor, reason) = (call.caller.name.as_str(), reason.map(str::to_owned));
    Cause { mode, moved_percentage: None, actor, reason, at }
}

/// That all arms can serve the calls that come, and nothing else decides on this template; all that is in
/// the way at once. Gives the experiment that holds the name and is over.
async fn runnable(
    admin: &Admin,
    held: &Held,
    now: Timestamp,
    mut check: Check,
) -> Result<Option<Held>, Problem> {
    let definition = &held.old;
    if held.is_over(now) {
        check.refuse("end_date", "has passed");
    }
    if let Err(why) = check::experiment(definition) {
        check.refuse("arms", why);
    }
    let other = holder(admin, definition).await?;
    if let Some(other) = other.as_ref().filter(|other| !other.is_over(now)) {
        let (name, template) = (&other.old.name, &definition.template_name);
        check.refuse(
            "template_name",
            format!("experiment {name:?} is active on {template:?}; stop it first"),
        );
    }
    let catalog = admin.refresher.current().load();
    let named = catalog
        .tenant(&definition.tenant_id)
        .and_then(|one| one.template(&definition.template_name));
    if named.is_none_or(|name| name.active.is_none()) {
        let detail = format!(
            "{:?} has no active version, which serves whoever does not take part; activate one first",
            definition.template_name
        );
        check.refuse("template_name", detail);
    }
    serviceable(admin, definition, &mut check).await?;
    check.done_as_things_stand()?;
    Ok(other)
}

/// The experiment that is active on the same name.
async fn holder(admin: &Admin, definition: &ExperimentDefinition) -> Result<Option<Held>, Problem> {
    let query = RowQuery {
        state: Some("active".to_owned()),
        group: Some(definition.template_name.clone()),
        ..RowQuery::of(Table::Experiments, &definition.tenant_id)
    };
    let rows = admin.store.rows(&query).await?;
    let other = rows.into_iter().find(|row| {
        row.columns.get("id").and_then(Value::as_str) != Some(definition.id.to_string().as_str())
    });
    other.map(Held::of).transpose()
}

/// That each arm works, with the variables that the control takes.
async fn serviceable(
    admin: &Admin,
    definition: &ExperimentDefinition,
    check: &mut Check,
) -> Result<(), Problem> {
    let mut samples = None;
    for version in experiments::versions(admin, definition, check).await? {
        let shown = format!("{}@{}", version.name, version.version);
        // One that serves already has been let in, by the rules of its day.
        let fit = if version.is_active { check::works } else { check::template };
        let compiled = match fit(&version) {
            Ok(compiled) => compiled,
            Err(why) => {
                check.refuse("arms", format!("{shown} does not work: {why}"));
                continue;
            }
        };
        let declared = compiled.template.variables();
        let samples = samples.get_or_insert_with(|| check::samples(declared));
        if compiled.template.render(samples).is_err() {
            let detail = format!("{shown} cannot be rendered with the variables of the control");
            check.refuse("arms", detail);
        }
    }
    Ok(())
}

/// A plan with the end of the experiment that held the name before it: there may be only one active at
/// any moment.
fn before(mut plan: Plan, call: &Call, over: Option<Held>) -> Plan {
    let Some(held) = over else { return plan };
    let mut new = held.old.clone();
    new.status = Status::Completed;
    let at = held.old.end_date.unwrap_or_else(clock::now_micros);
    let turn = Turn { experiment: new.id, at, begins: None };
    let why = ("experiment.end", Some("its end_date has passed".to_owned()));
    let end = held.plan(call, new, why, turn).change;
    let change = &mut plan.change;
    change.expects.extend(end.expects);
    change.puts.experiments.splice(0..0, end.puts.experiments);
    change.turns.splice(0..0, end.turns);
    change.audit.splice(0..0, end.audit);
    plan
}

/// Why an experiment is stopped.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Stop {
    /// At most 1,000 characters.
    reason: String,
}

#[utoipa::path(post, path = "/ab-tests/{id}/stop", params(("id" = Uuid, Path), Whose), request_body = Stop,
    responses((status = 200, body = ExperimentBody)))]
pub(super) async fn stop(
    State(admin): State<Admin>,
    Id(id): Id,
    Params(whose): Params<Whose>,
    call: Call,
) -> Result<Response, Problem> {
    let (tenant, stop): (Tenant, Stop) = (whose.tenant()?, call.body()?);
    let mut check = Check::default();
    check.reason(Some(&stop.reason));
    if stop.reason.trim().is_empty() {
        check.refuse("reason", "must say why");
    }
    check.done()?;
    let made = call
        .make(&admin, async || {
            let held = Held::read(&admin, &tenant, id, &call).await?;
            match held.old.status {
                Status::Completed => return Ok(Plan::nothing(id)),
                Status::Draft => {
                    return Err(Problem::conflict("it was never started, so it cannot be stopped"));
                }
                Status::Active | Status::Paused => {}
            }
            let (new, turn) = stopped(&held.old, clock::now_micros());
            let why = ("experiment.stop", Some(stop.reason.clone()));
            Ok(held.plan(&call, new, why, turn))
        })
        .await?;
    experiments::answer(&admin, &tenant, &made).await
}

/// An experiment that is over from now on, or was before.
pub(super) fn stopped(old: &ExperimentDefinition, now: Timestamp) -> (ExperimentDefinition, Turn) {
    let mut new = old.clone();
    new.status = Status::Completed;
    let at = old.end_date.map_or(now, |end| end.min(now));
    // One that was to begin later never ran; its end may not lie before its beginning.
    if old.start_date.is_some_and(|start| start < at) {
        new.end_date = Some(at);
    }
    (new, Turn { experiment: old.id, at, begins: None })
}

#[utoipa::path(post, path = "/ab-tests/{id}/pause", params(("id" = Uuid, Path), Whose), request_body = Why,
    responses((status = 200, body = ExperimentBody)))]
pub(super) async fn pause(
    State(admin): State<Admin>,
    Id(id): Id,
    Params(whose): Params<Whose>,
    call: Call,
) -> Result<Response, Problem> {
    let (tenant, why) = (whose.tenant()?, Why::read(&call)?);
    let made = call
        .make(&admin, async || {
            let held = Held::read(&admin, &tenant, id, &call).await?;
            let now = clock::now_micros();
            match held.old.status {
                Status::Paused => return Ok(Plan::nothing(id)),
                Status::Active if !held.is_over(now) => {}
                Status::Active | Status::Draft | Status::Completed => {
                    return Err(Problem::conflict(
                        "only an experiment that is active can be paused",
                    ));
                }
            }
            let mut new = held.old.clone();
            new.status = Status::Paused;
            let turn = cause(&call, "pause", why.reason.as_deref(), now).begin(&mut new)?;
            Ok(held.plan(&call, new, ("experiment.pause", why.reason.clone()), turn))
        })
        .await?;
    experiments::answer(&admin, &tenant, &made).await
}

#[utoipa::path(post, path = "/ab-tests/{id}/resume", params(("id" = Uuid, Path), Whose), request_body = Why,
    responses((status = 200, body = ExperimentBody)))]
pub(super) async fn resume(
    State(admin): State<Admin>,
    Id(id): Id,
    Params(whose): Params<Whose>,
    call: Call,
) -> Result<Response, Problem> {
    let (tenant, why) = (whose.tenant()?, Why::read(&call)?);
    let made = call
        .make(&admin, async || {
            let held = Held::read(&admin, &tenant, id, &call).await?;
            let now = clock::now_micros();
            match held.old.status {
                Status::Active if !held.is_over(now) => return Ok(Plan::nothing(id)),
                Status::Paused => {}
                Status::Active | Status::Draft | Status::Completed => {
                    return Err(Problem::conflict(
                        "only an experiment that is paused can be resumed",
                    ));
                }
            }
            let over = runnable(&admin, &held, now, Check::default()).await?;
            let mut new = held.old.clone();
            new.status = Status::Active;
            let turn = cause(&call, "resume", why.reason.as_deref(), now).begin(&mut new)?;
            let plan = held.plan(&call, new, ("experiment.resume", why.reason.clone()), turn);
            Ok(before(plan, &call, over))
        })
        .await?;
    experiments::answer(&admin, &tenant, &made).await
}
