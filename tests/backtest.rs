//! Backtests: what a guardrail would have done to calls that are recorded, through the admin API and on
//! the command line.

use serde_json::{Value, json};

use crate::control::{command, everywhere};
use crate::harness::{GENERATE, Sidecar, TempDir, VIEWER, eventually, pair};

/// Makes and activates a template that holds one variable, `q`.
async fn template(sidecar: &Sidecar, name: &str, text: &str) {
    let new = json!({"name": name, "template_text": text, "variables": ["q"]});
    let made = sidecar.must(201, "POST", "/templates", &new).await;
    let path = format!("/templates/{}/activate", made["id"].as_str().unwrap());
    sidecar.must(200, "POST", &path, &Value::Null).await;
}

/// Makes a guardrail; gives the path of its backtest.
async fn guardrail(sidecar: &Sidecar, name: &str, config: Value) -> String {
    let rule = json!({"name": name, "rule_type": "custom", "severity": "error", "blocking": true,
        "rule_config": config});
    let made = sidecar.must(201, "POST", "/guardrails", &rule).await;
    format!("/guardrails/{}/backtest", made["id"].as_str().unwrap())
}

/// Calls a template, one value after the other, and waits for the records of all calls.
async fn call(sidecar: &Sidecar, template: &str, values: &[&str], recorded: usize) {
    for value in values {
        let variables = json!({"q": value}).to_string();
        let headers = [("x-chaperone-variables", variables.as_str())];
        sidecar.post(&format!("/t/{template}{GENERATE}"), &headers, "{}").await;
    }
    sidecar.executions("", recorded).await;
}

/// Six recorded calls, and a guardrail that stopped one of them; gives the path of its backtest.
async fn six_calls(writer: &Sidecar, reader: &Sidecar) -> String {
    template(writer, "asked", "Answer: {q}").await;
    template(writer, "eagle", "Project Eagle: {q}").await;
    let own =
        guardrail(writer, "own", json!({"inspects": "rendered", "literals": ["project eagle"]}))
            .await;
    eventually("the guardrail is in force", async || {
        let in_force = reader.must(200, "GET", "/in-force", &Value::Null).await;
        in_force["guardrails"].to_string().contains("\"own\"").then_some(())
    })
    .await;
    let values =
        ["of Project Falcon", "FALC-1234, FALC-9876", "hello", "project falcon, FALC-1111"];
    call(writer, "asked", &values, 4).await;
    // Blocked once it is rendered, so it is recorded what of.
    call(writer, "eagle", &["how high?"], 5).await;
    // No template, so nothing of the prompt is recorded.
    writer.say(GENERATE, &[], "project falcon").await;
    writer.executions("", 6).await;
    own
}

/// Goes through all executions with the cursor: steps, and what they blocked newly together.
async fn two_at_a_time(sidecar: &Sidecar, path: &str, candidate: &Value) -> (u64, u64) {
    let (mut cursor, mut steps, mut blocked) = (Value::Null, 0, 0);
    loop {
        let mut ask = json!({"guardrail": candidate, "limit": 2, "examples": 0});
        if cursor.is_string() {
            ask["cursor"] = cursor;
        }
        let step = sidecar.must(200, "POST", path, &ask).await;
        assert_eq!((&step["executions"], &step["complete"]), (&json!(2), &json!(true)), "{step}");
        blocked += step["newly_blocked"].as_u64().unwrap();
        steps += 1;
        cursor = step["next_cursor"].clone();
        if cursor.is_null() {
            return (steps, blocked);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_candidate_on_recorded_calls() {
    everywhere(async |setting| {
        let (writer, reader) = (setting.writer, setting.reader);
        let own = six_calls(writer, reader).await;
        let candidate = json!({"blocking": true, "rule_config": {"literals": ["project falcon"],
            "patterns": [{"entity": "ticket", "regex": "FALC-[0-9]{4}", "action": "redact"}]}});
        let found = reader.must(200, "POST", &own, &json!({"guardrail": candidate})).await;
        for (name, expected) in [
            ("executions", json!(6)),
            ("unseen", json!(1)),
            ("would_warn", json!(0)),
            ("would_redact", json!(1)),
            ("would_block", json!(2)),
            ("newly_blocked", json!(2)),
            ("by_entity", json!({"custom": 2, "ticket": 3})),
            ("complete", json!(true)),
            ("next_cursor", json!(null)),
        ] {
            assert_eq!(found[name], expected, "{name}: {found}");
        }
        let newest = &found["examples"][0];
        assert_eq!(found["examples"].as_array().unwrap().len(), 3, "{found}");
        assert_eq!(newest["place"], "variables.q");
        assert_eq!((&newest["start"], &newest["end"]), (&json!(0), &json!(14)));
        assert_eq!(
            (&newest["template_name"], &newest["verdict"]),
            (&json!("asked"), &json!("block"))
        );
        assert!(!found.to_string().contains("alcon"), "no text unless asked for: {found}");
        let id = newest["execution_id"].as_str().unwrap();
        let record = reader.must(200, "GET", &format!("/executions/{id}"), &Value::Null).await;
        assert_eq!(record["created_at"], newest["created_at"]);

        let shown = json!({"guardrail": candidate, "show_text": true, "examples": 2});
        let shown = reader.must(200, "POST", &own, &shown).await;
        let texts: Vec<&Value> =
            shown["examples"].as_array().unwrap().iter().map(|one| &one["text"]).collect();
        assert_eq!(texts, ["project falcon", "FALC-1234"]);

        assert_eq!(two_at_a_time(reader, &own, &candidate).await, (3, 2));

        // The guardrail as it is stored, switched off: what it blocked then is not news.
        writer.must(200, "POST", &own.replace("backtest", "deactivate"), &Value::Null).await;
        let itself = reader.must(200, "POST", &own, &json!({})).await;
        assert_eq!(
            (&itself["would_block"], &itself["newly_blocked"]),
            (&json!(1), &json!(0)),
            "{itself}"
        );
        let before = json!({"from": "2020-01-01T00:00:00Z", "to": "2020-02-01T00:00:00Z"});
        let before = reader.must(200, "POST", &own, &before).await;
        assert_eq!((&before["executions"], &before["complete"]), (&json!(0), &json!(true)));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_backtest_refuses_and_whom_not() {
    let (_upstream, sidecar) = pair().await;
    let path = guardrail(&sidecar, "scoped", json!({"literals": ["x"]})).await;
    for (body, hint) in [
        (json!({"limit": 0}), "limit"),
        (json!({"limit": 10_001}), "10000"),
        (json!({"examples": 21}), "20"),
        (json!({"cursor": "x"}), "next_cursor"),
        (json!({"from": "yesterday"}), "from"),
        (json!({"from": "2999-01-01T00:00:00Z"}), "later than from"),
        (json!({"to": "1969-01-02T00:00:00Z"}), "1970"),
        (json!({"guardrail": {"rule_config": {"literals": [" "]}}}), "rule_config.literals[0]"),
        (
            json!({"guardrail": {"rule_config": {"literals": ["a"], "applies_to": ["response"]}}}),
            "applies_to",
        ),
        (json!({"rule_config": {}}), "rule_config"),
    ] {
        let refused = sidecar.must(422, "POST", &path, &body).await;
        assert!(refused["detail"].as_str().unwrap().contains(hint), "{body}: {refused}");
    }
    let nobody = format!("/guardrails/{}/backtest", uuid::Uuid::new_v4());
    sidecar.must(404, "POST", &nobody, &json!({})).await;
    let url = format!("http://{}/api/v1/admin/prompts{path}", sidecar.control);
    let as_viewer = sidecar.client.post(url).bearer_auth(VIEWER).send().await.unwrap();
    assert_eq!(as_viewer.status(), 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guardrail_limited_to_a_category_on_the_command_line() {
    let (_upstream, sidecar) = pair().await;
    template(&sidecar, "plain", "{q}").await;
    let new =
        json!({"name": "filed", "template_text": "{q}", "variables": ["q"], "category": "chat"});
    let made = sidecar.must(201, "POST", "/templates", &new).await;
    let path = format!("/templates/{}/activate", made["id"].as_str().unwrap());
    sidecar.must(200, "POST", &path, &Value::Null).await;
    call(&sidecar, "plain", &["project falcon"], 1).await;
    call(&sidecar, "filed", &["project falcon", "nothing"], 3).await;
    let dir = TempDir::new();
    let file = dir.path().join("falcon.toml");
    let definition = "id = '0b5b7e7e-4f0f-4c39-9f8d-0c6f6e1c7a01'\nname = 'falcon'\nrule_type = 'custom'\n\
        severity = 'error'\nblocking = true\napplies_to_categories = ['chat']\n\
        [rule_config]\nliterals = ['project falcon']\n";
    std::fs::write(&file, definition).unwrap();
    let (ok, said) = command(&sidecar, &["backtest", file.to_str().unwrap(), "--show-text"]).await;
    assert!(
        ok && said.contains("3 executions, at most 1000 are read; 1 would be blocked"),
        "{said}"
    );
    let report: Value = serde_json::from_str(&said[..=said.rfind('}').unwrap()]).unwrap();
    assert_eq!((&report["executions"], &report["newly_blocked"]), (&json!(3), &json!(1)), "{said}");
    assert_eq!(report["examples"][0]["template_name"], "filed");
    assert_eq!(report["examples"][0]["text"], "project falcon");

    std::fs::write(&file, "name = 1").unwrap();
    let (ok, said) = command(&sidecar, &["backtest", file.to_str().unwrap()]).await;
    assert!(!ok && said.contains("falcon.toml"), "{said}");
    let (ok, said) = command(&sidecar, &["backtest", "/nowhere.toml"]).await;
    assert!(!ok && said.contains("/nowhere.toml"), "{said}");
}
