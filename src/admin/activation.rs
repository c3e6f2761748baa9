//! The pointer to the active version of a name: moved, moved back, taken away, and its history.

use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::Response;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::json;
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use super::Admin;
use super::call::{self, Call, Id, Params, Whose};
use super::groups;
use super::names::Check;
use super::problem::Problem;
use super::templates::{self, TemplateVersion};
use super::write::{Plan, etag, expect, row};
use crate::catalog::definitions::TemplateDefinition;
use crate::catalog::{Version, check};
use crate::store::{Activation, Change, Move, Row, RowQuery, Table};
use crate::words::clock;
use crate::words::ids::{TemplateId, Tenant};

const HISTORY_MAX: u32 = 500;

/// Why.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Why {
    /// For the audit, at most 1,000 characters.
    pub(super) reason: Option<String>,
}

impl Why {
    pub(super) fn read(call: &Call) -> Result<Self, Problem> {
        let why: Self = call.body()?;
        let mut check = Check::default();
        check.reason(why.reason.as_deref());
        check.done()?;
        Ok(why)
    }
}

/// A version and its row.
struct Held {
    row: Row,
    definition: TemplateDefinition,
}

impl Held {
    fn read(row: Row) -> Result<Self, Problem> {
        let definition = row.definition(Table::Templates)?;
        Ok(Self { row, definition })
    }

    fn id(&self) -> Uuid {
        self.definition.id.0
    }

    fn shown(&self) -> serde_json::Value {
        let mut shown =
            json!({"template_id": self.definition.id, "version": self.definition.version});
        if let (Some(group), Some(members)) =
            (&self.definition.ab_test_group, shown.as_object_mut())
        {
            members.insert("ab_test_group".to_owned(), group.as_str().into());
        }
        shown
    }
}

/// The active versions of a name: one without a group, and those of groups.
pub(super) async fn in_force(
    admin: &Admin,
    tenant: &Tenant,
    name: &str,
) -> Result<Vec<TemplateDefinition>, Problem> {
    let held = all_active(admin, tenant, name).await?;
    Ok(held.into_iter().map(|held| held.definition).collect())
}

async fn all_active(admin: &Admin, tenant: &Tenant, name: &str) -> Result<Vec<Held>, Problem> {
    let query = RowQuery {
        name: Some(name.to_owned()),
        state: Some("true".to_owned()),
        limit: HISTORY_MAX,
        ..RowQuery::of(Table::Templates, tenant)
    };
    admin.store.rows(&query).await?.into_iter().map(Held::read).collect()
}

/// The version of a name, or of a group of it, that is active now.
async fn active(
    admin: &Admin,
    tenant: &Tenant,
    name: &str,
    group: Option<&str>,
) -> Result<Option<Held>, Problem> {
    let all = all_active(admin, tenant, name).await?;
    Ok(all.into_iter().find(|held| held.definition.ab_test_group.as_deref() == group))
}

/// Moves the pointer of a name from one version to another; either may be nothing. A version of a group
/// serves beside the pointer, which stays where it is.
struct Pointer<'c> {
    call: &'c Call,
    tenant: &'c Tenant,
    action: Move,
    reason: Option<String>,
}

impl Pointer<'_> {
    fn plan(
        self,
        from: Option<Held>,
        to: Option<Held>,
        restores: Option<TemplateId>,
    ) -> Option<Plan> {
        let named = to.as_ref().or(from.as_ref())?;
        let (object, name) = (named.id(), named.definition.name.clone());
        let is_pointed_at = named.definition.ab_test_group.is_none();
        let now = clock::now_micros();
        let actor = self.call.caller.name.clone();
        let action = match self.action {
            Move::Activate => "template.activate",
            Move::Deactivate => "template.deactivate",
            Move::Rollback => "template.rollback",
        };
        let mut entry = self.call.entry(action, ("template", name.clone()), self.tenant);
        entry.before = from.as_ref().map(|held| held.shown().to_string());
        entry.after = to.as_ref().map(|held| held.shown().to_string());
        entry.reason.clone_from(&self.reason);
        let activation = Activation {
            id: Uuid::now_v7(),
            tenant_id: self.tenant.clone(),
            template_name: name,
            template_id: to.as_ref().map(|held| held.definition.id),
            restores_id: restores,
            action: self.action,
            actor: actor.clone(),
            reason: self.reason,
            request_id: Some(self.call.caller.request_id.clone()),
            at: now,
        };
        let mut change = Change { audit: vec![entry], ..Change::default() };
        change.activations.extend(is_pointed_at.then_some(activation));
        // The old one first: there may be only one active at any moment.
        for (held, is_active) in [(from, false), (to, true)] {
            let Some(Held { row, mut definition }) = held else { continue };
            change.expects.push(expect(Table::Templates, definition.id.0, &row));
            definition.is_active = is_active;
            definition.deactivated_at = (!is_active).then_some(now);
            definition.deactivated_by = (!is_active).then(|| actor.clone());
            (definition.updated_at, definition.updated_by) = (Some(now), Some(actor.clone()));
            change.puts.templates.push(definition.into());
        }
        Some(Plan { change, object, status: StatusCode::OK })
    }
}

/// That a version may be put in force, by what `check` asks of it.
fn fit(
    held: &Held,
    check: fn(&TemplateDefinition) -> Result<Version, String>,
) -> Result<(), Problem> {
    let TemplateDefinition { name, version, .. } = &held.definition;
    check(&held.definition).map(drop).map_err(|why| {
        Problem::unprocessable(format!("{name}@{version} cannot be activated: {why}"))
    })
}

/// That a version serves whoever falls into no group.
fn ungrouped(held: &Held) -> Result<(), Problem> {
    let TemplateDefinition { name, version, ab_test_group, .. } = &held.definition;
    match ab_test_group {
        None => Ok(()),
        Some(group) => Err(Problem::conflict(format!(
            "{name}@{version} belongs to the ab_test_group {group:?}; PUT /templates/{} with \
             \"ab_test_group\": null takes it out while it is not active",
            held.id()
        ))),
    }
}

#[utoipa::path(post, path = "/templates/{id}/activate", params(("id" = Uuid, Path), Whose), request_body = Why,
    responses((status = 200, body = TemplateVersion)))]
pub(super) async fn activate(
    State(admin): State<Admin>,
    Id(id): Id,
    Params(whose): Params<Whose>,
    call: Call,
) -> Result<Response, Problem> {
    let (tenant, why) = (whose.tenant()?, Why::read(&call)?);
    let made = call
        .make(&admin, async || {
            let wanted = Held::read(row(&admin, Table::Templates, &tenant, id).await?)?;
            call.check(&etag(&wanted.row))?;
            fit(&wanted, check::template)?;
            let TemplateDefinition { name, ab_test_group: group, .. } = &wanted.definition;
            if group.is_some() {
                groups::fits(&admin, &wanted.definition).await?;
            }
            let from = active(&admin, &tenant, name, group.as_deref()).await?;
            if from.as_ref().is_some_and(|from| from.id() == id) {
                return Ok(Plan::nothing(id));
            }
            let restores = from.as_ref().map(|from| from.definition.id);
            let pointer = Pointer {
                call: &call,
                tenant: &tenant,
                action: Move::Activate,
                reason: why.reason.clone(),
            };
            Ok(pointer.plan(from, Some(wanted), restores).unwrap_or_else(|| Plan::nothing(id)))
        })
        .await?;
    templates::answer(&admin, &tenant, &made).await
}

/// The plan that makes a version active which has been in force as an arm; `None` if it is active.
pub(super) async fn promoted(
    admin: &Admin,
    call: &Call,
    (tenant, id): (&Tenant, TemplateId),
    reason: Option<String>,
) -> Result<Option<Plan>, Problem> {
    let wanted = Held::read(row(admin, Table::Templates, tenant, id.0).await?)?;
    ungrouped(&wanted)?;
    fit(&wanted, check::works)?;
    let from = active(admin, tenant, &wanted.definition.name, None).await?;
    if from.as_ref().is_some_and(|from| from.id() == id.0) {
        return Ok(None);
    }
    let restores = from.as_ref().map(|from| from.definition.id);
    let pointer = Pointer { call, tenant, action: Move::Activate, reason };
    Ok(pointer.plan(from, Some(wanted), restores))
}

/// A version that is no longer active, and who answers instead.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Deactivated {
    #[serde(flatten)]
    version: TemplateVersion,
    /// What serves calls that ask for this name from now on; null: they are answered with 404.
    fallback: Option<Fallback>,
}

/// What serves a name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub(super) struct Fallback {
    /// `environment` or `file`; `database` if another version is active there.
    source: String,
    version: u32,
}

/// How to deactivate.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(super) struct Deactivation {
    /// The tenant; `default` unless told otherwise.
    tenant: Option<String>,
    /// Refuse with 409 if nothing would serve the name afterwards.
    #[serde(default)]
    require_fallback: bool,
}

#[utoipa::path(post, path = "/templates/{id}/deactivate", params(("id" = Uuid, Path), Deactivation),
    request_body = Why, responses((status = 200, body = Deactivated)))]
pub(super) async fn deactivate(
    State(admin): State<Admin>,
    Id(id): Id,
    Params(asked): Params<Deactivation>,
    call: Call,
) -> Result<Response, Problem> {
    let (tenant, why) = (call::tenant(asked.tenant.as_deref())?, Why::read(&call)?);
    let made = call
        .make(&admin, async || {
            let from = Held::read(row(&admin, Table::Templates, &tenant, id).await?)?;
            call.check(&etag(&from.row))?;
            if !from.definition.is_active {
                return Ok(Plan::nothing(id));
            }
            let name = &from.definition.name;
            let is_pointed_at = from.definition.ab_test_group.is_none();
            if asked.require_fallback
                && is_pointed_at
                && admin.refresher.fallback(&tenant, name).is_none()
            {
                return Err(Problem::conflict(format!(
                    "without {name}@{} nothing would serve {name:?}: neither the environment nor the \
                     files define it",
                    from.definition.version
                )));
            }
            let restores = Some(from.definition.id);
            let (action, reason) = (Move::Deactivate, why.reason.clone());
            let pointer = Pointer { call: &call, tenant: &tenant, action, reason };
            Ok(pointer.plan(Some(from), None, restores).unwrap_or_else(|| Plan::nothing(id)))
        })
        .await?;
    let row = row(&admin, Table::Templates, &tenant, id).await?;
    let version = templates::body(&row)?;
    let fallback = serving(&admin, &tenant, version.name());
    Ok(made.answer(&Deactivated { version, fallback }, &etag(&row), templates::COLLECTION))
}

/// What serves a name now.
fn serving(admin: &Admin, tenant: &Tenant, name: &str) -> Option<Fallback> {
    let catalog = admin.refresher.current().load();
    let served = catalog.tenant(tenant)?.template(name)?.active.as_ref()?;
    let source = served.source.name().to_owned();
    Some(Fallback { source, version: served.version.number })
}

#[utoipa::path(post, path = "/templates/{id}/rollback",
    params(("id" = String, Path, description = "The template's name, or the id of any of its versions"), Whose),
    request_body = Why, responses((status = 200, body = TemplateVersion)))]
pub(super) async fn rollback(
    State(admin): State<Admin>,
    Path(name_or_id): Path<String>,
    Params(whose): Params<Whose>,
    call: Call,
) -> Result<Response, Problem> {
    let (tenant, why) = (whose.tenant()?, Why::read(&call)?);
    let made = call
        .make(&admin, async || {
            let name = name_of(&admin, &tenant, &name_or_id).await?;
            let from = active(&admin, &tenant, &name, None).await?;
            if let Some(from) = &from {
                call.check(&etag(&from.row))?;
            }
            let history = admin.store.activations(&tenant, &name, HISTORY_MAX).await?;
            let mut before = earlier(&history);
            let Some(back_to) = before.pop().flatten() else {
                return Err(Problem::conflict(format!(
                    "{name:?} has no earlier active version to go back to"
                )));
            };
            let restores = before.pop().flatten();
            let to = Held::read(row(&admin, Table::Templates, &tenant, back_to.0).await?)?;
            ungrouped(&to)?;
            fit(&to, check::works)?;
            if from.as_ref().is_some_and(|from| from.id() == to.id()) {
                return Ok(Plan::nothing(to.id()));
            }
            let object = to.id();
            let pointer = Pointer {
                call: &call,
                tenant: &tenant,
                action: Move::Rollback,
                reason: why.reason.clone(),
            };
            Ok(pointer.plan(from, Some(to), restores).unwrap_or_else(|| Plan::nothing(object)))
        })
        .await?;
    templates::answer(&admin, &tenant, &made).await
}

/// What was active before what is active now, oldest first: each rollback takes one off its end, as an
/// editor's undo does.
fn earlier(history: &[Activation]) -> Vec<Option<TemplateId>> {
    let mut stack: Vec<Option<TemplateId>> =
        history.last().map(|first| first.restores_id).into_iter().collect();
    for one in history.iter().rev() {
        match one.action {
            Move::Activate | Move::Deactivate => stack.push(one.template_id),
            Move::Rollback => drop(stack.pop()),
        }
    }
    stack.pop();
    stack
}

/// The name of a template, given as such or as the id of a version.
async fn name_of(admin: &Admin, tenant: &Tenant, text: &str) -> Result<String, Problem> {
    let by_name =
        RowQuery { name: Some(text.to_owned()), ..RowQuery::of(Table::Templates, tenant) };
    if !admin.store.rows(&by_name).await?.is_empty() {
        return Ok(text.to_owned());
    }
    let Ok(id) = text.parse() else {
        return Err(Problem::not_found(format!("tenant {tenant} has no template {text:?}")));
    };
    Ok(Held::read(row(admin, Table::Templates, tenant, id).await?)?.definition.name)
}

/// The moves of a name's pointer.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct History {
    /// Newest first.
    items: Vec<Moved>,
}

/// One move of the pointer to the active version.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Moved {
    id: Uuid,
    /// `activate`, `deactivate` or `rollback`.
    action: String,
    /// Active from here on; null: nothing.
    template_id: Option<Uuid>,
    /// What a rollback from here brought or would bring back.
    restores_id: Option<Uuid>,
    actor: String,
    reason: Option<String>,
    request_id: Option<String>,
    #[schema(value_type = String, format = DateTime)]
    at: Timestamp,
}

#[utoipa::path(get, path = "/templates/{id}/activations",
    params(("id" = String, Path, description = "The template's name, or the id of any of its versions"), Whose),
    responses((status = 200, body = History)))]
pub(super) async fn history(
    State(admin): State<Admin>,
    Path(name_or_id): Path<String>,
    Params(whose): Params<Whose>,
) -> Result<axum::Json<History>, Problem> {
    let tenant = whose.tenant()?;
    let name = name_of(&admin, &tenant, &name_or_id).await?;
    let moves = admin.store.activations(&tenant, &name, HISTORY_MAX).await?;
    let items = moves
        .into_iter()
        .map(|one| Moved {
            id: one.id,
            action: match one.action {
                Move::Activate => "activate",
                Move::Deactivate => "deactivate",
                Move::Rollback => "rollback",
            }
            .to_owned(),
            template_id: one.template_id.map(|id| id.0),
            restores_id: one.restores_id.map(|id| id.0),
            actor: one.actor,
            reason: one.reason,
            request_id: one.request_id,
            at: one.at,
        })
        .collect();
    Ok(axum::Json(History { items }))
}
