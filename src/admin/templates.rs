//! Template versions: list, read, make the first, make the next.

use axum::extract::State;
use axum::http::header::{ETAG, HeaderValue, IF_NONE_MATCH};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use super::Admin;
use super::call::{self, Call, Id, Params, Whose};
use super::groups::{self, Given};
use super::names::Check;
use super::problem::Problem;
use super::write::{Made, Plan, etag, expect, row, shown};
use crate::catalog::check;
use crate::catalog::definitions::{Definitions, Target, TemplateDefinition};
use crate::store::{Change, Expect, NameCursor, Row, RowQuery, Table};
use crate::template::{Message, Syntax};
use crate::words::clock;
use crate::words::ids::{TemplateId, Tenant};

pub(super) const COLLECTION: &str = "/templates";
const OBJECT: &str = "template";

/// One version of a template.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub(super) struct TemplateVersion {
    id: Uuid,
    tenant_id: String,
    name: String,
    description: Option<String>,
    category: Option<String>,
    tags: Vec<String>,
    template_text: String,
    #[schema(value_type = SyntaxName)]
    template_syntax: Syntax,
    #[schema(value_type = Option<Vec<MessageBody>>)]
    messages: Option<Vec<Message>>,
    #[schema(value_type = TargetName)]
    target: Target,
    /// As it was given: names, typed objects, or an object from name to type.
    variables: Value,
    #[schema(value_type = Object)]
    model_config: Map<String, Value>,
    engine_version: Option<String>,
    version: u32,
    /// The newest version of this name.
    latest_version: u32,
    parent_version_id: Option<Uuid>,
    is_active: bool,
    ab_test_group: Option<String>,
    traffic_percentage: Option<f64>,
    #[schema(value_type = Option<String>, format = DateTime)]
    ab_test_start_date: Option<Timestamp>,
    #[schema(value_type = Option<String>, format = DateTime)]
    ab_test_end_date: Option<Timestamp>,
    total_executions: i64,
    success_count: i64,
    failure_count: i64,
    avg_response_time_ms: Option<f64>,
    avg_token_count: Option<f64>,
    avg_cost_usd: Option<String>,
    created_by: Option<String>,
    #[schema(value_type = String, format = DateTime)]
    created_at: Timestamp,
    updated_by: Option<String>,
    #[schema(value_type = String, format = DateTime)]
    updated_at: Timestamp,
    #[schema(value_type = Option<String>, format = DateTime)]
    deactivated_at: Option<Timestamp>,
    deactivated_by: Option<String>,
    /// Why it cannot be activated; null when it can.
    #[serde(default)]
    problem: Option<String>,
}

impl TemplateVersion {
    pub(super) fn name(&self) -> &str {
        &self.name
    }
}

/// How holes are marked.
#[derive(ToSchema)]
#[schema(rename_all = "lowercase")]
#[expect(dead_code, reason = "names the words of an enum of the template engine")]
pub(super) enum SyntaxName {
    Format,
    Jinja,
}

/// Where `template_text` goes.
#[derive(ToSchema)]
#[schema(rename_all = "snake_case")]
#[expect(dead_code, reason = "names the words of an enum of the catalog")]
pub(super) enum TargetName {
    SystemInstruction,
    User,
}

/// One message of a version.
#[derive(ToSchema)]
#[expect(dead_code, reason = "names the fields of a struct of the template engine")]
pub(super) struct MessageBody {
    role: RoleName,
    text: String,
}

/// Who speaks.
#[derive(ToSchema)]
#[schema(rename_all = "lowercase")]
#[expect(dead_code, reason = "names the words of an enum of the template engine")]
pub(super) enum RoleName {
    System,
    User,
    Model,
}

/// A page of versions, by name and version.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct TemplatePage {
    items: Vec<TemplateVersion>,
    /// Of the next page; null on the last.
    next_cursor: Option<String>,
}

/// Which versions.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(super) struct Asked {
    /// The tenant; `default` unless told otherwise.
    tenant: Option<String>,
    /// Only versions of this name.
    name: Option<String>,
    /// Only active versions, or only others.
    active: Option<bool>,
    /// Only this category.
    category: Option<String>,
    /// Only with this tag.
    tag: Option<String>,
    /// Versions of a page, 1 to 500; 50 unless told otherwise.
    #[param(minimum = 1, maximum = 500)]
    limit: Option<u32>,
    /// Of the page, from `next_cursor` of the page before.
    cursor: Option<String>,
}

#[utoipa::path(get, path = "/templates", params(Asked), responses((status = 200, body = TemplatePage)))]
pub(super) async fn list(
    State(admin): State<Admin>,
    Params(asked): Params<Asked>,
) -> Result<axum::Json<TemplatePage>, Problem> {
    let limit = call::limit(asked.limit)?;
    let query = RowQuery {
        limit: limit + 1,
        after: after(asked.cursor.as_deref())?,
        name: asked.name,
        state: asked.active.map(|active| active.to_string()),
        group: asked.category,
        tag: asked.tag,
        ..RowQuery::of(Table::Templates, &call::tenant(asked.tenant.as_deref())?)
    };
    let mut rows = admin.store.rows(&query).await?;
    let next_cursor = next_cursor(&mut rows, limit);
    let items = rows.iter().map(body).collect::<Result<_, _>>()?;
    Ok(axum::Json(TemplatePage { items, next_cursor }))
}

/// Where a page begins.
pub(super) fn after(cursor: Option<&str>) -> Result<Option<NameCursor>, Problem> {
    cursor
        .map(NameCursor::decode)
        .transpose()
        .map_err(|error| Problem::bad_request(error.to_string()))
}

/// Cuts the one row too many that tells that another page follows.
pub(super) fn next_cursor(rows: &mut Vec<Row>, limit: u32) -> Option<String> {
    let more = rows.len() > limit as usize;
    rows.truncate(limit as usize);
    let last = rows.last().filter(|_| more)?;
    let name = last.columns.get("name")?.as_str()?.to_owned();
    let version = last.columns.get("version").and_then(Value::as_i64).unwrap_or(0);
    Some(NameCursor { name, version }.encode())
}

#[utoipa::path(get, path = "/templates/{id}", params(("id" = Uuid, Path), Whose),
    responses((status = 200, body = TemplateVersion), (status = 304)))]
pub(super) async fn read(
    State(admin): State<Admin>,
    Id(id): Id,
    Params(whose): Params<Whose>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let row = row(&admin, Table::Templates, &whose.tenant()?, id).await?;
    Ok(tagged(&headers, &etag(&row), &body(&row)?))
}

/// An object with its tag, or 304 when the caller has it.
pub(super) fn tagged(headers: &HeaderMap, etag: &str, body: &impl Serialize) -> Response {
    let has = headers.get(IF_NONE_MATCH).and_then(|value| value.to_str().ok());
    let mut response = if has.is_some_and(|has| call::has(has, etag)) {
        StatusCode::NOT_MODIFIED.into_response()
    } else {
        axum::Json(body).into_response()
    };
    if let Ok(value) = HeaderValue::from_str(etag) {
        response.headers_mut().insert(ETAG, value);
    }
    response
}

/// A row as a body.
pub(super) fn body(row: &Row) -> Result<TemplateVersion, Problem> {
    let columns = Value::Object(row.columns.clone());
    let mut body: TemplateVersion = serde_json::from_value(columns).map_err(unreadable)?;
    let definition: TemplateDefinition = row.definition(Table::Templates)?;
    body.problem = check::template(&definition).err();
    Ok(body)
}

#[expect(clippy::needless_pass_by_value, reason = "stands in map_err")]
pub(super) fn unreadable(error: serde_json::Error) -> Problem {
    let detail = format!("a row of the database does not read as it should: {error}");
    Problem::new(StatusCode::INTERNAL_SERVER_ERROR, detail)
}

/// What of a version its author writes. In a change, what is left out stays as it is.
#[derive(Debug, Clone, Default, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Content {
    /// 1 to 255 letters, digits, `_ - . /`. All versions of a template share it.
    name: Option<String>,
    /// `default` unless told otherwise; fixed when the template is made.
    tenant_id: Option<String>,
    /// A new version is never active: only `false` is taken.
    is_active: Option<bool>,
    /// At most 10,000 characters. Can be changed in place.
    description: Option<String>,
    /// At most 32. Can be changed in place.
    tags: Option<Vec<String>>,
    /// Guardrails can be limited to categories.
    category: Option<String>,
    /// The text, unless there are messages.
    template_text: Option<String>,
    #[schema(value_type = Option<SyntaxName>)]
    template_syntax: Option<Syntax>,
    /// Instead of `template_text`.
    #[schema(value_type = Option<Vec<MessageBody>>)]
    messages: Option<Vec<Message>>,
    #[schema(value_type = Option<TargetName>)]
    target: Option<Target>,
    /// A list of names, a list of typed objects, or an object from name to type.
    variables: Option<Value>,
    /// `model`, and members of `generationConfig` in either spelling.
    #[schema(value_type = Option<Object>)]
    model_config: Option<Map<String, Value>>,
    /// Whose share of the users this version takes while no A/B test decides; null: it leaves its group. This
    /// and the next three can be changed in place, the group only while the version is not active.
    #[schema(value_type = Option<String>)]
    ab_test_group: Given<String>,
    /// Of the users, in percent, with at most three decimals.
    #[schema(value_type = Option<f64>, minimum = 0, maximum = 100)]
    traffic_percentage: Given<f64>,
    /// From when the group takes its share; null: at once.
    #[schema(value_type = Option<String>, format = DateTime)]
    ab_test_start_date: Given<Timestamp>,
    /// Until when, exclusive; null: without end.
    #[schema(value_type = Option<String>, format = DateTime)]
    ab_test_end_date: Given<Timestamp>,
    /// Why, for the audit.
    reason: Option<String>,
}

impl Content {
    fn read(call: &Call) -> Result<Self, Problem> {
        let content: Self = call.body()?;
        let mut check = Check::default();
        if content.is_active == Some(true) {
            let what =
                "a new version is never active; POST /templates/{id}/activate puts it in force";
            check.refuse("is_active", what);
        }
        if let Some(name) = &content.name {
            check.name("name", name);
        }
        content.check(check)?;
        Ok(content)
    }

    fn is_metadata_only(&self) -> bool {
        self.category.is_none()
            && self.template_text.is_none()
            && self.template_syntax.is_none()
            && self.messages.is_none()
            && self.target.is_none()
            && self.variables.is_none()
            && self.model_config.is_none()
    }

    fn check(&self, mut check: Check) -> Result<(), Problem> {
        check.text("description", self.description.as_deref());
        check.tags(self.tags.as_deref().unwrap_or_default());
        check.reason(self.reason.as_deref());
        if let Some(category) = &self.category {
            check.name("category", category);
        }
        if let Some(variables) = &self.variables
            && !(variables.is_array() || variables.is_object())
        {
            check.refuse("variables", "must be a list, or an object from name to type");
        }
        if let Some(variables) = &self.variables {
            check.without_nulls("variables", variables);
        }
        for (name, value) in self.model_config.iter().flatten() {
            check.without_nulls(&format!("model_config.{name}"), value);
        }
        check.done()
    }

    /// Writes what was given over a definition. Text and messages take each other's place.
    fn apply(self, definition: &mut TemplateDefinition) {
        if let Some(description) = self.description {
            definition.description = Some(description);
        }
        if let Some(tags) = self.tags {
            definition.tags = tags;
        }
        if let Some(category) = self.category {
            definition.category = Some(category);
        }
        if self.ab_test_group.is_null() {
            // What is said of a group goes with it.
            definition.traffic_percentage = None;
            (definition.ab_test_start_date, definition.ab_test_end_date) = (None, None);
        }
        self.ab_test_group.write(&mut definition.ab_test_group);
        self.traffic_percentage.write(&mut definition.traffic_percentage);
        self.ab_test_start_date.write(&mut definition.ab_test_start_date);
        self.ab_test_end_date.write(&mut definition.ab_test_end_date);
        match (self.template_text, self.messages) {
            (Some(text), None) => {
                definition.template_text = text;
                definition.messages = None;
            }
            (None, Some(messages)) => {
                definition.template_text = String::new();
                definition.messages = Some(messages);
            }
            // Both: refused where the version is checked. Neither: as it was.
            (Some(text), messages @ Some(_)) => {
                definition.template_text = text;
                definition.messages = messages;
            }
            (None, None) => {}
        }
        if let Some(syntax) = self.template_syntax {
            definition.template_syntax = syntax;
        }
        if let Some(target) = self.target {
            definition.target = target;
        }
        if let Some(variables) = self.variables {
            definition.variables = variables;
        }
        if let Some(model_config) = self.model_config {
            definition.model_config = model_config;
        }
    }
}

fn blank(tenant: &Tenant, name: &str, author: &str) -> TemplateDefinition {
    let now = clock::now_micros();
    TemplateDefinition {
        id: TemplateId::new(),
        tenant_id: tenant.clone(),
        name: name.to_owned(),
        description: None,
        category: None,
        tags: Vec::new(),
        template_text: String::new(),
        template_syntax: Syntax::default(),
        messages: None,
        target: Target::default(),
        variables: Value::Array(Vec::new()),
        model_config: Map::new(),
        engine_version: Some(crate::template::ENGINE_VERSION.to_owned()),
        version: 1,
        parent_version_id: None,
        is_active: false,
        ab_test_group: None,
        traffic_percentage: None,
        ab_test_start_date: None,
        ab_test_end_date: None,
        deactivated_at: None,
        deactivated_by: None,
        created_by: Some(author.to_owned()),
        created_at: Some(now),
        updated_by: Some(author.to_owned()),
        updated_at: Some(now),
    }
}

#[utoipa::path(post, path = "/templates", request_body = Content,
    responses((status = 201, body = TemplateVersion)))]
pub(super) async fn create(State(admin): State<Admin>, call: Call) -> Result<Response, Problem> {
    let content = Content::read(&call)?;
    let tenant = call::tenant(content.tenant_id.as_deref())?;
    let Some(name) = content.name.clone() else {
        return Err(Problem::unprocessable("name: is missing"));
    };
    let made = call
        .make(&admin, async || {
            let named =
                RowQuery { name: Some(name.clone()), ..RowQuery::of(Table::Templates, &tenant) };
            if let Some(row) = admin.store.rows(&named).await?.first() {
                let latest = row.columns.get("latest_version").cloned().unwrap_or_default();
                let id = row.columns.get("id").and_then(Value::as_str).unwrap_or_default();
                return Err(Problem::conflict(format!(
                    "tenant {tenant} has a template {name:?}, its newest version is {latest}; \
                     PUT /templates/{id} makes the next one"
                )));
            }
            let mut definition = blank(&tenant, &name, &call.caller.name);
            let reason = content.reason.clone();
            content.clone().apply(&mut definition);
            groups::check(&definition)?;
            Ok(insert(&call, definition, None, reason))
        })
        .await?;
    answer(&admin, &tenant, &made).await
}

/// The plan that makes a version.
fn insert(
    call: &Call,
    definition: TemplateDefinition,
    parent: Option<&TemplateDefinition>,
    reason: Option<String>,
) -> Plan {
    let id = definition.id.0;
    let action = if parent.is_some() { "template.update" } else { "template.create" };
    let mut entry = call.entry(action, (OBJECT, id.to_string()), &definition.tenant_id);
    entry.before = parent.and_then(shown);
    entry.after = shown(&definition);
    entry.reason = reason;
    let change = Change {
        expects: vec![Expect { table: Table::Templates, id, revision: None }],
        puts: Definitions { templates: vec![definition.into()], ..Definitions::default() },
        audit: vec![entry],
        ..Change::default()
    };
    Plan { change, object: id, status: StatusCode::CREATED }
}

#[utoipa::path(put, path = "/templates/{id}", params(("id" = Uuid, Path), Whose), request_body = Content,
    responses((status = 200, description = "Description, tags or group were changed in place", body = TemplateVersion),
              (status = 201, description = "The next version was made", body = TemplateVersion)))]
pub(super) async fn update(
    State(admin): State<Admin>,
    Id(id): Id,
    Params(whose): Params<Whose>,
    call: Call,
) -> Result<Response, Problem> {
    let tenant = whose.tenant()?;
    let content = Content::read(&call)?;
    let made = call
        .make(&admin, async || {
            let row = row(&admin, Table::Templates, &tenant, id).await?;
            call.check(&etag(&row))?;
            let old: TemplateDefinition = row.definition(Table::Templates)?;
            let renames = content.name.as_ref().is_some_and(|name| *name != old.name);
            let moves = content.tenant_id.as_ref().is_some_and(|one| **one != *tenant.0);
            if renames || moves {
                return Err(Problem::unprocessable(format!(
                    "name, tenant_id: all versions share them; this is {:?} of {tenant}",
                    old.name
                )));
            }
            let reason = content.reason.clone();
            if content.is_metadata_only() {
                let mut new = old.clone();
                content.clone().apply(&mut new);
                groups::may_change(&admin, &old, &new).await?;
                return Ok(edit(&call, &row, &old, new, reason));
            }
            let latest = row.columns.get("latest_version").and_then(Value::as_u64).unwrap_or(0);
            let mut next = TemplateDefinition {
                version: u32::try_from(latest).unwrap_or(u32::MAX).saturating_add(1),
                parent_version_id: Some(old.id),
                description: old.description.clone(),
                category: old.category.clone(),
                tags: old.tags.clone(),
                template_text: old.template_text.clone(),
                template_syntax: old.template_syntax,
                messages: old.messages.clone(),
                target: old.target,
                variables: old.variables.clone(),
                model_config: old.model_config.clone(),
                ab_test_group: old.ab_test_group.clone(),
                traffic_percentage: old.traffic_percentage,
                ab_test_start_date: old.ab_test_start_date,
                ab_test_end_date: old.ab_test_end_date,
                ..blank(&tenant, &old.name, &call.caller.name)
            };
            content.clone().apply(&mut next);
            groups::check(&next)?;
            Ok(insert(&call, next, Some(&old), reason))
        })
        .await?;
    answer(&admin, &tenant, &made).await
}

/// The plan that changes in place what is not content.
fn edit(
    call: &Call,
    row: &Row,
    old: &TemplateDefinition,
    mut new: TemplateDefinition,
    reason: Option<String>,
) -> Plan {
    let id = old.id.0;
    if new == *old {
        return Plan::nothing(id);
    }
    (new.updated_by, new.updated_at) = (Some(call.caller.name.clone()), Some(clock::now_micros()));
    let mut entry = call.entry("template.edit", (OBJECT, id.to_string()), &new.tenant_id);
    (entry.before, entry.after, entry.reason) = (shown(old), shown(&new), reason);
    let change = Change {
        expects: vec![expect(Table::Templates, id, row)],
        puts: Definitions { templates: vec![new.into()], ..Definitions::default() },
        audit: vec![entry],
        ..Change::default()
    };
    Plan { change, object: id, status: StatusCode::OK }
}

/// The version a change was about, as it stands now.
pub(super) async fn answer(
    admin: &Admin,
    tenant: &Tenant,
    made: &Made,
) -> Result<Response, Problem> {
    let row = row(admin, Table::Templates, tenant, made.object).await?;
    Ok(made.answer(&body(&row)?, &etag(&row), COLLECTION))
}
