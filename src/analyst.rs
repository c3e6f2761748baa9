//! Reads what experiments have shown: when somebody asks, and every minute, so that what is reached is dated
//! even when nobody looks.
//!
//! The only thing it changes of a definition is to end an experiment: one that does harm, and one whose end has
//! passed.

use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde::Deserialize;
use serde_json::Value;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::catalog::definitions::{Definitions, ExperimentDefinition, Status};
use crate::experiment::{arm_key, millipercent};
use crate::outbox::Ledger;
use crate::results::{
    ArmPlan, Design, Losses, Measured, Metric, Milestone, Results, Rules, results,
};
use crate::rounds::Rounds;
use crate::statistics::Alpha;
use crate::store::audit::Entry;
use crate::store::outcomes::Kept;
use crate::store::{Change, Expect, Row, Store, StoreError, Table, Turn};
use crate::telemetry::events;
use crate::words::clock;
use crate::words::ids::TemplateId;

/// Between two rounds.
const EVERY: Duration = Duration::from_mins(1);
/// Feedback is taken for seven days, so results may change for as long after the end.
const SETTLES: SignedDuration = SignedDuration::from_hours(8 * 24);
/// Calls that are read one by one when somebody asks.
const CALLS_MAX: u32 = 20_000;
/// Roles whose comparisons are dated when they become significant.
const DATED: [&str; 2] = ["primary", "secondary"];
/// Who ends an experiment, in the audit.
const ACTOR: &str = "chaperone";
const HARM_STOP: &str = "experiment.harm_stop";

/// An experiment's results with a tag of the data they were made of.
#[derive(Debug, Clone)]
pub struct Study {
    /// The results, or those of the one look that a fixed analysis has taken.
    pub results: Value,
    /// Changes with the data and with what they mean.
    pub tag: String,
    /// What is stored as `statistical_significance`.
    pub significance: Option<f64>,
    /// The first harm, when it calls for a stop.
    pub harm: Option<String>,
}

/// What is read of an experiment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Depth {
    /// What was counted: enough to date what is reached.
    Counts,
    /// The latest calls one by one too, for quantiles.
    Calls,
}

/// Reads an experiment as it stands, and keeps what is reached.
pub async fn study(
    store: &dyn Store,
    row: &Row,
    losses: &Losses,
    depth: Depth,
) -> Result<Study, StoreError> {
    let definition: ExperimentDefinition = row.definition(Table::Experiments)?;
    let known = row.columns.get("results").cloned().unwrap_or_default();
    if known.get("final").and_then(Value::as_bool) == Some(true) {
        let significance = row.columns.get("statistical_significance").and_then(Value::as_f64);
        return Ok(Study { tag: tag(&known), results: known, significance, harm: None });
    }
    let mut collected = store.collected(definition.id.0).await?;
    let mut plan = design(&definition);
    // Where a start has frozen it, that is what holds.
    let frozen = row.columns.get("design").and_then(|frozen| frozen.get("alpha"));
    plan.rules.alpha =
        frozen.and_then(Value::as_f64).and_then(Alpha::new).unwrap_or(plan.rules.alpha);
    let now = clock::now_micros();
    let counts = (depth == Depth::Counts).then(|| results(&plan, &collected, now, losses));
    let found = match counts {
        Some(counts) if !counts.is_final => counts,
        // The one look of a fixed analysis is kept whole, whoever takes it.
        _ => {
            collected.latencies = Some(store.latencies(definition.id.0, CALLS_MAX).await?);
            results(&plan, &collected, now, losses)
        }
    };
    let milestones = reached(&found);
    let is_new = milestones.iter().any(|one| {
        !collected
            .milestones
            .iter()
            .any(|old| (&old.kind, &old.metric, &old.arm) == (&one.kind, &one.metric, &one.arm))
    });
    let harm = found.harm.as_ref().filter(|harm| harm.stops);
    let harm = harm.map(|harm| format!("{} of {} is worse than control's", harm.metric, harm.arm));
    let significance = found.statistical_significance;
    let value =
        serde_json::to_value(&found).map_err(|error| StoreError::Refused(error.to_string()))?;
    let study = Study { tag: tag(&value), results: value, significance, harm };
    if is_new || found.is_final {
        keep(store, definition.id.0, &study, milestones).await?;
    }
    Ok(study)
}

/// Studies all experiments under way, keeps their results and brings the counters of definitions up to date,
/// until `stop`.
pub async fn run(store: Arc<dyn Store>, ledger: Arc<Ledger>, stop: CancellationToken) {
    let mut rounds = Rounds::every(EVERY, stop);
    while rounds.next().await {
        // A store that is away is told of by the outbox; what is missed here is done a minute later.
        drop(round(store.as_ref(), &losses(&ledger)).await);
    }
}

/// One round: also for those who cannot wait a minute.
pub async fn round(store: &dyn Store, losses: &Losses) -> Result<(), StoreError> {
    store.roll_up().await?;
    let since = clock::now().checked_sub(SETTLES).unwrap_or(Timestamp::UNIX_EPOCH);
    for row in store.under_way(since).await? {
        let study = study(store, &row, losses, Depth::Counts).await?;
        let Ok(definition) = row.definition::<ExperimentDefinition>(Table::Experiments) else {
            continue;
        };
        let id = definition.id;
        keep(store, id.0, &study, Vec::new()).await?;
        if let Some((action, reason)) = over(&definition, &study)
            && end(store, &row, definition, (action, &reason)).await?
            && action == HARM_STOP
        {
            events::experiment_harmed(&id.to_string(), &reason);
        }
    }
    Ok(())
}

/// What this sidecar has lost.
pub fn losses(ledger: &Ledger) -> Losses {
    let standing = ledger.standing();
    Losses {
        lost: standing.lost + standing.dead,
        accepted: standing.accepted,
        by_arm: ledger.lost_by_arm(),
    }
}

async fn keep(
    store: &dyn Store,
    experiment_id: Uuid,
    study: &Study,
    milestones: Vec<Milestone>,
) -> Result<(), StoreError> {
    let (results, significance) = (study.results.clone(), study.significance);
    store.keep_results(&Kept { experiment_id, results, significance, milestones }).await
}

/// What ends an experiment now, and why. Its end acts by itself; the row follows here.
fn over(definition: &ExperimentDefinition, study: &Study) -> Option<(&'static str, String)> {
    if !matches!(definition.status, Status::Active | Status::Paused) {
        return None;
    }
    if definition.end_date.is_some_and(|end| end <= clock::now()) {
        return Some(("experiment.end", "its end_date has passed".to_owned()));
    }
    let harm = study.harm.clone().filter(|_| definition.status == Status::Active);
    harm.map(|harm| (HARM_STOP, harm))
}

/// Ends an experiment; whether it did. Whoever changed it meanwhile knows more: then nothing is done, until the
/// next round.
async fn end(
    store: &dyn Store,
    row: &Row,
    old: ExperimentDefinition,
    (action, reason): (&str, &str),
) -> Result<bool, StoreError> {
    let now = clock::now_micros();
    let mut new = old.clone();
    new.status = Status::Completed;
    let at = old.end_date.map_or(now, |end| end.min(now));
    if old.start_date.is_some_and(|start| start < at) {
        new.end_date = Some(at);
    }
    (new.updated_by, new.updated_at) = (Some(ACTOR.to_owned()), Some(now));
    let entry = Entry {
        id: Uuid::now_v7(),
        tenant_id: old.tenant_id.clone(),
        at: now,
        actor: ACTOR.to_owned(),
        action: action.to_owned(),
        object_type: "experiment",
        object_id: old.id.to_string(),
        before: serde_json::to_string(&old).ok(),
        after: serde_json::to_string(&new).ok(),
        reason: Some(reason.to_owned()),
        request_id: None,
    };
    let expect = Expect { table: Table::Experiments, id: old.id.0, revision: Some(row.revision) };
    let change = Change {
        expects: vec![expect],
        puts: Definitions { experiments: vec![new.into()], ..Definitions::default() },
        turns: vec![Turn { experiment: old.id, at, begins: None }],
        audit: vec![entry],
        ..Change::default()
    };
    match store.commit(&change).await {
        Ok(()) => Ok(true),
        Err(StoreError::Moved { .. }) => Ok(false),
        Err(error) => Err(error),
    }
}

/// What is dated once: comparisons that are significant, and the first harm.
fn reached(found: &Results) -> Vec<Milestone> {
    let mut reached: Vec<Milestone> = Vec::new();
    for metric in found.metrics.iter().filter(|one| DATED.contains(&one.role)) {
        for one in metric.comparisons.iter().filter(|one| one.significant) {
            reached.push(Milestone {
                metric: metric.metric.clone(),
                arm: one.arm.clone(),
                kind: "significant".to_owned(),
                p: one.p_adjusted,
                at: one.ever_significant_at.unwrap_or(found.computed_at),
            });
        }
    }
    let harm = found.harm.iter().map(|harm| Milestone {
        metric: harm.metric.clone(),
        arm: harm.arm.clone(),
        kind: "harm".to_owned(),
        p: None,
        at: harm.at,
    });
    reached.into_iter().chain(harm).collect()
}

/// What changes of results when nothing but time has passed is left out.
fn tag(results: &Value) -> String {
    let mut still = results.clone();
    if let Some(members) = still.as_object_mut() {
        members.shift_remove("computed_at");
        members.shift_remove("progress");
    }
    crate::words::digest::sha256_hex(still.to_string().as_bytes()).chars().take(16).collect()
}

/// The plan behind a definition. What does not read as a plan was let in by the rules of its day: then the
/// defaults hold.
pub fn design(definition: &ExperimentDefinition) -> Design {
    let primary = definition.primary_metric.as_ref();
    let secondary = definition.secondary_metrics.as_array().into_iter().flatten();
    Design {
        id: definition.id,
        arms: arms(definition),
        primary: primary
            .and_then(|metric| Measured::read(metric).ok())
            .unwrap_or_else(|| Measured::plain(Metric::SuccessRate)),
        secondary: secondary.filter_map(|metric| Measured::read(metric).ok()).collect(),
        rules: primary.and_then(|metric| Rules::read(metric).ok()).unwrap_or_default(),
        per_request: definition.randomization_unit == "request",
        hash_version: definition.hash_version,
        target_units: definition.target_sample_size.map(u64::from),
        start: definition.start_date,
        end: definition.end_date,
        is_completed: definition.status == Status::Completed,
    }
}

/// As they are written down, else as versions and split say.
fn arms(definition: &ExperimentDefinition) -> Vec<ArmPlan> {
    let written =
        definition.arms.as_ref().and_then(|arms| serde_json::from_value(arms.clone()).ok());
    if let Some(written) = written {
        let written: Vec<WrittenArm> = written;
        let plan = |arm: WrittenArm| ArmPlan {
            key: arm.key,
            template_id: arm.template_id,
            weight: arm.weight_millipercent,
        };
        return written.into_iter().map(plan).collect();
    }
    let versions = std::iter::once(&definition.control_template_id)
        .chain(&definition.variant_template_ids)
        .enumerate();
    let plan = |(ordinal, version): (usize, &TemplateId)| {
        let key = arm_key(ordinal);
        let percent = definition.traffic_split.get(&key).and_then(Value::as_f64);
        let weight = percent.and_then(millipercent).unwrap_or_default();
        ArmPlan { key, template_id: Some(version.0), weight }
    };
    versions.map(plan).collect()
}

#[derive(Debug, Deserialize)]
struct WrittenArm {
    key: String,
    template_id: Option<Uuid>,
    weight_millipercent: u32,
}
