//! What an experiment has shown, asked for through the admin API while calls and feedback come in.

use std::collections::{BTreeMap, HashMap};

use chaperone::analyst;
use chaperone::catalog::definitions::{ExperimentDefinition, Status};
use chaperone::execution::{Execution, Outcome};
use chaperone::results::Losses;
use chaperone::store::audit::AuditQuery;
use chaperone::store::{RowQuery, Table};
use chaperone::words::ids::Tenant;
use serde_json::{Value, json};

use crate::control;
use crate::harness::{GENERATE, Sidecar, VIEWER, eventually};
use crate::outcomes;

const USERS: usize = 40;

/// Two versions of a template and a running experiment on them; gives its path.
async fn start(writer: &Sidecar, primary: &Value) -> String {
    let new = json!({"name": "t", "template_text": "one {x}", "variables": ["x"]});
    let first = writer.must(201, "POST", "/templates", &new).await;
    let first = first["id"].as_str().unwrap();
    let change = json!({"template_text": "two {x}"});
    let second = writer.must(201, "PUT", &format!("/templates/{first}"), &change).await;
    writer.must(200, "POST", &format!("/templates/{first}/activate"), &Value::Null).await;
    let experiment = json!({"name": "e", "template_name": "t", "control_template_id": first,
        "variant_template_ids": [second["id"]], "traffic_split": {"control": 50, "variant_a": 50},
        "primary_metric": primary, "secondary_metrics": ["cost", "response_time", "cost_per_success"],
        "target_sample_size": 400});
    let mut decided_by_money = experiment.clone();
    decided_by_money["primary_metric"] = json!("cost_per_success");
    let refused = writer.ask("POST", "/ab-tests", Some(&decided_by_money)).await;
    assert_eq!(refused.status, 422);
    assert!(refused.json().to_string().contains("secondary_metrics"), "{}", refused.json());
    let experiment = writer.must(201, "POST", "/ab-tests", &experiment).await;
    let path = format!("/ab-tests/{}", experiment["id"].as_str().unwrap());
    writer.must(200, "POST", &format!("{path}/start"), &json!({"reason": "go"})).await;
    path
}

#[tokio::test(flavor = "multi_thread")]
async fn results_follow_the_calls_and_what_is_said_of_them() {
    control::everywhere(async |setting| {
        let (writer, reader) = (setting.writer, setting.reader);
        let path = start(writer, &json!({"name": "custom", "feedback_key": "helpful"})).await;
        let nothing = reader.must(200, "GET", &path, &Value::Null).await;
        assert_eq!(nothing["results"]["verdict"], "insufficient_data");
        assert_eq!(nothing["results"]["parameters"]["target_units"], 400);

        let mut arms = [0_u64; 2];
        for user in 0..USERS {
            let user = format!("user-{user}");
            let headers = [("x-chaperone-user", user.as_str()), ("x-chaperone-variables", r#"{"x":"1"}"#)];
            let answer = writer.post(&format!("/t/t{GENERATE}"), &headers, "{}").await;
            let is_variant = answer.header("x-chaperone-arm") == "variant_a";
            arms[usize::from(is_variant)] += 1;
            let word = json!({"execution_id": answer.header("x-chaperone-request-id"), "key": "helpful",
                "value": !is_variant, "idempotency_key": user});
            let told = eventually("the call is stored", async || {
                let told = reader.ask("POST", "/feedback", Some(&word)).await;
                (told.status != 404).then_some(told)
            })
            .await;
            assert_eq!((told.status, &told.json()["arm"]), (200, &json!(answer.header("x-chaperone-arm"))));
            let again = reader.must(200, "POST", "/feedback", &word).await;
            assert_eq!(again["replayed"], true);
        }
        assert!(arms[0] > 5 && arms[1] > 5, "{arms:?}");
        let answer = reader.ask("GET", &path, None).await;
        let results = &answer.json()["results"];
        for (place, count) in arms.iter().enumerate() {
            let arm = &results["arms"][place];
            for name in ["units", "executions", "attempted", "successes", "feedback"] {
                assert_eq!(arm[name], *count, "{name} of {arm}");
            }
            assert_eq!(arm["blocked"], 0);
        }
        let helpful = &results["metrics"][0];
        assert_eq!((&helpful["metric"], &helpful["role"]), (&json!("custom:helpful"), &json!("primary")));
        let one = &helpful["comparisons"][0];
        assert_eq!((&one["control"]["estimate"], &one["variant"]["estimate"]), (&json!(1.0), &json!(0.0)));
        assert_eq!((&one["difference"], &one["always_valid_p"]), (&json!(-1.0), &Value::Null));
        let names: Vec<&str> =
            results["metrics"].as_array().unwrap().iter().map(|one| one["metric"].as_str().unwrap()).collect();
        assert_eq!(names, ["custom:helpful", "cost", "response_time", "cost_per_success", "success_rate", "blocked_rate",
            "response_time_p50", "response_time_p95"]);
        let median = &results["metrics"][6]["comparisons"][0];
        for (side, count) in ["control", "variant"].iter().zip(arms) {
            assert_eq!((&median[side]["n_units"], &median[side]["n_executions"]), (&json!(count), &json!(count)));
            assert!(median[side]["estimate"].as_f64().unwrap() > 0.0, "{median}");
        }
        assert_eq!(results["health"]["feedback"][0]["units"], json!([[arms[0], arms[0]], [arms[1], arms[1]]]));
        assert_eq!(results["progress"]["percent"], 10.0);

        // Nothing new, nothing sent; and a change means the definition, whatever the data say by then.
        let tag = answer.header("etag").to_owned();
        let same = reader.ask_with("GET", &path, None, &[("if-none-match", &tag)]).await;
        assert_eq!(same.status, 304, "{}", same.text);
        let stop = json!({"reason": "enough"});
        let stopped = writer.ask_with("POST", &format!("{path}/stop"), Some(&stop), &[("if-match", &tag)]).await;
        assert_eq!(stopped.status, 200, "{}", stopped.text);
        let new = reader.ask_with("GET", &path, None, &[("if-none-match", &tag)]).await;
        assert_eq!((new.status, &new.json()["results"]["arms"][0]["units"]), (200, &json!(arms[0])));
        assert_eq!(new.json()["winner_template_id"], Value::Null, "nobody promoted anything");
    })
    .await;
}

/// Calls that count, by phase, arm and unit; of a unit that moved, those in its first arm only.
fn latencies(calls: &[Execution], second_phase: u32) -> BTreeMap<(u32, String), Vec<Vec<f64>>> {
    let counts = |one: &&Execution| one.assignment_reason.as_deref() == Some("assigned");
    let mut first_arms = HashMap::new();
    let mut by_unit: BTreeMap<(u32, String), BTreeMap<String, Vec<f64>>> = BTreeMap::new();
    for one in calls.iter().filter(counts) {
        let (unit, arm) = (one.unit_key.clone().unwrap(), one.ab_test_group.clone().unwrap());
        let first = first_arms.entry(unit.clone()).or_insert_with(|| arm.clone());
        if *first == arm && !matches!(one.outcome, Outcome::Blocked | Outcome::Rejected) {
            let phase = 1 + u32::from(one.created_at >= outcomes::at(second_phase.into()));
            by_unit
                .entry((phase, arm))
                .or_default()
                .entry(unit)
                .or_default()
                .push(one.execution_time_ms);
        }
    }
    by_unit.into_iter().map(|(place, units)| (place, sorted(units.into_values()))).collect()
}

fn sorted(units: impl IntoIterator<Item = Vec<f64>>) -> Vec<Vec<f64>> {
    let mut units: Vec<Vec<f64>> = units.into_iter().collect();
    for unit in &mut units {
        unit.sort_by(f64::total_cmp);
    }
    units.sort_by(|one, other| one.partial_cmp(other).unwrap());
    units
}

#[tokio::test(flavor = "multi_thread")]
async fn latencies_are_those_of_the_calls_that_count() {
    outcomes::everywhere("user", async |setting| {
        let (store, kind) = (setting.store, setting.store.kind());
        setting.phase(1, "start", "2026-11-20T00:00:00Z").await;
        setting.phase(2, "min_move", "2026-11-20T00:05:00Z").await;
        let calls = outcomes::calls(600, 70);
        store.insert_executions(&calls).await.unwrap();
        let read = async |limit| -> BTreeMap<(u32, String), Vec<Vec<f64>>> {
            let found = store.latencies(outcomes::EXPERIMENT, limit).await.unwrap();
            found.into_iter().map(|one| ((one.phase, one.arm), sorted(one.units))).collect()
        };
        let all = latencies(&calls, 300);
        assert_eq!(all.len(), 4);
        assert_eq!(read(10_000).await, all, "{kind}");
        // The latest of all arms: what moved is left out of them.
        let some = read(50).await;
        let count: usize = some.values().flatten().map(Vec::len).sum();
        assert!(
            (30..50).contains(&count) && some.keys().all(|(phase, _)| *phase == 2),
            "{kind} {count}"
        );
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn feedback_that_is_wrong_says_so() {
    let (_upstream, sidecar) = crate::harness::pair().await;
    let id = uuid::Uuid::nil();
    for (body, status, what) in [
        (json!({"execution_id": id, "key": "score", "value": 1}), 404, "may not be stored yet"),
        (json!({"execution_id": id, "key": "a b", "value": 1}), 422, "key"),
        (json!({"execution_id": id, "key": "score", "value": "good"}), 422, "value"),
        (json!({"execution_id": id, "key": "score", "value": 1e10}), 422, "value"),
        (json!({"execution_id": id, "key": "score", "value": 1, "arm": "control"}), 422, "arm"),
        (
            json!({"execution_id": id, "key": "score", "value": 1, "idempotency_key": ""}),
            422,
            "idempotency_key",
        ),
    ] {
        let answer = sidecar.ask("POST", "/feedback", Some(&body)).await;
        assert_eq!(answer.status, status, "{body}: {}", answer.text);
        assert!(answer.text.contains(what), "{body}: {}", answer.text);
    }
    let url = format!("http://{}/api/v1/admin/prompts/feedback", sidecar.control);
    let viewer = sidecar.client.post(url).bearer_auth(VIEWER).send().await.unwrap();
    assert_eq!(viewer.status(), 403);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_over_by_its_date_is_completed_once() {
    outcomes::everywhere("user", async |setting| {
        let (store, kind) = (setting.store, setting.store.kind());
        let end = "2026-11-21T00:00:00Z";
        setting.execute(&format!("update ab_test_experiments set end_date = '{end}'")).await;
        for _ in 0..2 {
            let nothing = Losses::default();
            let rounds = (0..3).map(|_| analyst::round(store, &nothing));
            for round in futures_util::future::join_all(rounds).await {
                round.unwrap();
            }
        }
        let id = Some(outcomes::EXPERIMENT);
        let query = RowQuery { id, ..RowQuery::of(Table::Experiments, &Tenant::default()) };
        let row = store.rows(&query).await.unwrap().remove(0);
        let definition: ExperimentDefinition = row.definition(Table::Experiments).unwrap();
        assert_eq!(definition.status, Status::Completed, "{kind}");
        assert_eq!(definition.end_date, Some(end.parse().unwrap()), "{kind}");
        let audit = AuditQuery { limit: 9, ..AuditQuery::default() };
        let entries = store.audit(&audit).await.unwrap();
        let told: Vec<_> =
            entries.iter().map(|one| (one.actor.as_str(), one.action.as_str())).collect();
        assert_eq!(told, [("chaperone", "experiment.end")], "{kind}");
        let open = "select count(*) from ab_test_phases where ended_at is null";
        assert_eq!(setting.count(open).await, 0, "{kind}");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_variant_that_does_harm_is_stopped_without_anybody_looking() {
    outcomes::everywhere("user", async |setting| {
        let (store, kind) = (setting.store, setting.store.kind());
        let row = async || {
            let id = Some(outcomes::EXPERIMENT);
            let query = RowQuery { id, ..RowQuery::of(Table::Experiments, &Tenant::default()) };
            store.rows(&query).await.unwrap().remove(0)
        };
        let calls = |from: u32, bad: u32| -> Vec<Execution> {
            (from..from + 500)
                .map(|number| {
                    let arm = if number % 2 == 0 { "control" } else { "variant_a" };
                    let fails = number % 10 == 0 || (number % 2 == 1 && number % 10 < bad);
                    let (outcome, success) =
                        if fails { (Outcome::Failed, false) } else { (Outcome::Success, true) };
                    Execution {
                        outcome,
                        success,
                        ..outcomes::call(number, &format!("u-{number}"), arm)
                    }
                })
                .collect()
        };
        store.insert_executions(&calls(0, 2)).await.unwrap();
        analyst::round(store, &Losses::default()).await.unwrap();
        let healthy = row().await;
        assert_eq!(healthy.columns["results"]["verdict"], "running", "{kind}");
        assert_eq!(healthy.columns["statistical_significance"], 0.0, "{kind}");
        store.insert_executions(&calls(500, 9)).await.unwrap();
        for _ in 0..2 {
            analyst::round(store, &Losses::default()).await.unwrap();
        }
        let stopped = row().await;
        let definition: ExperimentDefinition = stopped.definition(Table::Experiments).unwrap();
        assert_eq!(definition.status, Status::Completed, "{kind}");
        assert_eq!(stopped.columns["results"]["verdict"], "harm_stopped", "{kind}");
        assert!(stopped.columns["statistical_significance"].as_f64().unwrap() > 0.95, "{kind}");
        let audit = AuditQuery { limit: 9, ..AuditQuery::default() };
        let actions: Vec<String> =
            store.audit(&audit).await.unwrap().into_iter().map(|one| one.action).collect();
        assert_eq!(actions, ["experiment.harm_stop"], "{kind}: once");
        let reached = store.collected(outcomes::EXPERIMENT).await.unwrap().milestones;
        assert!(
            reached.iter().any(|one| one.kind == "harm" && one.arm == "variant_a"),
            "{kind}: {reached:?}"
        );
    })
    .await;
}
