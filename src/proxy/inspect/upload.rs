//! Uploads. A file may be of any kind; the operator can have those inspected that are text.

use std::sync::Arc;

use http::HeaderMap;
use hyper::body::Body as _;

use super::{Cleared, OutgoingBody, Verdict, alone, judge, note, sampled, unscannable};
use crate::gemini::Dialect;
use crate::guardrail::{Direction, Verdict as Strictest};
use crate::proxy::arrive::{Unread, read_body};
use crate::proxy::blocked::Blocked;
use crate::proxy::exchange::Exchange;
use crate::proxy::refusal::Refusal;
use crate::proxy::texts::Texts;
use crate::proxy::{Proxy, headers, identify};
use crate::telemetry::metrics;
use crate::words::clock;

/// Inspects an upload that is text and comes in one piece, as google-genai sends what is below 8 MiB. What cannot
/// be read is treated as the operator decided. A redaction would change the announced length: it blocks.
pub(super) async fn inspect(
    proxy: &Proxy,
    unread: Unread,
    exchange: &mut Exchange,
) -> Result<Verdict<Cleared>, Refusal> {
    let Unread { head, body, catalog } = unread;
    let is_large = body.size_hint().lower() > proxy.rules.limits.request_body_bytes_max;
    if is_large || is_piece(&head.headers) || headers::coding(&head.headers).is_some() {
        unscannable(
            proxy,
            "an upload in pieces, coded or larger than limits.request_body_bytes_max",
        )?;
        return Ok(Cleared::unread(head, OutgoingBody::Unread(body)));
    }
    exchange.rest();
    let body = read_body(proxy, body).await;
    exchange.work();
    let body = if is_start(&head.headers) { identify::without_ours(body?) } else { body? };
    let Ok(text) = std::str::from_utf8(&body) else {
        unscannable(proxy, "an upload that is no text in UTF-8")?;
        return Ok(Cleared::unread(head, OutgoingBody::Whole(body)));
    };
    let began = clock::monotonic();
    let tenant = identify::identify_upload(proxy, &head, &catalog, exchange)?;
    let guardrails = &tenant.guardrails;
    // No template is in play: what looks at prompts without one looks here.
    let rules = Arc::new(tenant.scope.untrusted.union(&tenant.scope.rendered));
    let rules = sampled(guardrails, &rules, exchange);
    let segments = [alone(text)];
    let placed = Texts::new(&segments).inspect(guardrails, &rules);
    exchange.is_model_call();
    note(exchange, (guardrails, &rules, Direction::Request), ("", &segments, &placed));
    metrics::stage("inspect", clock::monotonic().duration_since(began).as_secs_f64());
    if judge(guardrails, &placed) >= Strictest::Redact {
        let call = (Dialect::Native, head.route.call, None);
        return Ok(Verdict::Blocked(Blocked::of(call, guardrails, &placed)));
    }
    Ok(Cleared::unread(head, OutgoingBody::Whole(body)))
}

/// Whether a request only says what is going to be uploaded.
pub(super) fn is_start(headers: &HeaderMap) -> bool {
    commands(headers, "start")
}

/// Whether more of the file came before this request, or comes after it.
fn is_piece(headers: &HeaderMap) -> bool {
    let offset = headers.get(headers::UPLOAD_OFFSET);
    let is_first = offset.is_none_or(|offset| offset.as_bytes() == b"0");
    commands(headers, "upload") && !(commands(headers, "finalize") && is_first)
}

fn commands(headers: &HeaderMap, what: &str) -> bool {
    let values = headers.get_all(headers::UPLOAD_COMMAND).iter();
    let mut commands =
        values.filter_map(|value| value.to_str().ok()).flat_map(|all| all.split(','));
    commands.any(|one| one.trim().eq_ignore_ascii_case(what))
}
