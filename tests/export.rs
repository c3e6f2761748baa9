//! Copies of executions for other systems: they arrive, they hold no prompt, and nobody waits for them.

use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Bytes;
use axum::http::{HeaderMap, StatusCode};
use axum::response::IntoResponse;
use axum::routing::post;
use chaperone::listen::{self, Bounds, Lifetime};
use hyper_util::service::TowerToHyperService;
use serde_json::{Value, json};

use crate::harness::binary::Binary;
use crate::harness::{GENERATE, Options, Sidecar, TempDir, Upstream, contents, eventually};

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";

/// Requests as a collector got them.
type Got = Arc<Mutex<Vec<(HeaderMap, Value)>>>;

/// A collector that answers the statuses in turn, then 200; gives its address.
async fn collector(statuses: &'static [u16]) -> (String, Got) {
    let got = Got::default();
    let seen = got.clone();
    let take = async move |headers: HeaderMap, body: Bytes| {
        let mut seen = seen.lock().unwrap();
        seen.push((headers, serde_json::from_slice(&body).unwrap()));
        match statuses.get(seen.len() - 1) {
            Some(status) => {
                let status = StatusCode::from_u16(*status).unwrap();
                (status, [("retry-after", "0")], String::new()).into_response()
            }
            None => axum::Json(json!({"partialSuccess": {"rejectedSpans": "0"}})).into_response(),
        }
    };
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let router = Router::new().route("/v1/traces", post(take));
    let service = TowerToHyperService::new(router);
    tokio::spawn(listen::serve(
        listener,
        None,
        Bounds::relaxed("data"),
        Lifetime::default(),
        move |_peer| service.clone(),
    ));
    (format!("http://{address}/v1/traces"), got)
}

fn spans(got: &Got) -> Vec<Value> {
    let got = got.lock().unwrap();
    let spans = got.iter().map(|(_, body)| &body["resourceSpans"][0]["scopeSpans"][0]["spans"]);
    spans.flat_map(|spans| spans.as_array().unwrap().clone()).collect()
}

async fn exported(sidecar: &Sidecar, sink: &str, outcome: &str) -> u64 {
    let name =
        format!(r#"chaperone_exported_executions_total{{sink="{sink}",outcome="{outcome}"}}"#);
    let page = sidecar.page("/metrics").await.text;
    let line = page.lines().find_map(|line| line.strip_prefix(&name)).unwrap_or(" 0").trim();
    line.parse().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn spans_reach_a_collector_that_was_busy_and_hang_below_the_callers() {
    let upstream = Upstream::start().await;
    let (url, got) = collector(&[503, 429]).await;
    let options = Options::to(&upstream.url())
        .set("CHAPERONE_EXPORT__OTLP_URL", &url)
        .set("CHAPERONE_EXPORT__OTLP_HEADERS", "authorization=Bearer collectors-key, x-team=a");
    let sidecar = Sidecar::start(options).await;
    let parent = format!("00-{TRACE}-00f067aa0ba902b7-01");
    let unkept = parent.replace("-01", "-00");
    let answer = sidecar.say(GENERATE, &[("traceparent", &parent)], "a secret thought").await;
    sidecar.say(GENERATE, &[("traceparent", &unkept), ("x-chaperone-user", "ann")], "hi").await;
    sidecar.say(GENERATE, &[("traceparent", "rubbish"), ("x-chaperone-user", "ann")], "hi").await;
    // Copies go to the end of what waits, also when the process stops.
    let id = answer.header("x-chaperone-request-id").replace('-', "");
    sidecar.stop().await.unwrap();
    let got_spans = spans(&got);
    let of = |id: &str| got_spans.iter().filter(|span| span["spanId"] == id[16..]).count();
    assert!(of(&id) >= 1, "{got_spans:?}");
    let span = got_spans.iter().find(|span| span["spanId"] == id[16..]).unwrap();
    assert_eq!(
        (&span["traceId"], &span["parentSpanId"]),
        (&json!(TRACE), &json!("00f067aa0ba902b7"))
    );
    let traces: std::collections::BTreeSet<&str> =
        got_spans.iter().map(|span| span["traceId"].as_str().unwrap()).collect();
    assert_eq!(traces.len(), 2, "one of a kept trace, one of its own: {got_spans:?}");
    let got = got.lock().unwrap();
    let (headers, body) = got.last().unwrap();
    assert_eq!(headers["authorization"], "Bearer collectors-key");
    assert_eq!(
        (&headers["x-team"], &headers["content-type"]),
        (&"a".parse().unwrap(), &"application/json".parse().unwrap())
    );
    let resource = &body["resourceSpans"][0]["resource"]["attributes"][0];
    assert_eq!(resource["value"]["stringValue"], "chaperone");
    for (_, body) in got.iter() {
        let text = body.to_string();
        assert!(!text.contains("secret thought") && !text.contains("ann"), "{text}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collector_that_is_away_or_refuses_holds_up_nobody() {
    let upstream = Upstream::start().await;
    let (url, _got) = collector(&[400]).await;
    let sidecar =
        Sidecar::start(Options::to(&upstream.url()).set("CHAPERONE_EXPORT__OTLP_URL", &url)).await;
    let failed = exported(&sidecar, "otlp", "failed").await;
    let answer = sidecar.say(GENERATE, &[], "hello").await;
    sidecar.execution(&answer).await;
    eventually("the refusal is counted", async || {
        (exported(&sidecar, "otlp", "failed").await > failed).then_some(())
    })
    .await;
    sidecar.stop().await.unwrap();
    let away = Options::to(&upstream.url())
        .set("CHAPERONE_EXPORT__OTLP_URL", "http://127.0.0.1:1/v1/traces");
    let sidecar = Sidecar::start(away).await;
    let answer = sidecar.say(GENERATE, &[], "hello").await;
    sidecar.execution(&answer).await;
    sidecar.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn lines_hold_what_the_store_holds_and_a_file_may_be_rotated() {
    let (upstream, dir) = (Upstream::start().await, TempDir::new());
    let file = dir.path().join("executions.jsonl");
    let path = file.to_str().unwrap();
    let sidecar = Sidecar::start(
        Options::to(&upstream.url())
            .set("CHAPERONE_EXPORT__JSON_LINES", path)
            .set("CHAPERONE_AUDIT__STORE_PROMPTS", "hash"),
    )
    .await;
    let lines = || -> Vec<Value> {
        let text = std::fs::read_to_string(&file).unwrap_or_default();
        // The last one may be half written.
        let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
        whole.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    };
    let headers = [("x-chaperone-variables", r#"{"text":"a secret thought"}"#)];
    let template = format!("/t/nlu_topic_extraction{GENERATE}");
    let answer = sidecar.post(&template, &headers, "{}").await;
    let line = eventually("the line is there", async || lines().pop()).await;
    let mut row = sidecar.execution(&answer).await;
    row.as_object_mut().unwrap().remove("feedback");
    for (name, value) in row.as_object().unwrap() {
        match (value.as_f64().filter(|_| value.is_f64()), line[name].as_f64()) {
            // SQLite writes a real with fifteen digits: the last bit of it may differ.
            (Some(stored), Some(given)) => {
                assert!((stored - given).abs() <= 1e-14 * stored.abs(), "{name}: {given} {stored}");
            }
            _ if name == "created_at" => {}
            _ => assert_eq!(line[name], *value, "{name}"),
        }
    }
    assert!(!line.to_string().contains("secret thought"), "{line}");
    let mode =
        std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(&file).unwrap().permissions());
    assert_eq!(mode & 0o777, 0o600);
    std::fs::rename(&file, dir.path().join("executions.1.jsonl")).unwrap();
    sidecar.say(GENERATE, &[], "hello").await;
    let line = eventually("a new file is begun", async || lines().pop()).await;
    assert_eq!(line["template_name"], Value::Null);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pipe_that_nobody_reads_holds_up_no_stop() {
    let (upstream, data_dir) = (Upstream::start().await, Arc::new(TempDir::new()));
    let pipe = data_dir.path().join("pipe");
    assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    let lines = ("CHAPERONE_EXPORT__JSON_LINES", pipe.to_str().unwrap());
    let mut binary = Binary::start(&upstream.url(), &data_dir, &[lines]);
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let call = client.post(format!("http://{}{GENERATE}", binary.data)).body(contents("hello"));
    assert_eq!(call.header("x-goog-api-key", "k").send().await.unwrap().status(), 200);
    binary.signal("TERM");
    let ended = eventually("it ends", async || binary.child.try_wait().unwrap()).await;
    assert!(ended.success());
}
