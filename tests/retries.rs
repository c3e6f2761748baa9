//! Tries that the operator asked for: which calls get them, when, on which model, and what is recorded.

use std::sync::{Arc, Mutex};

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::harness::raw;
use crate::harness::{CHAT, GENERATE, Options, STREAM, Sidecar, Upstream, chat};

/// Targets of the requests that an upstream got.
type Seen = Arc<Mutex<Vec<String>>>;

/// An upstream that gives one answer after the other, the last one for ever: status line, headers, body.
async fn upstream(answers: Vec<(&'static str, &'static str, Value)>) -> (String, Seen) {
    let (seen, answers) = (Seen::default(), Arc::new(answers));
    let noted = seen.clone();
    let address = raw::serve(move |mut stream| {
        let (noted, answers) = (noted.clone(), answers.clone());
        async move {
            let mut request = vec![0; 65_536];
            let read = stream.read(&mut request).await.unwrap();
            let head = String::from_utf8_lossy(&request[..read]).into_owned();
            let number = {
                let mut noted = noted.lock().unwrap();
                noted.push(head.split(' ').nth(1).unwrap().to_owned());
                noted.len() - 1
            };
            let (status, headers, body) = &answers[number.min(answers.len() - 1)];
            let body = body.to_string();
            let answer = format!(
                "HTTP/1.1 {status}\r\ncontent-type: application/json\r\n{headers}connection: close\r\n\
                 content-length: {}\r\n\r\n{body}",
                body.len()
            );
            stream.write_all(answer.as_bytes()).await.unwrap();
            stream.shutdown().await.unwrap();
        }
    })
    .await;
    (format!("http://{address}"), seen)
}

fn answer(text: &str) -> (&'static str, &'static str, Value) {
    let parts = json!([{"text": text}]);
    let body = json!({
        "candidates": [{"content": {"role": "model", "parts": parts}, "finishReason": "STOP"}],
        "usageMetadata": {"promptTokenCount": 3, "candidatesTokenCount": 4, "totalTokenCount": 7},
    });
    ("200 OK", "", body)
}

fn error(status: &'static str, headers: &'static str) -> (&'static str, &'static str, Value) {
    (status, headers, json!({"error": {"code": 503, "message": "m", "status": "UNAVAILABLE"}}))
}

async fn sidecar(url: &str, toml: &str) -> Sidecar {
    Sidecar::start(Options::to(url).toml(&format!("[upstream]\n{toml}"))).await
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_tried_again_by_itself() {
    let (url, seen) = upstream(vec![error("503 Service Unavailable", ""), answer("hi")]).await;
    let sidecar = Sidecar::start(Options::to(&url)).await;
    assert_eq!(sidecar.say(GENERATE, &[], "hello").await.status, 503);
    assert_eq!(seen.lock().unwrap().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failure_is_tried_again_and_every_try_is_recorded() {
    let failures =
        [error("503 Service Unavailable", ""), error("429 Too Many", "retry-after: 0\r\n")];
    let (url, seen) = upstream([failures.to_vec(), vec![answer("hi")]].concat()).await;
    let sidecar = sidecar(&url, "tries_max = 3").await;
    let headers = [("x-chaperone-user", "ann")];
    let answer = sidecar.say(GENERATE, &headers, "write to ann@acme.test").await;
    assert_eq!((answer.status, answer.text.contains("\"hi\"")), (200, true), "{}", answer.text);
    assert_eq!(seen.lock().unwrap().len(), 3);
    let mut rows = sidecar.executions("", 3).await;
    rows.sort_by_key(|row| row["http_status"].as_u64());
    let of = |row: &Value| (row["http_status"].clone(), row["error_type"].clone());
    assert_eq!(
        [of(&rows[0]), of(&rows[1]), of(&rows[2])],
        [
            (json!(200), json!(null)),
            (json!(429), json!("upstream_quota")),
            (json!(503), json!("upstream_status"))
        ]
    );
    for row in &rows {
        assert_eq!(row["request_id"], answer.header("x-chaperone-request-id"));
        assert_eq!(row["user_id"], "ann");
    }
    let violations = |row: &Value| row["guardrail_violations"].as_array().map_or(0, Vec::len);
    assert_eq!([violations(&rows[0]), violations(&rows[1])], [1, 0], "guardrails looked once");
    assert_eq!((&rows[0]["token_count"], &rows[2]["token_count"]), (&json!(7), &json!(null)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wait_that_is_too_long_is_the_callers() {
    let (url, seen) =
        upstream(vec![error("429 Too Many", "retry-after: 3\r\n"), answer("hi")]).await;
    let sidecar = sidecar(&url, "tries_max = 5").await;
    let answer = sidecar.say(GENERATE, &[], "hello").await;
    assert_eq!((answer.status, answer.header("retry-after")), (429, "3"));
    assert_eq!(answer.json(), error("", "").2, "byte for byte what came");
    assert_eq!(seen.lock().unwrap().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_last_failure_is_the_answer_however_long_it_is() {
    let long = json!({"error": {"code": 500, "message": "x".repeat(200_000)}});
    let (url, seen) = upstream(vec![("500 Internal", "", long.clone())]).await;
    let sidecar = sidecar(&url, "tries_max = 2\nretry_wait_max_ms = 1").await;
    for path in [GENERATE, STREAM] {
        let answer = sidecar.say(path, &[], "hello").await;
        assert_eq!((answer.status, answer.json()), (500, long.clone()));
    }
    let body = chat("hello", false);
    assert_eq!(sidecar.post(CHAT, &[], body).await.status, 500);
    assert_eq!(seen.lock().unwrap().len(), 6);
    // An interaction changes something; what is not read is not repeated.
    let body = json!({"model": "gemini-2.5-flash", "input": "hello"}).to_string();
    assert_eq!(sidecar.post("/v1beta/interactions", &[], body).await.status, 500);
    assert_eq!(sidecar.post("/v1beta/files", &[], "{}".to_owned()).await.status, 500);
    assert_eq!(seen.lock().unwrap().len(), 8);
}

#[tokio::test(flavor = "multi_thread")]
async fn another_model_has_the_last_try() {
    let answers = vec![
        error("429 Too Many", "retry-after: 37\r\n"),
        answer("from the other"),
        error("503 Service Unavailable", ""),
        error("503 Service Unavailable", ""),
        error("504 Gateway Timeout", ""),
    ];
    let (url, seen) = upstream(answers).await;
    let toml = "tries_max = 2\nretry_wait_max_ms = 1\nfallback_models = \"gemini-2.5-flash=gemini-2.5-flash-lite\"";
    let sidecar = sidecar(&url, toml).await;
    let answer = sidecar.say(GENERATE, &[], "hello").await;
    assert!(answer.text.contains("from the other"), "{}", answer.text);
    let last = sidecar.executions("&outcome=success", 1).await;
    assert_eq!(last[0]["model_name"], "gemini-2.5-flash-lite");
    assert_eq!(last[0]["estimated_cost_usd"], "0.000001900000");
    let answer = sidecar.say(GENERATE, &[], "hello").await;
    assert_eq!(answer.status, 504);
    let seen = seen.lock().unwrap().clone();
    let models: Vec<&str> =
        seen.iter().map(|target| target.split(['/', ':']).nth(3).unwrap()).collect();
    let (one, other) = ("gemini-2.5-flash", "gemini-2.5-flash-lite");
    assert_eq!(models, [one, other, one, one, other]);
    // One that is not listed has none.
    assert_eq!(sidecar.say("/v1beta/models/m:generateContent", &[], "hello").await.status, 504);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upstream_that_cannot_be_reached_is_tried_again() {
    let sidecar = sidecar("http://127.0.0.1:1", "tries_max = 2\nretry_wait_max_ms = 1").await;
    assert_eq!(sidecar.say(GENERATE, &[], "hello").await.status, 503);
    let rows = sidecar.executions("", 2).await;
    let errors: Vec<&Value> = rows.iter().map(|row| &row["error_type"]).collect();
    assert_eq!(errors, ["upstream_unreachable"; 2]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_is_refused_at_the_start() {
    let upstream = Upstream::start().await;
    for toml in [
        "tries_max = 6",
        "fallback_models = \"a\"",
        "fallback_models = \"a=a\"",
        "fallback_models = \"a=b/c\"",
    ] {
        let text = format!("[upstream]\n{toml}\nurl = \"{}\"", upstream.url());
        let mistakes =
            chaperone::config::Settings::read(&text, &chaperone::config::Environment::new());
        let key = toml.split(' ').next().unwrap();
        assert_eq!(mistakes.unwrap_err()[0].key, format!("upstream.{key}"), "{toml}");
    }
}
