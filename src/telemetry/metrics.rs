//! Every metric. Series exist at zero from the start, so that a rate is right from the first event.

use metrics::{
    Unit, counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram,
};
use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder, PrometheusHandle};

use crate::catalog::Source;
use crate::execution::{Execution, Outcome};
use crate::price::bare;

/// From a cached answer to a long think: seconds.
const LATENCY_BUCKETS: [f64; 14] =
    [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0];
/// Our own share: from 10 µs to 100 ms.
const OVERHEAD_BUCKETS: [f64; 11] =
    [0.000_01, 0.000_025, 0.000_05, 0.000_1, 0.000_2, 0.000_3, 0.000_5, 0.001, 0.005, 0.025, 0.1];
/// The calls that are executions.
const CALLS: [&str; 3] = ["generateContent", "streamGenerateContent", "chat/completions"];
/// What a label shows when a call has none.
const NONE: &str = "none";

const REQUESTS: &str = "chaperone_requests_total";
const DURATION: &str = "chaperone_request_duration_seconds";
const FIRST_TOKEN: &str = "chaperone_time_to_first_token_seconds";
const OVERHEAD: &str = "chaperone_overhead_seconds";
const EVALUATIONS: &str = "chaperone_guardrail_evaluations_total";
const VIOLATIONS: &str = "chaperone_guardrail_violations_total";
const TOKENS: &str = "chaperone_tokens_total";
const COST: &str = "chaperone_cost_nanousd_total";
const UNPRICED: &str = "chaperone_unpriced_executions_total";
const MISMATCHES: &str = "chaperone_usage_mismatches_total";
const ACCEPTED: &str = "chaperone_executions_accepted_total";
const STORED: &str = "chaperone_executions_stored_total";
const DEAD: &str = "chaperone_executions_dead_lettered_total";
const LETTERS: &str = "chaperone_dead_letters";
const LOST: &str = "chaperone_executions_lost_total";
const PRUNED: &str = "chaperone_executions_pruned_total";
const EXPORTED: &str = "chaperone_exported_executions_total";
const OUTBOX: &str = "chaperone_outbox_executions";
const OUTBOX_BYTES: &str = "chaperone_outbox_bytes";
const CATALOG_SOURCE: &str = "chaperone_catalog_source";
const CATALOG_GENERATION: &str = "chaperone_catalog_generation";
const CATALOG_AGE: &str = "chaperone_catalog_age_seconds";
const CATALOG_FAILURES: &str = "chaperone_catalog_build_failures_total";
const UNSCANNED: &str = "chaperone_unscanned_total";
const CONNECTIONS: &str = "chaperone_connections";
const STREAMS: &str = "chaperone_streams_open";
const LOG_LINES: &str = "chaperone_log_lines_dropped_total";
const PANICS: &str = "chaperone_panics_total";
const DELAY: &str = "chaperone_runtime_delay_seconds";

/// Installs the recorder and creates every series that does not depend on the catalog.
pub fn install() -> Result<PrometheusHandle, BuildError> {
    let handle = PrometheusBuilder::new()
        .set_buckets_for_metric(Matcher::Full(OVERHEAD.to_owned()), &OVERHEAD_BUCKETS)?
        .set_buckets(&LATENCY_BUCKETS)?
        .install_recorder()?;
    describe();
    for call in CALLS {
        for outcome in Outcome::ALL {
            requests(call, [NONE, NONE, NONE], outcome).increment(0);
        }
        // A histogram exists from the moment it is named.
        drop(histogram!(DURATION, "call" => call));
        drop(histogram!(FIRST_TOKEN, "call" => call));
    }
    drop(histogram!(DELAY));
    for stage in ["request", "inspect", "total"] {
        drop(histogram!(OVERHEAD, "stage" => stage));
    }
    for kind in ["prompt", "cached", "candidates", "thoughts", "tool_use"] {
        counter!(TOKENS, "kind" => kind, "model" => NONE).increment(0);
    }
    for name in [UNPRICED, MISMATCHES, ACCEPTED, STORED, DEAD, LOST, PRUNED, LOG_LINES, PANICS] {
        counter!(name).increment(0);
    }
    counter!(COST, "model" => NONE).increment(0);
    for source in Source::ALL {
        counter!(CATALOG_FAILURES, "source" => source.name()).increment(0);
        gauge!(CATALOG_SOURCE, "source" => source.name()).set(0.0);
    }
    for outcome in ["passed", "refused"] {
        counter!(UNSCANNED, "outcome" => outcome).increment(0);
    }
    for plane in ["data", "control"] {
        gauge!(CONNECTIONS, "plane" => plane).set(0.0);
    }
    for name in [OUTBOX, OUTBOX_BYTES, LETTERS, CATALOG_GENERATION, CATALOG_AGE, STREAMS] {
        gauge!(name).set(0.0);
    }
    Ok(handle)
}

fn describe() {
    describe_counter!(REQUESTS, "Model calls by template, version, arm and outcome.");
    describe_histogram!(DURATION, Unit::Seconds, "From a call's arrival to its last byte.");
    describe_histogram!(
        FIRST_TOKEN,
        Unit::Seconds,
        "From a call's arrival to the first piece of its answer."
    );
    describe_histogram!(OVERHEAD, Unit::Seconds, "Chaperone's own share of a call, by stage.");
    describe_counter!(EVALUATIONS, "Texts a guardrail looked at.");
    describe_counter!(VIOLATIONS, "Texts a guardrail found something in, by what it did.");
    describe_counter!(TOKENS, "Tokens as the upstream counted them. cached is part of prompt.");
    describe_counter!(COST, "List price in billionths of a dollar.");
    describe_counter!(
        UNPRICED,
        "Answered calls that the price table has no price for (model, tier or search), or that told no tokens."
    );
    describe_counter!(MISMATCHES, "Whole answers whose token counts do not add up to their total.");
    describe_counter!(
        ACCEPTED,
        "Executions taken in; equals stored + waiting + dead-lettered + lost."
    );
    describe_counter!(STORED, "Executions in the store.");
    describe_counter!(DEAD, "Executions the store refused or the disk spoilt, kept aside.");
    describe_gauge!(LETTERS, "Dead letters that were neither sent again nor removed.");
    describe_counter!(LOST, "Executions that could not be kept.");
    describe_counter!(
        PRUNED,
        "Old executions deleted row by row; of whole partitions the log says which."
    );
    describe_counter!(
        EXPORTED,
        "Copies of executions for other systems: sent, dropped for want of room, or failed."
    );
    describe_gauge!(OUTBOX, "Executions accepted but not yet in the store.");
    describe_gauge!(OUTBOX_BYTES, Unit::Bytes, "Bytes of journal, outbox and dead letters.");
    describe_gauge!(CATALOG_SOURCE, "1 for the source of the catalog in force.");
    describe_gauge!(CATALOG_GENERATION, "Counts the catalogs this process has put in force.");
    describe_gauge!(CATALOG_AGE, Unit::Seconds, "Since the catalog in force was compiled.");
    describe_counter!(CATALOG_FAILURES, "Catalogs that could not be built, by source.");
    describe_counter!(UNSCANNED, "Calls with a body that no guardrail could read.");
    describe_gauge!(CONNECTIONS, "Open connections.");
    describe_gauge!(STREAMS, "Streams being relayed.");
    describe_counter!(LOG_LINES, "Lines of the log that nobody read in time.");
    describe_counter!(PANICS, "Requests that panicked.");
    describe_histogram!(
        DELAY,
        Unit::Seconds,
        "How late a task was that should have run: ten looks a second."
    );
}

fn requests(call: &str, [template, version, arm]: [&str; 3], outcome: Outcome) -> metrics::Counter {
    counter!(
        REQUESTS,
        "call" => call.to_owned(),
        "template" => template.to_owned(),
        "version" => version.to_owned(),
        "arm" => arm.to_owned(),
        "outcome" => outcome.name(),
    )
}

/// Everything one execution counts towards. Runs off the request path.
pub fn execution(execution: &Execution) {
    let or_none = |name: &Option<String>| name.clone().unwrap_or_else(|| NONE.to_owned());
    let version = execution.template_version.map_or_else(|| NONE.to_owned(), |one| one.to_string());
    let template = match execution.template_id {
        // A name that was asked for and does not exist must not become a label.
        None => NONE.to_owned(),
        Some(_) => or_none(&execution.template_name),
    };
    let arm = or_none(&execution.ab_test_group);
    requests(&execution.call, [&template, &version, &arm], execution.outcome).increment(1);
    let call = execution.call.clone();
    histogram!(DURATION, "call" => call.clone()).record(execution.execution_time_ms / 1000.0);
    if let Some(first) = execution.time_to_first_token_ms {
        histogram!(FIRST_TOKEN, "call" => call).record(first / 1000.0);
    }
    if let Some(overhead) = execution.overhead_ms {
        stage("total", overhead / 1000.0);
    }
    tokens(execution);
    for evaluation in &execution.guardrails_evaluated {
        counter!(EVALUATIONS, "rule" => evaluation.rule_name.clone()).increment(1);
    }
    let mut seen: Vec<(&str, &str)> = Vec::new();
    for violation in &execution.guardrail_violations {
        let what = (violation.rule_name.as_str(), violation.action.as_str());
        if !seen.contains(&what) {
            seen.push(what);
            counter!(VIOLATIONS, "rule" => what.0.to_owned(), "action" => what.1.to_owned())
                .increment(1);
        }
    }
}

fn tokens(execution: &Execution) {
    // Priced models are a closed set; others must not become labels.
    let model = match (&execution.model_name, execution.estimated_cost_usd) {
        (Some(model), Some(_)) => bare(model).to_owned(),
        _ => "other".to_owned(),
    };
    for (kind, count) in [
        ("prompt", execution.prompt_tokens),
        ("cached", execution.cached_tokens),
        ("candidates", execution.candidates_tokens),
        ("thoughts", execution.thoughts_tokens),
        ("tool_use", execution.tool_use_tokens),
    ] {
        if let Some(count) = count {
            counter!(TOKENS, "kind" => kind, "model" => model.clone()).increment(count);
        }
    }
    match execution.estimated_cost_usd {
        Some(cost) => {
            let nano = u64::try_from(cost.0 / 1000).unwrap_or(0);
            counter!(COST, "model" => model).increment(nano);
        }
        None if execution.prompt_tokens.is_some() || is_untold(execution) => {
            counter!(UNPRICED).increment(1);
        }
        None => {}
    }
}

/// Whether a call was answered that is billed, and its answer does not say what it used.
fn is_untold(execution: &Execution) -> bool {
    let tells = [
        "batches.get",
        "batches.list",
        "download",
        "generateContent",
        "streamGenerateContent",
        "chat/completions",
        "embedContent",
        "batchEmbedContents",
        "embeddings",
    ];
    execution.success && tells.contains(&execution.call.as_str())
}

/// What became of copies of executions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exported {
    /// The sink has them.
    Sent,
    /// There was no room for them in its queue.
    Dropped,
    /// The sink did not take them.
    Failed,
}

impl Exported {
    fn name(self) -> &'static str {
        match self {
            Self::Sent => "sent",
            Self::Dropped => "dropped",
            Self::Failed => "failed",
        }
    }
}

/// A sink exists in metrics from now on.
pub fn exporting(sink: &'static str) {
    for outcome in [Exported::Sent, Exported::Dropped, Exported::Failed] {
        exported(sink, outcome, 0);
    }
}

/// So many copies for a sink came to this.
pub fn exported(sink: &'static str, outcome: Exported, count: u64) {
    counter!(EXPORTED, "sink" => sink, "outcome" => outcome.name()).increment(count);
}

/// The log was full.
pub fn log_line_dropped() {
    counter!(LOG_LINES).increment(1);
}

/// Old executions are gone.
pub fn executions_pruned(count: u64) {
    counter!(PRUNED).increment(count);
}

/// A whole answer whose token counts do not add up to its own total.
pub fn usage_mismatch() {
    counter!(MISMATCHES).increment(1);
}

/// Seconds of Chaperone's own work in one stage of one call.
pub fn stage(stage: &'static str, seconds: f64) {
    histogram!(OVERHEAD, "stage" => stage).record(seconds);
}

/// The guardrails of the catalog in force exist in metrics from now on.
pub fn guardrail_known(rule: &str, action: &'static str) {
    counter!(EVALUATIONS, "rule" => rule.to_owned()).increment(0);
    counter!(VIOLATIONS, "rule" => rule.to_owned(), "action" => action).increment(0);
}

/// The catalog in force.
pub fn catalog(source: Source, generation: u64) {
    for one in Source::ALL {
        gauge!(CATALOG_SOURCE, "source" => one.name()).set(if one == source { 1.0 } else { 0.0 });
    }
    gauge!(CATALOG_GENERATION).set(count(generation));
}

/// A source gave no catalog.
pub(super) fn catalog_failed(source: &str) {
    counter!(CATALOG_FAILURES, "source" => source.to_owned()).increment(1);
}

/// Values that are read when somebody looks.
#[derive(Debug, Clone, Copy)]
#[expect(missing_docs, reason = "named like the metrics")]
pub struct Readings {
    pub catalog_age_seconds: f64,
    pub accepted: u64,
    pub stored: u64,
    pub dead: u64,
    pub aside: u64,
    pub lost: u64,
    pub waiting: u64,
    pub outbox_bytes: u64,
}

/// Sets what is read at scrape time.
pub fn readings(readings: Readings) {
    gauge!(CATALOG_AGE).set(readings.catalog_age_seconds);
    counter!(ACCEPTED).absolute(readings.accepted);
    counter!(STORED).absolute(readings.stored);
    counter!(DEAD).absolute(readings.dead);
    gauge!(LETTERS).set(count(readings.aside));
    counter!(LOST).absolute(readings.lost);
    gauge!(OUTBOX).set(count(readings.waiting));
    gauge!(OUTBOX_BYTES).set(count(readings.outbox_bytes));
}

/// How late a task was that should have run, in seconds.
pub fn runtime_delay(seconds: f64) {
    histogram!(DELAY).record(seconds);
}

/// A call whose body no guardrail could read.
pub fn unscanned(refused: bool) {
    counter!(UNSCANNED, "outcome" => if refused { "refused" } else { "passed" }).increment(1);
}

/// A connection opened (1) or closed (-1).
pub fn connections(plane: &'static str, change: f64) {
    gauge!(CONNECTIONS, "plane" => plane).increment(change);
}

/// A stream opened (1) or closed (-1).
pub fn streams(change: f64) {
    gauge!(STREAMS).increment(change);
}

pub(super) fn panicked() {
    counter!(PANICS).increment(1);
}

#[expect(clippy::cast_precision_loss, reason = "a gauge is a float; counts stay far below 2⁵³")]
fn count(number: u64) -> f64 {
    number as f64
}
