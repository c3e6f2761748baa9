//! Step 7: only a cleared call goes upstream.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Method};
use hyper::body::Body as _;
use reqwest::Url;
use tokio::time::sleep;

use super::Proxy;
use super::attempts::{self, Attempts, Next, Sent};
use super::exchange::Exchange;
use super::inspect::{AnswerPlan, Cleared, OutgoingBody, Passed, Returns};
use super::patience::{self, Patient, Progress};
use super::refusal::{Kind, Refusal};
use crate::gemini::route::Route;
use crate::gemini::usage;
use crate::telemetry;
use crate::upstream::UpstreamError;
use crate::words::tokens::ServiceTier;
use crate::words::{clock, digest};

/// The head of the upstream's answer, its body still to come.
#[derive(Debug)]
pub(super) struct Answered {
    pub(super) head: http::response::Parts,
    pub(super) body: reqwest::Body,
    pub(super) plan: Option<AnswerPlan>,
    /// Whether the request was a HEAD, whose answer has a length but no body.
    pub(super) is_head: bool,
    /// Where the caller finds this proxy again.
    pub(super) returns_to: Option<Returns>,
    /// The file that was fetched.
    pub(super) file: Option<String>,
    /// The piece of a file that was brought.
    pub(super) piece: Option<Passed>,
}

pub(super) async fn forward(
    proxy: &Proxy,
    cleared: Cleared,
    exchange: &mut Exchange,
) -> Result<Answered, Refusal> {
    let mut outgoing = cleared.into_outgoing();
    if let Some(key) = &proxy.key {
        key.put(&outgoing.path, &mut outgoing.query, &mut outgoing.headers)?;
    }
    let target = address(proxy, &outgoing.path, outgoing.query.as_deref())?;
    if !proxy.may_record() {
        let message = "no record of this call could be kept, and audit.when_full is set to refuse";
        return Err(Refusal::new(Kind::Unrecordable, message));
    }
    let switches = outgoing.headers.contains_key(http::header::UPGRADE);
    let is_head = outgoing.method == http::Method::HEAD;
    let call = outgoing.answer.as_ref().map(|plan| plan.call);
    let rules = &proxy.rules.retries;
    let (path, query) = (outgoing.path, outgoing.query);
    let route = (!rules.fallback_models.is_empty())
        .then(|| Route::read(&outgoing.method, &path, query.as_deref()));
    let tier = match &outgoing.body {
        OutgoingBody::Whole(bytes) => usage::tier_asked_for(bytes),
        OutgoingBody::Unread(_) => None,
    };
    exchange.asks_for_tier(tier);
    let patience = patience::of_head(&outgoing.headers, tier, proxy.rules.response_head_timeout);
    let progress = Progress::begin();
    let (method, headers) = (outgoing.method, outgoing.headers);
    let ready = Ready { method, target, headers, patience, progress: progress.clone() };
    telemetry::metrics::stage("request", exchange.own().as_secs_f64());
    let sent = match outgoing.body {
        OutgoingBody::Whole(bytes) => {
            let digest = digest::sha256_hex(&bytes);
            exchange.note(|execution| execution.body_sha256 = Some(digest));
            let model = route.as_ref().and_then(|route| route.model.as_deref());
            let attempts = Attempts::of(rules, call, model);
            let other = |model: &str| {
                let path = route.as_ref().map(|route| route.with_model(model).path);
                address(proxy, &path.unwrap_or_default(), query.as_deref())
            };
            try_on(proxy, ready, bytes, (attempts, other), exchange).await?
        }
        OutgoingBody::Unread(body) if body.is_end_stream() => {
            ready.send(proxy, reqwest::Body::from(Bytes::new()), exchange).await
        }
        OutgoingBody::Unread(body) => {
            let body = Patient::new(body, proxy.rules.body_idle_timeout(), progress);
            let body = reqwest::Body::wrap(body);
            ready.send(proxy, body, exchange).await
        }
    };
    let answer = sent.map_err(|error| {
        let id = exchange.fact(|execution| execution.request_id.clone()).unwrap_or_default();
        telemetry::events::upstream_failed(&id, error.name());
        Refusal::new(Kind::Upstream(error), error.to_string())
    })?;
    if answer.status() == http::StatusCode::SWITCHING_PROTOCOLS && !switches {
        return Err(Refusal::new(
            Kind::UnreadableAnswer,
            "the upstream switched protocols unasked",
        ));
    }
    let (head, body) = answer.into_parts();
    let billed = head.headers.get(usage::TIER_HEADER);
    exchange.is_billed_at(billed.and_then(|tier| tier.to_str().ok()).map(ServiceTier::read));
    let (plan, returns_to) = (outgoing.answer, outgoing.returns_to);
    let (file, piece) = (outgoing.file, outgoing.piece);
    Ok(Answered { head, body, plan, is_head, returns_to, file, piece })
}

/// A call but for its body.
#[derive(Debug, Clone)]
struct Ready {
    method: Method,
    target: Url,
    headers: HeaderMap,
    /// For the head of the answer, counted from when the request was last sent a piece of.
    patience: Duration,
    progress: Progress,
}

impl Ready {
    async fn send(self, proxy: &Proxy, body: reqwest::Body, exchange: &mut Exchange) -> Sent {
        exchange.rest();
        self.progress.note();
        let sent = tokio::select! {
            sent = proxy.upstream.send(self.method, self.target, self.headers, body) => sent,
            () = self.progress.none_for(self.patience) => Err(UpstreamError::Timeout),
        };
        exchange.work();
        sent
    }
}

/// Sends a call, and again as far as the operator wants it, at last to where `other` finds another model. Each
/// try that another one follows is a record of its own.
async fn try_on(
    proxy: &Proxy,
    mut ready: Ready,
    body: Bytes,
    (mut attempts, other): (Attempts<'_>, impl Fn(&str) -> Result<Url, Refusal>),
    exchange: &mut Exchange,
) -> Result<Sent, Refusal> {
    while attempts.may_go_on() {
        let (at, began) = (clock::now(), clock::monotonic());
        let sent = ready.clone().send(proxy, reqwest::Body::from(body.clone()), exchange).await;
        let (sent, failure) = attempts::look(sent).await;
        let Some(failure) = failure else { return Ok(sent) };
        let next = attempts.next(failure);
        if next != Next::Nothing {
            exchange.tried(at, began.elapsed(), failure.status);
        }
        match next {
            Next::Again(wait) => {
                exchange.rest();
                sleep(wait).await;
                exchange.work();
            }
            Next::Model(model) => {
                ready.target = other(&model)?;
                exchange.note(|execution| execution.model_name = Some(model));
            }
            Next::Nothing => return Ok(sent),
        }
    }
    Ok(ready.send(proxy, reqwest::Body::from(body), exchange).await)
}

fn address(proxy: &Proxy, path: &str, query: Option<&str>) -> Result<Url, Refusal> {
    let target = proxy.upstream.target(path, query);
    target.map_err(|error| Refusal::new(Kind::BadRequest, error.to_string()))
}

impl Proxy {
    fn may_record(&self) -> bool {
        self.rules.when_full == crate::config::WhenFull::Serve || self.recorder.has_room()
    }
}
