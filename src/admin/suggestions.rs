//! Templates worth an experiment, and why: each reason with the query that shows it, so that nobody has to
//! take its word.

use axum::Json;
use axum::extract::State;
use jiff::Timestamp;
use serde::Serialize;
use utoipa::ToSchema;
use uuid::Uuid;

use super::Admin;
use super::call::Params;
use super::performance::{Asked, percentage};
use super::problem::Problem;
use crate::statistics::proportion::wilson;
use crate::statistics::{Alpha, Counts};
use crate::store::report::{Details, ReportQuery, VersionFigures};

/// Versions with fewer executions say nothing.
const EXECUTIONS_MIN: u64 = 100;
/// Versions that are looked at closely: those with most executions.
const VERSIONS_MAX: usize = 20;
/// A rate that is bad whatever others do, in percent.
const RATE_MIN: f64 = 5.0;
/// Calls refused for their variables, in percent.
const MISSING_MIN: f64 = 2.0;
/// How many times the cost of the version in the middle.
const COST_FACTOR: i128 = 3;
/// Answers from so many tokens on are long.
const LONG_TOKENS: u64 = 2_000;
/// Successful calls with long answers, in percent.
const LONG_MIN: f64 = 20.0;
/// How many times the latency of the shorter ones.
const LONG_FACTOR: f64 = 2.0;

/// Why a version is worth an experiment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum Reason {
    FailureRate,
    BlockedRate,
    CostOutlier,
    LatencyOfLongAnswers,
    MissingVariables,
}

/// One reason for one version.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Suggestion {
    template_id: Uuid,
    name: String,
    version: u32,
    executions: u64,
    reason: Reason,
    /// In words, with the numbers.
    why: String,
    /// What a variant could try.
    try_out: &'static str,
    /// SQL over `prompt_executions` that shows it.
    evidence: String,
}

/// Reasons, most executions first.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Suggestions {
    #[schema(value_type = String, format = DateTime)]
    from: Timestamp,
    #[schema(value_type = String, format = DateTime)]
    to: Timestamp,
    items: Vec<Suggestion>,
}

#[utoipa::path(get, path = "/performance/suggestions", params(Asked), responses((status = 200, body = Suggestions)))]
pub(super) async fn suggestions(
    State(admin): State<Admin>,
    Params(asked): Params<Asked>,
) -> Result<Json<Suggestions>, Problem> {
    // Nobody asks for quantiles here: no rows are sorted for them.
    let query = ReportQuery { exact_rows_max: 0, ..asked.query()? };
    let versions = admin.store.report(&query).await?.versions;
    let mut items = Vec::new();
    for one in versions.iter().filter(|one| one.executions >= EXECUTIONS_MIN).take(VERSIONS_MAX) {
        let Some(template_id) = one.template_id else { continue };
        let of_version = ReportQuery { template_id: Some(template_id), ..query.clone() };
        let details = admin.store.details(&of_version, None).await?;
        for (reason, why) in reasons(one, &versions, &details) {
            items.push(Suggestion {
                template_id,
                name: one.template_name.clone().unwrap_or_default(),
                version: one.template_version.unwrap_or_default(),
                executions: one.executions,
                reason,
                why,
                try_out: try_out(reason),
                evidence: evidence(reason, template_id, &query),
            });
        }
    }
    Ok(Json(Suggestions { from: query.from, to: query.to, items }))
}

/// All reasons for one version among the others.
fn reasons(
    one: &VersionFigures,
    all: &[VersionFigures],
    details: &Details,
) -> Vec<(Reason, String)> {
    let failures = |one: &VersionFigures| {
        let failed = one.failed + one.incomplete;
        (failed, one.success + failed)
    };
    let blocks = |one: &VersionFigures| (one.blocked + one.response_blocked, one.executions);
    let found = [
        worse(one, all, failures).map(|why| {
            (Reason::FailureRate, format!("{why} of the calls that were decided failed"))
        }),
        worse(one, all, blocks)
            .map(|why| (Reason::BlockedRate, format!("guardrails stopped {why} of the calls"))),
        dear(one, all).map(|why| (Reason::CostOutlier, why)),
        slow(details).map(|why| (Reason::LatencyOfLongAnswers, why)),
        missing(one, details).map(|why| (Reason::MissingVariables, why)),
    ];
    found.into_iter().flatten().collect()
}

/// A rate that is high, and higher than that of all together by more than chance.
fn worse(
    one: &VersionFigures,
    all: &[VersionFigures],
    count: fn(&VersionFigures) -> (u64, u64),
) -> Option<String> {
    let (bad, of) = count(one);
    let rate = percentage(bad, of).filter(|rate| *rate >= RATE_MIN && of >= EXECUTIONS_MIN)?;
    let (all_bad, all_of) = all
        .iter()
        .map(count)
        .fold((0, 0), |(bad, of), (more_bad, more)| (bad + more_bad, of + more));
    let surely = wilson(Counts::new(bad, of)?, Alpha::FIVE_PERCENT).ok()?.low;
    let usual = Counts::new(all_bad, all_of)?.share()?;
    // Alone it is compared with nothing: then the rate itself is the reason.
    let is_alone = all_of == of;
    (is_alone || surely > usual).then(|| {
        let all = percentage(all_bad, all_of).unwrap_or_default();
        format!("{rate} % ({bad} of {of}; {all} % over all templates)")
    })
}

fn dear(one: &VersionFigures, all: &[VersionFigures]) -> Option<String> {
    let mean = |one: &VersionFigures| {
        one.cost_usd.filter(|_| one.priced > 0).map(|cost| cost.0 / i128::from(one.priced))
    };
    let mut means: Vec<i128> = all
        .iter()
        .filter(|one| one.template_id.is_some() && one.executions >= EXECUTIONS_MIN)
        .filter_map(mean)
        .collect();
    means.sort_unstable();
    let middle = *means.get(means.len() / 2).filter(|_| means.len() >= 3)?;
    let own = mean(one).filter(|own| middle > 0 && *own >= middle * COST_FACTOR)?;
    let usd = |pico: i128| crate::words::money::PicoUsd(pico);
    Some(format!(
        "an execution costs {} USD; that of the version in the middle {} USD",
        usd(own),
        usd(middle)
    ))
}

fn slow(details: &Details) -> Option<String> {
    let part = |is_long: bool| {
        let bands = details.bands.iter().filter(|one| (one.tokens_min >= LONG_TOKENS) == is_long);
        bands.fold((0, 0.0), |(calls, ms), one| {
            (calls + one.executions, ms + one.avg_response_time_ms * real(one.executions))
        })
    };
    let ((long, long_ms), (short, short_ms)) = (part(true), part(false));
    let share = percentage(long, long + short).filter(|share| *share >= LONG_MIN && short > 0)?;
    let (long_ms, short_ms) = (long_ms / real(long), short_ms / real(short));
    (long_ms >= LONG_FACTOR * short_ms).then(|| {
        format!(
            "{share} % of the answers have {LONG_TOKENS} tokens or more and take {long_ms:.0} ms, \
             the others {short_ms:.0} ms"
        )
    })
}

fn missing(one: &VersionFigures, details: &Details) -> Option<String> {
    let refused = details.errors.iter().filter(|one| one.error_type.as_deref() == Some(VARIABLES));
    let refused = refused.map(|one| one.executions).sum();
    let rate = percentage(refused, one.executions).filter(|rate| *rate >= MISSING_MIN)?;
    Some(format!(
        "{rate} % of the calls ({refused} of {}) were refused because variables were missing or ill-typed",
        one.executions
    ))
}

/// The error type of calls that were refused for their variables.
const VARIABLES: &str = "variables";

fn try_out(reason: Reason) -> &'static str {
    match reason {
        Reason::FailureRate => "a text that leaves less to go wrong, or a response schema",
        Reason::BlockedRate => {
            "a text that keeps to its subject, or narrower guardrails, by a backtest"
        }
        Reason::CostOutlier => "a shorter prompt, a smaller model, or fewer thinking tokens",
        Reason::LatencyOfLongAnswers => "an answer of fewer words, or a limit in maxOutputTokens",
        Reason::MissingVariables => {
            "defaults, or optional variables, for those that callers leave out"
        }
    }
}

/// Ids and times only: nothing that a caller wrote.
fn evidence(reason: Reason, template: Uuid, query: &ReportQuery) -> String {
    let what = match reason {
        Reason::FailureRate | Reason::MissingVariables => "outcome, error_type, count(*)",
        Reason::BlockedRate => "outcome, count(*)",
        Reason::CostOutlier => "count(estimated_cost_usd), avg(estimated_cost_usd)",
        Reason::LatencyOfLongAnswers => {
            "candidates_tokens >= 2000 as long, count(*), avg(execution_time_ms)"
        }
    };
    let (also, group) = match reason {
        Reason::FailureRate | Reason::MissingVariables => ("", " group by 1, 2 order by 3 desc"),
        Reason::BlockedRate => ("", " group by 1 order by 2 desc"),
        Reason::CostOutlier => ("", ""),
        Reason::LatencyOfLongAnswers => (" and outcome = 'success'", " group by 1"),
    };
    format!(
        "select {what} from prompt_executions where template_id = '{template}' \
         and created_at >= '{:.6}' and created_at < '{:.6}'{also}{group}",
        query.from, query.to
    )
}

#[expect(clippy::cast_precision_loss, reason = "counts of executions are far below 2^52")]
fn real(count: u64) -> f64 {
    count as f64
}

#[cfg(test)]
mod tests {
    use super::{Reason, reasons};
    use crate::store::report::{BandFigures, Details, ErrorFigures, VersionFigures};
    use crate::words::money::PicoUsd;

    fn version(success: u64, failed: u64, blocked: u64, cost: i128) -> VersionFigures {
        let executions = success + failed + blocked;
        VersionFigures {
            template_id: Some(uuid::Uuid::nil()),
            executions,
            success,
            failed,
            blocked,
            cost_usd: Some(PicoUsd(cost * i128::from(success))),
            priced: success,
            ..VersionFigures::default()
        }
    }

    fn band(tokens_min: u64, executions: u64, ms: f64) -> BandFigures {
        BandFigures { tokens_min, executions, avg_response_time_ms: ms, p50: ms, p95: ms }
    }

    #[test]
    fn each_reason_has_its_bound() {
        let usual = [version(980, 20, 0, 100), version(950, 50, 0, 110), version(990, 0, 10, 90)];
        let of = |one: VersionFigures, details: &Details| -> Vec<Reason> {
            let all: Vec<VersionFigures> = usual.iter().cloned().chain([one.clone()]).collect();
            reasons(&one, &all, details).into_iter().map(|(reason, _)| reason).collect()
        };
        let plain = Details::default();
        assert!(of(version(980, 20, 0, 120), &plain).is_empty());
        assert_eq!(of(version(850, 150, 0, 120), &plain), [Reason::FailureRate]);
        assert_eq!(of(version(900, 0, 100, 120), &plain), [Reason::BlockedRate]);
        assert_eq!(of(version(990, 10, 0, 500), &plain), [Reason::CostOutlier]);
        // High, but so few that it may be chance.
        assert!(of(version(95, 5, 0, 120), &plain).is_empty());
        let long = Details {
            bands: vec![band(0, 700, 500.0), band(2000, 200, 1500.0), band(8000, 100, 3000.0)],
            ..Details::default()
        };
        assert_eq!(of(version(1000, 0, 0, 120), &long), [Reason::LatencyOfLongAnswers]);
        let missing = ErrorFigures {
            outcome: "rejected".to_owned(),
            error_type: Some("variables".to_owned()),
            executions: 30,
        };
        let missing = Details { errors: vec![missing], ..Details::default() };
        assert_eq!(of(version(1000, 0, 0, 120), &missing), [Reason::MissingVariables]);
    }
}
