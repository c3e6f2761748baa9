//! Step 8: the answer on its way back: inspected, metered, recorded.
//!
//! A stream is relayed frame by frame and an answer that guardrails look at is held until they have
//! spoken; everything else flows through while it is read along. The upstream's body lives inside the
//! client's: when the client leaves, the upstream call is dropped.

mod body;
pub(super) mod coding;
mod file;
mod frames;
mod terminal;
mod watch;

use bytes::Bytes;
use http::StatusCode;
use http::header::{CONTENT_ENCODING, CONTENT_LENGTH, HeaderValue};
use http::response::Parts;
use http_body_util::BodyExt;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};

use super::arrive::Whole;
use super::exchange::Exchange;
use super::forward::Answered;
use super::headers::UPLOAD_URL;
use super::identify::TENANT_PARAMETER;
use super::inspect::{AnswerPlan, Returns, can_redact, edit, judge, note, redacting};
use super::refusal::{Kind, Refusal};
use super::reply::{Reply, decorate, full};
use super::texts::{Hole, Texts, fill, redactions};
use super::vault::Vault;
use super::{Proxy, headers};
use crate::execution::Outcome;
use crate::gemini::answer::Answer;
use crate::gemini::{json, text};
use crate::guardrail::{Direction, Verdict};
use crate::{telemetry, upstream};
use body::{Reader, Relay};
use file::FileReader;
use frames::FrameReader;
use watch::Watch;
pub(super) use watch::{failed, outcome};

/// An answer that is not read.
pub(super) fn unread(proxy: &Proxy, answered: Answered, exchange: &mut Exchange) -> Reply {
    let Answered { mut head, body, is_head, returns_to, file, piece, .. } = answered;
    if let Some(piece) = piece.filter(|_| head.status.is_success()) {
        proxy.pieces.keep(piece);
    }
    if let Some(url) =
        head.headers.get(UPLOAD_URL).and_then(|url| proxy.returning(url, returns_to.as_ref()?))
    {
        head.headers.insert(UPLOAD_URL, url);
    }
    let length = head.headers.get(CONTENT_LENGTH).filter(|_| is_head).cloned();
    exchange.note(|execution| execution.http_status = Some(head.status.as_u16()));
    exchange.rest();
    let reader = unread_by(proxy, &head, file);
    let mut reply = respond(&head, exchange);
    headers::announce_trailers(&head.headers, reply.headers_mut());
    // The answer to a HEAD tells the length of a body that does not follow.
    if let Some(length) = length {
        reply.headers_mut().insert(CONTENT_LENGTH, length);
    }
    *reply.body_mut() =
        Relay::new(body, reader, exchange.take(), proxy.drained.clone()).boxed_unsync();
    reply
}

/// Nobody reads an answer, but the answers of a batch that may be in a file.
fn unread_by(proxy: &Proxy, head: &Parts, file: Option<String>) -> Reader {
    // Of a part of a file nobody knows which answers are in it.
    let Some(name) = file.filter(|_| head.status == StatusCode::OK) else {
        return Reader::Unread(head.status);
    };
    if headers::coding(&head.headers).is_some() {
        telemetry::metrics::unscanned(false);
        return Reader::Unread(head.status);
    }
    Reader::File(FileReader::new(name, proxy.rules.limits.response_body_bytes_max))
}

impl Proxy {
    /// An address at the upstream as one here, so that what is sent there comes by.
    fn returning(&self, url: &HeaderValue, returns_to: &Returns) -> Option<HeaderValue> {
        let mut path = self.upstream.path_at(url.to_str().ok()?)?;
        if let Some(tenant) = &returns_to.tenant {
            let separator = if path.contains('?') { '&' } else { '?' };
            let tenant = utf8_percent_encode(tenant, NON_ALPHANUMERIC);
            path = format!("{path}{separator}{TENANT_PARAMETER}={tenant}");
        }
        HeaderValue::from_str(&format!("{}{path}", returns_to.base)).ok()
    }
}

/// An answer that is read, and inspected if any guardrail asks for it.
pub(super) async fn inspected(
    proxy: &Proxy,
    answered: Answered,
    exchange: &mut Exchange,
) -> Result<Reply, Refusal> {
    let Answered { head, body, plan: Some(plan), .. } = answered else {
        return Ok(unread(proxy, answered, exchange));
    };
    exchange.note(|execution| execution.http_status = Some(head.status.as_u16()));
    let limits = &proxy.rules.limits;
    if head.status.is_success() && plan.framing.is_none() && plan.looks() {
        return held(proxy, head, body, plan, exchange).await;
    }
    let reader = match plan.framing {
        Some(framing) if head.status.is_success() => {
            if headers::coding(&head.headers).is_some() && plan.looks() {
                let message = "the upstream coded a stream in a way that cannot be inspected";
                return Err(Refusal::new(Kind::UnreadableAnswer, message));
            }
            Reader::Frames(Box::new(FrameReader::new(framing, plan, limits.stream_frame_bytes_max)))
        }
        Some(_) | None => {
            let coding = headers::coding(&head.headers).map(str::to_owned);
            Reader::Watch(Watch::new(
                (plan.dialect, plan.call),
                head.status,
                coding,
                limits.response_body_bytes_max,
            ))
        }
    };
    let mut reply = respond(&head, exchange);
    exchange.rest();
    *reply.body_mut() =
        Relay::new(body, reader, exchange.take(), proxy.drained.clone()).boxed_unsync();
    Ok(reply)
}

/// An answer that is held until its guardrails have spoken.
async fn held(
    proxy: &Proxy,
    head: Parts,
    body: reqwest::Body,
    mut plan: AnswerPlan,
    exchange: &mut Exchange,
) -> Result<Reply, Refusal> {
    exchange.rest();
    let bytes_max = proxy.rules.limits.response_body_bytes_max;
    let bytes = collect(body, bytes_max).await;
    exchange.work();
    let bytes = bytes?;
    exchange.first_token();
    let coded = headers::coding(&head.headers);
    let plain = coding::decode(coded, &bytes, bytes_max).map_err(unreadable)?;
    let mut answer = Answer::to(plan.call);
    answer.read(plan.dialect, &plain);
    exchange.answered(&answer, false);
    let document = json::check(&plain).map_err(unreadable)?;
    let segments = text::answer(plan.dialect, document).map_err(unreadable)?;
    let texts = Texts::new(&segments);
    let mut placed = texts.inspect(&plan.guardrails, &plan.rules);
    placed.extend(texts.not_json(&plan.guardrails, &plan.rules));
    let looked = (&*plan.guardrails, &*plan.rules, Direction::Response);
    note(exchange, looked, (document, &segments, &placed));
    let outcome = watch::outcome(head.status, &answer);
    let verdict = match judge(&plan.guardrails, &placed) {
        // A name cannot be replaced without changing what it names.
        Verdict::Redact if !can_redact(&plan.guardrails, &segments, &placed, 0..0) => {
            Verdict::Block
        }
        verdict => verdict,
    };
    let mut status = head.status;
    let (body, outcome, was_coded) = match verdict {
        Verdict::Block => {
            let body = terminal::blocked_answer((plan.dialect, plan.call), &answer, &mut status);
            (Bytes::from(body), (Outcome::ResponseBlocked, Some("guardrail")), false)
        }
        Verdict::Allow | Verdict::Warn if plan.vault.is_empty() => (bytes, outcome, true),
        Verdict::Redact | Verdict::Allow | Verdict::Warn => {
            let mut holes: Vec<_> = restored(&plan.vault, &segments).collect();
            let placed = redacting(&plan.guardrails, placed);
            holes.extend(redactions(&plan.guardrails, &segments, &placed, &mut plan.vault));
            let changed = fill(&segments, &holes);
            (Bytes::from(edit(document, &segments, &changed)), outcome, false)
        }
    };
    let mut reply = respond(&head, exchange);
    *reply.status_mut() = status;
    if !was_coded {
        reply.headers_mut().remove(CONTENT_ENCODING);
    }
    *reply.body_mut() = full(body);
    exchange.take().finish(outcome.0, outcome.1);
    Ok(reply)
}

/// What was taken out of the request, where the answer repeats it.
fn restored<'v>(
    vault: &'v Vault,
    segments: &'v [text::Segment],
) -> impl Iterator<Item = Hole> + 'v {
    segments.iter().enumerate().flat_map(|(index, segment)| {
        vault.restore(&segment.text).into_iter().map(move |(span, value)| (index, span, value))
    })
}

async fn collect(mut body: reqwest::Body, bytes_max: usize) -> Result<Bytes, Refusal> {
    let mut whole = Whole::default();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| {
            let kind = upstream::kind(&error);
            Refusal::new(Kind::Upstream(kind), kind.to_string())
        })?;
        if let Ok(data) = frame.into_data() {
            whole.push(data);
            if whole.len() > bytes_max as u64 {
                let message =
                    format!("the answer is larger than {bytes_max} bytes and cannot be inspected");
                return Err(Refusal::new(Kind::UnreadableAnswer, message));
            }
        }
    }
    Ok(whole.into_bytes())
}

fn unreadable(why: impl std::fmt::Display) -> Refusal {
    Refusal::new(
        Kind::UnreadableAnswer,
        format!("the upstream's answer cannot be inspected: {why}"),
    )
}

/// The upstream's head with Chaperone's headers; the body is put in by the caller.
pub(super) fn respond(head: &Parts, exchange: &Exchange) -> Reply {
    let mut reply = http::Response::new(full(Bytes::new()));
    *reply.status_mut() = head.status;
    *reply.headers_mut() = headers::downstream(&head.headers);
    decorate(&mut reply, exchange);
    reply
}
