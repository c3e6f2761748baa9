//! The winner of an experiment becomes the active version, because somebody says so.

use axum::extract::State;
use axum::response::Response;
use serde::Deserialize;
use utoipa::ToSchema;
use uuid::Uuid;

use super::Admin;
use super::activation;
use super::call::{Call, Id, Params, Whose};
use super::experiments::{self, ExperimentBody, put};
use super::lifecycle::{Held, stopped};
use super::names::Check;
use super::problem::Problem;
use super::write::Plan;
use crate::catalog::check;
use crate::catalog::definitions::{ExperimentDefinition, Status};
use crate::words::clock;
use crate::words::ids::{TemplateId, Tenant};

/// Who has won, and why.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Promotion {
    /// The arm that has won; or `template_id`.
    arm: Option<String>,
    /// The version that has won: one of the arms'.
    template_id: Option<Uuid>,
    /// Why; at most 1,000 characters.
    reason: String,
}

impl Promotion {
    fn read(call: &Call) -> Result<Self, Problem> {
        let promotion: Self = call.body()?;
        let mut check = Check::default();
        check.reason(Some(&promotion.reason));
        if promotion.reason.trim().is_empty() {
            check.refuse("reason", "must say why");
        }
        if promotion.arm.is_some() == promotion.template_id.is_some() {
            check.refuse("arm", "give arm or template_id, one of the two");
        }
        check.done()?;
        Ok(promotion)
    }

    /// The version that is meant.
    fn winner(&self, definition: &ExperimentDefinition) -> Result<TemplateId, Problem> {
        let arms = check::experiment(definition).map_err(Problem::conflict)?.arms;
        let is_meant = |key: &str, id: TemplateId| {
            self.arm.as_deref() == Some(key) || self.template_id == Some(id.0)
        };
        let found = arms.iter().find(|arm| is_meant(&arm.key, arm.template));
        found.map(|arm| arm.template).ok_or_else(|| {
            let arms: Vec<String> =
                arms.iter().map(|arm| format!("{} ({})", arm.key, arm.template)).collect();
            Problem::unprocessable(format!(
                "there is no such arm; the arms are {}",
                arms.join(", ")
            ))
        })
    }
}

#[utoipa::path(post, path = "/ab-tests/{id}/promote", params(("id" = Uuid, Path), Whose),
    request_body = Promotion, responses((status = 200, body = ExperimentBody)))]
pub(super) async fn promote(
    State(admin): State<Admin>,
    Id(id): Id,
    Params(whose): Params<Whose>,
    call: Call,
) -> Result<Response, Problem> {
    let (tenant, promotion): (Tenant, _) = (whose.tenant()?, Promotion::read(&call)?);
    let made = call
        .make(&admin, async || {
            let held = Held::read(&admin, &tenant, id, &call).await?;
            if held.old.status == Status::Draft {
                return Err(Problem::conflict("it was never started, so nothing has won"));
            }
            let winner = promotion.winner(&held.old)?;
            let reason = Some(promotion.reason.clone());
            let moved = activation::promoted(&admin, &call, (&tenant, winner), reason.clone());
            let moved = moved.await?;
            if moved.is_none() && held.old.winner_template_id == Some(winner) {
                return Ok(Plan::nothing(id));
            }
            Ok(plan(&call, &held, (winner, reason), moved))
        })
        .await?;
    experiments::answer(&admin, &tenant, &made).await
}

/// Both in one transaction: the pointer of the name moves, and the experiment is over with its winner.
fn plan(
    call: &Call,
    held: &Held,
    (winner, reason): (TemplateId, Option<String>),
    moved: Option<Plan>,
) -> Plan {
    let (mut new, turn) = match held.old.status {
        Status::Active | Status::Paused => {
            let (new, turn) = stopped(&held.old, clock::now_micros());
            (new, Some(turn))
        }
        Status::Draft | Status::Completed => (held.old.clone(), None),
    };
    new.winner_template_id = Some(winner);
    let why = ("experiment.promote", reason);
    let mut plan = put(call, (Some(&held.row), Some(&held.old)), new, why);
    plan.change.turns.extend(turn);
    if let Some(moved) = moved {
        let change = &mut plan.change;
        change.expects.extend(moved.change.expects);
        change.puts.templates = moved.change.puts.templates;
        change.activations = moved.change.activations;
        change.audit.extend(moved.change.audit);
    }
    plan
}
