//! Step 7: only a cleared call goes upstream.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use tokio::time::{Sleep, sleep};

use super::Proxy;
use super::exchange::Exchange;
use super::inspect::{AnswerPlan, Cleared, OutgoingBody};
use super::refusal::{Kind, Refusal};
use crate::gemini::usage;
use crate::telemetry;
use crate::upstream::ClientBodyFailed;
use crate::words::digest;
use crate::words::tokens::ServiceTier;

/// The head of the upstream's answer, its body still to come.
#[derive(Debug)]
pub(super) struct Answered {
    pub(super) head: http::response::Parts,
    pub(super) body: reqwest::Body,
    pub(super) plan: Option<AnswerPlan>,
    /// Whether the request was a HEAD, whose answer has a length but no body.
    pub(super) is_head: bool,
    /// The base URL by which the caller came here.
    pub(super) returns_to: Option<String>,
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
    let target = proxy
        .upstream
        .target(&outgoing.path, outgoing.query.as_deref())
        .map_err(|error| Refusal::new(Kind::BadRequest, error.to_string()))?;
    if !proxy.may_record() {
        let message = "no record of this call could be kept, and audit.when_full is set to refuse";
        return Err(Refusal::new(Kind::Unrecordable, message));
    }
    let body = match outgoing.body {
        OutgoingBody::Whole(bytes) => {
            let sent = digest::sha256_hex(&bytes);
            exchange.note(|execution| execution.body_sha256 = Some(sent));
            exchange.asks_for_tier(usage::tier_asked_for(&bytes));
            reqwest::Body::from(bytes)
        }
        OutgoingBody::Unread(body) if body.is_end_stream() => reqwest::Body::from(Bytes::new()),
        OutgoingBody::Unread(body) => {
            reqwest::Body::wrap(Patient::new(body, proxy.rules.body_idle_timeout()))
        }
    };
    let is_head = outgoing.method == http::Method::HEAD;
    let switches = outgoing.headers.contains_key(http::header::UPGRADE);
    telemetry::metrics::stage("request", exchange.own().as_secs_f64());
    exchange.rest();
    let answer = proxy.upstream.send(outgoing.method, target, outgoing.headers, body).await;
    exchange.work();
    let answer = answer.map_err(|error| {
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
    Ok(Answered { head, body, plan: outgoing.answer, is_head, returns_to: outgoing.returns_to })
}

impl Proxy {
    fn may_record(&self) -> bool {
        self.rules.when_full == crate::config::WhenFull::Serve || self.recorder.has_room()
    }
}

/// A client's body that may not stall: its idle time is bounded, its trailers stay here.
struct Patient {
    body: Incoming,
    patience: Duration,
    idle: Pin<Box<Sleep>>,
}

impl Patient {
    fn new(body: Incoming, patience: Duration) -> Self {
        Self { body, patience, idle: Box::pin(sleep(patience)) }
    }
}

impl Body for Patient {
    type Data = Bytes;
    type Error = ClientBodyFailed;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, ClientBodyFailed>>> {
        loop {
            let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(context) else {
                ready!(self.idle.as_mut().poll(context));
                return Poll::Ready(Some(Err(ClientBodyFailed)));
            };
            self.idle = Box::pin(sleep(self.patience));
            match frame {
                None => return Poll::Ready(None),
                Some(Err(_)) => return Poll::Ready(Some(Err(ClientBodyFailed))),
                Some(Ok(frame)) if frame.is_data() => return Poll::Ready(Some(Ok(frame))),
                Some(Ok(_trailers)) => {}
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
