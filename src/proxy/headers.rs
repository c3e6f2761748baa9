//! Which headers go on, and which are Chaperone's own.

use http::HeaderMap;
use http::header::{
    ACCEPT_ENCODING, CONNECTION, CONTENT_ENCODING, CONTENT_LENGTH, HOST, HeaderName, HeaderValue,
    PROXY_AUTHENTICATE, PROXY_AUTHORIZATION, TE, TRAILER, TRANSFER_ENCODING, UPGRADE,
};
use http::request::Parts;
use http::uri::Authority;

use super::refusal::{Kind, Refusal};

/// Chaperone's own headers, both ways.
const OWN_PREFIX: &str = "x-chaperone-";
const TRACE_PARENT_BYTES: usize = 55;

pub(super) const TEMPLATE: HeaderName = HeaderName::from_static("x-chaperone-template");
pub(super) const VARIABLES: HeaderName = HeaderName::from_static("x-chaperone-variables");
pub(super) const USER: HeaderName = HeaderName::from_static("x-chaperone-user");
pub(super) const CONVERSATION: HeaderName = HeaderName::from_static("x-chaperone-conversation");
pub(super) const TENANT: HeaderName = HeaderName::from_static("x-chaperone-tenant");
pub(super) const REQUEST_ID: HeaderName = HeaderName::from_static("x-chaperone-request-id");
pub(super) const ARM: HeaderName = HeaderName::from_static("x-chaperone-arm");
pub(super) const SOURCE: HeaderName = HeaderName::from_static("x-chaperone-source");
pub(super) const GUARDRAILS: HeaderName = HeaderName::from_static("x-chaperone-guardrails");
/// Where an upload goes on; authorised by what it holds.
pub(super) const UPLOAD_URL: HeaderName = HeaderName::from_static("x-goog-upload-url");
/// What a request does to an upload: `upload`, `finalize` and others, with commas between.
pub(super) const UPLOAD_COMMAND: HeaderName = HeaderName::from_static("x-goog-upload-command");
/// How an upload stands: `active`, `final` or `cancelled`.
pub(super) const UPLOAD_STATUS: HeaderName = HeaderName::from_static("x-goog-upload-status");
/// Where in the file its bytes belong.
pub(super) const UPLOAD_OFFSET: HeaderName = HeaderName::from_static("x-goog-upload-offset");
pub(super) const SERVER_TIMING: HeaderName = HeaderName::from_static("server-timing");

/// The headers that go upstream: all but those of this hop, of the body's framing, and our own.
pub(super) fn upstream(headers: &HeaderMap) -> HeaderMap {
    forwarded(headers, |name| *name == HOST || name.as_str().starts_with(OWN_PREFIX))
}

/// The headers that go back: all but those of the upstream's hop and framing.
pub(super) fn downstream(headers: &HeaderMap) -> HeaderMap {
    forwarded(headers, |name| name.as_str().starts_with(OWN_PREFIX))
}

/// Scheme and host by which a caller came here, as whoever stands in between tells them.
pub(super) fn address(parts: &Parts, speaks_tls: bool) -> Option<String> {
    let told =
        |name: &str| parts.headers.get(name)?.to_str().ok()?.split(',').next().map(str::trim);
    let scheme = told("x-forwarded-proto").filter(|told| matches!(*told, "http" | "https"));
    let scheme = scheme.unwrap_or(if speaks_tls { "https" } else { "http" });
    let host = told("x-forwarded-host").or_else(|| told(HOST.as_str()));
    let host = host.or_else(|| parts.uri.authority().map(Authority::as_str))?;
    host.parse::<Authority>().is_ok().then(|| format!("{scheme}://{host}"))
}

/// The caller's span, if it names one: `traceparent` of <https://www.w3.org/TR/trace-context/>. Versions to come
/// may be longer.
pub(super) fn trace_parent(headers: &HeaderMap) -> Option<String> {
    let text = headers.get("traceparent")?.to_str().ok()?.get(..TRACE_PARENT_BYTES)?;
    let parts: Vec<&str> = text.split('-').collect();
    let [version, trace, span, flags] = parts.as_slice() else { return None };
    let is_hex = |part: &str, length: usize| {
        part.len() == length && part.bytes().all(|one| matches!(one, b'0'..=b'9' | b'a'..=b'f'))
    };
    let is_some = |part: &str| part.bytes().any(|one| one != b'0');
    let fits = is_hex(version, 2)
        && *version != "ff"
        && (is_hex(trace, 32) && is_some(trace))
        && (is_hex(span, 16) && is_some(span))
        && is_hex(flags, 2);
    fits.then(|| text.to_owned())
}

/// Says of a body that passes as it is which trailers follow it. Where a body is read none do: they would be text
/// that nobody looks at, and the upstream is not asked for any.
pub(super) fn announce_trailers(from: &HeaderMap, to: &mut HeaderMap) {
    for names in from.get_all(TRAILER) {
        to.append(TRAILER, names.clone());
    }
}

/// Asks for the trailers that a caller asks for (RFC 9110, section 10.1.4).
pub(super) fn ask_for_trailers(from: &HeaderMap, to: &mut HeaderMap) {
    if listed(from, &TE).any(|one| one.eq_ignore_ascii_case("trailers")) {
        to.insert(TE, HeaderValue::from_static("trailers"));
        to.insert(CONNECTION, HeaderValue::from_static("te"));
    }
}

/// The trailers that go on, both ways.
pub(super) fn trailers(headers: &HeaderMap) -> HeaderMap {
    downstream(headers)
}

fn forwarded(headers: &HeaderMap, own: impl Fn(&HeaderName) -> bool) -> HeaderMap {
    let named: Vec<String> = listed(headers, &CONNECTION).map(str::to_ascii_lowercase).collect();
    headers
        .iter()
        .filter(|(name, _)| {
            !is_hop(name) && !own(name) && !named.iter().any(|one| one == name.as_str())
        })
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect()
}

fn is_hop(name: &HeaderName) -> bool {
    // The length is never copied: the body knows its own, and two lengths are how smuggling begins.
    [
        CONNECTION,
        CONTENT_LENGTH,
        PROXY_AUTHENTICATE,
        PROXY_AUTHORIZATION,
        TE,
        TRAILER,
        TRANSFER_ENCODING,
        UPGRADE,
    ]
    .contains(name)
        || matches!(name.as_str(), "expect" | "keep-alive" | "proxy-connection" | "http2-settings")
}

/// What an answer that will be read may be coded in: gzip if the client offered it and the answer is
/// read as a whole, else nothing.
pub(super) fn ask_readable(headers: &mut HeaderMap, streamed: bool) {
    let offered = listed(headers, &ACCEPT_ENCODING).any(offers_gzip);
    let coding = if offered && !streamed { "gzip" } else { "identity" };
    headers.insert(ACCEPT_ENCODING, HeaderValue::from_static(coding));
}

/// Whether one coding of a list is gzip, and not one that is refused by `q=0`.
fn offers_gzip(coding: &str) -> bool {
    let mut parts = coding.split(';').map(str::trim);
    let is_refused = |part: &str| {
        let weight = part.strip_prefix("q=").and_then(|weight| weight.parse::<f32>().ok());
        weight.is_some_and(|weight| weight <= 0.0)
    };
    parts.next() == Some("gzip") && !parts.any(is_refused)
}

/// The coding of an answer, if it has one.
pub(super) fn coding(headers: &HeaderMap) -> Option<&str> {
    headers
        .get(CONTENT_ENCODING)
        .and_then(|value| value.to_str().ok())
        .filter(|coding| !coding.eq_ignore_ascii_case("identity"))
}

/// What a header lists with commas between, in however many lines.
pub(super) fn listed<'h>(
    headers: &'h HeaderMap,
    name: &HeaderName,
) -> impl Iterator<Item = &'h str> {
    let lines = headers.get_all(name).into_iter().filter_map(|line| line.to_str().ok());
    lines.flat_map(|line| line.split(',')).map(str::trim)
}

/// The text of one of Chaperone's own headers: UTF-8, given once. What cannot be read is refused, never
/// passed over.
pub(super) fn own<'h>(
    headers: &'h HeaderMap,
    name: &HeaderName,
) -> Result<Option<&'h str>, Refusal> {
    let refuse = |what: &str| Refusal::new(Kind::BadRequest, format!("{name} {what}"));
    let mut values = headers.get_all(name).iter();
    let Some(value) = values.next() else { return Ok(None) };
    if values.next().is_some() {
        return Err(refuse("is given more than once"));
    }
    let text = std::str::from_utf8(value.as_bytes()).map_err(|_no_text| refuse("is not UTF-8"))?;
    Ok(Some(text).filter(|text| !text.is_empty()))
}

/// Sets a header if the text can stand in one.
pub(super) fn set(headers: &mut HeaderMap, name: HeaderName, text: &str) {
    if let Ok(value) = HeaderValue::from_bytes(text.as_bytes()) {
        headers.insert(name, value);
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderMap;
    use http::header::{HeaderName, HeaderValue};

    use super::{ask_readable, upstream};

    fn headers(pairs: &[(&str, &str)]) -> HeaderMap {
        pairs
            .iter()
            .map(|(name, value)| {
                (HeaderName::try_from(*name).unwrap(), HeaderValue::from_str(value).unwrap())
            })
            .collect()
    }

    #[test]
    fn hops_framing_and_our_own_stay_here() {
        let sent = headers(&[
            ("host", "evil"),
            ("connection", "close, X-Hop"),
            ("x-hop", "1"),
            ("keep-alive", "1"),
            ("te", "trailers"),
            ("upgrade", "h2c"),
            ("http2-settings", "x"),
            ("content-length", "5"),
            ("transfer-encoding", "chunked"),
            ("x-chaperone-user", "u"),
            ("proxy-authorization", "x"),
            ("x-goog-api-key", "k"),
            ("x-forwarded-host", "h"),
        ]);
        let names: Vec<String> = upstream(&sent).keys().map(ToString::to_string).collect();
        assert_eq!(names, ["x-goog-api-key", "x-forwarded-host"]);
    }

    #[test]
    fn readable_codings_only() {
        for (offered, streamed, asked) in [
            ("gzip, deflate, zstd", false, "gzip"),
            ("gzip, deflate", true, "identity"),
            ("br", false, "identity"),
            ("gzip;q=0", false, "identity"),
            ("gzip; q=0.0", false, "identity"),
            ("br, gzip;q=0.5", false, "gzip"),
        ] {
            let mut sent = headers(&[("accept-encoding", offered)]);
            ask_readable(&mut sent, streamed);
            assert_eq!(sent["accept-encoding"], asked);
        }
    }
}
