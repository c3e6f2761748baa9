//! A/B tests: defined, listed, started, stopped.

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use super::Admin;
use super::activation::Why;
use super::call::{self, Call, Id, Params, WATERMARK, Whose};
use super::names::Check;
use super::problem::Problem;
use super::templates::{after, next_cursor, tagged, unreadable};
use super::write::{Made, Plan, etag, expect, row, shown};
use crate::analyst;
use crate::catalog::check;
use crate::catalog::definitions::{Definitions, ExperimentDefinition, Status, TemplateDefinition};
use crate::results::{Measured, Rules};
use crate::store::{Change, Expect, Row, RowQuery, StoreError, Table};
use crate::words::clock;
use crate::words::ids::{ExperimentId, TemplateId, Tenant};

const COLLECTION: &str = "/ab-tests";
const OBJECT: &str = "experiment";
const VARIANTS_MAX: usize = 20;

/// An experiment.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub(super) struct ExperimentBody {
    id: Uuid,
    tenant_id: String,
    name: String,
    description: Option<String>,
    template_name: String,
    #[schema(value_type = StatusName)]
    status: Status,
    control_template_id: Uuid,
    variant_template_ids: Vec<Uuid>,
    /// Percentages by arm, 100 in all.
    #[schema(value_type = Object)]
    traffic_split: Map<String, Value>,
    /// The arms in their order: `ordinal`, `key`, `template_id`, `weight_millipercent`.
    arms: Option<Value>,
    enrollment_percentage: f64,
    /// `user`, `conversation`, `request` or `header:NAME`.
    randomization_unit: String,
    salt: Option<String>,
    hash_version: u32,
    #[schema(value_type = Option<String>, format = DateTime)]
    start_date: Option<Timestamp>,
    #[schema(value_type = Option<String>, format = DateTime)]
    end_date: Option<Timestamp>,
    target_sample_size: Option<u32>,
    /// A name, or an object with a name and parameters.
    primary_metric: Option<Value>,
    secondary_metrics: Value,
    results: Option<Value>,
    winner_template_id: Option<Uuid>,
    statistical_significance: Option<f64>,
    created_by: Option<String>,
    #[schema(value_type = String, format = DateTime)]
    created_at: Timestamp,
    updated_by: Option<String>,
    #[schema(value_type = String, format = DateTime)]
    updated_at: Timestamp,
}

/// Where an experiment stands.
#[derive(ToSchema)]
#[schema(rename_all = "lowercase")]
#[expect(dead_code, reason = "names the words of an enum of the catalog")]
pub(super) enum StatusName {
    Draft,
    Active,
    Paused,
    Completed,
}

/// A page of experiments, by name.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct ExperimentPage {
    items: Vec<ExperimentBody>,
    /// Of the next page; null on the last.
    next_cursor: Option<String>,
}

/// Which experiments.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(super) struct Asked {
    /// The tenant; `default` unless told otherwise.
    tenant: Option<String>,
    /// Only this name.
    name: Option<String>,
    /// Only `draft`, `active`, `paused` or `completed` ones.
    status: Option<String>,
    /// Only on this template.
    template: Option<String>,
    /// Experiments of a page, 1 to 500; 50 unless told otherwise.
    #[param(minimum = 1, maximum = 500)]
    limit: Option<u32>,
    /// Of the page, from `next_cursor` of the page before.
    cursor: Option<String>,
}

#[utoipa::path(get, path = "/ab-tests", params(Asked), responses((status = 200, body = ExperimentPage)))]
pub(super) async fn list(
    State(admin): State<Admin>,
    Params(asked): Params<Asked>,
) -> Result<axum::Json<ExperimentPage>, Problem> {
    let limit = call::limit(asked.limit)?;
    let query = RowQuery {
        limit: limit + 1,
        after: after(asked.cursor.as_deref())?,
        name: asked.name,
        state: asked.status,
        group: asked.template,
        ..RowQuery::of(Table::Experiments, &call::tenant(asked.tenant.as_deref())?)
    };
    let mut rows = admin.store.rows(&query).await?;
    let next_cursor = next_cursor(&mut rows, limit);
    let items = rows.into_iter().map(body).collect::<Result<_, _>>()?;
    Ok(axum::Json(ExperimentPage { items, next_cursor }))
}

fn body(row: Row) -> Result<ExperimentBody, Problem> {
    serde_json::from_value(Value::Object(row.columns)).map_err(unreadable)
}

#[utoipa::path(get, path = "/ab-tests/{id}", params(("id" = Uuid, Path), Whose),
    responses((status = 200, body = ExperimentBody), (status = 304)))]
pub(super) async fn read(
    State(admin): State<Admin>,
    Id(id): Id,
    Params(whose): Params<Whose>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let mut row = row(&admin, Table::Experiments, &whose.tenant()?, id).await?;
    let state = etag(&row);
    let losses = analyst::losses(&admin.ledger);
    let tag = match analyst::study(admin.store.as_ref(), &row, losses).await {
        Ok(study) => {
            row.columns.insert("results".to_owned(), study.results);
            row.columns.insert("statistical_significance".to_owned(), study.significance.into());
            format!("{}{WATERMARK}{}\"", state.trim_end_matches('"'), study.tag)
        }
        // A schema of before counts nothing yet.
        Err(StoreError::NotMigrated) => state,
        Err(error) => return Err(error.into()),
    };
    Ok(tagged(&headers, &tag, &body(row)?))
}

/// A new experiment: a draft, until it is started.
#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct NewExperiment {
    /// 1 to 255 letters, digits, `_ - . /`; unique in the tenant.
    name: String,
    /// `default` unless told otherwise.
    tenant_id: Option<String>,
    description: Option<String>,
    template_name: String,
    control_template_id: Uuid,
    /// In the order of `variant_a`, `variant_b`, …
    variant_template_ids: Vec<Uuid>,
    /// Percentages by arm: `{"control": 50, "variant_a": 50}`; exactly 100 in all.
    #[schema(value_type = Object)]
    traffic_split: Map<String, Value>,
    /// How much of the traffic takes part: 100 unless told otherwise, at most three decimals.
    enrollment_percentage: Option<f64>,
    /// `user` unless told otherwise; or `conversation`, `request`, `header:NAME`.
    randomization_unit: Option<String>,
    /// Null: from when it is started.
    #[schema(value_type = Option<String>, format = DateTime)]
    start_date: Option<Timestamp>,
    /// Null: until it is stopped.
    #[schema(value_type = Option<String>, format = DateTime)]
    end_date: Option<Timestamp>,
    /// Units in all arms together.
    #[schema(minimum = 1)]
    target_sample_size: Option<u32>,
    /// `response_time`, `success_rate`, `cost` or `custom`, or an object with such a `name`.
    primary_metric: Option<Value>,
    secondary_metrics: Option<Vec<Value>>,
    /// Why, for the audit.
    reason: Option<String>,
}

impl NewExperiment {
    fn check(&self) -> Result<(), Problem> {
        let mut check = Check::default();
        check.name("name", &self.name);
        check.text("description", self.description.as_deref());
        check.reason(self.reason.as_deref());
        if !(1..=VARIANTS_MAX).contains(&self.variant_template_ids.len()) {
            check.refuse("variant_template_ids", format!("must name 1 to {VARIANTS_MAX} versions"));
        }
        if self.target_sample_size.is_some_and(|size| size == 0 || i32::try_from(size).is_err()) {
            check.refuse("target_sample_size", format!("must be from 1 to {}", i32::MAX));
        }
        if self.start_date.zip(self.end_date).is_some_and(|(start, end)| end <= start) {
            check.refuse("end_date", "must be later than start_date");
        }
        for (field, metric) in
            self.primary_metric.iter().map(|metric| ("primary_metric", metric)).chain(
                self.secondary_metrics.iter().flatten().map(|one| ("secondary_metrics", one)),
            )
        {
            check.without_nulls(field, metric);
            if let Err(why) = Measured::read(metric).and_then(|_| Rules::read(metric)) {
                check.refuse(field, why);
            }
        }
        check.done()
    }

    fn definition(self, tenant: &Tenant, author: &str) -> ExperimentDefinition {
        let now = clock::now_micros();
        ExperimentDefinition {
            id: ExperimentId::new(),
            tenant_id: tenant.clone(),
            name: self.name,
            description: self.description,
            template_name: self.template_name,
            status: Status::Draft,
            control_template_id: TemplateId(self.control_template_id),
            variant_template_ids: self.variant_template_ids.into_iter().map(TemplateId).collect(),
            traffic_split: self.traffic_split,
            arms: None,
            enrollment_percentage: self.enrollment_percentage.unwrap_or(100.0),
            randomization_unit: self.randomization_unit.unwrap_or_else(|| "user".to_owned()),
            salt: None,
            hash_version: 1,
            start_date: self.start_date,
            end_date: self.end_date,
            target_sample_size: self.target_sample_size,
            primary_metric: self.primary_metric,
            secondary_metrics: Value::Array(self.secondary_metrics.unwrap_or_default()),
            winner_template_id: None,
            created_by: Some(author.to_owned()),
            created_at: Some(now),
            updated_by: Some(author.to_owned()),
            updated_at: Some(now),
        }
    }
}

#[utoipa::path(post, path = "/ab-tests", request_body = NewExperiment,
    responses((status = 201, body = ExperimentBody)))]
pub(super) async fn create(State(admin): State<Admin>, call: Call) -> Result<Response, Problem> {
    let new: NewExperiment = call.body()?;
    new.check()?;
    let tenant = call::tenant(new.tenant_id.as_deref())?;
    let made = call
        .make(&admin, async || {
            let reason = new.reason.clone();
            let mut definition = new.clone().definition(&tenant, &call.caller.name);
            definition.arms = Some(arms(&definition)?);
            versions(&admin, &definition).await?;
            Ok(put(&call, (None, None), definition, ("experiment.create", reason)))
        })
        .await?;
    answer(&admin, &tenant, &made).await
}

/// The arms with their order written down: the keys of a JSON object have none.
fn arms(definition: &ExperimentDefinition) -> Result<Value, Problem> {
    let experiment = check::experiment(definition).map_err(Problem::unprocessable)?;
    let arms = experiment.arms.iter().enumerate().map(|(ordinal, arm)| {
        json!({
            "ordinal": ordinal,
            "key": arm.key,
            "template_id": arm.template,
            "weight_millipercent": arm.weight,
        })
    });
    Ok(arms.collect())
}

/// The versions of the arms: each must be there, of the template's name, and work.
async fn versions(
    admin: &Admin,
    definition: &ExperimentDefinition,
) -> Result<Vec<TemplateDefinition>, Problem> {
    let mut check = Check::default();
    let mut found = Vec::new();
    let variants = definition.variant_template_ids.iter().enumerate();
    let fields =
        std::iter::once(("control_template_id".to_owned(), definition.control_template_id))
            .chain(variants.map(|(index, id)| (format!("variant_template_ids[{index}]"), *id)));
    for (field, id) in fields {
        let query = RowQuery {
            id: Some(id.0),
            name: Some(definition.template_name.clone()),
            ..RowQuery::of(Table::Templates, &definition.tenant_id)
        };
        match admin.store.rows(&query).await?.first() {
            Some(row) => found.push(row.definition(Table::Templates)?),
            None => {
                let detail = format!("{id} is no version of {:?}", definition.template_name);
                check.refuse(&field, detail);
            }
        }
    }
    check.done()?;
    Ok(found)
}

fn put(
    call: &Call,
    (row, old): (Option<&Row>, Option<&ExperimentDefinition>),
    mut new: ExperimentDefinition,
    (action, reason): (&str, Option<String>),
) -> Plan {
    let id = new.id.0;
    (new.updated_by, new.updated_at) = (Some(call.caller.name.clone()), Some(clock::now_micros()));
    let mut entry = call.entry(action, (OBJECT, id.to_string()), &new.tenant_id);
    (entry.before, entry.after, entry.reason) = (old.and_then(shown), shown(&new), reason);
    let fresh = Expect { table: Table::Experiments, id, revision: None };
    let change = Change {
        expects: vec![row.map_or(fresh, |row| expect(Table::Experiments, id, row))],
        puts: Definitions { experiments: vec![new.into()], ..Definitions::default() },
        audit: vec![entry],
        ..Change::default()
    };
    let status = if old.is_some() { StatusCode::OK } else { StatusCode::CREATED };
    Plan { change, object: id, status }
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
            let row = row(&admin, Table::Experiments, &tenant, id).await?;
            call.check(&etag(&row))?;
            let old: ExperimentDefinition = row.definition(Table::Experiments)?;
            match old.status {
                Status::Active => return Ok(Plan::nothing(id)),
                Status::Completed => {
                    return Err(Problem::conflict(
                        "a completed experiment cannot be started again",
                    ));
                }
                Status::Draft | Status::Paused => {}
            }
            let now = clock::now_micros();
            if old.end_date.is_some_and(|end| end <= now) {
                return Err(Problem::conflict("its end_date has passed"));
            }
            runnable(&admin, &old).await?;
            let mut new = old.clone();
            new.status = Status::Active;
            new.start_date = old.start_date.or(Some(now));
            new.arms = Some(arms(&new)?);
            Ok(put(&call, (Some(&row), Some(&old)), new, ("experiment.start", why.reason.clone())))
        })
        .await?;
    answer(&admin, &tenant, &made).await
}

/// That all arms can serve the calls that come, and nothing else decides on this template.
async fn runnable(admin: &Admin, definition: &ExperimentDefinition) -> Result<(), Problem> {
    let other = RowQuery {
        state: Some("active".to_owned()),
        group: Some(definition.template_name.clone()),
        ..RowQuery::of(Table::Experiments, &definition.tenant_id)
    };
    if let Some(other) = admin.store.rows(&other).await?.first() {
        let name = other.columns.get("name").and_then(Value::as_str).unwrap_or_default();
        return Err(Problem::conflict(format!(
            "experiment {name:?} is active on {:?}; stop it first",
            definition.template_name
        )));
    }
    let catalog = admin.refresher.current().load();
    let named = catalog
        .tenant(&definition.tenant_id)
        .and_then(|one| one.template(&definition.template_name));
    if named.is_none_or(|name| name.active.is_none()) {
        return Err(Problem::conflict(format!(
            "{:?} has no active version, which serves whoever does not take part; activate one first",
            definition.template_name
        )));
    }
    let mut samples = None;
    for version in versions(admin, definition).await? {
        let shown = format!("{}@{}", version.name, version.version);
        // One that serves already has been let in, by the rules of its day.
        let fit = if version.is_active { check::works } else { check::template };
        let compiled = fit(&version)
            .map_err(|why| Problem::conflict(format!("{shown} does not work: {why}")))?;
        let declared = compiled.template.variables();
        let samples = samples.get_or_insert_with(|| check::samples(declared));
        if compiled.template.render(samples).is_err() {
            return Err(Problem::conflict(format!(
                "{shown} cannot be rendered with the variables of the control"
            )));
        }
    }
    Ok(())
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
            let row = row(&admin, Table::Experiments, &tenant, id).await?;
            call.check(&etag(&row))?;
            let old: ExperimentDefinition = row.definition(Table::Experiments)?;
            match old.status {
                Status::Completed => return Ok(Plan::nothing(id)),
                Status::Draft => {
                    return Err(Problem::conflict("it was never started, so it cannot be stopped"));
                }
                Status::Active | Status::Paused => {}
            }
            let now = clock::now_micros();
            let mut new = old.clone();
            new.status = Status::Completed;
            // One that was to begin later never ran; its end may not lie before its beginning.
            if old.start_date.is_some_and(|start| start < now) {
                new.end_date = Some(old.end_date.map_or(now, |end| end.min(now)));
            }
            let why = ("experiment.stop", Some(stop.reason.clone()));
            Ok(put(&call, (Some(&row), Some(&old)), new, why))
        })
        .await?;
    answer(&admin, &tenant, &made).await
}

async fn answer(admin: &Admin, tenant: &Tenant, made: &Made) -> Result<Response, Problem> {
    let row = row(admin, Table::Experiments, tenant, made.object).await?;
    let tag = etag(&row);
    Ok(made.answer(&body(row)?, &tag, COLLECTION))
}
