//! What only a template has beside its figures: how calls ended, latency by length of answer, a time series,
//! the experiments it is part of.

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;
use uuid::Uuid;

use super::Admin;
use super::performance::percentage;
use super::problem::Problem;
use crate::catalog::definitions::{ExperimentDefinition, Status};
use crate::store::report::{self, BANDS, Interval, ReportQuery, SeriesFigures};
use crate::store::{RowQuery, Table};
use crate::words::ids::Tenant;

/// Stretches of a time series: a hundred days by hour.
const STRETCHES_MAX: usize = 2_400;
/// Experiments of one template that are shown.
const EXPERIMENTS_MAX: u32 = 100;

/// The width of the stretches of a time series.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(super) enum Width {
    Hour,
    Day,
}

impl Width {
    pub(super) fn store(self) -> Interval {
        match self {
            Self::Hour => Interval::Hour,
            Self::Day => Interval::Day,
        }
    }

    fn seconds(self) -> i64 {
        match self {
            Self::Hour => 3_600,
            Self::Day => 86_400,
        }
    }
}

/// See the members.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Details {
    /// How calls ended, most frequent first; at most 100 kinds.
    outcomes: Vec<Ending>,
    /// Successful calls by the length of their answers: longer ones take longer.
    latency_by_output_tokens: Vec<Band>,
    /// Null unless `interval` asks for it; stretches without calls are there, with nulls.
    series: Option<Vec<Stretch>>,
    /// Experiments on this template, running or not.
    experiments: Vec<Membership>,
}

/// Calls that ended alike.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Ending {
    outcome: String,
    error_type: Option<String>,
    executions: u64,
    /// Of all executions.
    percent: Option<f64>,
}

/// Calls whose answers are about as long.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Band {
    tokens_min: u64,
    /// Exclusive; null for the longest.
    tokens_max: Option<u64>,
    executions: u64,
    avg_response_time_ms: Option<f64>,
    p50: Option<f64>,
    p95: Option<f64>,
}

/// One stretch of time; the first and the last may be cut by the period.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Stretch {
    #[schema(value_type = String, format = DateTime)]
    from: Timestamp,
    executions: u64,
    success_rate: Option<f64>,
    blocked_rate: Option<f64>,
    avg_response_time_ms: Option<f64>,
    cost_usd: Option<f64>,
}

/// One experiment on a template.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Membership {
    id: Uuid,
    name: String,
    status: String,
    /// Its versions, control first.
    template_ids: Vec<Uuid>,
}

impl Details {
    pub(super) fn new(
        found: &report::Details,
        query: &ReportQuery,
        width: Option<Width>,
        experiments: Vec<Membership>,
    ) -> Self {
        let all = found.errors.iter().map(|one| one.executions).sum();
        let outcomes = found.errors.iter().map(|one| Ending {
            outcome: one.outcome.clone(),
            error_type: one.error_type.clone(),
            executions: one.executions,
            percent: percentage(one.executions, all),
        });
        Self {
            outcomes: outcomes.collect(),
            latency_by_output_tokens: bands(found),
            series: width.map(|width| series(&found.series, query, width)),
            experiments,
        }
    }
}

fn bands(found: &report::Details) -> Vec<Band> {
    let ends = BANDS.iter().skip(1).map(|end| Some(*end)).chain([None]);
    BANDS
        .iter()
        .zip(ends)
        .map(|(start, end)| {
            let here = found.bands.iter().find(|one| one.tokens_min == *start);
            Band {
                tokens_min: *start,
                tokens_max: end,
                executions: here.map_or(0, |one| one.executions),
                avg_response_time_ms: here.map(|one| one.avg_response_time_ms),
                p50: here.map(|one| one.p50),
                p95: here.map(|one| one.p95),
            }
        })
        .collect()
}

/// Every stretch of the period, those without calls too.
fn series(found: &[SeriesFigures], query: &ReportQuery, width: Width) -> Vec<Stretch> {
    let seconds = width.seconds();
    let first = query.from.as_second().div_euclid(seconds) * seconds;
    let mut at = Timestamp::from_second(first).unwrap_or(query.from);
    let mut stretches = Vec::new();
    while at < query.to && stretches.len() < STRETCHES_MAX {
        stretches.push(stretch(at, found.iter().find(|one| one.at == at)));
        let Ok(next) = at.checked_add(SignedDuration::from_secs(seconds)) else { break };
        at = next;
    }
    stretches
}

#[expect(clippy::cast_precision_loss, reason = "counts of executions are far below 2^52")]
fn stretch(from: Timestamp, found: Option<&SeriesFigures>) -> Stretch {
    let Some(one) = found else {
        let (success_rate, blocked_rate, avg_response_time_ms, cost_usd) = (None, None, None, None);
        return Stretch {
            from,
            executions: 0,
            success_rate,
            blocked_rate,
            avg_response_time_ms,
            cost_usd,
        };
    };
    Stretch {
        from,
        executions: one.executions,
        success_rate: percentage(one.success, one.success + one.failure),
        blocked_rate: percentage(one.blocked, one.executions),
        avg_response_time_ms: (one.attempted > 0)
            .then(|| one.response_time_ms_sum / one.attempted as f64),
        cost_usd: one.cost_usd,
    }
}

/// The experiments on a template.
pub(super) async fn experiments(
    admin: &Admin,
    tenant: &Tenant,
    template: &str,
) -> Result<Vec<Membership>, Problem> {
    let query = RowQuery {
        limit: EXPERIMENTS_MAX,
        group: Some(template.to_owned()),
        ..RowQuery::of(Table::Experiments, tenant)
    };
    let rows = admin.store.rows(&query).await?;
    let mut memberships = Vec::new();
    for row in rows {
        let one: ExperimentDefinition = row.definition(Table::Experiments)?;
        let variants = one.variant_template_ids.iter().map(|id| id.0);
        memberships.push(Membership {
            id: one.id.0,
            template_ids: std::iter::once(one.control_template_id.0).chain(variants).collect(),
            status: word(one.status),
            name: one.name,
        });
    }
    Ok(memberships)
}

fn word(status: Status) -> String {
    serde_json::to_value(status)
        .ok()
        .as_ref()
        .and_then(Value::as_str)
        .unwrap_or_default()
        .to_owned()
}
