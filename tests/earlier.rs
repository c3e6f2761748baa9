//! Answers that were made earlier: each is an execution once, however often it is read.

use serde_json::{Value, json};

use crate::harness::{Options, Sidecar, Upstream};
use crate::unread::unscanned;

const INTERACTIONS: &str = "/v1beta/interactions";

async fn get(sidecar: &Sidecar, path: &str) -> u16 {
    let request = sidecar.client.get(sidecar.url(path)).header("x-goog-api-key", "k");
    let answer = request.header("x-chaperone-user", "ann").send().await.unwrap();
    let status = answer.status().as_u16();
    answer.bytes().await.unwrap();
    status
}

/// Calls and their tokens and costs, oldest first; once a call that follows is there too.
async fn recorded(sidecar: &Sidecar, count: usize) -> Vec<(String, Value, Value)> {
    sidecar.say(crate::harness::GENERATE, &[("x-chaperone-user", "last")], "hi").await;
    let mut rows = sidecar.executions("", count + 1).await;
    rows.retain(|row| row["user_id"] != "last");
    rows.reverse();
    let one = |row: &Value| {
        let call = row["call"].as_str().unwrap().to_owned();
        (call, row["token_count"].clone(), row["estimated_cost_usd"].clone())
    };
    rows.iter().map(one).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_interaction_in_the_background_counts_when_it_is_first_read() {
    let upstream = Upstream::start().await;
    let sidecar = Sidecar::start(Options::to(&upstream.url())).await;
    let data_dir = sidecar.data_dir();
    let body = json!({"model": "gemini-2.5-flash", "input": "hello", "background": true});
    assert_eq!(sidecar.post(INTERACTIONS, &[], body.to_string()).await.status, 200);
    for path in ["/i7", "/i7", "/i7?stream=false", "/i8"] {
        assert_eq!(get(&sidecar, &format!("{INTERACTIONS}{path}")).await, 200);
    }
    // One token in, two out.
    let read = || ("interactions.get".to_owned(), json!(3), json!("0.000005300000"));
    let started = ("interactions".to_owned(), json!(null), json!(null));
    // By their time: what is read was made before it was asked for here.
    let expected = [read(), read(), started];
    assert_eq!(recorded(&sidecar, 3).await, expected);
    sidecar.stop().await.unwrap();
    // The store knows what it has.
    let sidecar = Sidecar::start(Options::to(&upstream.url()).data_dir(&data_dir)).await;
    assert_eq!(get(&sidecar, &format!("{INTERACTIONS}/i7")).await, 200);
    sidecar.say(crate::harness::GENERATE, &[("x-chaperone-user", "last")], "hi").await;
    assert_eq!(recorded(&sidecar, 5).await, expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_interaction_that_was_answered_at_once_does_not_count_again() {
    let upstream = Upstream::start().await;
    let sidecar = Sidecar::start(Options::to(&upstream.url())).await;
    for stream in [false, true] {
        let body = json!({"model": "gemini-2.5-flash", "input": "hello", "stream": stream});
        let answer = sidecar.post(INTERACTIONS, &[], body.to_string()).await;
        assert_eq!(answer.status, 200, "{}", answer.text);
    }
    assert_eq!(get(&sidecar, &format!("{INTERACTIONS}/i1")).await, 200);
    let data_dir = sidecar.data_dir();
    sidecar.stop().await.unwrap();
    let sidecar = Sidecar::start(Options::to(&upstream.url()).data_dir(&data_dir)).await;
    assert_eq!(get(&sidecar, &format!("{INTERACTIONS}/i1")).await, 200);
    let rows = recorded(&sidecar, 2).await;
    assert_eq!(rows.len(), 2, "{rows:?}");
    assert!(rows.iter().all(|(call, tokens, _)| call == "interactions" && tokens.is_u64()));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_interaction_that_is_cancelled_counts_for_what_it_had_used() {
    let upstream = Upstream::start().await;
    let sidecar = Sidecar::start(Options::to(&upstream.url())).await;
    for body in ["", "{}"] {
        let path = format!("{INTERACTIONS}/i9/cancel");
        let answer = sidecar.post(&path, &[("x-chaperone-user", "ann")], body).await;
        assert_eq!(answer.json()["status"], "cancelled", "{}", answer.text);
    }
    assert_eq!(get(&sidecar, &format!("{INTERACTIONS}/i9")).await, 200);
    let used = ("interactions.cancel".to_owned(), json!(3), json!("0.000005300000"));
    assert_eq!(recorded(&sidecar, 1).await, [used]);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_answers_of_a_batch_in_a_file_count_once_as_well() {
    let upstream = Upstream::start().await;
    let sidecar = Sidecar::start(Options::to(&upstream.url())).await;
    let files = ["/v1beta/files/filed1:download?alt=media", "/v1beta/openai/files/filed1/content"];
    for path in ["/v1beta/batches/filed1"].into_iter().chain(files).chain(files) {
        assert_eq!(get(&sidecar, path).await, 200);
    }
    let one = ("download".to_owned(), json!(1100), json!("0.000275000000"));
    let refused = ("download".to_owned(), json!(null), json!(null));
    let mut rows = recorded(&sidecar, 3).await;
    rows.sort_by_key(|(_, tokens, _)| tokens.is_null());
    assert_eq!(rows, [one.clone(), one, refused]);
    // Nobody looked at them, which is counted.
    assert!(unscanned(&sidecar, "passed").await >= 4, "each download");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_answers_of_a_batch_count_once_at_the_price_of_batches() {
    let upstream = Upstream::start().await;
    let sidecar = Sidecar::start(Options::to(&upstream.url())).await;
    for path in ["/v1beta/batches/b7", "/v1beta/batches", "/v1beta/batches/b7"] {
        assert_eq!(get(&sidecar, path).await, 200);
    }
    // Half of 0.30 a million in and 2.50 out.
    let one = ("batches.get".to_owned(), json!(1100), json!("0.000275000000"));
    let refused = ("batches.get".to_owned(), json!(null), json!(null));
    let mut rows = recorded(&sidecar, 3).await;
    rows.sort_by_key(|(_, tokens, _)| tokens.is_null());
    assert_eq!(rows, [one.clone(), one, refused]);
    let rows = sidecar.executions("&user=ann", 3).await;
    assert!(
        rows.iter()
            .all(|row| row["created_at"].as_str().unwrap().starts_with("2026-11-26T10:00:00"))
    );
    assert_eq!(rows.iter().filter(|row| row["error_message"] == "INVALID_ARGUMENT").count(), 1);
}
