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
        (json!({"status": "paused"}), Some("user-7"), 4, "paused"),
        (
            json!({"assignment": {"forced_units": {"user-7": "control"}}}),
            Some("user-7"),
            1,
            "forced",
        ),
        (json!({"assignment": {"excluded_units": ["user-7"]}}), Some("user-7"), 4, "excluded"),
        (
            json!({"enrollment_percentage": 20, "assignment": {"enrolled_most": 50}}),
            Some("user-7"),
            4,
            "left",
        ),
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

/// Section 13.4: a clock that is ahead sees every date earlier.
#[tokio::test(flavor = "multi_thread")]
async fn sidecars_with_clocks_two_seconds_apart_agree_outside_of_the_boundary() {
    let skew = jiff::SignedDuration::from_secs(2);
    let (start, length) =
        (jiff::Timestamp::now() + skew + skew, jiff::SignedDuration::from_secs(4));
    let dates = |start: jiff::Timestamp| json!({"start_date": start.to_string(), "end_date": (start + length).to_string()});
    let (_one_upstream, right) = pair_with(&definitions(&dates(start))).await;
    let (_other_upstream, ahead) = pair_with(&definitions(&dates(start - skew))).await;
    let version = async |sidecar: &crate::harness::Sidecar, user: &str| {
        let headers = [
            ("x-chaperone-template", "t"),
            ("x-chaperone-user", user),
            ("x-chaperone-variables", r#"{"x":"1"}"#),
        ];
        sidecar.post(GENERATE, &headers, "{}").await.header("x-chaperone-template").to_owned()
    };
    let (mut agreed, mut running) = (0, 0);
    while jiff::Timestamp::now() < start + length + skew {
        let before = jiff::Timestamp::now();
        let user = format!("user-{agreed}");
        let (one, other) = (version(&right, &user).await, version(&ahead, &user).await);
        let after = jiff::Timestamp::now();
        let is_near = |date: jiff::Timestamp| after >= date - skew && before < date;
        if !is_near(start) && !is_near(start + length) {
            assert_eq!(one, other, "{user} at {before}");
            agreed += 1;
            running += usize::from(one != "t@4");
        }
    }
    assert!(agreed > 100 && running > 20, "{agreed} {running}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_groups_of_versions_split_while_no_experiment_decides() {
    let grouped = |extra: &Value| {
        let mut all = definitions(extra);
        for (place, group, percent) in [(1, "b", 30.0), (2, "a", 20.0)] {
            let version = &mut all["templates"][place];
            version["is_active"] = json!(true);
            version["ab_test_group"] = json!(group);
            version["traffic_percentage"] = json!(percent);
        }
        all
    };
    let salt = chaperone::words::digest::sha256_hex(b"default/t");
    let salt = format!("groups-{}", &salt[..40]);
    for (extra, groups_decide) in [
        (json!({"status": "draft"}), true),
        (json!({"status": "completed"}), true),
        (json!({"end_date": "2020-01-01T00:00:00Z"}), true),
        (json!({"start_date": "2199-01-01T00:00:00Z"}), true),
        (json!({"status": "paused"}), false),
        (json!({}), false),
    ] {
        let (_upstream, sidecar) = pair_with(&grouped(&extra)).await;
        let mut expected = HashMap::new();
        for number in 0..60 {
            let user = format!("user-{number}");
            let headers = [
                ("x-chaperone-template", "t"),
                ("x-chaperone-user", user.as_str()),
                ("x-chaperone-variables", r#"{"x":"1"}"#),
            ];
            let answer = sidecar.post(GENERATE, &headers, "{}").await;
            // In the order of the groups' names: a, then b.
            let (version, group, reason) = match bucket(Purpose::Variant, &salt, &user) {
                0..20_000 => (3, "a", "group"),
                20_000..50_000 => (2, "b", "group"),
                _ => (4, "", "no_group"),
            };
            if groups_decide {
                assert_eq!(
                    answer.header("x-chaperone-template"),
                    format!("t@{version}"),
                    "{extra}"
                );
                assert_eq!(answer.header("x-chaperone-arm"), group);
                expected.insert(user, (group, reason));
            } else {
                assert!(!["a", "b"].contains(&answer.header("x-chaperone-arm")), "{extra}");
            }
        }
        let rows = crate::recording::outbox_rows(&sidecar.data_dir(), 60).await;
        for row in rows.iter().filter(|_| groups_decide) {
            let (group, reason) = expected[row["user_id"].as_str().unwrap()];
            assert_eq!(row["ab_test_group"].as_str().unwrap_or_default(), group);
            assert_eq!(
                (&row["assignment_reason"], &row["ab_test_experiment_id"]),
                (&json!(reason), &Value::Null)
            );
        }
    }
}
