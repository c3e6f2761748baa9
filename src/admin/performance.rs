//! How calls went: over everything, and by template version. Every figure is counted from the recorded
//! executions when it is asked for. What only a template has is in `details.rs`.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use super::Admin;
use super::call::{self, Id, Params};
use super::details::{self, Details, Width};
use super::problem::Problem;
use super::write::row;
use crate::catalog::Catalog;
use crate::catalog::definitions::TemplateDefinition;
use crate::statistics::sketch::RELATIVE_ERROR;
use crate::store::Table;
use crate::store::report::{
    EXACT_ROWS_MAX, GuardrailFigures, Quantiles, Report, ReportQuery, VersionFigures,
};
use crate::words::clock;
use crate::words::ids::Tenant;
use crate::words::money::PicoUsd;

const PERIOD_DEFAULT: SignedDuration = SignedDuration::from_hours(24);
const PERIOD_MAX: SignedDuration = SignedDuration::from_hours(24 * 90);

/// Which executions.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(super) struct Asked {
    /// The tenant; `default` unless told otherwise.
    tenant: Option<String>,
    /// From this moment on; 24 hours before `to` unless told otherwise.
    #[param(value_type = Option<String>, format = DateTime)]
    from: Option<Timestamp>,
    /// Up to this one, exclusive; now unless told otherwise. At most 90 days after `from`.
    #[param(value_type = Option<String>, format = DateTime)]
    to: Option<Timestamp>,
    /// Only calls of this model.
    model: Option<String>,
}

impl Asked {
    pub(super) fn query(self) -> Result<ReportQuery, Problem> {
        let to = self.to.unwrap_or_else(clock::now_micros);
        let outside = |_| Problem::bad_request("from and to must be times this side of year 9999");
        let from = match self.from {
            Some(from) => from,
            None => to.checked_sub(PERIOD_DEFAULT).map_err(outside)?,
        };
        if from < Timestamp::UNIX_EPOCH || from >= to || to.duration_since(from) > PERIOD_MAX {
            let detail =
                "from must be 1970 or later, and to be later than from, by at most 90 days";
            return Err(Problem::bad_request(detail));
        }
        let tenant = call::tenant(self.tenant.as_deref())?;
        let model = self.model;
        let exact_rows_max = EXACT_ROWS_MAX;
        let (template_id, template_name) = (None, None);
        Ok(ReportQuery { tenant, from, to, model, template_id, template_name, exact_rows_max })
    }
}

/// All calls of a period.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Overview {
    period: Period,
    #[serde(flatten)]
    figures: Figures,
    /// By template version; calls without a template have no name. At most 1,000.
    templates: Vec<VersionShare>,
    guardrails: Vec<GuardrailShare>,
    /// Executions by the source of the catalog that served them.
    #[schema(value_type = Object)]
    sources: BTreeMap<String, u64>,
    freshness: Freshness,
}

/// One version, or all versions of its name, in a period.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct TemplatePerformance {
    template_id: Uuid,
    name: String,
    version: u32,
    period: Period,
    #[serde(flatten)]
    figures: Figures,
    /// All versions of the name side by side. They served at different times: a difference between
    /// them is no proof of a cause.
    versions: Vec<VersionShare>,
    /// Whether all of these calls were part of one experiment: only then is a difference between the
    /// versions one of cause, and its results say how sure that is.
    causal: bool,
    #[serde(flatten)]
    details: Details,
    guardrails: Vec<GuardrailShare>,
    freshness: Freshness,
}

/// A half-open stretch of time in UTC.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Period {
    #[schema(value_type = String, format = DateTime)]
    from: Timestamp,
    #[schema(value_type = String, format = DateTime)]
    to: Timestamp,
}

/// What is counted. Rates are percentages; null where there is nothing to divide by.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Figures {
    total_executions: u64,
    /// Executions by outcome.
    #[schema(value_type = Object)]
    by_outcome: BTreeMap<&'static str, u64>,
    /// Of success and failure; what a guardrail stopped or a client gave up counts as neither.
    success_rate: Option<f64>,
    /// Of the calls that reached Gemini, from arrival to the last byte.
    avg_response_time_ms: Option<f64>,
    response_time_ms: QuantileBody,
    ttft_ms: QuantileBody,
    proxy_overhead_ms: QuantileBody,
    /// By how much of itself a quantile may be off: 0 up to 100,000 calls, 0.01 beyond.
    quantile_relative_error: f64,
    /// Of all executions: those that a guardrail stopped.
    blocked_rate: Option<f64>,
    tokens: Tokens,
    /// A decimal; null when no call has a price.
    total_cost_usd: Option<String>,
    /// The same if nothing of a prompt had come from a cache.
    cost_list_usd: Option<String>,
    avg_cost_per_execution_usd: Option<String>,
    /// Answered calls whose model has no known price: their cost is not in the sum.
    unpriced: u64,
}

/// By nearest rank.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct QuantileBody {
    p50: Option<f64>,
    p90: Option<f64>,
    p95: Option<f64>,
    p99: Option<f64>,
    max: Option<f64>,
}

impl From<Quantiles> for QuantileBody {
    fn from(Quantiles { p50, p90, p95, p99, max }: Quantiles) -> Self {
        Self { p50, p90, p95, p99, max }
    }
}

/// Tokens as Gemini counted them; cached ones are part of the input.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Tokens {
    input: u64,
    cached: u64,
    thinking: u64,
    output: u64,
}

/// One version's part.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct VersionShare {
    template_id: Option<Uuid>,
    name: Option<String>,
    version: Option<u32>,
    /// Whether it is the version in force.
    is_active: bool,
    executions: u64,
    success_rate: Option<f64>,
    avg_response_time_ms: Option<f64>,
    avg_cost_per_execution_usd: Option<String>,
    /// The same in the period as long before this one.
    previous: Previous,
}

/// What one version did before.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Previous {
    executions: u64,
    success_rate: Option<f64>,
    avg_response_time_ms: Option<f64>,
    avg_cost_per_execution_usd: Option<String>,
}

/// One guardrail's part.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct GuardrailShare {
    name: String,
    evaluations: u64,
    violations: u64,
    blocks: u64,
}

/// How complete the figures are.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Freshness {
    #[schema(value_type = String, format = DateTime)]
    as_of: Timestamp,
    /// Executions of this sidecar that are not in the store yet.
    waiting: u64,
    /// Executions of this sidecar that the store refused.
    dead_lettered: u64,
    /// Executions of this sidecar that were lost.
    lost: u64,
    /// Whether the store took what this sidecar sent last.
    store_reachable: bool,
}

#[utoipa::path(get, path = "/performance/overview", params(Asked), responses((status = 200, body = Overview)))]
pub(super) async fn overview(
    State(admin): State<Admin>,
    Params(asked): Params<Asked>,
) -> Result<Json<Overview>, Problem> {
    let query = asked.query()?;
    let report = admin.store.report(&query).await?;
    let beside = Beside::of(&admin, &query).await?;
    Ok(Json(Overview {
        period: Period { from: query.from, to: query.to },
        figures: figures(&report, &report.versions),
        templates: report.versions.iter().take(1_000).map(|one| beside.share(one)).collect(),
        guardrails: report.guardrails.iter().map(guardrail).collect(),
        sources: report.sources.into_iter().map(|one| (one.source, one.executions)).collect(),
        freshness: freshness(&admin),
    }))
}

/// Which executions of a version.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(super) struct AskedOfTemplate {
    /// The tenant; `default` unless told otherwise.
    tenant: Option<String>,
    /// From this moment on; 24 hours before `to` unless told otherwise.
    #[param(value_type = Option<String>, format = DateTime)]
    from: Option<Timestamp>,
    /// Up to this one, exclusive; now unless told otherwise. At most 90 days after `from`.
    #[param(value_type = Option<String>, format = DateTime)]
    to: Option<Timestamp>,
    /// Only calls of this model.
    model: Option<String>,
    /// `version` (the default), or `name` for all versions of the name together.
    #[param(inline)]
    scope: Option<Scope>,
    /// Also a time series, by `hour` or `day` of UTC. At most 2,400 stretches.
    #[param(inline)]
    interval: Option<Width>,
}

/// What is counted together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(super) enum Scope {
    Version,
    Name,
}

#[utoipa::path(get, path = "/performance/templates/{id}", params(("id" = Uuid, Path), AskedOfTemplate),
    responses((status = 200, body = TemplatePerformance)))]
pub(super) async fn template(
    State(admin): State<Admin>,
    Id(id): Id,
    Params(asked): Params<AskedOfTemplate>,
) -> Result<Json<TemplatePerformance>, Problem> {
    let AskedOfTemplate { tenant, from, to, model, scope, interval } = asked;
    let of_name = Asked { tenant, from, to, model }.query()?;
    let row = row(&admin, Table::Templates, &of_name.tenant, id).await?;
    let definition: TemplateDefinition = row.definition(Table::Templates)?;
    let of_name = ReportQuery { template_name: Some(definition.name.clone()), ..of_name };
    let of_version = ReportQuery { template_id: Some(id), ..of_name.clone() };
    let asked_for = if scope == Some(Scope::Name) { &of_name } else { &of_version };
    let report = admin.store.report(asked_for).await?;
    let side_by_side = admin.store.report(&of_name).await?.versions;
    let beside = Beside::of(&admin, &of_name).await?;
    let found = admin.store.details(asked_for, interval.map(Width::store)).await?;
    let cause = match scope {
        Some(Scope::Name) => found.cause,
        Some(Scope::Version) | None => admin.store.details(&of_name, None).await?.cause,
    };
    let experiments = details::experiments(&admin, &of_name.tenant, &definition.name).await?;
    let details = Details::new(&found, asked_for, interval, experiments);
    Ok(Json(TemplatePerformance {
        template_id: id,
        name: definition.name,
        version: definition.version,
        period: Period { from: of_version.from, to: of_version.to },
        figures: figures(&report, &report.versions),
        versions: side_by_side.iter().map(|one| beside.share(one)).collect(),
        causal: cause.outside == 0 && cause.experiments == 1,
        details,
        guardrails: report.guardrails.iter().map(guardrail).collect(),
        freshness: freshness(&admin),
    }))
}

/// One figure of a version.
type Count = fn(&VersionFigures) -> u64;

fn figures(report: &Report, versions: &[VersionFigures]) -> Figures {
    let sum = |one: Count| versions.iter().map(one).sum::<u64>();
    let total = |cost: fn(&VersionFigures) -> Option<PicoUsd>| {
        versions.iter().filter_map(cost).reduce(|one, more| one + more)
    };
    let by_outcome: [(&'static str, Count); 8] = [
        ("success", |one| one.success),
        ("failed", |one| one.failed),
        ("incomplete", |one| one.incomplete),
        ("blocked", |one| one.blocked),
        ("response_blocked", |one| one.response_blocked),
        ("rejected", |one| one.rejected),
        ("client_left", |one| one.client_left),
        ("drained", |one| one.drained),
    ];
    let whole = VersionFigures {
        success: sum(|one| one.success),
        failed: sum(|one| one.failed),
        incomplete: sum(|one| one.incomplete),
        attempted: sum(|one| one.attempted),
        response_time_ms_sum: versions.iter().map(|one| one.response_time_ms_sum).sum(),
        priced: sum(|one| one.priced),
        cost_usd: total(|one| one.cost_usd),
        ..VersionFigures::default()
    };
    Figures {
        total_executions: sum(|one| one.executions),
        by_outcome: by_outcome.into_iter().map(|(name, one)| (name, sum(one))).collect(),
        success_rate: success_rate(&whole),
        avg_response_time_ms: mean_time(&whole),
        response_time_ms: report.times.response.into(),
        ttft_ms: report.times.first_token.into(),
        proxy_overhead_ms: report.times.overhead.into(),
        quantile_relative_error: if report.exact { 0.0 } else { RELATIVE_ERROR },
        blocked_rate: percentage(
            sum(|one| one.blocked) + sum(|one| one.response_blocked),
            sum(|one| one.executions),
        ),
        tokens: Tokens {
            input: sum(|one| one.prompt_tokens),
            cached: sum(|one| one.cached_tokens),
            thinking: sum(|one| one.thoughts_tokens),
            output: sum(|one| one.candidates_tokens),
        },
        total_cost_usd: whole.cost_usd.map(|cost| cost.to_string()),
        cost_list_usd: total(|one| one.cost_list_usd).map(|cost| cost.to_string()),
        avg_cost_per_execution_usd: mean_cost(&whole),
        unpriced: sum(|one| one.unpriced),
    }
}

fn success_rate(one: &VersionFigures) -> Option<f64> {
    percentage(one.success, one.success + one.failed + one.incomplete)
}

/// With one decimal; nothing where there is nothing to divide by.
#[expect(clippy::cast_precision_loss, reason = "counts of executions are far below 2^52")]
pub(super) fn percentage(count: u64, of: u64) -> Option<f64> {
    (of > 0).then(|| (count as f64 * 1000.0 / of as f64).round() / 10.0)
}

#[expect(clippy::cast_precision_loss, reason = "counts of executions are far below 2^52")]
fn mean_time(one: &VersionFigures) -> Option<f64> {
    (one.attempted > 0).then(|| one.response_time_ms_sum / one.attempted as f64)
}

fn mean_cost(one: &VersionFigures) -> Option<String> {
    let mean = one.cost_usd?.0.checked_div(i128::from(one.priced))?;
    Some(PicoUsd(mean).to_string())
}

/// What a version is shown beside: what it did before, and whether it is in force.
struct Beside {
    catalog: Arc<Catalog>,
    tenant: Tenant,
    before: Vec<VersionFigures>,
}

impl Beside {
    async fn of(admin: &Admin, query: &ReportQuery) -> Result<Self, Problem> {
        let length = query.to.duration_since(query.from);
        let from = query.from.checked_sub(length).unwrap_or(Timestamp::UNIX_EPOCH);
        // Nobody asks for the times of then: no rows are sorted for them.
        let before = ReportQuery { from, to: query.from, exact_rows_max: 0, ..query.clone() };
        let before = admin.store.report(&before).await?.versions;
        let catalog = admin.refresher.current().load();
        Ok(Self { catalog, tenant: query.tenant.clone(), before })
    }

    fn share(&self, one: &VersionFigures) -> VersionShare {
        let same = |old: &&VersionFigures| {
            (old.template_id, &old.template_name) == (one.template_id, &one.template_name)
        };
        let nothing = VersionFigures::default();
        let before = self.before.iter().find(same).unwrap_or(&nothing);
        VersionShare {
            template_id: one.template_id,
            name: one.template_name.clone(),
            version: one.template_version,
            is_active: self.is_active(one),
            executions: one.executions,
            success_rate: success_rate(one),
            avg_response_time_ms: mean_time(one),
            avg_cost_per_execution_usd: mean_cost(one),
            previous: Previous {
                executions: before.executions,
                success_rate: success_rate(before),
                avg_response_time_ms: mean_time(before),
                avg_cost_per_execution_usd: mean_cost(before),
            },
        }
    }

    fn is_active(&self, one: &VersionFigures) -> bool {
        let named = one.template_name.as_deref().and_then(|name| {
            self.catalog.tenant(&self.tenant).and_then(|tenant| tenant.template(name))
        });
        let active = named.and_then(|name| name.active.as_ref());
        active.is_some_and(|served| Some(served.version.id.0) == one.template_id)
    }
}

fn guardrail(one: &GuardrailFigures) -> GuardrailShare {
    GuardrailShare {
        name: one.rule_name.clone(),
        evaluations: one.evaluations,
        violations: one.violations,
        blocks: one.blocks,
    }
}

fn freshness(admin: &Admin) -> Freshness {
    let standing = admin.ledger.standing();
    Freshness {
        as_of: clock::now_micros(),
        waiting: standing.waiting(),
        dead_lettered: standing.dead,
        lost: standing.lost,
        store_reachable: standing.store_reachable,
    }
}
