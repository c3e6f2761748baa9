//! Spans to an OpenTelemetry collector: OTLP over HTTP, in its JSON form.
//!
//! <https://opentelemetry.io/docs/specs/otlp/#otlphttp>: what to send, which answers ask for another try, and
//! what a partial success says.

use std::time::Duration;

use reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderValue, RETRY_AFTER};
use reqwest::redirect::Policy;
use reqwest::{Client, Response, StatusCode, Url};
use serde_json::Value;
use tokio::sync::mpsc::Receiver;

use super::{BadSink, Books, Item, next, span};
use crate::config::Collector;
use crate::telemetry::metrics::{self, Exported};

pub(super) const SINK: &str = "otlp";
/// From connecting to the end of the answer.
const DEADLINE: Duration = Duration::from_secs(10);
/// Tries of one batch; the queue fills up meanwhile.
const TRIES_MAX: u32 = 6;
const RETRY_FIRST: Duration = Duration::from_secs(1);
const RETRY_AFTER_MAX: Duration = Duration::from_secs(30);
/// Of an answer that is read.
const ANSWER_BYTES_MAX: usize = 64 * 1024;

pub(super) struct Otlp {
    client: Client,
    url: Url,
    headers: HeaderMap,
    books: Books,
}

/// Why a batch did not arrive. Holds no URL, which may hold a key.
enum Failure {
    /// It may arrive later; the collector may have said when.
    Passing(String, Option<Duration>),
    Lasting(String),
}

impl Otlp {
    pub(super) fn new(collector: &Collector) -> Result<Self, BadSink> {
        let url = Url::parse(&collector.url).map_err(|error| BadSink(error.to_string()))?;
        let mut headers = HeaderMap::new();
        for (name, value) in &collector.headers {
            let mut value = HeaderValue::from_str(value.expose())
                .map_err(|_holds_it| BadSink(format!("the value of {name} is no header")))?;
            value.set_sensitive(true);
            headers.insert(name.clone(), value);
        }
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        let client = Client::builder()
            .redirect(Policy::none())
            .no_proxy()
            .tcp_nodelay(true)
            .timeout(DEADLINE)
            .build()
            .map_err(|error| BadSink(error.without_url().to_string()))?;
        Ok(Self { client, url, headers, books: Books::of(SINK) })
    }

    pub(super) async fn run(mut self, mut queue: Receiver<Item>) {
        while let Some(items) = next(&mut queue).await {
            let count = items.len() as u64;
            let spans: Vec<&[u8]> = items.iter().map(|item| item.bytes.as_slice()).collect();
            let body = span::request(&spans);
            match self.deliver(body, &queue).await {
                Ok(rejected) => {
                    let rejected = rejected.min(count);
                    self.books.sent(count - rejected);
                    metrics::exported(SINK, Exported::Failed, rejected);
                }
                Err(why) => self.books.failed(count, &why),
            }
        }
    }

    /// Gives how many spans the collector rejected. When the process ends there is one try.
    async fn deliver(&self, body: Vec<u8>, queue: &Receiver<Item>) -> Result<u64, String> {
        let (mut tries, mut wait) = (1, RETRY_FIRST);
        loop {
            let (why, asked) = match self.send(body.clone()).await {
                Ok(rejected) => return Ok(rejected),
                Err(Failure::Lasting(why)) => return Err(why),
                Err(Failure::Passing(why, asked)) => (why, asked),
            };
            if tries == TRIES_MAX || queue.is_closed() {
                return Err(why);
            }
            tokio::time::sleep(asked.map_or(wait, |asked| asked.min(RETRY_AFTER_MAX))).await;
            tries += 1;
            wait *= 2;
        }
    }

    async fn send(&self, body: Vec<u8>) -> Result<u64, Failure> {
        let passing =
            |error: reqwest::Error| Failure::Passing(error.without_url().to_string(), None);
        let request = self.client.post(self.url.clone()).headers(self.headers.clone()).body(body);
        let answer = request.send().await.map_err(passing)?;
        let status = answer.status();
        if status.is_success() {
            return Ok(rejected(answer).await);
        }
        let why = format!("the collector answered {}", status.as_u16());
        match status {
            StatusCode::TOO_MANY_REQUESTS
            | StatusCode::BAD_GATEWAY
            | StatusCode::SERVICE_UNAVAILABLE
            | StatusCode::GATEWAY_TIMEOUT => Err(Failure::Passing(why, retry_after(&answer))),
            _ => Err(Failure::Lasting(why)),
        }
    }
}

fn retry_after(answer: &Response) -> Option<Duration> {
    let seconds = answer.headers().get(RETRY_AFTER)?.to_str().ok()?.parse().ok()?;
    Some(Duration::from_secs(seconds))
}

/// How many spans of a batch that arrived were not taken. A number of 64 bits is text in this form.
async fn rejected(mut answer: Response) -> u64 {
    let mut body = Vec::new();
    while let Ok(Some(chunk)) = answer.chunk().await
        && body.len() < ANSWER_BYTES_MAX
    {
        body.extend_from_slice(&chunk);
    }
    let answer: Value = serde_json::from_slice(&body).unwrap_or_default();
    let count = answer.pointer("/partialSuccess/rejectedSpans");
    count
        .and_then(|count| count.as_u64().or_else(|| count.as_str()?.parse().ok()))
        .unwrap_or_default()
}
