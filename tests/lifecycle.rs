//! The life of an experiment through the admin API, on each store: from draft to promotion, and what is
//! in the way.

use serde_json::{Value, json};

use crate::control::{Setting, everywhere};
use crate::harness::{GENERATE, Sidecar, eventually};

/// A template with so many versions, the first active: their ids.
pub async fn versions(sidecar: &Sidecar, name: &str, texts: &[&str]) -> Vec<String> {
    let mut ids: Vec<String> = Vec::new();
    for text in texts {
        let made = match ids.first() {
            None => {
                let body = json!({"name": name, "template_text": text, "variables": ["who"]});
                sidecar.must(201, "POST", "/templates", &body).await
            }
            Some(id) => {
                let body = json!({"template_text": text});
                sidecar.must(201, "PUT", &format!("/templates/{id}"), &body).await
            }
        };
        ids.push(made["id"].as_str().unwrap().to_owned());
    }
    let first = format!("/templates/{}/activate", ids[0]);
    sidecar.must(200, "POST", &first, &Value::Null).await;
    ids
}

/// A draft over these versions: its path.
pub async fn draft(sidecar: &Sidecar, name: &str, ids: &[String], extra: &Value) -> String {
    let mut body = json!({
        "name": format!("test-{}", uuid::Uuid::new_v4()), "template_name": name,
        "control_template_id": ids[0], "variant_template_ids": ids[1..],
        "traffic_split": {"control": 50, "variant_a": 50},
    });
    for (key, value) in extra.as_object().unwrap() {
        body[key] = value.clone();
    }
    let made = sidecar.must(201, "POST", "/ab-tests", &body).await;
    format!("/ab-tests/{}", made["id"].as_str().unwrap())
}

/// Which template and arm serve a user; empty where none does.
pub async fn served(sidecar: &Sidecar, name: &str, user: &str) -> (String, String) {
    let path = format!("/t/{name}{GENERATE}");
    let headers = [("x-chaperone-variables", r#"{"who":"ann"}"#), ("x-chaperone-user", user)];
    let answer = sidecar.post(&path, &headers, "{}").await;
    // The other sidecar may not know of the template yet.
    assert!([200, 404].contains(&answer.status), "{}", answer.text);
    let header = |name| answer.header(name).to_owned();
    (header("x-chaperone-template"), header("x-chaperone-arm"))
}

impl Setting<'_> {
    async fn becomes(&self, name: &str, user: &str, version: &str, arm: &str) {
        eventually(&format!("{user} sees {version} {arm:?}"), async || {
            let served = served(self.reader, name, user).await;
            (served == (version.to_owned(), arm.to_owned())).then_some(())
        })
        .await;
    }
}

fn modes(experiment: &Value) -> Vec<&str> {
    let phases = experiment["phases"].as_array().unwrap();
    for (number, phase) in phases.iter().enumerate() {
        assert_eq!(phase["phase"], number + 1, "{phase}");
        let is_last = number + 1 == phases.len();
        let follows =
            phases.get(number + 1).is_none_or(|next| next["started_at"] == phase["ended_at"]);
        assert!(is_last || follows, "{phases:?}");
    }
    phases.iter().map(|phase| phase["mode"].as_str().unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_start_freezes_and_a_pause_is_a_phase() {
    everywhere(async |setting| {
        let writer = setting.writer;
        let ids = versions(writer, "life", &["one {who}", "two {who}"]).await;
        let extra = json!({"traffic_split": {"control": 0, "variant_a": 100}, "alpha": 0.01,
            "forced_units": {"qa": "control"}, "excluded_units": ["outsider"]});
        let path = draft(writer, "life", &ids, &extra).await;
        let post = async |step: &str, body: Value| {
            writer.must(200, "POST", &format!("{path}/{step}"), &body).await
        };
        let refuse = async |step: &str, body: Value| {
            writer.must(409, "POST", &format!("{path}/{step}"), &body).await
        };
        for step in ["pause", "resume", "stop", "promote"] {
            let body = if step == "promote" {
                json!({"arm": "control", "reason": "x"})
            } else {
                json!({"reason": "x"})
            };
            refuse(step, body).await;
        }

        let started = post("start", json!({"reason": "go"})).await;
        assert_eq!((&started["status"], &started["runs"]), (&json!("active"), &json!(true)));
        let design = &started["design"];
        assert_eq!(
            (&design["alpha"], &design["target_sample_size"], &design["hash_version"]),
            (&json!(0.01), &json!(5000), &json!(1)),
        );
        assert_eq!(design["frozen_at"], started["start_date"]);
        let read = writer.must(200, "GET", &path, &Value::Null).await;
        let used = &read["results"]["parameters"];
        assert!(used["frozen_at"].is_string(), "{used}");
        assert_eq!((&used["cap_calls"], &used["latency_cap_ms"]), (&json!(0), &Value::Null));
        assert_eq!(modes(&started), ["start"]);
        let phase = &started["phases"][0];
        assert_eq!(phase["arms"][1]["weight_millipercent"], 100_000);
        assert_eq!(
            phase["arms"][1]["ranges"],
            json!([{"enroll": [0, 100_000], "variant": [0, 100_000]}])
        );
        assert_eq!(
            (&phase["salt"], &phase["enrollment_percentage"]),
            (&started["id"], &json!(100.0))
        );
        setting.becomes("life", "ann", "life@2", "variant_a").await;
        setting.becomes("life", "qa", "life@1", "control").await;
        setting.becomes("life", "outsider", "life@1", "").await;

        let paused = post("pause", json!({"reason": "a doubt"})).await;
        assert_eq!((&paused["status"], &paused["runs"]), (&json!("paused"), &json!(false)));
        setting.becomes("life", "ann", "life@1", "").await;
        setting.becomes("life", "qa", "life@1", "").await;
        assert_eq!(modes(&post("pause", json!({})).await), ["start", "pause"], "twice is once");
        refuse("start", json!({})).await;
        refuse("reallocate", json!({"enrollment_percentage": 50})).await;
        let resumed = post("resume", json!({})).await;
        assert_eq!(modes(&resumed), ["start", "pause", "resume"]);
        assert_eq!(resumed["assignment"]["phase"], 3);
        setting.becomes("life", "ann", "life@2", "variant_a").await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_winner_is_promoted_by_a_person_and_everything_is_in_the_books() {
    everywhere(async |setting| {
        let writer = setting.writer;
        let ids = versions(writer, "win", &["one {who}", "two {who}"]).await;
        let split = json!({"traffic_split": {"control": 0, "variant_a": 100}});
        let path = draft(writer, "win", &ids, &split).await;
        let post = async |step: &str, body: Value| {
            writer.must(200, "POST", &format!("{path}/{step}"), &body).await
        };
        post("start", json!({})).await;
        setting.becomes("win", "ann", "win@2", "variant_a").await;
        post("pause", json!({})).await;
        post("resume", json!({})).await;
        let unknown = json!({"arm": "variant_z", "reason": "x"});
        writer.must(422, "POST", &format!("{path}/promote"), &unknown).await;
        let both = json!({"arm": "control", "template_id": ids[0], "reason": "x"});
        writer.must(422, "POST", &format!("{path}/promote"), &both).await;
        let promoted = post("promote", json!({"arm": "variant_a", "reason": "it is better"})).await;
        assert_eq!(
            (&promoted["status"], &promoted["winner_template_id"]),
            (&json!("completed"), &json!(ids[1]))
        );
        assert_eq!(promoted["phases"][2]["ended_at"], promoted["end_date"]);
        setting.becomes("win", "ann", "win@2", "").await;
        setting.becomes("win", "bob", "win@2", "").await;
        let version =
            writer.must(200, "GET", &format!("/templates/{}", ids[1]), &Value::Null).await;
        assert_eq!(version["is_active"], true);
        let again = post("promote", json!({"template_id": ids[1], "reason": "again"})).await;
        assert_eq!(again["updated_at"], promoted["updated_at"], "twice is once");

        let id = path.rsplit('/').next().unwrap();
        let audit = writer.must(200, "GET", &format!("/audit?object_id={id}"), &Value::Null).await;
        let actions: Vec<&str> = audit["items"]
            .as_array()
            .unwrap()
            .iter()
            .map(|one| one["action"].as_str().unwrap())
            .collect();
        assert_eq!(
            actions,
            [
                "experiment.promote",
                "experiment.resume",
                "experiment.pause",
                "experiment.start",
                "experiment.create"
            ]
        );
        assert_eq!(audit["chain"]["verified"], true);
        let back = writer.must(200, "POST", "/templates/win/rollback", &Value::Null).await;
        assert_eq!(back["version"], 1, "a promotion can be rolled back as any activation");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_start_tells_everything_that_is_in_the_way_at_once() {
    everywhere(async |setting| {
        let writer = setting.writer;
        let ids = versions(writer, "way", &["one {who}", "two {who} {more}"]).await;
        // A version that does not work may be kept; it may not be an arm that serves.
        let other = draft(writer, "way", &[ids[0].clone(), ids[0].clone()], &json!({})).await;
        writer.must(200, "POST", &format!("{other}/start"), &Value::Null).await;
        let extra =
            json!({"start_date": "2020-01-01T00:00:00Z", "end_date": "2020-02-01T00:00:00Z"});
        let path = draft(writer, "way", &ids, &extra).await;
        let problem = writer.must(409, "POST", &format!("{path}/start"), &Value::Null).await;
        let fields: Vec<&str> = problem["errors"]
            .as_array()
            .unwrap()
            .iter()
            .map(|one| one["field"].as_str().unwrap())
            .collect();
        assert_eq!(fields, ["end_date", "template_name", "arms"], "{problem}");
        for hint in ["has passed", "stop it first", "way@2 does not work"] {
            assert!(problem["detail"].as_str().unwrap().contains(hint), "{hint}: {problem}");
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn dates_act_by_themselves() {
    everywhere(async |setting| {
        let writer = setting.writer;
        let ids = versions(writer, "dates", &["one {who}", "two {who}"]).await;
        let soon = jiff::Timestamp::now() + jiff::SignedDuration::from_secs(2);
        let later = soon + jiff::SignedDuration::from_secs(2);
        let extra = json!({"traffic_split": {"control": 0, "variant_a": 100},
            "start_date": soon.to_string(), "end_date": later.to_string()});
        let first = draft(writer, "dates", &ids, &extra).await;
        let started = writer.must(200, "POST", &format!("{first}/start"), &Value::Null).await;
        assert_eq!((&started["status"], &started["runs"]), (&json!("active"), &json!(false)));
        assert_eq!(started["phases"][0]["started_at"], started["start_date"]);
        assert_eq!(served(setting.reader, "dates", "ann").await.1, "");
        setting.becomes("dates", "ann", "dates@2", "variant_a").await;
        setting.becomes("dates", "ann", "dates@1", "").await;
        // Nobody has touched the row. It is over all the same, and gives up the name.
        let over = writer.must(200, "GET", &first, &Value::Null).await;
        assert_eq!((&over["status"], &over["runs"]), (&json!("active"), &json!(false)));
        writer.must(409, "POST", &format!("{first}/pause"), &Value::Null).await;
        let next = draft(
            writer,
            "dates",
            &ids,
            &json!({"traffic_split": {"control": 0, "variant_a": 100}}),
        )
        .await;
        writer.must(200, "POST", &format!("{next}/start"), &Value::Null).await;
        let over = writer.must(200, "GET", &first, &Value::Null).await;
        assert_eq!(
            (&over["status"], &over["phases"][0]["ended_at"]),
            (&json!("completed"), &over["end_date"])
        );
        setting.becomes("dates", "ann", "dates@2", "variant_a").await;
        writer.must(409, "POST", &format!("{first}/start"), &Value::Null).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pause_lets_another_in_and_the_resume_meets_it() {
    everywhere(async |setting| {
        let writer = setting.writer;
        let ids = versions(writer, "turns", &["one {who}", "two {who}"]).await;
        let one = draft(writer, "turns", &ids, &json!({})).await;
        let other = draft(
            writer,
            "turns",
            &ids,
            &json!({"traffic_split": {"control": 100, "variant_a": 0}}),
        )
        .await;
        writer.must(200, "POST", &format!("{one}/start"), &Value::Null).await;
        writer.must(200, "POST", &format!("{one}/pause"), &Value::Null).await;
        writer.must(200, "POST", &format!("{other}/start"), &Value::Null).await;
        setting.becomes("turns", "ann", "turns@1", "control").await;
        let busy = writer.must(409, "POST", &format!("{one}/resume"), &Value::Null).await;
        assert!(busy["detail"].as_str().unwrap().contains("stop it first"), "{busy}");
        let stopped =
            writer.must(200, "POST", &format!("{one}/stop"), &json!({"reason": "enough"})).await;
        assert_eq!(stopped["status"], "completed");
        assert_eq!(stopped["phases"][1]["ended_at"], stopped["end_date"]);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_decision_is_explained_so_that_it_can_be_done_again() {
    everywhere(async |setting| {
        let writer = setting.writer;
        let ids = versions(writer, "why", &["one {who}", "two {who}"]).await;
        let extra = json!({"enrollment_percentage": 40, "forced_units": {"qa": "variant_a"}});
        let path = draft(writer, "why", &ids, &extra).await;
        let ask = async |unit: &str| {
            writer.must(200, "GET", &format!("{path}/assignment?unit={unit}"), &Value::Null).await
        };
        let before = ask("user-1").await;
        assert_eq!(
            (&before["reason"], &before["arm"], &before["phase"]),
            (&json!("draft"), &Value::Null, &json!(0))
        );
        writer.must(200, "POST", &format!("{path}/start"), &Value::Null).await;
        eventually("it is in force", async || {
            (!served(setting.reader, "why", "qa").await.1.is_empty()).then_some(())
        })
        .await;
        let mut reasons = std::collections::BTreeMap::new();
        for number in 0..40 {
            let unit = format!("user-{number}");
            let told = ask(&unit).await;
            let (_, arm) = served(setting.reader, "why", &unit).await;
            assert_eq!(told["arm"].as_str().unwrap_or_default(), arm, "{told}");
            let text = told["enroll"]["text"].as_str().unwrap();
            assert_eq!(text, format!("v1:enroll:{}:{unit}", told["salt"].as_str().unwrap()));
            let enrolled = told["enroll"]["bucket"].as_u64() < told["enrolled_below"].as_u64();
            assert_eq!(enrolled, !arm.is_empty());
            *reasons.entry(told["reason"].to_string()).or_insert(0) += 1;
        }
        assert!(reasons["\"assigned\""] > 5 && reasons["\"not_enrolled\""] > 5, "{reasons:?}");
        assert_eq!(ask("qa").await["reason"], "forced");
        let early = ask("qa&at=2020-01-01T00:00:00Z").await;
        assert_eq!(early["reason"], "not_started");
        let uuid = ask("A0EEBC999C0B4EF8BB6D6BB9BD380A11").await;
        assert_eq!(uuid["unit"], "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11");
        writer.must(400, "GET", &format!("{path}/assignment"), &Value::Null).await;
        writer.must(400, "GET", &format!("{path}/assignment?unit="), &Value::Null).await;
        let row =
            writer.executions("", 41).await.into_iter().find(|one| one["user_id"] == "qa").unwrap();
        assert_eq!(
            (&row["assignment_reason"], &row["ab_test_group"]),
            (&json!("forced"), &json!("variant_a"))
        );
        writer.must(200, "POST", &format!("{path}/pause"), &Value::Null).await;
        assert_eq!(ask("qa").await["reason"], "paused");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_draft_can_be_written_anew_and_nothing_else() {
    everywhere(async |setting| {
        let writer = setting.writer;
        let ids = versions(writer, "drafts", &["one {who}", "two {who}"]).await;
        let path = draft(writer, "drafts", &ids, &json!({"alpha": 0.01})).await;
        let old = writer.must(200, "GET", &path, &Value::Null).await;
        let body = |split: [u32; 2]| {
            json!({
                "name": old["name"], "template_name": "drafts", "control_template_id": ids[1],
                "variant_template_ids": [ids[0]],
                "traffic_split": {"control": split[0], "variant_a": split[1]},
                "target_sample_size": 900, "reason": "the other way round",
            })
        };
        let new = writer.must(200, "PUT", &path, &body([20, 80])).await;
        assert_eq!((&new["id"], &new["status"]), (&old["id"], &json!("draft")));
        assert_eq!(new["control_template_id"], json!(ids[1]));
        assert_eq!(new["arms"][1]["weight_millipercent"], 80_000);
        assert_eq!(
            (&new["target_sample_size"], &new["design"]["alpha"]),
            (&json!(900), &Value::Null)
        );
        assert_eq!(new["created_at"], old["created_at"]);
        let audit = writer.must(200, "GET", "/audit", &Value::Null).await;
        let entry = &audit["items"][0];
        assert_eq!(
            (&entry["action"], &entry["reason"]),
            (&json!("experiment.update"), &json!("the other way round"))
        );
        assert_eq!(entry["before"]["target_sample_size"], Value::Null);

        writer.must(422, "PUT", &path, &body([20, 81])).await;
        let mut elsewhere = body([50, 50]);
        elsewhere["tenant_id"] = json!("acme");
        writer.must(422, "PUT", &path, &elsewhere).await;
        let stale = [("if-match", "\"0\"")];
        assert_eq!(writer.ask_with("PUT", &path, Some(&body([50, 50])), &stale).await.status, 412);
        writer.must(200, "PUT", &path, &body([0, 100])).await;
        writer.must(200, "POST", &format!("{path}/start"), &json!({})).await;
        writer.must(409, "PUT", &path, &body([50, 50])).await;
        setting.becomes("drafts", "ann", "drafts@1", "variant_a").await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_draft_says_what_its_size_can_show() {
    let (_upstream, sidecar) = crate::harness::pair().await;
    let ids = versions(&sidecar, "size", &["one {who}", "two {who}"]).await;
    let small = draft(&sidecar, "size", &ids, &json!({"target_sample_size": 1000})).await;
    let plan = sidecar.must(200, "GET", &small, &Value::Null).await["plan"].clone();
    assert_eq!((&plan["units_per_arm"], &plan["baseline"]), (&json!(500), &json!(0.95)));
    // Section 7.8: a thousand in all see nothing smaller than about 3.2 points.
    let rise = plan["smallest_rise_points"].as_f64().unwrap();
    assert!((rise - 3.206).abs() < 0.001, "{plan}");
    let of = |points: f64| {
        let needed = plan["needed"].as_array().unwrap();
        needed.iter().find(|one| one["difference_points"] == points).unwrap()["units_per_arm"]
            .clone()
    };
    assert_eq!((of(1.0), of(2.0)), (json!(6745), json!(1506)));
    let uneven = json!({"traffic_split": {"control": 90, "variant_a": 10}, "baseline": 0.9});
    let uneven = draft(&sidecar, "size", &ids, &uneven).await;
    let plan = sidecar.must(200, "GET", &uneven, &Value::Null).await["plan"].clone();
    assert_eq!((&plan["units_per_arm"], &plan["target_sample_size"]), (&json!(500), &json!(5000)));
    assert_eq!(
        plan["needed"][1],
        json!({"difference_points": 2.0, "units_per_arm": 3213, "units": 32130})
    );
    for (field, value) in [
        ("alpha", json!(0)),
        ("alpha", json!(0.6)),
        ("baseline", json!(1.5)),
        ("forced_units", json!({"": "control"})),
        ("forced_units", json!({"u": "variant_z"})),
        ("excluded_units", json!(["x".repeat(257)])),
    ] {
        let mut body = json!({"name": "never", "template_name": "size", "control_template_id": ids[0],
            "variant_template_ids": [ids[1]], "traffic_split": {"control": 50, "variant_a": 50}});
        body[field] = value;
        sidecar.must(422, "POST", "/ab-tests", &body).await;
    }
}
