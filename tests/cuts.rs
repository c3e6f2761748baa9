//! Streams of every shape that clients meet, cut at every byte: what arrives through Chaperone is what would
//! have arrived without it.

use std::net::SocketAddr;

use futures_util::{StreamExt, stream};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::harness::{Options, STREAM, Sidecar, contents, guardrail, raw};
use crate::streams::ARRAY;

const BEGIN: &str =
    r#"{"candidates":[{"content":{"parts":[{"text":"By the river"}],"role":"model"},"index":0}]}"#;
const END: &str = r#"{"candidates":[{"content":{"parts":[{"text":" it rains."}],"role":"model"},"finishReason":"STOP","index":0}],"usageMetadata":{"promptTokenCount":1,"candidatesTokenCount":2,"totalTokenCount":3}}"#;
const FILTERED: &str = r#"{"candidates":[{"finishReason":"SAFETY","index":0}]}"#;
const BARE_ERROR: &str = "{\n  \"error\": {\n    \"code\": 503,\n    \"message\": \"m\",\n    \"status\": \"UNAVAILABLE\"\n  }\n}";
/// With members that no schema has.
const CONTINUED: &str = r#"{"turnToken":"t","candidates":[{"content":{"parts":[{"text":"By the river"}],"role":"model"},"continuationToken":"AbC=","score":0.5,"index":0}],"modelStatus":{"x":[1]}}"#;
const ERROR: &str = r#"{"error":{"code":503,"message":"m","status":"UNAVAILABLE"}}"#;

/// The shapes of section 4.4 of the notes on Gemini, each with its path.
fn shapes() -> Vec<(&'static str, String)> {
    [
        (STREAM, format!("data: {BEGIN}\r\n\r\ndata: {END}\r\n\r\n")),
        (STREAM, format!("data: {BEGIN}\n\ndata: {END}\n\n")),
        (STREAM, format!(": a comment\n\ndata: {BEGIN}\n\ndata: {END}\n\n")),
        (STREAM, format!("event: message\ndata: {BEGIN}\n\ndata: {END}\n\n")),
        (STREAM, format!("data:{BEGIN}\n\ndata:{END}\n\n")),
        (STREAM, format!("data: {BEGIN}\n\ndata: {END}\n\ndata: [DONE]\n\n")),
        (STREAM, format!("data: {BEGIN}\n\ndata: {END}")),
        (STREAM, format!("data: {BEGIN}\n\ndata: {ERROR}\n\n")),
        (STREAM, format!("data: {BEGIN}\n\ndata: {FILTERED}\n\n")),
        (STREAM, format!("data: {BEGIN}\r\n\r\n{BARE_ERROR}\n")),
        (STREAM, BARE_ERROR.to_owned()),
        (STREAM, format!("data: {BEGIN}\n\n")),
        (
            STREAM,
            format!("id: 7\nevent: custom\nretry: 10\ndata: {BEGIN}\nid: 8\n\ndata: {END}\n\n"),
        ),
        (STREAM, format!("data: {BEGIN}\n\n: in the middle\ndata: {{\ndata: {}\n\n", &END[1..])),
        (STREAM, format!("data: {CONTINUED}\n\ndata: {END}\n\n")),
        (ARRAY, format!("[{BEGIN}\r\n,\r\n{END}\r\n]")),
    ]
    .to_vec()
}

/// An upstream that gives so many bytes of a shape, as `x-shape` says, and breaks off where more would follow.
async fn upstream() -> SocketAddr {
    raw::serve(|mut stream| async move {
        // To its last byte: what is not read would reset the connection.
        let (mut request, mut buffer) = (String::new(), vec![0; 65_536]);
        while !request.contains("hello") {
            match stream.read(&mut buffer).await {
                Ok(read @ 1..) => request.push_str(&String::from_utf8_lossy(&buffer[..read])),
                _ => return,
            }
        }
        let head = request.to_lowercase();
        let (_, asked) = head.split_once("x-shape: ").unwrap();
        let (shape, cut) = asked.lines().next().unwrap().split_once(':').unwrap();
        let (_, whole) = shapes().swap_remove(shape.parse().unwrap());
        let cut: usize = cut.parse().unwrap();
        let chunk =
            if cut > 0 { format!("{cut:x}\r\n{}\r\n", &whole[..cut]) } else { String::new() };
        let end = if cut == whole.len() { "0\r\n\r\n" } else { "" };
        let answer = format!(
            "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\
             transfer-encoding: chunked\r\n\r\n{chunk}{end}"
        );
        drop(stream.write_all(answer.as_bytes()).await);
        drop(stream.shutdown().await);
    })
    .await
}

/// What arrives of a stream, and whether it breaks off, as the bytes on the wire have it.
async fn arrives(address: SocketAddr, (shape, cut): (usize, usize)) -> (String, bool) {
    let ((path, _), body) = (shapes().swap_remove(shape), contents("hello"));
    let request = format!(
        "POST {path} HTTP/1.1\r\nhost: a\r\nx-goog-api-key: k\r\nx-shape: {shape}:{cut}\r\n\
         connection: close\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    let answer = raw::exchange(address, request.as_bytes()).await;
    let (head, mut rest) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 200"), "{head}");
    let mut text = String::new();
    while let Some((size, after)) = rest.split_once("\r\n") {
        let size = usize::from_str_radix(size, 16).unwrap();
        if size == 0 {
            return (text, false);
        }
        text.push_str(&after[..size]);
        rest = &after[size + 2..];
    }
    (text, true)
}

/// What clients read of a stream: the data of its whole frames, or the elements of its array. The last frame is
/// whole without a blank line where the stream ended by itself.
fn payloads((text, is_cut): &(String, bool)) -> Vec<&str> {
    if text.starts_with('[') {
        return [BEGIN, END].into_iter().filter(|element| text.contains(element)).collect();
    }
    let is_whole = |frame: &&str| ["\n\n", "\r\n\r\n"].iter().any(|end| frame.ends_with(end));
    text.split_inclusive("\n\n")
        .flat_map(|frames| frames.split_inclusive("\r\n\r\n"))
        .filter(|frame| is_whole(frame) || !is_cut)
        .flat_map(str::lines)
        .filter_map(|line| line.strip_prefix("data:").map(str::trim))
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_is_cut_anywhere_is_the_same_through_chaperone() {
    let upstream = upstream().await;
    let looks_at_requests = json!({"literals": ["nothing"], "applies_to": ["request"]});
    let without = json!({"guardrails": [guardrail("requests", true, &looks_at_requests)]});
    let options = || Options::to(&format!("http://{upstream}"));
    let unguarded = Sidecar::start(options().definitions(&without)).await;
    assert_eq!(unguarded.source().await, "environment");
    let guarded = Sidecar::start(options()).await;
    let cuts = shapes()
        .into_iter()
        .enumerate()
        .flat_map(|(number, (_, whole))| (0..=whole.len()).map(move |cut| (number, cut)));
    let seen = stream::iter(cuts.map(|place| {
        let addresses = [upstream, unguarded.data, guarded.data];
        async move {
            let [direct, through, inspected] = addresses.map(|address| arrives(address, place));
            (place, direct.await, through.await, inspected.await)
        }
    }));
    let mut count = 0;
    let mut seen = seen.buffer_unordered(16);
    while let Some(((shape, cut), direct, through, inspected)) = seen.next().await {
        let place = format!("shape {shape} cut at {cut}");
        assert_eq!((through.1, inspected.1), (direct.1, direct.1), "{place}");
        assert_eq!(through.0, direct.0, "{place}");
        // Where somebody looks, what may go on beyond the cut is held back.
        let (all, some) = (payloads(&direct), payloads(&inspected));
        assert!(all.starts_with(&some), "{place}: {some:?}");
        assert!(direct.0.starts_with(&inspected.0), "{place}: {}", inspected.0);
        if !direct.1 {
            assert_eq!(inspected.0, direct.0, "{place}");
        }
        count += 1;
    }
    assert!(count > 2_000, "{count}");
}
