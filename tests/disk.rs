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
