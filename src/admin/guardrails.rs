//! Guardrails: checked at the door, changed in place, switched on and off.

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use super::Admin;
use super::activation::Why;
use super::call::{self, Call, Id, Params, Whose};
use super::door;
use super::names::Check;
use super::problem::Problem;
use super::templates::{after, next_cursor, tagged, unreadable};
use super::write::{Made, Plan, etag, expect, row, shown};
use crate::catalog::definitions::{Definitions, GuardrailDefinition};
use crate::guardrail::{Kind, RuleConfig, Severity};
use crate::store::{Change, Expect, Row, RowQuery, Table};
use crate::words::clock;
use crate::words::ids::{GuardrailId, Tenant};

const COLLECTION: &str = "/guardrails";
const OBJECT: &str = "guardrail";
const DEACTIVATE: &str = "guardrail.deactivate";

/// A guardrail.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub(super) struct GuardrailBody {
    id: Uuid,
    tenant_id: String,
    name: String,
    description: Option<String>,
    #[schema(value_type = KindName)]
    rule_type: Kind,
    #[schema(value_type = SeverityName)]
    severity: Severity,
    is_active: bool,
    /// Whether a violation stops the text, unless `rule_config.action` says otherwise.
    blocking: bool,
    /// What to look for and what to do, as docs/guardrails.md says field by field.
    #[schema(value_type = Object)]
    rule_config: RuleConfig,
    /// With `applies_to_categories` also empty: everything.
    applies_to_templates: Vec<String>,
    applies_to_categories: Vec<String>,
    total_evaluations: i64,
    total_violations: i64,
    created_by: Option<String>,
    #[schema(value_type = String, format = DateTime)]
    created_at: Timestamp,
    updated_by: Option<String>,
    #[schema(value_type = String, format = DateTime)]
    updated_at: Timestamp,
    /// What its author should look at; only where one guardrail is read or written.
    #[serde(default)]
    warnings: Vec<String>,
}

/// What a guardrail protects against.
#[derive(ToSchema)]
#[schema(rename_all = "lowercase")]
#[expect(dead_code, reason = "names the words of an enum of the guardrail engine")]
pub(super) enum KindName {
    Pii,
    Injection,
    Toxic,
    Secret,
    Custom,
}

/// How bad a violation is.
#[derive(ToSchema)]
#[schema(rename_all = "lowercase")]
#[expect(dead_code, reason = "names the words of an enum of the guardrail engine")]
pub(super) enum SeverityName {
    Info,
    Warning,
    Error,
    Critical,
}

/// A page of guardrails, by name.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct GuardrailPage {
    items: Vec<GuardrailBody>,
    /// Of the next page; null on the last.
    next_cursor: Option<String>,
}

/// Which guardrails.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(super) struct Asked {
    /// The tenant; `default` unless told otherwise.
    tenant: Option<String>,
    /// Only this name.
    name: Option<String>,
    /// Only active ones, or only others.
    active: Option<bool>,
    /// Only this type.
    #[serde(rename = "type")]
    rule_type: Option<String>,
    /// Guardrails of a page, 1 to 500; 50 unless told otherwise.
    #[param(minimum = 1, maximum = 500)]
    limit: Option<u32>,
    /// Of the page, from `next_cursor` of the page before.
    cursor: Option<String>,
}

#[utoipa::path(get, path = "/guardrails", params(Asked), responses((status = 200, body = GuardrailPage)))]
pub(super) async fn list(
    State(admin): State<Admin>,
    Params(asked): Params<Asked>,
) -> Result<axum::Json<GuardrailPage>, Problem> {
    let limit = call::limit(asked.limit)?;
    let query = RowQuery {
        limit: limit + 1,
        after: after(asked.cursor.as_deref())?,
        name: asked.name,
        state: asked.active.map(|active| active.to_string()),
        group: asked.rule_type,
        ..RowQuery::of(Table::Guardrails, &call::tenant(asked.tenant.as_deref())?)
    };
    let mut rows = admin.store.rows(&query).await?;
    let next_cursor = next_cursor(&mut rows, limit);
    let items = rows.into_iter().map(body).collect::<Result<_, _>>()?;
    Ok(axum::Json(GuardrailPage { items, next_cursor }))
}

fn body(row: Row) -> Result<GuardrailBody, Problem> {
    serde_json::from_value(Value::Object(row.columns)).map_err(unreadable)
}

#[utoipa::path(get, path = "/guardrails/{id}", params(("id" = Uuid, Path), Whose),
    responses((status = 200, body = GuardrailBody), (status = 304)))]
pub(super) async fn read(
    State(admin): State<Admin>,
    Id(id): Id,
    Params(whose): Params<Whose>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let row = row(&admin, Table::Guardrails, &whose.tenant()?, id).await?;
    Ok(tagged(&headers, &etag(&row), &warned(row)?))
}

fn warned(row: Row) -> Result<GuardrailBody, Problem> {
    let definition: GuardrailDefinition = row.definition(Table::Guardrails)?;
    Ok(GuardrailBody { warnings: door::warnings(&definition), ..body(row)? })
}

/// What of a guardrail its author writes. In a change, what is left out stays as it is.
#[derive(Debug, Clone, Default, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct GuardrailContent {
    /// 1 to 255 letters, digits, `_ - . /`; unique in the tenant.
    name: Option<String>,
    /// `default` unless told otherwise; fixed when the guardrail is made.
    tenant_id: Option<String>,
    description: Option<String>,
    #[schema(value_type = Option<KindName>)]
    rule_type: Option<Kind>,
    #[schema(value_type = Option<SeverityName>)]
    severity: Option<Severity>,
    /// A new guardrail is active unless this says otherwise.
    is_active: Option<bool>,
    blocking: Option<bool>,
    #[schema(value_type = Option<Object>)]
    rule_config: Option<RuleConfig>,
    /// Names of templates; each must exist.
    applies_to_templates: Option<Vec<String>>,
    /// Categories; each must be some template's.
    applies_to_categories: Option<Vec<String>>,
    /// Why, for the audit.
    reason: Option<String>,
}

impl GuardrailContent {
    fn check(&self) -> Result<(), Problem> {
        let mut check = Check::default();
        if let Some(name) = &self.name {
            check.name("name", name);
        }
        check.text("description", self.description.as_deref());
        check.reason(self.reason.as_deref());
        check.done()
    }

    fn apply(self, definition: &mut GuardrailDefinition) {
        fn set<T>(place: &mut T, given: Option<T>) {
            if let Some(given) = given {
                *place = given;
            }
        }
        set(&mut definition.name, self.name);
        set(&mut definition.description, self.description.map(Some));
        set(&mut definition.rule_type, self.rule_type);
        set(&mut definition.severity, self.severity);
        set(&mut definition.is_active, self.is_active);
        set(&mut definition.blocking, self.blocking);
        set(&mut definition.rule_config, self.rule_config);
        set(&mut definition.applies_to_templates, self.applies_to_templates);
        set(&mut definition.applies_to_categories, self.applies_to_categories);
    }
}

#[utoipa::path(post, path = "/guardrails", request_body = GuardrailContent,
    responses((status = 201, body = GuardrailBody)))]
pub(super) async fn create(State(admin): State<Admin>, call: Call) -> Result<Response, Problem> {
    let content: GuardrailContent = call.body()?;
    content.check()?;
    let tenant = call::tenant(content.tenant_id.as_deref())?;
    let mut check = Check::default();
    for (field, is_missing) in [
        ("name", content.name.is_none()),
        ("rule_type", content.rule_type.is_none()),
        ("severity", content.severity.is_none()),
        ("rule_config", content.rule_config.is_none()),
    ] {
        if is_missing {
            check.refuse(field, "is missing");
        }
    }
    check.done()?;
    let made = call
        .make(&admin, async || {
            let reason = content.reason.clone();
            let mut definition = blank(&tenant, &call.caller.name);
            content.clone().apply(&mut definition);
            door::admit(&admin, &definition).await?;
            Ok(put(&call, (None, None), definition, ("guardrail.create", reason)))
        })
        .await?;
    answer(&admin, &tenant, &made).await
}

fn blank(tenant: &Tenant, author: &str) -> GuardrailDefinition {
    let now = clock::now_micros();
    GuardrailDefinition {
        id: GuardrailId::new(),
        tenant_id: tenant.clone(),
        name: String::new(),
        description: None,
        rule_type: Kind::Custom,
        severity: Severity::Warning,
        is_active: true,
        blocking: false,
        rule_config: RuleConfig::default(),
        applies_to_templates: Vec::new(),
        applies_to_categories: Vec::new(),
        created_by: Some(author.to_owned()),
        created_at: Some(now),
        updated_by: Some(author.to_owned()),
        updated_at: Some(now),
    }
}

/// The plan that puts a guardrail in the place of what was there, if anything was.
fn put(
    call: &Call,
    (row, old): (Option<&Row>, Option<&GuardrailDefinition>),
    mut new: GuardrailDefinition,
    (action, reason): (&str, Option<String>),
) -> Plan {
    let id = new.id.0;
    (new.updated_by, new.updated_at) = (Some(call.caller.name.clone()), Some(clock::now_micros()));
    let mut entry = call.entry(action, (OBJECT, id.to_string()), &new.tenant_id);
    (entry.before, entry.after, entry.reason) = (old.and_then(shown), shown(&new), reason);
    let fresh = Expect { table: Table::Guardrails, id, revision: None };
    let change = Change {
        expects: vec![row.map_or(fresh, |row| expect(Table::Guardrails, id, row))],
        puts: Definitions { guardrails: vec![new.into()], ..Definitions::default() },
        audit: vec![entry],
        ..Change::default()
    };
    let status = if old.is_some() { StatusCode::OK } else { StatusCode::CREATED };
    Plan { change, object: id, status }
}

/// What a change makes of a guardrail, or nothing when it is as it should be.
async fn change(
    (admin, call): (&Admin, &Call),
    tenant: &Tenant,
    id: Uuid,
    (action, reason): (&'static str, Option<String>),
    edit: impl FnOnce(&mut GuardrailDefinition) + Clone,
) -> Result<Response, Problem> {
    let made = call
        .make(admin, async || {
            let row = row(admin, Table::Guardrails, tenant, id).await?;
            call.check(&etag(&row))?;
            let old: GuardrailDefinition = row.definition(Table::Guardrails)?;
            let mut new = old.clone();
            edit.clone()(&mut new);
            if new == old {
                return Ok(Plan::nothing(id));
            }
            // What is switched off need not be fit for anything: often that is why.
            if action != DEACTIVATE {
                door::admit(admin, &new).await?;
            }
            Ok(put(call, (Some(&row), Some(&old)), new, (action, reason.clone())))
        })
        .await?;
    answer(admin, tenant, &made).await
}

#[utoipa::path(put, path = "/guardrails/{id}", params(("id" = Uuid, Path), Whose),
    request_body = GuardrailContent, responses((status = 200, body = GuardrailBody)))]
pub(super) async fn update(
    State(admin): State<Admin>,
    Id(id): Id,
    Params(whose): Params<Whose>,
    call: Call,
) -> Result<Response, Problem> {
    let content: GuardrailContent = call.body()?;
    content.check()?;
    let tenant = whose.tenant()?;
    if content.tenant_id.as_ref().is_some_and(|one| **one != *tenant.0) {
        let detail = format!("tenant_id: this guardrail is of {tenant} and stays there");
        return Err(Problem::unprocessable(detail));
    }
    let reason = ("guardrail.update", content.reason.clone());
    change((&admin, &call), &tenant, id, reason, |new| content.clone().apply(new)).await
}

#[utoipa::path(post, path = "/guardrails/{id}/activate", params(("id" = Uuid, Path), Whose),
    request_body = Why, responses((status = 200, body = GuardrailBody)))]
pub(super) async fn activate(
    State(admin): State<Admin>,
    Id(id): Id,
    Params(whose): Params<Whose>,
    call: Call,
) -> Result<Response, Problem> {
    let reason = ("guardrail.activate", Why::read(&call)?.reason);
    change((&admin, &call), &whose.tenant()?, id, reason, |new| new.is_active = true).await
}

#[utoipa::path(post, path = "/guardrails/{id}/deactivate", params(("id" = Uuid, Path), Whose),
    request_body = Why, responses((status = 200, body = GuardrailBody)))]
pub(super) async fn deactivate(
    State(admin): State<Admin>,
    Id(id): Id,
    Params(whose): Params<Whose>,
    call: Call,
) -> Result<Response, Problem> {
    let reason = (DEACTIVATE, Why::read(&call)?.reason);
    change((&admin, &call), &whose.tenant()?, id, reason, |new| new.is_active = false).await
}

async fn answer(admin: &Admin, tenant: &Tenant, made: &Made) -> Result<Response, Problem> {
    let row = row(admin, Table::Guardrails, tenant, made.object).await?;
    let tag = etag(&row);
    Ok(made.answer(&warned(row)?, &tag, COLLECTION))
}
