//! Step 1: the head, the body within its bounds, what kind of call it is.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use http::header::{CONTENT_ENCODING, HOST, UPGRADE};
use http::request::Parts;
use http::{HeaderMap, Method, Request, Version};
use http_body_util::BodyExt;
use hyper::body::{Body, Incoming};
use hyper::upgrade::OnUpgrade;

use super::exchange::Exchange;
use super::refusal::{Kind, Refusal};
use super::relay::coding;
use super::{Proxy, headers, identify};
use crate::catalog::Catalog;
use crate::gemini::Dialect;
use crate::gemini::members::Members;
use crate::gemini::route::{Call, Route};
use crate::gemini::{json, stream::Framing};

/// The prefix of a base URL that names a template.
pub(super) const TEMPLATE_PREFIX: &str = "/t/";
/// Headers by which a server may take a request for another method.
const OVERRIDES: [&str; 3] = ["x-http-method", "x-http-method-override", "x-method-override"];
/// Longest method of HTTP and WebDAV, with room.
const METHOD_BYTES_MAX: usize = 32;

/// A call whose text Chaperone reads.
#[derive(Debug)]
pub(super) struct Arrived {
    pub(super) head: Head,
    pub(super) dialect: Dialect,
    /// One JSON object, in UTF-8.
    pub(super) body: Bytes,
    /// How the answer will be framed; `None`: as one document.
    pub(super) framing: Option<Framing>,
    pub(super) catalog: Arc<Catalog>,
}

/// A call that passes through unread.
#[derive(Debug)]
pub(super) struct Unread {
    pub(super) head: Head,
    pub(super) body: Incoming,
    pub(super) catalog: Arc<Catalog>,
}

/// The head of a call.
#[derive(Debug)]
pub(super) struct Head {
    pub(super) method: Method,
    pub(super) headers: HeaderMap,
    pub(super) route: Route,
    pub(super) query: Option<String>,
    /// The template named by the path, with its version if that is named too.
    pub(super) prefix: Option<String>,
    /// Scheme and host by which the caller came here, where an answer may have to name them.
    pub(super) address: Option<String>,
    /// The tenant that such an answer's address has to name, or named.
    pub(super) tenant: Option<String>,
}

/// A call that asks for a WebSocket.
#[derive(Debug)]
pub(super) struct Live {
    pub(super) head: Head,
    /// The client's connection, once it is switched.
    pub(super) upgrade: OnUpgrade,
    pub(super) catalog: Arc<Catalog>,
}

pub(super) enum Arrival {
    Text(Arrived),
    Opaque(Unread),
    Live(Live),
}

pub(super) async fn arrive(
    proxy: &Proxy,
    mut request: Request<Incoming>,
    catalog: Arc<Catalog>,
    exchange: &mut Exchange,
    dialect: &mut Option<Dialect>,
) -> Result<Arrival, Refusal> {
    let upgrade = is_websocket(request.headers()).then(|| hyper::upgrade::on(&mut request));
    let (parts, body) = request.into_parts();
    check_head(&parts)?;
    let mut head = head(proxy, parts)?;
    *dialect = head.route.call.dialect();
    exchange.note(|execution| {
        head.route.call.name().clone_into(&mut execution.call);
        execution.model_name.clone_from(&head.route.model);
        execution.trace_parent = headers::trace_parent(&head.headers);
    });
    if let Some(upgrade) = upgrade {
        return Ok(Arrival::Live(Live { head, upgrade, catalog }));
    }
    let Some(dialect) = *dialect else {
        return Ok(Arrival::Opaque(Unread { head, body, catalog }));
    };
    match head.route.call {
        Call::CountTokens => {}
        Call::Read(..) => exchange.reads_earlier(),
        _ => exchange.is_model_call(),
    }
    if let Call::Read(_, _, streamed) = head.route.call
        && body.is_end_stream()
    {
        let (body, framing) = (Bytes::new(), streamed.then_some(Framing::Sse));
        return Ok(Arrival::Text(Arrived { head, dialect, body, framing, catalog }));
    }
    exchange.rest();
    let body = read_body(proxy, body).await;
    exchange.work();
    let body = decoded(body?, &mut head.headers, proxy.rules.limits.request_body_bytes_max)?;
    if body.is_empty() {
        return Err(Refusal::new(Kind::Malformed, "the body is empty; a JSON object is expected"));
    }
    let text = json::check(&body).map_err(|error| malformed(&error))?;
    let members = Members::parse(text)
        .ok_or_else(|| Refusal::new(Kind::Malformed, "the body must be a JSON object"))?;
    let framing = match head.route.call {
        Call::StreamGenerate(framing) => Some(framing),
        Call::Read(_, _, true) => Some(Framing::Sse),
        Call::Chat | Call::Interact if members.get("stream") == Some("true") => Some(Framing::Sse),
        Call::Generate
        | Call::CountTokens
        | Call::Chat
        | Call::Interact
        | Call::Submit(..)
        | Call::Read(..)
        | Call::Upload
        | Call::Download
        | Call::Opaque => None,
    };
    exchange.note(|execution| {
        execution.streamed = framing.is_some();
        if execution.model_name.is_none() {
            execution.model_name = members.text("model");
        }
    });
    Ok(Arrival::Text(Arrived { head, dialect, body, framing, catalog }))
}

/// A body as it reads, which is how it goes on; coded in gzip it may have been.
fn decoded(body: Bytes, headers: &mut HeaderMap, bytes_max: u64) -> Result<Bytes, Refusal> {
    let Some(coding) = headers::coding(headers) else { return Ok(body) };
    let bytes_max = usize::try_from(bytes_max).unwrap_or(usize::MAX);
    let plain = coding::decode(Some(coding), &body, bytes_max).map_err(|why| {
        let message = format!("a body in gzip can be read, this one cannot: {why}");
        Refusal::new(Kind::Malformed, message)
    })?;
    let plain = plain.into_owned().into();
    headers.remove(CONTENT_ENCODING);
    Ok(plain)
}

pub(super) fn malformed(error: &json::JsonError) -> Refusal {
    Refusal::new(Kind::Malformed, error.to_string())
}

/// What hyper leaves to the application.
fn check_head(parts: &Parts) -> Result<(), Refusal> {
    if matches!(parts.method, Method::CONNECT | Method::TRACE) {
        return Err(Refusal::new(Kind::MethodNotAllowed, "CONNECT and TRACE are not served"));
    }
    if parts.method.as_str().len() > METHOD_BYTES_MAX {
        return Err(Refusal::new(Kind::BadRequest, "the method is too long"));
    }
    let mut hosts = parts.headers.get_all(HOST).iter();
    let host_ok = match (hosts.next(), hosts.next()) {
        (Some(host), None) => host.to_str().is_ok_and(is_host),
        // HTTP/2 has `:authority`, HTTP/1.0 may have none.
        (None, None) => parts.version != Version::HTTP_11,
        (_, Some(_)) => false,
    };
    if !host_ok {
        return Err(Refusal::new(Kind::BadRequest, "exactly one valid Host header is needed"));
    }
    if OVERRIDES.iter().any(|name| parts.headers.contains_key(*name)) {
        // The upstream would serve another method than the one that was judged here.
        return Err(Refusal::new(Kind::BadRequest, "method override headers are not served"));
    }
    Ok(())
}

fn is_websocket(headers: &HeaderMap) -> bool {
    let upgrade = headers.get(UPGRADE);
    upgrade.is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"websocket"))
}

fn is_host(host: &str) -> bool {
    !host.is_empty() && !host.contains('@') && host.parse::<http::uri::Authority>().is_ok()
}

fn head(proxy: &Proxy, parts: Parts) -> Result<Head, Refusal> {
    let path = parts.uri.path();
    let (prefix, path) = match path
        .strip_prefix(TEMPLATE_PREFIX)
        .map(|rest| rest.split_once('/').unwrap_or((rest, "")))
    {
        Some(("", _)) => {
            return Err(Refusal::new(Kind::NotFound, "the template name behind /t/ is empty"));
        }
        Some((name, rest)) => (Some(name.to_owned()), format!("/{rest}")),
        None => (None, path.to_owned()),
    };
    let mut query = parts.uri.query().map(str::to_owned);
    let route = Route::read(&parts.method, &path, query.as_deref());
    let is_unread = route.call.dialect().is_none();
    let address = is_unread.then(|| headers::address(&parts, proxy.rules.speaks_tls)).flatten();
    let tenant = if is_unread { identify::take_tenant(&parts.headers, &mut query)? } else { None };
    Ok(Head { method: parts.method, headers: parts.headers, route, query, prefix, address, tenant })
}

/// The whole body, decoded, within its bounds of size and patience.
pub(super) async fn read_body(proxy: &Proxy, mut body: Incoming) -> Result<Bytes, Refusal> {
    let bytes_max = proxy.rules.limits.request_body_bytes_max;
    let too_large =
        || Refusal::new(Kind::TooLarge, format!("the body is larger than {bytes_max} bytes"));
    if body.size_hint().lower() > bytes_max {
        return Err(too_large());
    }
    let mut whole = Whole::default();
    loop {
        let frame = match tokio::time::timeout(proxy.rules.body_idle_timeout(), body.frame()).await
        {
            Err(_late) => {
                return Err(Refusal::new(Kind::BodyTimeout, "the body did not arrive in time"));
            }
            Ok(None) => return Ok(whole.into_bytes()),
            Ok(Some(Err(_broken))) => {
                return Err(Refusal::new(Kind::BodyBroken, "the body broke off"));
            }
            Ok(Some(Ok(frame))) => frame,
        };
        // Trailers are dropped: they must never become headers.
        if let Ok(data) = frame.into_data() {
            whole.push(data);
            if whole.len() > bytes_max {
                return Err(too_large());
            }
        }
    }
}

/// Collects a body; one that came in one piece is not copied.
#[derive(Debug, Default)]
pub(super) struct Whole {
    first: Bytes,
    more: BytesMut,
}

impl Whole {
    pub(super) fn push(&mut self, data: Bytes) {
        if self.first.is_empty() && self.more.is_empty() {
            self.first = data;
        } else {
            if self.more.is_empty() {
                self.more.extend_from_slice(&std::mem::take(&mut self.first));
            }
            self.more.extend_from_slice(&data);
        }
    }

    pub(super) fn len(&self) -> u64 {
        (self.first.len() + self.more.len()) as u64
    }

    pub(super) fn into_bytes(self) -> Bytes {
        if self.more.is_empty() { self.first } else { self.more.freeze() }
    }
}
