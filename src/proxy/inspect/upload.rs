//! Uploads. A file may be of any kind; the operator can have those inspected that are text.

use std::sync::Arc;

use http::HeaderMap;
use hyper::body::Body as _;

use super::pieces::{Piece, commands};
use super::{Cleared, OutgoingBody, Verdict, alone, judge, note, sampled, unscannable};
use crate::catalog::TenantCatalog;
use crate::gemini::Dialect;
use crate::guardrail::{Direction, Verdict as Strictest};
use crate::proxy::arrive::{Unread, read_body};
use crate::proxy::blocked::Blocked;
use crate::proxy::exchange::Exchange;
use crate::proxy::refusal::Refusal;
use crate::proxy::texts::{Placed, Texts};
use crate::proxy::{Proxy, headers, identify};
use crate::telemetry::metrics;
use crate::words::clock;

const UNREADABLE: &str = "an upload that is coded, larger than limits.request_body_bytes_max, or a piece of a file of \
                          which it is not clear what stands before it";

/// Inspects an upload that is text. A piece is read with the end of what came before it: google-genai cuts files at
/// 8 MiB. What cannot be read is treated as the operator decided. A redaction would change the announced length: it
/// blocks.
pub(super) async fn inspect(
    proxy: &Proxy,
    unread: Unread,
    exchange: &mut Exchange,
) -> Result<Verdict<Cleared>, Refusal> {
    let Unread { head, body, catalog } = unread;
    let is_large = body.size_hint().lower() > proxy.rules.limits.request_body_bytes_max;
    let piece = Piece::of(&head);
    let before = piece.map_or(Some(Vec::new()), |piece| proxy.pieces.before(&piece));
    let can_be_read = !is_large && headers::coding(&head.headers).is_none();
    let Some(mut text) = before.filter(|_| can_be_read) else {
        unscannable(proxy, UNREADABLE)?;
        return Ok(Cleared::unread(head, OutgoingBody::Unread(body)));
    };
    exchange.rest();
    let body = read_body(proxy, body).await;
    exchange.work();
    let body = if is_start(&head.headers) { identify::without_ours(body?) } else { body? };
    let known = text.len();
    text.extend_from_slice(&body);
    let Some(read) = as_text(&text, piece.as_ref()) else {
        unscannable(proxy, "an upload that is no text in UTF-8")?;
        let passed = piece.map(|piece| piece.passed(body.len(), None));
        return Ok(Cleared::piece(head, OutgoingBody::Whole(body), passed));
    };
    let tenant = identify::identify_unread(proxy, &head, &catalog, exchange)?;
    let offset = piece.map_or(0, |piece| piece.start());
    let placed = found(&tenant, read, (known, offset), exchange);
    if judge(&tenant.guardrails, &placed) >= Strictest::Redact {
        let call = (Dialect::Native, head.route.call, None);
        return Ok(Verdict::Blocked(Blocked::of(call, &tenant.guardrails, &placed)));
    }
    let passed = piece.map(|piece| piece.passed(body.len(), Some(&text)));
    Ok(Cleared::piece(head, OutgoingBody::Whole(body), passed))
}

/// What guardrails find in a text of which so many bytes were read before; the next one stands in the file at
/// `offset`.
fn found(
    tenant: &TenantCatalog,
    text: &str,
    (known, offset): (usize, u64),
    exchange: &mut Exchange,
) -> Vec<Placed> {
    let began = clock::monotonic();
    let guardrails = &tenant.guardrails;
    // No template is in play: what looks at prompts without one looks here.
    let rules = Arc::new(tenant.scope.untrusted.union(&tenant.scope.rendered));
    let rules = sampled(guardrails, &rules, exchange);
    let segments = [alone(text)];
    let mut placed = Texts::new(&segments).inspect(guardrails, &rules);
    placed.retain(|one| one.finding.end > known || !one.finding.has_place());
    let skipped = usize::try_from(offset).unwrap_or(usize::MAX).saturating_sub(known);
    for one in placed.iter_mut().filter(|one| one.finding.has_place()) {
        one.finding = one.finding.clone().behind(skipped);
    }
    exchange.is_model_call();
    note(exchange, (guardrails, &rules, Direction::Request), ("", &segments, &placed));
    metrics::stage("inspect", clock::monotonic().duration_since(began).as_secs_f64());
    placed
}

/// Bytes as text. The last letter of a piece may go on in the next one, which is read with it.
fn as_text<'b>(bytes: &'b [u8], piece: Option<&Piece>) -> Option<&'b str> {
    match std::str::from_utf8(bytes) {
        Ok(text) => Some(text),
        Err(error) if error.error_len().is_none() && piece.is_some_and(|one| !one.is_last) => {
            std::str::from_utf8(bytes.get(..error.valid_up_to())?).ok()
        }
        Err(_) => None,
    }
}

/// Whether a request only says what is going to be uploaded.
pub(super) fn is_start(headers: &HeaderMap) -> bool {
    commands(headers, "start")
}
