//! Steps 4 and 6: the guardrails. Only this module can make [`Screened`] and [`Cleared`], and only a
//! [`Cleared`] call can be forwarded.

mod pieces;
mod upload;

pub(super) use pieces::Passed;
pub use pieces::Pieces;

use std::sync::Arc;

use bytes::Bytes;
use http::Method;
use http::header::{CONTENT_TYPE, HeaderMap};
use hyper::body::{Body, Incoming};
use serde_json::{Map, Value};
use tokio::sync::OwnedSemaphorePermit;

use super::arrive::{Head, TEMPLATE_PREFIX, Unread, malformed, read_body};
use super::blocked::Blocked;
use super::exchange::Exchange;
use super::live::switch;
use super::refusal::{Kind, Refusal};
use super::render::Rendered;
use super::select::Planned;
use super::texts::{Placed, Texts, located, redact};
use super::vault::Vault;
use super::{Proxy, headers, identify};
use crate::catalog::Scope;
use crate::config::Unscannable;
use crate::gemini::Dialect;
use crate::gemini::json::quote;
use crate::gemini::route::Call;
use crate::gemini::stream::Framing;
use crate::gemini::text::{self, Segment};
use crate::guardrail::{Direction, Guardrails, RuleSet, Salt, Verdict as Strictest};
use crate::telemetry::metrics;
use crate::template::variables::Trust;
use crate::words::clock;

/// Bodies that are not inspected are looked through for what is ours up to here.
const SHORT_BYTES_MAX: u64 = 64 * 1024;

/// What the guardrails say about a call.
pub(super) enum Verdict<T> {
    /// It may go on, with what had to be redacted redacted.
    Passed(T),
    /// It ends here.
    Blocked(Blocked),
}

/// A call whose untrusted text was inspected.
#[derive(Debug)]
pub(super) struct Screened {
    planned: Planned,
    body: Bytes,
    variables: Map<String, Value>,
    vault: Vault,
}

impl Screened {
    pub(super) fn into_parts(self) -> (Planned, Bytes, Map<String, Value>, Vault) {
        (self.planned, self.body, self.variables, self.vault)
    }
}

/// A call that may be forwarded.
#[derive(Debug)]
pub(super) struct Cleared(Outgoing);

/// What is forwarded, and what is needed to read its answer.
#[derive(Debug)]
pub(super) struct Outgoing {
    pub(super) method: Method,
    pub(super) headers: HeaderMap,
    pub(super) path: String,
    pub(super) query: Option<String>,
    pub(super) body: OutgoingBody,
    /// Where the caller finds this proxy again.
    pub(super) returns_to: Option<Returns>,
    /// The file that is fetched.
    pub(super) file: Option<String>,
    /// The piece of a file that is brought.
    pub(super) piece: Option<Passed>,
    /// `None`: the answer is not read.
    pub(super) answer: Option<AnswerPlan>,
}

/// How the caller came here, for an address in the answer to lead it here again.
#[derive(Debug)]
pub(super) struct Returns {
    /// The base URL.
    pub(super) base: String,
    /// The tenant it named: what it sends there has no headers of Chaperone's.
    pub(super) tenant: Option<String>,
}

#[derive(Debug)]
pub(super) enum OutgoingBody {
    Whole(Bytes),
    Unread(Incoming),
}

/// How the answer will be read.
#[derive(Debug)]
pub(super) struct AnswerPlan {
    pub(super) dialect: Dialect,
    pub(super) call: Call,
    pub(super) framing: Option<Framing>,
    pub(super) guardrails: Arc<Guardrails>,
    pub(super) rules: Arc<RuleSet>,
    /// What goes back into it.
    pub(super) vault: Vault,
    /// The place of a stream among those that may be open.
    #[expect(dead_code, reason = "held until the stream is over")]
    pub(super) place: Option<OwnedSemaphorePermit>,
}

impl AnswerPlan {
    /// Whether anything looks at the text of the answer.
    pub(super) fn looks(&self) -> bool {
        !self.rules.is_empty() || !self.vault.is_empty()
    }
}

impl Cleared {
    fn unread(head: Head, body: OutgoingBody) -> Verdict<Self> {
        Self::piece(head, body, None)
    }

    /// With what is to be remembered of a file once the upstream has taken it.
    fn piece(head: Head, body: OutgoingBody, piece: Option<Passed>) -> Verdict<Self> {
        Verdict::Passed(Self(Outgoing { piece, ..Outgoing::unread(head, body) }))
    }

    pub(super) fn into_outgoing(self) -> Outgoing {
        self.0
    }
}

/// A call that is not read, but for uploads if the operator wants them to be. What was decided about bodies
/// nobody can see is applied here.
pub(super) async fn unread(
    proxy: &Proxy,
    unread: Unread,
    exchange: &mut Exchange,
) -> Result<Verdict<Cleared>, Refusal> {
    let has_body = !unread.body.is_end_stream();
    if has_body && proxy.rules.guardrails.inspect_uploads && unread.head.route.call == Call::Upload
    {
        return upload::inspect(proxy, unread, exchange).await;
    }
    if has_body {
        unscannable(proxy, "this method's body")?;
    }
    let Unread { mut head, body, catalog } = unread;
    if head.route.call == Call::Download {
        identify::identify_unread(proxy, &head, &catalog, exchange)?;
        // What is coded would not be read.
        headers::ask_readable(&mut head.headers, true);
    }
    if !may_hold_ours(&head, &body) {
        return Ok(Cleared::unread(head, OutgoingBody::Unread(body)));
    }
    exchange.rest();
    let body = read_body(proxy, body).await;
    exchange.work();
    Ok(Cleared::unread(head, OutgoingBody::Whole(identify::without_ours(body?))))
}

/// Whether a client may have put what is for Chaperone into a body that is not read: a short one in JSON, and no
/// part of a file.
fn may_hold_ours(head: &Head, body: &Incoming) -> bool {
    let is_begun = head.route.call == Call::Upload && !upload::is_start(&head.headers);
    let is_short = body.size_hint().exact().is_some_and(|bytes| bytes <= SHORT_BYTES_MAX);
    let kind = head.headers.get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
    is_short
        && !is_begun
        && kind.is_some_and(|kind| kind.starts_with("application/json"))
        && headers::coding(&head.headers).is_none()
}

/// A WebSocket, whose frames are not read either.
pub(super) fn live(proxy: &Proxy, head: Head) -> Result<Cleared, Refusal> {
    if is_refused(proxy) {
        let message =
            "guardrails cannot read a WebSocket, and guardrails.unscannable is set to refuse";
        return Err(Refusal::new(Kind::NotSupported, message));
    }
    let mut outgoing = Outgoing::unread(head, OutgoingBody::Whole(Bytes::new()));
    switch(&mut outgoing.headers);
    Ok(Cleared(outgoing))
}

impl Outgoing {
    fn unread(head: Head, body: OutgoingBody) -> Self {
        let prefix = head.prefix.map(|prefix| format!("{TEMPLATE_PREFIX}{prefix}"));
        let prefix = prefix.unwrap_or_default();
        let file = head.route.file();
        let mut headers = headers::upstream(&head.headers);
        if matches!(body, OutgoingBody::Unread(_)) {
            headers::announce_trailers(&head.headers, &mut headers);
        }
        headers::ask_for_trailers(&head.headers, &mut headers);
        Self {
            method: head.method,
            headers,
            path: head.route.path,
            query: head.query,
            body,
            returns_to: head
                .address
                .map(|address| Returns { base: address + &prefix, tenant: head.tenant }),
            file,
            piece: None,
            answer: None,
        }
    }
}

/// What the operator decided about what no guardrail can read: counted, and refused if so set.
fn unscannable(proxy: &Proxy, what: &str) -> Result<(), Refusal> {
    if is_refused(proxy) {
        let message =
            format!("guardrails cannot read {what}, and guardrails.unscannable is set to refuse");
        return Err(Refusal::new(Kind::Unscannable, message));
    }
    Ok(())
}

fn is_refused(proxy: &Proxy) -> bool {
    let refused = proxy.rules.guardrails.unscannable == Unscannable::Refuse;
    metrics::unscanned(refused);
    refused
}

/// Inspects what the application sent: all text of the body, and untrusted variables.
pub(super) fn untrusted(
    proxy: &Proxy,
    planned: Planned,
    exchange: &mut Exchange,
) -> Result<Verdict<Screened>, Refusal> {
    let began = clock::monotonic();
    let arrived = &planned.identified.arrived;
    let body = std::str::from_utf8(&arrived.body).unwrap_or_default();
    let text::Request { mut segments, points_elsewhere } =
        text::request(arrived.dialect, body).map_err(|error| malformed(&error))?;
    if points_elsewhere {
        unscannable(proxy, "a file, an address or cached content")?;
    }
    let of_body = segments.len();
    let mut variables = planned.identified.variables.clone();
    for (_, value) in untrusted_values(&planned, &mut variables) {
        strings(value, &mut |text| segments.push(of_variable(text)));
    }
    let editable = segments.len();
    for (_, value) in untrusted_values(&planned, &mut variables) {
        names(value, &mut |text| segments.push(of_variable(text)));
    }
    let Scope { untrusted: rules, rendered, .. } = planned.scope();
    // A rule that asks for the rendered prompt also looks at what goes into it.
    let rules = Arc::new(rules.union(rendered));
    let guardrails = planned.identified.tenant.guardrails.clone();
    let rules = sampled(&guardrails, &rules, exchange);
    let mut vault = vault(proxy, &planned, exchange);
    let placed = Texts::new(&segments).inspect(&guardrails, &rules);
    let looked = (&*guardrails, &*rules, Direction::Request);
    note(exchange, looked, (body, &segments, &placed));
    keep_out(exchange, &guardrails, &segments, &placed, of_body..editable);
    let strictest = judge(&guardrails, &placed);
    let screened = match strictest {
        Strictest::Block => Verdict::Blocked(Blocked::of(planned.call(), &guardrails, &placed)),
        Strictest::Allow | Strictest::Warn => {
            let body = arrived.body.clone();
            Verdict::Passed(Screened { planned, body, variables, vault })
        }
        // A name cannot be replaced without changing what it names.
        Strictest::Redact if !can_redact(&guardrails, &segments, &placed, of_body..editable) => {
            Verdict::Blocked(Blocked::of(planned.call(), &guardrails, &placed))
        }
        Strictest::Redact => {
            let placed = redacting(&guardrails, placed);
            let changed = redact(&guardrails, &segments, &placed, &mut vault);
            let body = edit(body, &segments, &changed).into();
            put_back(&planned, &mut variables, of_body, &changed);
            Verdict::Passed(Screened { planned, body, variables, vault })
        }
    };
    metrics::stage("inspect", clock::monotonic().duration_since(began).as_secs_f64());
    Ok(screened)
}

/// Inspects the rendered prompt for the rules that ask for it, and clears the call.
pub(super) fn rendered(
    proxy: &Proxy,
    rendered: Rendered,
    exchange: &mut Exchange,
) -> Result<Verdict<Cleared>, Refusal> {
    let planned = &rendered.planned;
    let arrived = &planned.identified.arrived;
    let scope = planned.scope();
    let guardrails = planned.identified.tenant.guardrails.clone();
    let rules = sampled(&guardrails, &scope.rendered, exchange);
    if !scope.rendered.is_empty() && !rendered.messages.is_empty() {
        let segments: Vec<Segment> = rendered.messages.iter().map(|one| alone(&one.text)).collect();
        let placed = Texts::new(&segments).inspect(&guardrails, &rules);
        let looked = (&*guardrails, &*rules, Direction::Request);
        note(exchange, looked, ("", &segments, &placed));
        keep_out(exchange, &guardrails, &segments, &placed, 0..segments.len());
        // The template's own text cannot be redacted without changing what its owner approved.
        if judge(&guardrails, &placed) >= Strictest::Redact {
            return Ok(Verdict::Blocked(Blocked::of(planned.call(), &guardrails, &placed)));
        }
    }
    let place = arrived.framing.map(|_| proxy.place()).transpose()?;
    let answer = AnswerPlan {
        place,
        dialect: arrived.dialect,
        call: arrived.head.route.call,
        framing: arrived.framing,
        rules: sampled(&guardrails, &scope.response, exchange),
        guardrails,
        vault: rendered.vault,
    };
    let mut headers = headers::upstream(&arrived.head.headers);
    headers::ask_readable(&mut headers, arrived.framing.is_some());
    Ok(Verdict::Passed(Cleared(Outgoing {
        method: arrived.head.method.clone(),
        headers,
        path: rendered.path,
        query: arrived.head.query.clone(),
        body: OutgoingBody::Whole(rendered.body),
        returns_to: None,
        file: None,
        piece: None,
        answer: Some(answer),
    })))
}

/// What placeholders of this call depend on.
fn vault(proxy: &Proxy, planned: &Planned, exchange: &Exchange) -> Vault {
    let tenant = exchange.fact(|execution| execution.tenant_id.to_string()).unwrap_or_default();
    let conversation = planned.identified.conversation.as_deref().unwrap_or_default();
    Vault::new(Salt::new(proxy.rules.placeholder_key.expose(), &tenant, conversation))
}

/// The rules that look at this call: some look at a share of them only. Retries of a call are other calls.
fn sampled(guardrails: &Guardrails, rules: &Arc<RuleSet>, exchange: &Exchange) -> Arc<RuleSet> {
    if !guardrails.samples() {
        return rules.clone();
    }
    let call = exchange.fact(|execution| execution.request_id.clone()).unwrap_or_default();
    Arc::new(rules.only(|rule| guardrails.is_sampled(rule, &call)))
}

/// Notes what was found in the strings of a body, and in others.
pub(super) fn note(
    exchange: &mut Exchange,
    (guardrails, rules, direction): (&Guardrails, &RuleSet, Direction),
    (body, segments, placed): (&str, &[Segment], &[Placed]),
) {
    let findings: Vec<_> = placed.iter().map(|one| one.finding.clone()).collect();
    let places = located(body, segments, placed);
    exchange.inspected(guardrails, rules, (&findings, &places), direction);
}

/// Notes what was found in texts that may be recorded: variables, of which `editable` are the values and the
/// others names, or a rendered prompt. What is replaced before it is rendered is not in there.
fn keep_out(
    exchange: &mut Exchange,
    guardrails: &Guardrails,
    segments: &[Segment],
    placed: &[Placed],
    editable: std::ops::Range<usize>,
) {
    exchange.found(|found| {
        let held = |one: &&Placed| !one.finding.is_of_length() && !guardrails.redacts(&one.finding);
        for one in placed.iter().filter(held) {
            if one.places.is_empty() {
                found.add_unplaced();
            }
            for place in one.places.iter().filter(|place| place.segment >= editable.start) {
                let text =
                    segments.get(place.segment).and_then(|one| one.text.get(place.span.clone()));
                match text.filter(|_| editable.contains(&place.segment)) {
                    Some(text) => found.add(text, guardrails.entity(&one.finding)),
                    None => found.add_unplaced(),
                }
            }
        }
    });
}

/// The strictest of what the findings ask for.
pub(super) fn judge(guardrails: &Guardrails, placed: &[Placed]) -> Strictest {
    let findings: Vec<_> = placed.iter().map(|one| one.finding.clone()).collect();
    guardrails.judge(&findings)
}

/// The findings whose rules redact.
pub(super) fn redacting(guardrails: &Guardrails, placed: Vec<Placed>) -> Vec<Placed> {
    placed.into_iter().filter(|one| guardrails.redacts(&one.finding)).collect()
}

/// The document with the changed strings in place; everything else keeps its bytes.
pub(super) fn edit(document: &str, segments: &[Segment], changed: &[(usize, String)]) -> String {
    let mut out = String::with_capacity(document.len());
    let mut at = 0;
    for (index, text) in changed {
        if let Some(segment) = segments.get(*index).filter(|segment| !segment.literal.is_empty()) {
            out.push_str(document.get(at..segment.literal.start).unwrap_or_default());
            out.push_str(&quote(text));
            at = segment.literal.end;
        }
    }
    out.push_str(document.get(at..).unwrap_or_default());
    out
}

/// Puts redacted texts back into the variables they came from, in the order they were collected.
fn put_back(
    planned: &Planned,
    variables: &mut Map<String, Value>,
    of_body: usize,
    changed: &[(usize, String)],
) {
    let mut index = of_body;
    for (_, value) in untrusted_values(planned, variables) {
        strings_mut(value, &mut |text| {
            if let Some((_, new)) = changed.iter().find(|(one, _)| *one == index) {
                text.clone_from(new);
            }
            index += 1;
        });
    }
}

/// The given variables that are not declared trusted.
fn untrusted_values<'v>(
    planned: &'v Planned,
    variables: &'v mut Map<String, Value>,
) -> impl Iterator<Item = (&'v String, &'v mut Value)> {
    let trusted = |name: &str| {
        planned.version.as_ref().is_some_and(|version| {
            let declared = version.template.variables();
            declared.iter().any(|one| one.name == name && one.trust == Trust::Trusted)
        })
    };
    variables.iter_mut().filter(move |(name, _)| !trusted(name))
}

/// Whether everything to be replaced stands in strings that can be: literals of the body, or these.
pub(super) fn can_redact(
    guardrails: &Guardrails,
    segments: &[Segment],
    placed: &[Placed],
    variables: std::ops::Range<usize>,
) -> bool {
    let redacting = placed.iter().filter(|one| guardrails.redacts(&one.finding));
    redacting.flat_map(|one| &one.places).all(|place| {
        let is_literal = segments.get(place.segment).is_some_and(|one| !one.literal.is_empty());
        is_literal || variables.contains(&place.segment)
    })
}

/// The names of members, which a template may print as it prints values.
fn names(value: &Value, visit: &mut impl FnMut(&str)) {
    match value {
        Value::Array(items) => items.iter().for_each(|item| names(item, visit)),
        Value::Object(members) => members.iter().for_each(|(name, member)| {
            visit(name);
            names(member, visit);
        }),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

fn strings(value: &Value, visit: &mut impl FnMut(&str)) {
    match value {
        Value::String(text) => visit(text),
        Value::Array(items) => items.iter().for_each(|item| strings(item, visit)),
        Value::Object(members) => members.values().for_each(|member| strings(member, visit)),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

fn strings_mut(value: &mut Value, visit: &mut impl FnMut(&mut String)) {
    match value {
        Value::String(text) => visit(text),
        Value::Array(items) => items.iter_mut().for_each(|item| strings_mut(item, visit)),
        Value::Object(members) => {
            members.values_mut().for_each(|member| strings_mut(member, visit));
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

/// Values that a template may put side by side are looked at side by side.
fn of_variable(text: &str) -> Segment {
    Segment { literal: 0..0, text: text.to_owned(), run: Some(text::Run(u64::MAX)) }
}

fn alone(text: &str) -> Segment {
    Segment { literal: 0..0, text: text.to_owned(), run: None }
}
