//! An experiment on live traffic: who sees what is known beforehand, and every row proves it.

use std::collections::HashMap;

use chaperone::experiment::{Purpose, bucket};
use serde_json::{Value, json};

use crate::harness::{GENERATE, pair_with};

const EXPERIMENT: &str = "0193a5b0-0000-7000-8000-000000000001";
const CALLS: usize = 10_000;
const WORKERS: usize = 16;

fn definitions(extra: &Value) -> Value {
    let version = |number: u32, active: bool| {
        json!({
            "id": uuid::Uuid::from_u128(u128::from(number)), "name": "t", "version": number,
            "is_active": active, "template_text": format!("marker-{number} {{x}}"), "variables": ["x"],
        })
    };
    let mut experiment = json!({
        "id": EXPERIMENT, "name": "e", "template_name": "t", "status": "active",
        "control_template_id": uuid::Uuid::from_u128(1),
        "variant_template_ids": [uuid::Uuid::from_u128(2), uuid::Uuid::from_u128(3)],
        "traffic_split": {"variant_b": 20, "control": 50, "variant_a": 30},
        "salt": "demo-0001",
    });
    for (name, value) in extra.as_object().unwrap() {
        experiment[name] = value.clone();
    }
    json!({
        "templates": [version(1, false), version(2, false), version(3, false), version(4, true)],
        "guardrails": [], "experiments": [experiment],
    })
}

fn expected_version(user: &str) -> u32 {
    match bucket(Purpose::Variant, "demo-0001", user) {
        0..50_000 => 1,
        50_000..80_000 => 2,
        _ => 3,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_requests_over_three_arms_are_proven_by_their_hashes() {
    let (upstream, sidecar) = pair_with(&definitions(&json!({}))).await;
    let sidecar = std::sync::Arc::new(sidecar);
    let workers: Vec<_> = (0..WORKERS)
        .map(|worker| {
            let sidecar = sidecar.clone();
            tokio::spawn(async move {
                for number in (worker..CALLS).step_by(WORKERS) {
                    let user = format!("user-{number}");
                    let variables = format!("{{\"x\":\"{number}\"}}");
                    let headers = [
                        ("x-chaperone-template", "t"),
                        ("x-chaperone-user", user.as_str()),
                        ("x-chaperone-variables", variables.as_str()),
                    ];
                    let answer = sidecar.post(GENERATE, &headers, "{}").await;
                    assert_eq!(answer.status, 200, "{}", answer.text);
                    let version = expected_version(&user);
                    assert_eq!(answer.header("x-chaperone-template"), format!("t@{version}"));
                    let arm = ["control", "variant_a", "variant_b"][version as usize - 1];
                    assert_eq!(answer.header("x-chaperone-arm"), arm);
                }
            })
        })
        .collect();
    for worker in workers {
        worker.await.unwrap();
    }
    let mut sent: HashMap<String, String> = HashMap::new();
    for received in upstream.received() {
        sent.insert(received.body.to_string(), received.body_sha256);
    }
    assert_eq!(sent.len(), CALLS);
    let stored = crate::harness::eventually("all are waiting in the outbox", async || {
        let status = sidecar.status().await;
        (status["executions"]["accepted"] == CALLS).then_some(status)
    })
    .await;
    assert_eq!(stored["executions"]["lost"], 0);
    let rows = crate::recording::outbox_rows(&sidecar.data_dir(), CALLS).await;
    for row in &rows {
        let user = row["user_id"].as_str().unwrap();
        let number = user.strip_prefix("user-").unwrap();
        let version = expected_version(user);
        let body = format!(
            r#"{{"contents":[{{"role":"user","parts":[{{"text":"marker-{version} {number}"}}]}}]}}"#
        );
        assert_eq!(row["body_sha256"].as_str(), sent.get(&body).map(String::as_str), "{body}");
        assert_eq!(row["template_version"], version);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_not_enrolled_sees_the_active_version() {
    for (extra, user, version, reason) in [
        (json!({}), None, 4, "no_unit"),
        (json!({"enrollment_percentage": 28.403}), Some("user-7"), 4, "not_enrolled"),
        (json!({"enrollment_percentage": 28.404}), Some("user-7"), 2, "assigned"),
        (json!({"end_date": "2020-01-01T00:00:00Z"}), Some("user-7"), 4, "ended"),
        (json!({"start_date": "2199-01-01T00:00:00Z"}), Some("user-7"), 4, "not_started"),
        (json!({"status": "paused"}), Some("user-7"), 4, ""),
        (json!({"randomization_unit": "header:x-school"}), Some("user-7"), 4, "no_unit"),
    ] {
        let (_upstream, sidecar) = pair_with(&definitions(&extra)).await;
        let mut headers =
            vec![("x-chaperone-template", "t"), ("x-chaperone-variables", r#"{"x":"1"}"#)];
        headers.extend(user.map(|user| ("x-chaperone-user", user)));
        let answer = sidecar.post(GENERATE, &headers, "{}").await;
        assert_eq!(answer.header("x-chaperone-template"), format!("t@{version}"), "{extra}");
        let row = &crate::recording::outbox_rows(&sidecar.data_dir(), 1).await[0];
        assert_eq!(row["assignment_reason"].as_str().unwrap_or_default(), reason);
    }
}
