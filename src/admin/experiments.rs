//! A/B tests: drafted, listed, read.

use std::collections::{BTreeMap, BTreeSet};

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use super::Admin;
use super::call::{self, Call, Id, Params, WATERMARK, Whose};
use super::lifecycle::Held;
use super::names::Check;
use super::planning::{self, SizePlan};
use super::problem::Problem;
use super::templates::{after, next_cursor, tagged, unreadable};
use super::write::{Made, Plan, etag, expect, row, shown};
use crate::analyst::{self, Depth};
use crate::catalog::check;
use crate::catalog::definitions::{
    Definitions, Design, Exceptions, ExperimentDefinition, Status, TemplateDefinition,
};
use crate::experiment::Experiment;
use crate::results::{Measured, Rules};
use crate::store::{Change, Expect, Phase, Row, RowQuery, StoreError, Table};
use crate::words::clock;
use crate::words::ids::{ExperimentId, TemplateId, Tenant};

pub(super) const COLLECTION: &str = "/ab-tests";
const OBJECT: &str = "experiment";
const VARIANTS_MAX: usize = 20;
/// Every sidecar holds these in memory.
const BY_HAND_MAX: usize = 1_000;

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
    /// What it has shown: by arm and, in `metrics`, by metric and variant (estimates, difference, interval, p,
    /// lift; p50 and p95 of the response time), with `health` and `verdict`. In a list as it was last kept,
    /// without the quantiles. docs/experiments-numbers.md says what each number means.
    results: Option<Value>,
    /// Set by `promote`, and by nothing else.
    winner_template_id: Option<Uuid>,
    /// `phase`, `enrolled_most`, `forced_units`, `excluded_units`, `pinned_units`.
    #[schema(value_type = Option<Object>)]
    assignment: Option<Exceptions>,
    /// By what it is analysed: `alpha`, `baseline`, `target_sample_size`, `hash_version`; frozen since
    /// `frozen_at`.
    #[schema(value_type = Option<Object>)]
    design: Option<Design>,
    /// Whether it decides arms at this moment: it is active, and its dates say so.
    #[serde(default)]
    runs: bool,
    /// What its size can show.
    plan: Option<SizePlan>,
    /// Stretches of time in which the split stood still, oldest first; null in lists.
    #[schema(value_type = Option<Vec<Object>>)]
    phases: Option<Vec<Phase>>,
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
    let definition: ExperimentDefinition = row.definition(Table::Experiments)?;
    let mut body: ExperimentBody =
        serde_json::from_value(Value::Object(row.columns)).map_err(unreadable)?;
    let decides = |one: Experiment| !one.is_paused && one.decides(clock::now());
    body.runs =
        definition.status == Status::Active && check::experiment(&definition).is_ok_and(decides);
    body.plan = planning::plan(&definition);
    Ok(body)
}

/// With its phases.
async fn whole(admin: &Admin, row: Row) -> Result<ExperimentBody, Problem> {
    let mut body = body(row)?;
    body.phases = Some(admin.store.phases(ExperimentId(body.id)).await?);
    Ok(body)
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
    let tag = match analyst::study(admin.store.as_ref(), &row, &losses, Depth::Calls).await {
        Ok(study) => {
            row.columns.insert("results".to_owned(), study.results);
            row.columns.insert("statistical_significance".to_owned(), study.significance.into());
            format!("{}{WATERMARK}{}\"", state.trim_end_matches('"'), study.tag)
        }
        // A schema of before counts nothing yet.
        Err(StoreError::NotMigrated) => state,
        Err(error) => return Err(error.into()),
    };
    Ok(tagged(&headers, &tag, &whole(&admin, row).await?))
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
    /// Looked at beside it: the same, `response_time_mean` and `cost_per_success`.
    secondary_metrics: Option<Vec<Value>>,
    /// False positives that are put up with: above 0, at most 0.5; 0.05 unless told otherwise.
    alpha: Option<f64>,
    /// The success rate that is expected of control, from 0 to 1, for planning; 0.95 unless told otherwise.
    baseline: Option<f64>,
    /// Units whose arm is chosen by hand, for testers: `{"anna": "variant_a"}`. They are not analysed.
    #[schema(value_type = Option<Object>)]
    forced_units: Option<BTreeMap<String, String>>,
    /// Units that never take part.
    excluded_units: Option<BTreeSet<String>>,
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
        if self.alpha.is_some_and(|alpha| !(alpha > 0.0 && alpha <= 0.5)) {
            check.refuse("alpha", "must be above 0 and at most 0.5");
        }
        if self.alpha.is_some() && self.alpha_of_metric().is_some() {
            check.refuse("alpha", "is in primary_metric as well; give it once");
        }
        if self.baseline.is_some_and(|share| !(0.0..=1.0).contains(&share)) {
            check.refuse("baseline", "must be from 0 to 1");
        }
        self.check_units(&mut check);
        for (field, metric) in
            self.primary_metric.iter().map(|metric| ("primary_metric", metric)).chain(
                self.secondary_metrics.iter().flatten().map(|one| ("secondary_metrics", one)),
            )
        {
            check.without_nulls(field, metric);
            match Measured::read(metric).and_then(|read| Rules::read(metric).map(|_| read)) {
                Err(why) => check.refuse(field, why),
                Ok(read) if field == "primary_metric" && !read.metric.may_decide() => {
                    let detail = "must be response_time, success_rate, cost or custom; \
                                  others may be among secondary_metrics";
                    check.refuse(field, detail);
                }
                Ok(_) => {}
            }
        }
        check.done()
    }

    fn alpha_of_metric(&self) -> Option<f64> {
        self.primary_metric.as_ref()?.get("alpha")?.as_f64()
    }

    fn check_units(&self, check: &mut Check) {
        let forced = self.forced_units.iter().flatten().map(|(unit, _)| ("forced_units", unit));
        let excluded = self.excluded_units.iter().flatten().map(|unit| ("excluded_units", unit));
        let all: Vec<_> = forced.chain(excluded).collect();
        if all.len() > BY_HAND_MAX {
            let detail = format!("at most {BY_HAND_MAX} units with excluded_units");
            check.refuse("forced_units", detail);
        }
        for (field, unit) in all {
            if !(1..=256).contains(&unit.len()) {
                check.refuse(field, "units have 1 to 256 bytes");
            }
        }
    }

    fn definition(self, tenant: &Tenant, author: &str) -> ExperimentDefinition {
        let alpha = self.alpha.or_else(|| self.alpha_of_metric());
        let design = Design { alpha, baseline: self.baseline, ..Design::default() };
        let assignment = Exceptions {
            forced_units: self.forced_units.unwrap_or_default(),
            excluded_units: self.excluded_units.unwrap_or_default(),
            ..Exceptions::default()
        };
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
            assignment: Some(assignment),
            design: Some(design),
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
            let definition = new.clone().definition(&tenant, &call.caller.name);
            let definition = drafted(&admin, definition).await?;
            let why = ("experiment.create", new.reason.clone());
            Ok(put(&call, (None, None), definition, why))
        })
        .await?;
    answer(&admin, &tenant, &made).await
}

#[utoipa::path(put, path = "/ab-tests/{id}", params(("id" = Uuid, Path), Whose), request_body = NewExperiment,
    responses((status = 200, body = ExperimentBody)))]
pub(super) async fn replace(
    State(admin): State<Admin>,
    Id(id): Id,
    Params(whose): Params<Whose>,
    call: Call,
) -> Result<Response, Problem> {
    let (tenant, new): (Tenant, NewExperiment) = (whose.tenant()?, call.body()?);
    new.check()?;
    if new.tenant_id.as_deref().is_some_and(|given| given != tenant.0.as_ref()) {
        return Err(Problem::unprocessable("tenant_id: an experiment stays with its tenant"));
    }
    let made = call
        .make(&admin, async || {
            let held = Held::read(&admin, &tenant, id, &call).await?;
            if held.old.status != Status::Draft {
                let detail = "it was started, and nothing of what was started is rewritten: \
                              reallocate changes the split, stop ends it";
                return Err(Problem::conflict(detail));
            }
            let definition = ExperimentDefinition {
                id: held.old.id,
                created_by: held.old.created_by.clone(),
                created_at: held.old.created_at,
                ..new.clone().definition(&tenant, &call.caller.name)
            };
            let definition = drafted(&admin, definition).await?;
            let why = ("experiment.update", new.reason.clone());
            Ok(put(&call, (Some(&held.row), Some(&held.old)), definition, why))
        })
        .await?;
    answer(&admin, &tenant, &made).await
}

/// A draft with its arms, if it may be one.
async fn drafted(
    admin: &Admin,
    mut definition: ExperimentDefinition,
) -> Result<ExperimentDefinition, Problem> {
    let experiment = check::experiment(&definition).map_err(Problem::unprocessable)?;
    definition.arms = Some(check::arms(&experiment));
    let mut check = Check::default();
    versions(admin, &definition, &mut check).await?;
    check.done()?;
    Ok(definition)
}

/// The versions of the arms: each must be there, and of the template's name.
pub(super) async fn versions(
    admin: &Admin,
    definition: &ExperimentDefinition,
    check: &mut Check,
) -> Result<Vec<TemplateDefinition>, Problem> {
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
    Ok(found)
}

/// The plan that makes an experiment, or changes the one of a row.
pub(super) fn put(
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

pub(super) async fn answer(
    admin: &Admin,
    tenant: &Tenant,
    made: &Made,
) -> Result<Response, Problem> {
    let row = row(admin, Table::Experiments, tenant, made.object).await?;
    let tag = etag(&row);
    Ok(made.answer(&whole(admin, row).await?, &tag, COLLECTION))
}
