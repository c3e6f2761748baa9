//! A disk that is full, for real: no file of the process may grow any more.

use std::sync::Arc;

use serde_json::{Value, json};

use crate::harness::binary::Binary;
use crate::harness::database::Database;
use crate::harness::{GENERATE, TOKEN, TempDir, Upstream, contents, eventually};

const AWAY: (&str, &str) = ("DATABASE_URL", "postgres://nobody@127.0.0.1:1/none");

/// Of a process that has no TLS of its own.
fn client() -> reqwest::Client {
    drop(rustls::crypto::ring::default_provider().install_default());
    reqwest::Client::builder().no_proxy().build().unwrap()
}

/// Calls that were answered, of so many.
async fn calls(binary: &Binary, count: usize) -> usize {
    let client = client();
    let mut answered = 0;
    for _ in 0..count {
        let url = format!("http://{}{GENERATE}", binary.data);
        let request = client
            .post(url)
            .header("x-goog-api-key", "k")
            .body(contents("Write to ann@acme.test."));
        let answer = request.send().await.unwrap();
        answered += usize::from(answer.status() == 200);
        answer.bytes().await.unwrap();
    }
    answered
}

async fn page(binary: &Binary, path: &str) -> Value {
    let url = format!("http://{}{path}", binary.control);
    let answer = client().get(url).bearer_auth(TOKEN).send().await.unwrap();
    serde_json::from_slice(&answer.bytes().await.unwrap()).unwrap()
}

async fn executions(binary: &Binary) -> Value {
    page(binary, "/api/v1/admin/prompts/status").await["executions"].clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_go_on_while_the_disk_is_full_and_what_is_lost_is_counted() {
    let (upstream, data_dir) = (Upstream::start().await, Arc::new(TempDir::new()));
    let binary = Binary::start(&upstream.url(), &data_dir, &[AWAY]);
    assert_eq!(calls(&binary, 20).await, 20);
    eventually("they are in the outbox", async || {
        (executions(&binary).await["waiting"] == 20).then_some(())
    })
    .await;
    binary.limit_files(Some(0));
    assert_eq!(calls(&binary, 30).await, 30);
    let now = executions(&binary).await;
    let counts = (&now["accepted"], &now["waiting"], &now["lost"]);
    assert_eq!(counts, (&json!(50), &json!(20), &json!(30)));
    let ready = page(&binary, "/readyz").await;
    assert!(ready["degraded"].to_string().contains("30 were lost"), "{ready}");
    binary.limit_files(None);
    eventually("what comes is kept again", async || {
        calls(&binary, 1).await;
        let now = executions(&binary).await;
        (now["waiting"] != 20).then_some(())
    })
    .await;
    let now = executions(&binary).await;
    let count = |name: &str| now[name].as_u64().unwrap();
    assert_eq!(count("accepted"), count("waiting") + count("lost"), "{now}");
    binary.kill();

    let database = Database::new().await;
    database.migrate().await;
    let again = Binary::start(&upstream.url(), &data_dir, &[("DATABASE_URL", &database.url)]);
    eventually("all that was kept is stored", async || {
        (executions(&again).await["stored"] == count("waiting")).then_some(())
    })
    .await;
    let rows = database.count("select count(*) from prompt_executions").await;
    assert_eq!(u64::try_from(rows).unwrap(), count("waiting"));
}

/// What an admin asks for; a path, a body, what must be answered.
async fn told(binary: &Binary, method: &str, path: &str, body: &Value) -> Value {
    let url = format!("http://{}/api/v1/admin/prompts{path}", binary.control);
    let request = client().request(method.parse().unwrap(), url).bearer_auth(TOKEN);
    let request = request.header("content-type", "application/json").body(body.to_string());
    let answer = request.send().await.unwrap();
    assert!(answer.status().is_success(), "{method} {path}: {}", answer.text().await.unwrap());
    serde_json::from_slice(&answer.bytes().await.unwrap()).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_experiment_tells_which_arm_lost_calls() {
    let (upstream, data_dir) = (Upstream::start().await, Arc::new(TempDir::new()));
    let database = Database::new().await;
    database.migrate().await;
    let binary = Binary::start(&upstream.url(), &data_dir, &[("DATABASE_URL", &database.url)]);
    let first =
        told(&binary, "POST", "/templates", &json!({"name": "t", "template_text": "1"})).await;
    let first = format!("/templates/{}", first["id"].as_str().unwrap());
    let second = told(&binary, "PUT", &first, &json!({"template_text": "2"})).await;
    let active = told(&binary, "POST", &format!("{first}/activate"), &json!({})).await;
    let test = json!({"name": "e", "template_name": "t", "control_template_id": active["id"],
        "variant_template_ids": [second["id"]], "traffic_split": {"control": 50, "variant_a": 50}});
    let test = told(&binary, "POST", "/ab-tests", &test).await;
    let test = format!("/ab-tests/{}", test["id"].as_str().unwrap());
    told(&binary, "POST", &format!("{test}/start"), &json!({})).await;

    binary.limit_files(Some(0));
    let mut lost = [0_u64; 2];
    for user in 0..30 {
        let url = format!("http://{}/t/t{GENERATE}", binary.data);
        let request = client().post(url).header("x-chaperone-user", format!("user-{user}"));
        let answer = request.header("x-goog-api-key", "k").body("{}").send().await.unwrap();
        let is_variant = answer.headers()["x-chaperone-arm"] == "variant_a";
        answer.bytes().await.unwrap();
        lost[usize::from(is_variant)] += 1;
    }
    assert!(lost.iter().all(|one| *one > 0), "{lost:?}");
    let url = format!("http://{}/api/v1/admin/prompts{test}", binary.control);
    let read = client().get(url).bearer_auth(TOKEN).send().await.unwrap();
    let read: Value = serde_json::from_slice(&read.bytes().await.unwrap()).unwrap();
    let rows = &read["results"]["health"]["lost_rows"];
    assert_eq!((&rows["count"], &rows["status"]), (&json!(30), &json!("warning")), "{rows}");
    assert_eq!(rows["by_arm"], json!(lost.map(|one| [one, one])), "{rows}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_start_on_a_full_disk_serves_and_keeps_what_waits() {
    let (upstream, data_dir) = (Upstream::start().await, Arc::new(TempDir::new()));
    let key = ("CHAPERONE_GUARDRAILS__PLACEHOLDER_KEY", "0123456789abcdef");
    let binary = Binary::start(&upstream.url(), &data_dir, &[AWAY, key]);
    assert_eq!(calls(&binary, 5).await, 5);
    eventually("they are in the outbox", async || {
        (executions(&binary).await["waiting"] == 5).then_some(())
    })
    .await;
    binary.kill();
    let binary = Binary::start_full(&upstream.url(), &data_dir, &[AWAY, key]);
    assert_eq!(calls(&binary, 3).await, 3);
    assert_eq!(executions(&binary).await["lost"], 3);
    binary.limit_files(None);
    eventually("what waited is found, and what comes is kept", async || {
        calls(&binary, 1).await;
        let now = executions(&binary).await;
        (now["waiting"].as_u64().unwrap() > 5).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_waits_for_whoever_does_not_read_the_log() {
    let (upstream, data_dir) = (Upstream::start().await, Arc::new(TempDir::new()));
    let chatty = ("CHAPERONE_LOG__LEVEL", "trace");
    let (binary, _unread) = Binary::start_unread(&upstream.url(), &data_dir, &[chatty]);
    let url = format!("http://{}/metrics", binary.control);
    eventually("lines are dropped", async || {
        assert_eq!(calls(&binary, 100).await, 100);
        let metrics = client().get(&url).send().await.unwrap().text().await.unwrap();
        let dropped = metrics
            .lines()
            .find_map(|line| line.strip_prefix("chaperone_log_lines_dropped_total "))
            .unwrap();
        (dropped != "0").then_some(())
    })
    .await;
}
