//! What is counted of executions and feedback: in both stores, once, and as the rows say.

use std::collections::BTreeMap;

use chaperone::catalog::definitions::{Definitions, ExperimentDefinition, TemplateDefinition};
use chaperone::execution::{Evaluation, Execution, Outcome};
use chaperone::results::{ArmSums, Collected, Milestone};
use chaperone::store::outcomes::{Exposure, Feedback, Heard, Kept};
use chaperone::store::{Change, RowQuery, Sqlite, Store, Table};
use chaperone::words::ids::{ExecutionId, ExperimentId, TemplateId, Tenant};
use chaperone::words::money::PicoUsd;
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::harness::TempDir;
use crate::harness::database::Database;

const START: &str = "2026-11-20T00:00:00Z";
pub const EXPERIMENT: Uuid = Uuid::from_u128(0xe1);

/// A store with an experiment in it, and a way to speak SQL to its tables.
pub struct Setting<'s> {
    pub store: &'s dyn Store,
    tables: Tables<'s>,
}

enum Tables<'s> {
    Database(&'s Database),
    File(rusqlite::Connection),
}

impl Setting<'_> {
    pub async fn execute(&self, sql: &str) {
        match &self.tables {
            Tables::Database(database) => database.execute(sql).await,
            Tables::File(file) => file.execute_batch(sql).unwrap(),
        }
    }

    pub async fn count(&self, sql: &str) -> i64 {
        match &self.tables {
            Tables::Database(database) => database.count(sql).await,
            Tables::File(file) => file.query_row(sql, [], |row| row.get(0)).unwrap(),
        }
    }

    pub async fn phase(&self, number: u32, mode: &str, started_at: &str) {
        self.execute(&format!(
            "update ab_test_phases set ended_at = '{started_at}'
              where experiment_id = '{EXPERIMENT}' and ended_at is null;
             insert into ab_test_phases (experiment_id, phase, mode, arms, enrollment_percentage, actor, started_at)
             values ('{EXPERIMENT}', {number}, '{mode}',
                     '[{{\"ordinal\":0,\"key\":\"control\",\"weight_millipercent\":50000}},
                       {{\"ordinal\":1,\"key\":\"variant_a\",\"weight_millipercent\":50000}}]',
                     100, 'ann', '{started_at}')"
        ))
        .await;
    }

    async fn collected(&self) -> Collected {
        self.store.collected(EXPERIMENT).await.unwrap()
    }
}

pub async fn everywhere(unit: &str, script: impl AsyncFn(Setting<'_>)) {
    let directory = TempDir::new();
    let sqlite = Sqlite::new(directory.path()).unwrap();
    sqlite.migrate_up().await.unwrap();
    define(&sqlite, unit).await;
    let file = rusqlite::Connection::open(directory.path().join("chaperone.db")).unwrap();
    script(Setting { store: &sqlite, tables: Tables::File(file) }).await;

    let database = Database::new().await;
    database.migrate().await;
    let postgres = database.store();
    define(&postgres, unit).await;
    script(Setting { store: &postgres, tables: Tables::Database(&database) }).await;
}

pub async fn define(store: &dyn Store, unit: &str) {
    let version = |number: u32| -> TemplateDefinition {
        serde_json::from_value(json!({
            "id": Uuid::from_u128(u128::from(number)), "name": "t", "version": number,
            "template_text": "x", "is_active": number == 1,
        }))
        .unwrap()
    };
    let experiment: ExperimentDefinition = serde_json::from_value(json!({
        "id": EXPERIMENT, "name": "e", "template_name": "t", "status": "active",
        "control_template_id": Uuid::from_u128(1), "variant_template_ids": [Uuid::from_u128(2)],
        "traffic_split": {"control": 50, "variant_a": 50}, "randomization_unit": unit,
        "start_date": START,
    }))
    .unwrap();
    let puts = Definitions {
        templates: vec![version(1).into(), version(2).into()],
        experiments: vec![experiment.into()],
        ..Definitions::default()
    };
    store.commit(&Change { puts, ..Change::default() }).await.unwrap();
}

pub fn at(seconds: i64) -> Timestamp {
    START.parse::<Timestamp>().unwrap() + SignedDuration::from_secs(seconds)
}

/// Small, and the same everywhere.
pub struct Chance(pub u64);

impl Chance {
    pub fn below(&mut self, bound: u64) -> u64 {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % bound
    }
}

pub fn call(number: u32, unit: &str, arm: &str) -> Execution {
    Execution {
        id: Some(ExecutionId(Uuid::from_u128(u128::from(number) + 1000))),
        request_id: format!("r-{number}"),
        call: "generateContent".to_owned(),
        template_id: Some(TemplateId(Uuid::from_u128(if arm == "control" { 1 } else { 2 }))),
        template_name: Some("t".to_owned()),
        unit_key: Some(unit.to_owned()),
        execution_time_ms: 100.0,
        outcome: Outcome::Success,
        success: true,
        ab_test_experiment_id: Some(ExperimentId(EXPERIMENT)),
        ab_test_group: Some(arm.to_owned()),
        assignment_reason: Some("assigned".to_owned()),
        created_at: at(i64::from(number)),
        ..Execution::default()
    }
}

/// Calls of all kinds: outcomes, prices, tokens, movers, calls by hand, calls of nobody.
pub fn calls(count: u32, units: u64) -> Vec<Execution> {
    let mut chance = Chance(7);
    (0..count)
        .map(|number| {
            let unit = chance.below(units);
            // Units that end with 3 move in the second half.
            let moved = unit % 10 == 3 && number > count / 2;
            let arm = if unit.is_multiple_of(2) == moved { "variant_a" } else { "control" };
            let outcome =
                Outcome::ALL[usize::try_from(chance.below(16).min(8).saturating_sub(1)).unwrap()];
            let answered = outcome == Outcome::Success;
            let priced = answered && chance.below(10) > 0;
            let cost = i128::from(chance.below(9_000_000_000) + 1);
            Execution {
                execution_time_ms: 1.0
                    + f64::from(u32::try_from(chance.below(900_000)).unwrap()) / 128.0,
                outcome,
                success: answered,
                error_type: (outcome == Outcome::Failed).then(|| "upstream_quota".to_owned()),
                token_count: answered.then_some(30),
                prompt_tokens: answered.then_some(20),
                cached_tokens: answered.then(|| chance.below(20)),
                estimated_cost_usd: priced.then_some(PicoUsd(cost)),
                cost_list_usd: (priced && number % 3 > 0)
                    .then_some(PicoUsd(cost + i128::from(number) * 1_000_000)),
                assignment_reason: Some(
                    match chance.below(20) {
                        0 => "forced",
                        1 => "left",
                        _ => "assigned",
                    }
                    .to_owned(),
                ),
                ..call(number, &format!("u-{unit}"), arm)
            }
        })
        .collect()
}

/// Sums by phase and arm, worked out here.
fn expected(calls: &[Execution], second_phase_at: Timestamp) -> BTreeMap<(u32, String), ArmSums> {
    #[derive(Default)]
    struct Unit {
        crossed: bool,
        sums: ArmSums,
        log: f64,
    }
    let mut units: BTreeMap<(u32, String, String), Unit> = BTreeMap::new();
    let counts = |one: &&Execution| one.assignment_reason.as_deref() == Some("assigned");
    for one in calls.iter().filter(counts) {
        let (arm, unit) = (one.ab_test_group.clone().unwrap(), one.unit_key.clone().unwrap());
        let phase = if one.created_at >= second_phase_at { 2 } else { 1 };
        let elsewhere = units.keys().any(|(_, other, its)| *its == unit && *other != arm);
        let known = units
            .entry((phase, arm, unit))
            .or_insert_with(|| Unit { crossed: elsewhere, ..Unit::default() });
        let sums = &mut known.sums;
        sums.executions += 1;
        let attempted = !matches!(one.outcome, Outcome::Blocked | Outcome::Rejected);
        if attempted {
            sums.attempted += 1;
            sums.latency_ms += one.execution_time_ms;
            known.log += one.execution_time_ms.ln();
        }
        sums.successes += u64::from(one.success);
        sums.blocked +=
            u64::from(matches!(one.outcome, Outcome::Blocked | Outcome::ResponseBlocked));
        sums.quota += u64::from(one.error_type.is_some());
        sums.client_left += u64::from(one.outcome == Outcome::ClientLeft);
        sums.unpriced += u64::from(one.token_count.is_some() && one.estimated_cost_usd.is_none());
        sums.prompt_tokens += real(one.prompt_tokens.unwrap_or(0));
        sums.cached_tokens += real(one.cached_tokens.unwrap_or(0));
        sums.cost_usd += one
            .cost_list_usd
            .or(one.estimated_cost_usd)
            .map_or(0.0, |cost| real(u64::try_from(cost.0).unwrap()) / 1e12);
    }
    let mut arms: BTreeMap<(u32, String), ArmSums> = BTreeMap::new();
    for ((phase, arm, _), Unit { crossed, sums, log }) in units {
        let all = arms.entry((phase, arm)).or_default();
        if crossed {
            all.crossed_units += 1;
        } else {
            add(all, &sums, log);
        }
    }
    arms
}

/// Adds a unit to the sums of its arm.
fn add(all: &mut ArmSums, unit: &ArmSums, log: f64) {
    let (n, s, b) = (real(unit.executions), real(unit.successes), real(unit.blocked));
    let (a, priced) = (real(unit.attempted), real(unit.executions - unit.unpriced));
    let mean_log = if unit.attempted > 0 { log / a } else { 0.0 };
    let has_cost = unit.executions > unit.unpriced;
    all.units += 1;
    all.executions += unit.executions;
    all.attempted += unit.attempted;
    all.successes += unit.successes;
    all.blocked += unit.blocked;
    all.quota += unit.quota;
    all.client_left += unit.client_left;
    all.unpriced += unit.unpriced;
    all.prompt_tokens += unit.prompt_tokens;
    all.cached_tokens += unit.cached_tokens;
    all.executions_sq += n * n;
    all.successes_sq += s * s;
    all.successes_executions += s * n;
    all.blocked_sq += b * b;
    all.blocked_executions += b * n;
    all.latency_units += u64::from(unit.attempted > 0);
    all.attempted_sq += a * a;
    all.latency_ms += unit.latency_ms;
    all.latency_ms_sq += unit.latency_ms * unit.latency_ms;
    all.latency_ms_attempted += unit.latency_ms * a;
    all.latency_log += mean_log;
    all.latency_log_sq += mean_log * mean_log;
    all.cost_units += u64::from(has_cost);
    all.priced_sq += priced * priced;
    if has_cost {
        all.cost_usd += unit.cost_usd;
        all.cost_usd_sq += unit.cost_usd * unit.cost_usd;
    }
    all.cost_usd_priced += unit.cost_usd * priced;
    all.cost_usd_successes += unit.cost_usd * s;
}

fn real(count: u64) -> f64 {
    f64::from(u32::try_from(count / 65_536).unwrap()) * 65_536.0
        + f64::from(u16::try_from(count % 65_536).unwrap())
}

/// Compares all members, numbers up to rounding.
fn assert_same(collected: &Collected, expected: &BTreeMap<(u32, String), ArmSums>, what: &str) {
    assert_eq!(collected.sums.len(), expected.len(), "{what}");
    for sums in &collected.sums {
        let other = &expected[&(sums.phase, sums.arm.clone())];
        let (Value::Object(one), Value::Object(other)) =
            (serde_json::to_value(sums).unwrap(), serde_json::to_value(other).unwrap())
        else {
            panic!("sums are objects")
        };
        let numbers = one.iter().filter(|(name, _)| {
            !["phase", "arm", "first_seen_at", "last_seen_at"].contains(&name.as_str())
        });
        let mut compared = 0;
        for (name, value) in numbers {
            let (one, other) = (value.as_f64().unwrap(), other[name].as_f64().unwrap());
            let close = (one - other).abs() <= 1e-9 * other.abs().max(1e-6);
            assert!(
                close,
                "{what}: {name} of {} in phase {}: {one}, not {other}",
                sums.arm, sums.phase
            );
            compared += 1;
        }
        assert_eq!(compared, 29, "{what}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn sums_are_those_of_the_rows_whatever_is_sent_again() {
    everywhere("user", async |setting| {
        let (store, kind) = (setting.store, setting.store.kind());
        setting.phase(1, "start", START).await;
        setting.phase(2, "min_move", "2026-11-20T00:05:00Z").await;
        let calls = calls(600, 70);
        for (index, batch) in calls.chunks(50).enumerate() {
            store.insert_executions(batch).await.unwrap();
            // The outbox may send again what was stored, with more behind it or alone.
            if index % 3 == 0 {
                let again = &calls[(index * 50).saturating_sub(30)..(index * 50 + 20)];
                store.insert_executions(again).await.unwrap();
            }
        }
        let before = expected(&calls, "2026-11-20T00:05:00Z".parse().unwrap());
        assert!(before.values().any(|one| one.crossed_units > 0) && before.len() == 4);
        let collected = setting.collected().await;
        assert_same(&collected, &before, kind);
        for reason in ["assigned", "forced", "left"] {
            let count =
                calls.iter().filter(|one| one.assignment_reason.as_deref() == Some(reason)).count();
            assert_eq!(collected.reasons[reason], count as u64, "{kind} {reason}");
        }
        assert_eq!(collected.parameters.as_ref().unwrap().target_units, 5000);
        let movers = "select count(*) from ab_test_units where crossed and executions > 0";
        assert!(setting.count(movers).await > 0);

        // Counted anew from the rows on the way up, which have lost what is not in a schema before the eighth.
        store.migrate_down(4).await.unwrap();
        store.migrate_up().await.unwrap();
        let without = |one: &Execution| Execution { cost_list_usd: None, ..one.clone() };
        let calls: Vec<Execution> = calls.iter().map(without).collect();
        let before = expected(&calls, "2026-11-20T00:05:00Z".parse().unwrap());
        assert_same(&setting.collected().await, &before, &format!("{kind}, migrated"));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sidecars_that_count_at_once_count_once() {
    let database = Database::new().await;
    database.migrate().await;
    define(&database.store(), "user").await;
    let calls = calls(800, 40);
    // Arms that do not move, so that the order of arrival does not matter.
    let calls: Vec<Execution> =
        calls.into_iter().filter(|one| !one.unit_key.as_ref().unwrap().ends_with('3')).collect();
    let writers: Vec<_> = (0..4)
        .map(|writer| {
            let (store, calls) = (database.store(), calls.clone());
            tokio::spawn(async move {
                // Each sends everything, beginning elsewhere.
                let mut batches: Vec<_> = calls.chunks(40).collect();
                let places = batches.len();
                batches.rotate_left(writer * places / 4);
                for batch in batches {
                    store.insert_executions(batch).await.unwrap();
                }
            })
        })
        .collect();
    for writer in writers {
        writer.await.unwrap();
    }
    let collected = database.store().collected(EXPERIMENT).await.unwrap();
    assert_same(&collected, &expected(&calls, Timestamp::MAX), "four writers");
}

#[tokio::test(flavor = "multi_thread")]
async fn models_are_counted_by_phase_and_arm() {
    everywhere("user", async |setting| {
        let answered = |number: u32, arm: &str, model: &str| Execution {
            model_name: Some(model.to_owned()),
            token_count: Some(3),
            ..call(number, &format!("u-{number}"), arm)
        };
        setting.phase(1, "start", START).await;
        let calls = [
            answered(1, "control", "m-1"),
            answered(2, "control", "m-1"),
            answered(3, "variant_a", "m-1"),
            // Not answered, and by hand: neither says who answers.
            Execution { token_count: None, ..answered(4, "control", "m-2") },
            Execution {
                assignment_reason: Some("forced".to_owned()),
                ..answered(5, "control", "m-3")
            },
        ];
        setting.store.insert_executions(&calls).await.unwrap();
        let later = Execution { created_at: at(7_200), ..answered(6, "control", "m-4") };
        setting.phase(2, "min_move", "2026-11-20T01:00:00Z").await;
        setting.store.insert_executions(&[calls[0].clone(), later.clone()]).await.unwrap();
        setting.store.insert_executions(&[later]).await.unwrap();
        let models = setting.collected().await.models;
        let seen: Vec<_> = models
            .iter()
            .map(|one| (one.phase, one.arm.as_str(), one.model.as_str(), one.executions))
            .collect();
        let kind = setting.store.kind();
        assert_eq!(
            seen,
            [(1, "control", "m-1", 2), (1, "variant_a", "m-1", 1), (2, "control", "m-4", 1)],
            "{kind}"
        );
        assert_eq!(models[2].first_seen_at, at(7_200), "{kind}");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn where_each_request_is_a_unit_no_rows_of_units_are_kept() {
    everywhere("request", async |setting| {
        let calls: Vec<Execution> = calls(300, 1_000_000)
            .into_iter()
            .map(|one| Execution { unit_key: Some(one.request_id.clone()), ..one })
            .collect();
        setting.store.insert_executions(&calls).await.unwrap();
        setting.store.insert_executions(&calls[..100]).await.unwrap();
        let kind = setting.store.kind();
        assert_same(&setting.collected().await, &expected(&calls, Timestamp::MAX), kind);
        assert_eq!(setting.count("select count(*) from ab_test_units").await, 0, "{kind}");
    })
    .await;
}

/// A call of control before the start, outside the experiment; a dollar a second.
fn old(number: u32, ms: u32) -> Execution {
    Execution {
        ab_test_experiment_id: None,
        ab_test_group: None,
        assignment_reason: None,
        execution_time_ms: f64::from(ms),
        estimated_cost_usd: Some(PicoUsd(i128::from(ms) * 1_000_000_000)),
        created_at: at(-3600 - i64::from(number)),
        ..call(number + 100_000, "nobody", "control")
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_start_fixes_the_caps_before_anything_is_seen() {
    everywhere("user", async |setting| {
        let start = |at: &str| {
            format!(
                r#"update ab_test_experiments set status = 'draft';
                   update ab_test_experiments set status = 'active', design = '{{"frozen_at":"{at}"}}'"#
            )
        };
        let before: Vec<Execution> = (0..2000).map(|number| old(number, 1 + number)).collect();
        setting.store.insert_executions(&before).await.unwrap();
        // Before it begins its calls are not all there.
        setting.execute(&start("2026-01-01T00:00:00Z")).await;
        assert_eq!(setting.collected().await.parameters, None);
        setting.execute(&start(START)).await;
        let frozen = setting.collected().await.parameters.unwrap();
        assert_eq!(
            (frozen.calls, frozen.latency_cap_ms, frozen.cost_cap_usd),
            (2000, Some(1998.0), Some(1.998)),
        );

        let late: Vec<Execution> = (3000..4000).map(|number| old(number, 50_000)).collect();
        setting.store.insert_executions(&late).await.unwrap();
        setting.store.insert_executions(&[call(1, "u-1", "control")]).await.unwrap();
        setting.execute(&start(START)).await;
        assert_eq!(setting.collected().await.parameters, Some(frozen));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn caps_come_from_before_the_start_and_stay() {
    everywhere("user", async |setting| {
        // Too old, and of the variant: neither counts.
        let strays = [
            Execution { created_at: at(-15 * 86_400), ..old(5_000, 9_000_000) },
            Execution {
                template_id: Some(TemplateId(Uuid::from_u128(2))),
                ..old(5_001, 9_000_000)
            },
        ];
        let before: Vec<Execution> =
            (0..2000).map(|number| old(number, 1 + number)).chain(strays).collect();
        setting.store.insert_executions(&before).await.unwrap();
        let slow = Execution {
            execution_time_ms: 70_000.0,
            estimated_cost_usd: Some(PicoUsd(70_000_000_000_000)),
            ..call(1, "u-1", "control")
        };
        setting.store.insert_executions(&[slow]).await.unwrap();
        let collected = setting.collected().await;
        let (kind, frozen) = (setting.store.kind(), collected.parameters.clone().unwrap());
        assert_eq!(
            (frozen.calls, frozen.latency_cap_ms, frozen.cost_cap_usd),
            (2000, Some(1998.0), Some(1.998)),
            "{kind}"
        );
        let control = &collected.sums[0];
        assert!(
            (control.latency_ms - 1998.0).abs() < 1e-9 && (control.cost_usd - 1.998).abs() < 1e-9,
            "{kind}"
        );
        assert!(
            (control.latency_log - 70_000_f64.ln()).abs() < 1e-9,
            "{kind}: logarithms have no cap"
        );

        let late: Vec<Execution> = (3000..4000).map(|number| old(number, 50_000)).collect();
        setting.store.insert_executions(&late).await.unwrap();
        setting.store.insert_executions(&[call(2, "u-2", "control")]).await.unwrap();
        assert_eq!(setting.collected().await.parameters, Some(frozen), "{kind}");
    })
    .await;
}

/// An arm whose prompt is often in the cache pays less for nothing of its own.
#[tokio::test(flavor = "multi_thread")]
async fn arms_are_compared_by_what_they_cost_without_a_cache() {
    everywhere("user", async |setting| {
        let dollars = |dollars: i128| Some(PicoUsd(dollars * 1_000_000_000_000));
        let paid = |number: u32, arm: &str, usd: i128, list: Option<i128>| Execution {
            estimated_cost_usd: dollars(usd),
            cost_list_usd: list.and_then(dollars),
            token_count: Some(10),
            ..call(number, &format!("u-{number}"), arm)
        };
        let calls = [
            paid(1, "control", 2, Some(5)),
            paid(2, "control", 4, Some(5)),
            // As an older sidecar records it.
            paid(3, "variant_a", 7, None),
        ];
        for _ in 0..2 {
            setting.store.insert_executions(&calls).await.unwrap();
        }
        let (kind, sums) = (setting.store.kind(), setting.collected().await.sums);
        let told: Vec<(&str, f64, f64)> =
            sums.iter().map(|one| (one.arm.as_str(), one.cost_usd, one.cost_usd_sq)).collect();
        assert_eq!(told, [("control", 10.0, 50.0), ("variant_a", 7.0, 49.0)], "{kind}");
        let billed = "select cast(sum(cost_usd) as bigint) from prompt_template_totals";
        assert_eq!(setting.count(billed).await, 13, "{kind}: a template costs what is paid");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_that_no_arm_gets_are_counted_by_their_reason() {
    everywhere("user", async |setting| {
        let lost = |number: u32, reason: &str, template: &str| Execution {
            ab_test_experiment_id: None,
            ab_test_group: None,
            template_name: Some(template.to_owned()),
            assignment_reason: Some(reason.to_owned()),
            ..call(number, "x", "control")
        };
        let elsewhere = Execution {
            ab_test_experiment_id: Some(ExperimentId(Uuid::from_u128(0xdead))),
            ..call(9, "u", "control")
        };
        let rows = [
            lost(1, "no_unit", "t"),
            lost(2, "no_unit", "t"),
            lost(3, "not_enrolled", "t"),
            lost(4, "no_unit", "other"),
            Execution { tenant_id: Tenant("other".into()), ..lost(5, "no_unit", "t") },
            // Of an experiment that only files know.
            elsewhere,
        ];
        setting.store.insert_executions(&rows).await.unwrap();
        let collected = setting.collected().await;
        let reasons = BTreeMap::from([("no_unit".to_owned(), 2), ("not_enrolled".to_owned(), 1)]);
        assert_eq!(
            (collected.reasons, collected.sums.len()),
            (reasons, 0),
            "{}",
            setting.store.kind()
        );
        assert_eq!(setting.count("select count(*) from prompt_executions").await, 6);
    })
    .await;
}

fn word(execution: u32, key: &str, value: Value, once: Option<&str>) -> Feedback {
    Feedback {
        tenant: Tenant::default(),
        execution_id: Uuid::from_u128(u128::from(execution) + 1000),
        key: key.to_owned(),
        value,
        idempotency_key: once.map(str::to_owned),
        by: "app".to_owned(),
        not_before: at(0),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_last_word_on_an_execution_counts_and_a_retry_does_not() {
    everywhere("user", async |setting| {
        let (store, kind) = (setting.store, setting.store.kind());
        let rows = [
            call(1, "ann", "control"),
            call(2, "ann", "control"),
            call(3, "bob", "variant_a"),
            Execution { assignment_reason: Some("forced".to_owned()), ..call(4, "eve", "control") },
            Execution { created_at: at(-1), ..call(5, "old", "control") },
        ];
        store.insert_executions(&rows).await.unwrap();
        let exposure = |number: i64, arm: &str| Exposure {
            at: at(number),
            experiment_id: Some(EXPERIMENT),
            arm: Some(arm.to_owned()),
        };
        let stored = |number, arm| Heard::Stored(exposure(number, arm));
        let foreign =
            Feedback { tenant: Tenant("other".into()), ..word(1, "score", json!(1), None) };
        for (said, heard) in [
            (word(1, "score", json!(4), Some("k1")), stored(1, "control")),
            (word(1, "score", json!(2.5), Some("k2")), stored(1, "control")),
            // The first one once more: it is not the last word.
            (word(1, "score", json!(4.0), Some("k1")), Heard::Again(exposure(1, "control"))),
            (word(1, "score", json!(5), Some("k1")), Heard::KeyTaken),
            (word(2, "score", json!(3.5), None), stored(2, "control")),
            (word(3, "score", json!(true), Some("k3")), stored(3, "variant_a")),
            (word(3, "helpful", json!(false), None), stored(3, "variant_a")),
            (word(4, "score", json!(9), None), stored(4, "control")),
            (word(5, "score", json!(9), None), Heard::TooLate(exposure(-1, "control"))),
            (word(77, "score", json!(9), None), Heard::NoExecution),
            (foreign, Heard::NoExecution),
        ] {
            assert_eq!(store.feedback(&said).await.unwrap(), heard, "{kind}: {said:?}");
        }

        let check = async |what: &str| {
            let collected = setting.collected().await;
            let seen: Vec<_> = collected
                .feedback
                .iter()
                .map(|one| {
                    (
                        one.arm.as_str(),
                        one.key.as_str(),
                        one.units,
                        one.count,
                        one.mean_sum,
                        one.mean_sq_sum,
                    )
                })
                .collect();
            let expected = [
                ("control", "score", 1, 2, 3.0, 9.0),
                ("variant_a", "helpful", 1, 1, 0.0, 0.0),
                ("variant_a", "score", 1, 1, 1.0, 1.0),
            ];
            assert_eq!(seen, expected, "{kind} {what}");
        };
        check("said").await;
        let of_units = "select cast(sum(feedback_count) as bigint) from ab_test_units";
        assert_eq!(setting.count(of_units).await, 4, "{kind}");
        store.migrate_down(4).await.unwrap();
        store.migrate_up().await.unwrap();
        check("migrated").await;
        assert_eq!(setting.count(of_units).await, 4, "{kind}");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn results_are_kept_and_milestones_stay() {
    everywhere("user", async |setting| {
        let store = setting.store;
        let reached = |second, p| Milestone {
            metric: "success_rate".to_owned(),
            arm: "variant_a".to_owned(),
            kind: "significant".to_owned(),
            p: Some(p),
            at: at(second),
        };
        let keep = async |results: Value, significance, milestones| {
            let kept = Kept { experiment_id: EXPERIMENT, results, significance, milestones };
            store.keep_results(&kept).await.unwrap();
        };
        let revision = store.revision().await.unwrap();
        keep(json!({"verdict": "running"}), None, vec![]).await;
        keep(json!({"verdict": "done", "final": true}), Some(0.9876), vec![reached(5, 0.01)]).await;
        keep(json!({"verdict": "later"}), Some(0.5), vec![reached(9, 0.04)]).await;
        assert_eq!(store.revision().await.unwrap(), revision, "results are no edit");
        let query = RowQuery {
            id: Some(EXPERIMENT),
            ..RowQuery::of(Table::Experiments, &Tenant::default())
        };
        let row = store.rows(&query).await.unwrap().remove(0);
        assert_eq!(row.columns["results"]["verdict"], "done", "{}", store.kind());
        assert_eq!(row.columns["statistical_significance"], 0.9876);
        assert_eq!(setting.collected().await.milestones, [reached(5, 0.01)], "{}", store.kind());
        assert_eq!(store.under_way(at(0)).await.unwrap().len(), 1);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn counters_and_the_view_are_what_the_rows_say() {
    everywhere("user", async |setting| {
        let (store, kind) = (setting.store, setting.store.kind());
        let evaluated = |rule: &str, passed| Evaluation { rule_name: rule.to_owned(), passed, reason: None };
        let rows: Vec<Execution> = calls(200, 20)
            .into_iter()
            .enumerate()
            .map(|(index, one)| Execution {
                guardrails_evaluated: vec![
                    evaluated("pii_detection_basic", index % 4 != 0),
                    evaluated("*", true),
                ],
                token_count: (index == 0).then_some(i64::MAX.unsigned_abs()).or(one.token_count),
                ..one
            })
            .collect();
        for batch in rows.chunks(60).chain([&rows[..70]]) {
            store.insert_executions(batch).await.unwrap();
        }
        for _ in 0..2 {
            store.roll_up().await.unwrap();
        }
        let row = async |table, id: Option<Uuid>, name: Option<&str>| {
            let query = RowQuery { id, name: name.map(str::to_owned), ..RowQuery::of(table, &Tenant::default()) };
            store.rows(&query).await.unwrap().remove(0).columns
        };
        for version in [1, 2] {
            let id = Uuid::from_u128(version);
            let of: Vec<&Execution> = rows.iter().filter(|one| one.template_id == Some(TemplateId(id))).collect();
            let columns = row(Table::Templates, Some(id), None).await;
            let count = |test: &dyn Fn(&Execution) -> bool| of.iter().filter(|one| test(one)).count();
            assert_eq!(columns["total_executions"], of.len(), "{kind}");
            assert_eq!(columns["success_count"], count(&|one| one.success), "{kind}");
            let failure = count(&|one| matches!(one.outcome, Outcome::Failed | Outcome::Incomplete));
            assert_eq!(columns["failure_count"], failure, "{kind}");
            let priced: Vec<i128> = of.iter().filter_map(|one| one.estimated_cost_usd).map(|cost| cost.0).collect();
            let mean = priced.iter().sum::<i128>() / i128::try_from(priced.len()).unwrap();
            let shown: PicoUsd = columns["avg_cost_usd"].as_str().unwrap().parse().unwrap();
            assert!((shown.0 - mean).abs() <= 1, "{kind}: {shown} is not {mean}");
            let took: Vec<f64> = of
                .iter()
                .filter(|one| !matches!(one.outcome, Outcome::Blocked | Outcome::Rejected))
                .map(|one| one.execution_time_ms)
                .collect();
            let mean = took.iter().sum::<f64>() / real(took.len() as u64);
            assert!((columns["avg_response_time_ms"].as_f64().unwrap() - mean).abs() < 1e-6, "{kind}");
            let view = format!(
                "select count(*) from prompt_template_performance where template_id = '{id}'
                    and total_executions = {} and success_count = {} and last_execution_at is not null",
                of.len(),
                count(&|one| one.success)
            );
            assert_eq!(setting.count(&view).await, 1, "{kind}");
        }
        let guardrail = row(Table::Guardrails, None, Some("pii_detection_basic")).await;
        assert_eq!((&guardrail["total_evaluations"], &guardrail["total_violations"]), (&json!(200), &json!(50)), "{kind}");
        assert_eq!(setting.count("select count(*) from prompt_guardrail_totals").await, 1, "{kind}");
    })
    .await;
}
