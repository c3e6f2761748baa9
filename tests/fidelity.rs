//! What nobody asked to change does not change: bodies, headers, statuses, and how often a call is made.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use chaperone::words::digest::sha256_hex;
use futures_util::{StreamExt, stream};
use http::{HeaderMap, HeaderName, HeaderValue};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::harness::{
    CHAT, GENERATE, Options, STREAM, Sidecar, chat, contents, eventually, pair, raw,
};
use crate::outcomes::Chance;
use crate::streams::ARRAY;

const EXCHANGES: u64 = 10_000;
const WORDS: [&str; 12] = [
    "river",
    "stone",
    "ünïcode",
    "数学",
    "seven",
    "\\\"quoted\\\"",
    "\\n",
    "🙂",
    "light",
    "why",
    "  ",
    "\\u00e9",
];

/// Begins the names of headers that mean nothing to either side.
const KEPT: &str = "x-kept";
/// Headers of an answer that its maker or the hop writes, by their beginnings.
const NOT_KEPT: [&str; 5] =
    ["connection", "date", "server-timing", "transfer-encoding", "x-chaperone-"];

/// A call, and whether its answer is what was sent.
struct Exchange {
    path: String,
    headers: HeaderMap,
    body: Vec<u8>,
    is_echo: bool,
}

impl Exchange {
    /// Its headers that mean nothing, and what its body comes to: what upstream must receive.
    fn sent(&self) -> (Vec<(String, String)>, String) {
        let text = |value: &HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
        let headers =
            self.headers.iter().map(|(name, value)| (name.to_string(), text(value))).collect();
        (headers, sha256_hex(&self.body))
    }
}

/// Up to seven headers: some of a name given more than once, some empty, some not ASCII.
fn headers(chance: &mut Chance) -> HeaderMap {
    let one = |_| {
        let name = HeaderName::try_from(format!("{KEPT}-{}", chance.below(4))).unwrap();
        let value: Vec<u8> = (0..chance.below(30))
            .map(|_| u8::try_from(chance.below(256)).unwrap())
            .filter(|byte| !byte.is_ascii_control() && *byte != b' ')
            .collect();
        (name, HeaderValue::from_bytes(&value).unwrap())
    };
    let mut headers = HeaderMap::new();
    for (name, value) in (0..7).map(one) {
        headers.append(name, value);
    }
    headers
}

fn exchange(number: u64) -> Exchange {
    let mut chance = Chance(number);
    let headers = headers(&mut chance);
    if number.is_multiple_of(2) {
        let length = chance.below(4_000);
        let body = (0..length).map(|_| u8::try_from(chance.below(256)).unwrap()).collect();
        let path = format!("/echo/{number}?x=%20{number}");
        return Exchange { path, headers, body, is_echo: true };
    }
    let text: Vec<&str> =
        (0..chance.below(40)).map(|_| WORDS[usize::try_from(chance.below(12)).unwrap()]).collect();
    // As another serializer would write it.
    let native =
        format!("{{ \"contents\" :[{{\"parts\":\t[{{\"text\": \"{}\"}}]}}]\n}}", text.join(" "));
    let (path, body) = match chance.below(4) {
        0 => (STREAM, native),
        1 => (ARRAY, native),
        2 => (CHAT, chat(&text.join(" ").replace('\\', ""), number.is_multiple_of(3))),
        _ => (GENERATE, native),
    };
    Exchange { path: path.to_owned(), headers, body: body.into_bytes(), is_echo: false }
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_exchanges_keep_their_bytes_and_headers() {
    let (upstream, sidecar) = pair().await;
    let send = async |base: String, one: &Exchange| {
        let request = sidecar.client.post(base + &one.path).header("x-goog-api-key", "k");
        let request = request.header("x-simulate", "chunk=7").headers(one.headers.clone());
        let answer = request.body(one.body.clone()).send().await.unwrap();
        let mut headers = answer.headers().clone();
        let hop = answer
            .headers()
            .keys()
            .filter(|name| NOT_KEPT.iter().any(|beginning| name.as_str().starts_with(beginning)));
        hop.for_each(|name| drop(headers.remove(name)));
        (answer.status().as_u16(), headers, answer.bytes().await.unwrap())
    };
    let through = sidecar.url("");
    let wrong: Vec<u64> = stream::iter(0..EXCHANGES)
        .map(async |number| {
            let one = exchange(number);
            let (status, headers, bytes) = send(through.clone(), &one).await;
            let right = if one.is_echo {
                let is_kept = |name: &HeaderName| name.as_str().starts_with(KEPT);
                bytes == one.body
                    && one.headers.keys().all(|name| {
                        headers.get_all(name).iter().eq(one.headers.get_all(name).iter())
                    })
                    && headers.keys().filter(|name| is_kept(name)).count() == one.headers.keys_len()
            } else {
                (status, headers, bytes) == send(upstream.url(), &one).await
            };
            (!right || status != 200).then_some(number)
        })
        .buffer_unordered(32)
        .filter_map(async |wrong| wrong)
        .collect()
        .await;
    assert_eq!(wrong, Vec::<u64>::new());
    let mut sent: Vec<_> = (0..EXCHANGES).map(|number| exchange(number).sent()).collect();
    let direct = (0..EXCHANGES).map(exchange).filter(|one| !one.is_echo);
    sent.extend(direct.map(|one| one.sent()));
    let kept = |headers: Vec<(String, String)>| -> Vec<(String, String)> {
        headers.into_iter().filter(|(name, _)| name.starts_with(KEPT)).collect()
    };
    let mut received: Vec<_> =
        upstream.received().into_iter().map(|one| (kept(one.headers), one.body_sha256)).collect();
    sent.sort_unstable();
    received.sort_unstable();
    assert_eq!(sent, received);
}

/// Through a sidecar: what a client gets from an upstream that answers with these bytes.
async fn got(answer: &'static [u8], request: &str) -> String {
    let upstream = raw::upstream(answer).await;
    let sidecar = Sidecar::start(Options::to(&format!("http://{upstream}"))).await;
    let got = raw::exchange(sidecar.data, request.as_bytes()).await;
    got.to_lowercase()
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_without_a_body_and_with_more_than_one_head_are_right() {
    let request = |method: &str| {
        format!("{method} /v1beta/files/f HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n")
    };
    let nothing = got(
        b"HTTP/1.1 204 No Content\r\nx-kept: y\r\nserver-timing: gfet4t7;dur=812\r\n\r\n",
        &request("DELETE"),
    )
    .await;
    assert!(nothing.starts_with("http/1.1 204") && nothing.contains("x-kept: y"), "{nothing}");
    assert!(nothing.contains("gfet4t7;dur=812") && nothing.contains("chaperone;dur="), "{nothing}");
    assert!(!nothing.contains("content-length") && nothing.ends_with("\r\n\r\n"), "{nothing}");

    let same = got(b"HTTP/1.1 304 Not Modified\r\netag: \"e\"\r\n\r\n", &request("GET")).await;
    assert!(same.starts_with("http/1.1 304") && same.contains("etag: \"e\""), "{same}");
    assert!(same.ends_with("\r\n\r\n"), "{same}");

    let head = b"HTTP/1.1 200 OK\r\ncontent-length: 1234\r\ncontent-type: video/mp4\r\n\r\n";
    let head = got(head, &request("HEAD")).await;
    assert!(head.contains("content-length: 1234") && head.ends_with("\r\n\r\n"), "{head}");

    let hints = b"HTTP/1.1 103 Early Hints\r\nlink: </x>\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
    let hinted = got(hints, &request("GET")).await;
    assert!(hinted.contains("http/1.1 200") && hinted.ends_with("\r\n\r\nok"), "{hinted}");

    let trailed = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ntrailer: x-sum\r\n\r\n\
                    2\r\nok\r\n0\r\nx-sum: 7\r\n\r\n";
    let plain = got(trailed, &request("GET")).await;
    assert!(plain.ends_with("\r\n2\r\nok\r\n0\r\n\r\n"), "nobody asked: {plain}");
    let asking =
        request("GET").replace("connection: close", "connection: close, te\r\nte: trailers");
    let with_trailers = got(trailed, &asking).await;
    assert!(with_trailers.ends_with("\r\n2\r\nok\r\n0\r\nx-sum: 7\r\n\r\n"), "{with_trailers}");
    let ours = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ntrailer: x-chaperone-arm\r\n\r\n\
                 2\r\nok\r\n0\r\nx-chaperone-arm: b\r\n\r\n";
    let ours = got(ours, &asking).await;
    assert!(ours.ends_with("\r\nok\r\n0\r\n\r\n"), "nobody else says that: {ours}");

    let until_close = got(b"HTTP/1.1 200 OK\r\n\r\nto the end", &request("GET")).await;
    assert!(until_close.contains("to the end"), "{until_close}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_follows_a_body_that_nobody_reads_goes_on_with_it() {
    let (told, mut received) = tokio::sync::mpsc::channel(1);
    let address = raw::serve(move |mut stream| {
        let told = told.clone();
        async move {
            let (mut seen, mut buffer) = (String::new(), [0; 4096]);
            while !seen.ends_with("x-sum: 7\r\n\r\n") {
                let read = stream.read(&mut buffer).await.unwrap();
                seen.push_str(&String::from_utf8_lossy(&buffer[..read]));
            }
            stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await.unwrap();
            told.send(seen).await.unwrap();
        }
    })
    .await;
    let sidecar = Sidecar::start(Options::to(&format!("http://{address}"))).await;
    let request = "POST /upload/v1beta/files HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\
                   transfer-encoding: chunked\r\ntrailer: x-sum\r\n\r\n2\r\nok\r\n0\r\nx-sum: 7\r\n\r\n";
    let answer = raw::exchange(sidecar.data, request.as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    let seen = received.recv().await.unwrap();
    assert!(seen.contains("\r\ntrailer: x-sum\r\n"), "{seen}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_upstream_says_of_waiting_passes_and_nothing_is_tried_again() {
    let quota = b"HTTP/1.1 429 Too Many Requests\r\nretry-after: 37\r\ncontent-type: application/json\r\n\
        content-length: 140\r\n\r\n{\"error\":{\"code\":429,\"status\":\"RESOURCE_EXHAUSTED\",\"details\":\
        [{\"@type\":\"type.googleapis.com/google.rpc.RetryInfo\",\"retryDelay\":\"37s\"}]}}   ";
    let body = contents("hello");
    let request = format!(
        "POST {GENERATE} HTTP/1.1\r\nhost: a\r\nconnection: close\r\nx-server-timeout: 5\r\n\
         content-length: {}\r\n\r\n{body}",
        body.len()
    );
    let answer = got(quota, &request).await;
    assert!(answer.starts_with("http/1.1 429") && answer.contains("retry-after: 37"), "{answer}");
    assert!(answer.contains("\"retrydelay\":\"37s\""), "{answer}");
}

/// An upstream that answers the first request of each connection and, when `reads` is set, takes in a
/// second one; then it closes. Counts the requests it was sent.
async fn closing(reads: bool) -> (SocketAddr, Arc<AtomicUsize>) {
    let requests = Arc::new(AtomicUsize::new(0));
    let counted = requests.clone();
    let address = raw::serve(move |stream| serve(stream, reads, counted.clone())).await;
    (address, requests)
}

async fn serve(mut stream: TcpStream, reads: bool, requests: Arc<AtomicUsize>) {
    let mut buffer = vec![0; 65_536];
    if stream.read(&mut buffer).await.unwrap() == 0 {
        return;
    }
    requests.fetch_add(1, Relaxed);
    let said = b"{\"candidates\":[{\"finishReason\":\"STOP\"}]}";
    let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", said.len());
    stream.write_all(&[head.as_bytes(), said].concat()).await.unwrap();
    if reads && stream.read(&mut buffer).await.is_ok_and(|read| read > 0) {
        requests.fetch_add(1, Relaxed);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_has_closed_costs_no_call() {
    let (upstream, requests) = closing(false).await;
    let sidecar = Sidecar::start(Options::to(&format!("http://{upstream}"))).await;
    let mut answered = 0;
    for _ in 0..50 {
        // One that closes in the very moment in which it is used again is a failure that is told, not a call
        // made twice. Something else in between leaves time to see that it has closed.
        sidecar.page("/metrics").await;
        answered += usize::from(sidecar.say(GENERATE, &[], "hello").await.status == 200);
    }
    assert!(answered > 25, "{answered}");
    assert_eq!(requests.load(Relaxed), answered);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_whose_bytes_were_taken_is_made_once() {
    let (upstream, requests) = closing(true).await;
    let sidecar = Sidecar::start(Options::to(&format!("http://{upstream}"))).await;
    assert_eq!(sidecar.say(GENERATE, &[], "hello").await.status, 200);
    // On the same connection, which is closed with the call in it.
    let broken = sidecar.say(GENERATE, &[], "hello").await;
    assert_eq!(broken.status, 502, "{}", broken.text);
    eventually("both were counted", async || (requests.load(Relaxed) >= 2).then_some(())).await;
    assert_eq!(sidecar.say(GENERATE, &[], "hello").await.status, 200);
    assert_eq!(requests.load(Relaxed), 3);
}
