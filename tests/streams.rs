//! Streamed answers: same text however they are cut, nothing condemned leaks, every end is told.

use std::time::Duration;

use serde_json::{Value, json};

use crate::harness::{
    CHAT, GENERATE, Options, STREAM, Sidecar, chat, contents, guardrail, pair, pair_with, raw, say,
};

const ABUSE: &str = "Some words first. Then: go kill yourself, you fool. And some after.";
/// A native streamed call, answered with one array.
pub const ARRAY: &str = "/v1beta/models/gemini-2.5-flash:streamGenerateContent";

/// The text of all frames of a native SSE stream.
pub fn native_text(stream: &str) -> String {
    frames(stream)
        .iter()
        .filter_map(|frame| {
            frame["candidates"][0]["content"]["parts"][0]["text"].as_str().map(str::to_owned)
        })
        .collect()
}

/// The frames of an SSE stream.
pub fn frames(stream: &str) -> Vec<Value> {
    stream
        .split('\n')
        .filter_map(|line| line.trim().strip_prefix("data: "))
        .filter(|data| *data != "[DONE]")
        .map(|data| serde_json::from_str(data).unwrap())
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_arrive_as_they_came() {
    let (upstream, sidecar) = pair().await;
    let text = "A longer text that comes in several frames, with ünïcode and worms.";
    for (path, body) in
        [(STREAM, contents(text)), (ARRAY, contents(text)), (CHAT, chat(text, true))]
    {
        let through = sidecar.post(path, &[("x-simulate", "chunk=5")], body.clone()).await;
        let direct = reqwest::Client::new()
            .post(format!("{}{path}", upstream.url()))
            .header("x-goog-api-key", "k")
            .header("x-simulate", "chunk=5")
            .body(body);
        assert_eq!(through.text, direct.send().await.unwrap().text().await.unwrap(), "{path}");
        let execution = sidecar.execution(&through).await;
        assert_eq!(
            (&execution["outcome"], &execution["streamed"]),
            (&json!("success"), &json!(true))
        );
        assert!(execution["token_count"].as_u64().unwrap() > 0);
        assert!(execution["time_to_first_token_ms"].as_f64().unwrap() > 0.0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_condemned_stream_ends_properly_before_the_phrase_for_every_chunk_size() {
    let (_upstream, sidecar) = pair().await;
    for chunk in [1, 2, 3, 5, 8, 13, 40, 200] {
        let script = format!("{},chunk={chunk}", say(ABUSE));
        let headers = [("x-simulate", script.as_str())];
        let sse = sidecar.say(STREAM, &headers, "hello").await;
        let text = native_text(&sse.text);
        assert!(ABUSE.starts_with(&text) && !text.contains("kill"), "chunk {chunk}: {text:?}");
        let last = frames(&sse.text).pop().unwrap();
        assert_eq!(last["candidates"][0]["finishReason"], "SAFETY", "chunk {chunk}");
        let array = sidecar.say(ARRAY, &headers, "hello").await;
        let elements = array.json();
        assert_eq!(
            elements.as_array().unwrap().last().unwrap()["candidates"][0]["finishReason"],
            "SAFETY"
        );
        assert!(!array.text.contains("kill"));
        let openai = sidecar.post(CHAT, &headers, chat("hello", true)).await;
        assert!(
            openai.text.contains("\"finish_reason\":\"content_filter\"")
                && openai.text.ends_with("data: [DONE]\n\n")
        );
        assert!(!openai.text.contains("kill"), "chunk {chunk}: {}", openai.text);
        assert_eq!(sidecar.execution(&sse).await["outcome"], "response_blocked");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_stands_around_a_frame_is_looked_at_too() {
    let address = raw::upstream(
        b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n: well\nevent: custom\ndata: {\"a\":1}\n\n\
          : go kill yourself\ndata: {\"candidates\":[{\"finishReason\":\"STOP\"}]}\n\n",
    )
    .await;
    let sidecar = Sidecar::start(Options::to(&format!("http://{address}"))).await;
    let answer = sidecar.say(STREAM, &[], "hello").await;
    let first = ": well\nevent: custom\ndata: {\"a\":1}\n\n";
    let last = "data: {\"candidates\":[{\"finishReason\":\"STOP\"}]}\r\n\r\n";
    assert_eq!(answer.text, format!("{first}{last}"));
    let violations = &sidecar.execution(&answer).await["guardrail_violations"];
    assert!(!violations.as_array().unwrap().is_empty(), "{violations}");
}

#[tokio::test(flavor = "multi_thread")]
async fn redaction_in_a_stream_does_not_depend_on_the_cut() {
    let rule = guardrail(
        "mail",
        false,
        &json!({
            "action": "redact",
            "patterns": [{"entity": "email", "regex": "[a-z0-9.]{1,20}@[a-z0-9]{1,20}\\.[a-z]{2,6}"}],
        }),
    );
    let (_upstream, sidecar) = pair_with(&json!({"guardrails": [rule]})).await;
    let text = "Write to ann.b@acme.test or bob@initech.test today.";
    for chunk in 1..=20 {
        let script = format!("{},chunk={chunk}", say(text));
        let answer = sidecar.say(STREAM, &[("x-simulate", &script)], "hello").await;
        assert_eq!(
            native_text(&answer.text),
            "Write to [REDACTED:email] or [REDACTED:email] today.",
            "chunk {chunk}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn redactions_that_overlap_are_one_in_a_stream_as_in_a_whole_answer() {
    let redacting = |name: &str, with: &str, regex: &str| {
        let pattern = json!({"entity": name, "regex": regex, "whole_word": false});
        let config = json!({"action": "redact", "redact": {"with": with}, "patterns": [pattern]});
        guardrail(name, false, &config)
    };
    let rules = [
        redacting("inner", "label", "moon [a-z]{3,6}"),
        redacting("outer", "label", "red moon(?: [a-z]{1,9}){1,3}"),
        redacting("late", "mask", "[a-z]{1,9} tide rising"),
        redacting("first", "mask", "plan [a-z]{4,5}"),
        redacting("second", "label", "delta-[0-9]{1,9}"),
    ];
    let (_upstream, sidecar) = pair_with(&json!({"guardrails": rules})).await;
    let text = "The red moon shines; a moon tides tide rising, plan delta-1234567, over.";
    let headers = |chunk: usize| format!("{},chunk={chunk}", say(text));
    let whole = sidecar.say(GENERATE, &[("x-simulate", &headers(9))], "hello").await;
    let whole = whole.json()["candidates"][0]["content"]["parts"][0]["text"].clone();
    let whole = whole.as_str().unwrap();
    assert_eq!(whole.matches("[REDACTED:").count(), 2, "{whole}");
    for chunk in 1..=40 {
        let answer = sidecar.say(STREAM, &[("x-simulate", &headers(chunk))], "hello").await;
        assert_eq!(native_text(&answer.text), whole, "chunk {chunk}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_just_stops_is_never_a_success() {
    let (_upstream, sidecar) = pair().await;
    let silent = sidecar.say(STREAM, &[("x-simulate", "no_finish")], "hello").await;
    assert_eq!(sidecar.execution(&silent).await["outcome"], "incomplete");
    let request = sidecar
        .client
        .post(sidecar.url(STREAM))
        .header("x-goog-api-key", "k")
        .header("x-simulate", "cut,chunk=3,gap_ms=10")
        .header("x-chaperone-user", "cutter")
        .body(contents("hello there, this will be cut in the middle"));
    let answer = request.send().await.unwrap();
    assert_eq!(answer.status(), 200);
    assert!(answer.bytes().await.is_err(), "the client must see that the answer is not whole");
    let execution = &sidecar.executions("&user=cutter", 1).await[0];
    assert_eq!(
        (&execution["outcome"], &execution["usage_partial"]),
        (&json!("incomplete"), &json!(true))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn when_the_client_leaves_the_upstream_is_cancelled_and_the_call_recorded() {
    let (address, mut closed) = raw::silent().await;
    let sidecar = Sidecar::start(Options::to(&format!("http://{address}"))).await;
    let request = sidecar.client.post(sidecar.url(STREAM)).header("x-chaperone-user", "leaver");
    let call = tokio::spawn(request.body(contents("hello")).send());
    tokio::time::sleep(Duration::from_millis(300)).await;
    call.abort();
    tokio::time::timeout(Duration::from_secs(1), closed.recv())
        .await
        .expect("cancelled within a second")
        .unwrap();
    assert_eq!(sidecar.executions("&user=leaver", 1).await[0]["outcome"], "client_left");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_leaves_in_mid_stream_is_recorded_with_what_was_billed() {
    let (_upstream, sidecar) = pair().await;
    let mut answer = sidecar
        .client
        .post(sidecar.url(STREAM))
        .header("x-goog-api-key", "k")
        .header("x-simulate", "gap_ms=50,chunk=2")
        .header("x-chaperone-user", "half")
        .body(contents("a text that takes its time to arrive here"))
        .send()
        .await
        .unwrap();
    assert!(answer.chunk().await.unwrap().is_some());
    drop(answer);
    let execution = &sidecar.executions("&user=half", 1).await[0];
    assert_eq!(
        (&execution["outcome"], &execution["usage_partial"]),
        (&json!("client_left"), &json!(true))
    );
    assert!(execution["prompt_tokens"].as_u64().unwrap() > 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn too_many_streams_are_refused_kindly() {
    let upstream = crate::harness::Upstream::start().await;
    let sidecar =
        Sidecar::start(Options::to(&upstream.url()).toml("[limits]\nstreams_max = 1")).await;
    let held = sidecar
        .client
        .post(sidecar.url(STREAM))
        .header("x-goog-api-key", "k")
        .header("x-simulate", "gap_ms=5000")
        .body(contents("slow"))
        .send()
        .await
        .unwrap();
    let refused = sidecar.say(STREAM, &[], "hello").await;
    assert_eq!((refused.status, refused.header("retry-after")), (503, "1"));
    drop(held);
    crate::harness::eventually("the place is free again", async || {
        (sidecar.say(STREAM, &[], "hello").await.status == 200).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_cannot_be_read_does_not_pass_where_somebody_inspects() {
    const HEAD: &str =
        "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n";
    for body in [
        "<html>kill yourself</html>\n\n",
        r#"{"candidates":[{"content":{"parts":[{"text":"kill yourself"}]}}]}"#,
    ] {
        let answer: &'static [u8] =
            Box::leak(format!("{HEAD}{body}").into_bytes().into_boxed_slice());
        let sidecar =
            Sidecar::start(Options::to(&format!("http://{}", raw::upstream(answer).await))).await;
        let stopped = sidecar.say(STREAM, &[], "hello").await;
        assert!(
            !stopped.text.contains("kill") && stopped.text.contains("SAFETY"),
            "{}",
            stopped.text
        );
    }
    let answer = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\ndata: <html>kill yourself</html>\r\n\r\n";
    let sidecar =
        Sidecar::start(Options::to(&format!("http://{}", raw::upstream(answer).await))).await;
    let stopped = sidecar.say(STREAM, &[], "hello").await;
    assert!(
        stopped.text.contains("\"finishReason\":\"SAFETY\"") && !stopped.text.contains("html"),
        "{}",
        stopped.text
    );
    assert_eq!(sidecar.execution(&stopped).await["error_type"], "unreadable_answer");
    let nobody = Options::to(&format!("http://{}", raw::upstream(answer).await)).definitions(
        &json!({"guardrails": [
            guardrail("elsewhere", true, &json!({"applies_to": ["request"], "literals": ["x"]})),
        ]}),
    );
    let passed = Sidecar::start(nobody).await.say(STREAM, &[], "hello").await;
    assert_eq!(
        passed.text, "data: <html>kill yourself</html>\r\n\r\n",
        "nobody inspects: it passes as it came"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_error_in_mid_stream_stays_one() {
    for begin in
        ["", "data: {\"candidates\":[{\"content\":{\"parts\":[{\"text\":\"one \"}]}}]}\r\n\r\n"]
    {
        let error =
            "{\n  \"error\": {\n    \"code\": 503,\n    \"status\": \"UNAVAILABLE\"\n  }\n}\n";
        let answer = format!(
            "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n{begin}{error}"
        );
        let answer: &'static [u8] = Box::leak(answer.into_bytes().into_boxed_slice());
        let upstream = raw::upstream(answer).await;
        let sidecar = Sidecar::start(Options::to(&format!("http://{upstream}"))).await;
        let failed = sidecar.say(STREAM, &[], "hello").await;
        assert_eq!(failed.text, format!("{begin}{error}"));
        let row = sidecar.execution(&failed).await;
        assert_eq!(
            (&row["outcome"], &row["error_type"]),
            (&json!("failed"), &json!("upstream_error"))
        );
    }
}

/// A sidecar in front of an upstream that answers with these native frames.
async fn answering(frames: &[Value]) -> Sidecar {
    let events: Vec<String> = frames.iter().map(|frame| format!("data: {frame}\r\n\r\n")).collect();
    let body = events.concat();
    let head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n";
    let answer: &'static [u8] = Box::leak(format!("{head}{body}").into_bytes().into_boxed_slice());
    Sidecar::start(Options::to(&format!("http://{}", raw::upstream(answer).await))).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_phrase_hides_neither_behind_thoughts_nor_in_fragments() {
    let part = |part: Value| json!({"candidates": [{"content": {"parts": [part]}}]});
    let parts = |parts: Value| json!({"candidates": [{"content": {"parts": parts}}]});
    for frames in [
        vec![
            part(json!({"text": "done", "thought": true})),
            part(json!({"text": "Kill yourself"})),
        ],
        vec![parts(json!([{"text": "done"}, {"text": "Kill yourself"}]))],
        vec![
            part(json!({"executableCode": {"code": "# kill your"}})),
            part(json!({"executableCode": {"code": "self now"}})),
        ],
        vec![part(json!({"functionCall": {"name": "f", "args": {"kill yourself": 1}}}))],
    ] {
        let sidecar = answering(&frames).await;
        let answer = sidecar.say(STREAM, &[], "hello").await;
        assert!(answer.text.contains("\"finishReason\":\"SAFETY\""), "{frames:?}: {}", answer.text);
        assert!(!answer.text.to_lowercase().contains("yourself"), "{}", answer.text);
    }
    let call = |text: &str| json!({"choices": [{"index": 0, "delta": {"tool_calls": [{"index": 0, "function": {"arguments": text}}]}}]});
    let sidecar = answering(&[call("{\"x\": \"kill your"), call("self\"}")]).await;
    let answer = sidecar.post(CHAT, &[], chat("hello", true)).await;
    assert!(
        answer.text.contains("content_filter") && !answer.text.contains("kill"),
        "{}",
        answer.text
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn success_needs_every_candidate_to_end_well() {
    let ends = |index: u64, reason: &str| json!({"candidates": [{"index": index, "finishReason": reason}]});
    let goes_on = json!({"candidates": [{"index": 1, "content": {"parts": [{"text": "x"}]}}]});
    for (frames, outcome) in [
        (vec![ends(0, "STOP"), ends(1, "MAX_TOKENS")], "success"),
        (vec![goes_on, ends(0, "STOP")], "incomplete"),
        (vec![ends(0, "SAFETY"), ends(1, "STOP")], "failed"),
    ] {
        let sidecar = answering(&frames).await;
        let answer = sidecar.say(STREAM, &[], "hello").await;
        assert_eq!(sidecar.execution(&answer).await["outcome"], outcome, "{frames:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_that_would_have_to_be_redacted_stops_the_answer() {
    let rule = guardrail("names", false, &json!({"action": "redact", "literals": ["secret name"]}));
    let call = json!({"candidates": [{"content": {"parts": [{"functionCall": {"name": "f", "args": {"secret name": 1}}}]}, "finishReason": "STOP"}]});
    for (path, body) in
        [(STREAM, format!("data: {call}\r\n\r\n")), (crate::harness::GENERATE, call.to_string())]
    {
        let head = "HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\nconnection: close\r\n\r\n";
        let answer: &'static [u8] =
            Box::leak(format!("{head}{body}").into_bytes().into_boxed_slice());
        let upstream = format!("http://{}", raw::upstream(answer).await);
        let options = Options::to(&upstream).definitions(&json!({"guardrails": [rule]}));
        let got = Sidecar::start(options).await.say(path, &[], "hello").await;
        assert!(got.text.contains("SAFETY") && !got.text.contains("secret name"), "{}", got.text);
    }
}
