//! What stands before every route of the admin API: the name it is called by, a token, its role.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::extract::{Request, State};
use axum::http::header::{AUTHORIZATION, HOST, HeaderName, HeaderValue, ORIGIN};
use axum::http::{HeaderMap, Method, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use uuid::Uuid;

use super::Admin;
use super::problem::Problem;
use super::tokens::Role;
use crate::telemetry::events;
use crate::words::clock;

pub(super) const REQUEST_ID: HeaderName = HeaderName::from_static("x-chaperone-request-id");

/// For an answer, whatever the database does.
const DEADLINE: Duration = Duration::from_millis(1_750);
/// For reading everything again.
const RELOAD_DEADLINE: Duration = Duration::from_secs(10);
const RELOAD: &str = "/reload";
/// Wrong tokens that a source may send at once. More are answered late and with 429, so that guessing
/// is slow; a right token is never held up by somebody else's wrong ones.
const FAILURES_MAX: u32 = 10;
/// After those, one more is allowed in each such time.
const FORGIVEN_EVERY: Duration = Duration::from_secs(1);
/// Sources remembered; beyond them the oldest is forgotten.
const SOURCES_MAX: usize = 4096;

/// Where a connection comes from; put into every request by the listener.
#[derive(Debug, Clone, Copy)]
pub(super) struct Peer(pub(super) IpAddr);

/// Who asks.
#[derive(Debug, Clone)]
pub(super) struct Caller {
    /// The name of the token.
    pub(super) name: String,
    /// The id of this request, in the audit and in the answer.
    pub(super) request_id: String,
}

/// Sources that sent wrong tokens.
#[derive(Debug, Default)]
pub struct Throttle(Mutex<HashMap<IpAddr, Failures>>);

#[derive(Debug, Clone, Copy)]
struct Failures {
    count: u32,
    last: Instant,
}

impl Throttle {
    /// Counts a wrong token of this source; whether it may have had as many.
    fn admits(&self, source: IpAddr, now: Instant) -> bool {
        let mut sources = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let source = network(source);
        let count = sources.get(&source).map_or(0, |failures| failures.left(now));
        if count >= FAILURES_MAX {
            return false;
        }
        if count + 1 == FAILURES_MAX {
            events::tokens_guessed(&source.to_string());
        }
        sources.insert(source, Failures { count: count + 1, last: now });
        if sources.len() > SOURCES_MAX {
            let oldest = sources.iter().min_by_key(|(_, one)| one.last).map(|(source, _)| *source);
            oldest.and_then(|oldest| sources.remove(&oldest));
        }
        true
    }
}

/// Whoever has one address of an IPv6 network has all of them.
fn network(source: IpAddr) -> IpAddr {
    match source {
        IpAddr::V4(_) => source,
        IpAddr::V6(address) => IpAddr::V6((address.to_bits() >> 64 << 64).into()),
    }
}

impl Failures {
    /// What time has not forgiven yet.
    fn left(&self, now: Instant) -> u32 {
        let waited = now.saturating_duration_since(self.last);
        let forgiven = waited.as_secs() / FORGIVEN_EVERY.as_secs();
        self.count.saturating_sub(u32::try_from(forgiven).unwrap_or(u32::MAX))
    }
}

/// Refuses names that a page in a browser could have made up, requests without a token, and writes
/// without the right one.
pub(super) async fn require(
    State(admin): State<Admin>,
    mut request: Request,
    next: Next,
) -> Response {
    let request_id = Uuid::now_v7().to_string();
    let mut response = match admit(&admin, &request) {
        Ok(name) => {
            let caller = Caller { name, request_id: request_id.clone() };
            let patience =
                if request.uri().path().ends_with(RELOAD) { RELOAD_DEADLINE } else { DEADLINE };
            request.extensions_mut().insert(Arc::new(caller));
            let answered = tokio::time::timeout(patience, next.run(request)).await;
            answered.unwrap_or_else(|_late| {
                let detail = "no answer in time; a change may have been made or not: send it again \
                              with the same Idempotency-Key, or look";
                Problem::new(StatusCode::SERVICE_UNAVAILABLE, detail).into_response()
            })
        }
        Err(problem) => {
            if problem.is_too_many() {
                tokio::time::sleep(FORGIVEN_EVERY).await;
            }
            problem.into_response()
        }
    };
    if let Ok(value) = HeaderValue::from_str(&request_id) {
        response.headers_mut().insert(REQUEST_ID, value);
    }
    let generation = admin.refresher.current().load().generation;
    response.headers_mut().insert("x-chaperone-generation", HeaderValue::from(generation));
    response
}

/// The name of the caller.
fn admit(admin: &Admin, request: &Request) -> Result<String, Problem> {
    let headers = request.headers();
    check_host(headers, &admin.allowed_hosts)?;
    let source =
        request.extensions().get().map_or(IpAddr::from([0, 0, 0, 0]), |peer: &Peer| peer.0);
    let found = bearer(headers).and_then(|token| admin.tokens.find(token));
    let Some((name, role)) = found else {
        let tries = headers.contains_key(AUTHORIZATION);
        if tries && !admin.throttle.admits(source, clock::monotonic()) {
            let detail = "too many wrong tokens from this address";
            return Err(Problem::new(StatusCode::TOO_MANY_REQUESTS, detail));
        }
        let detail = "a valid token is needed: Authorization: Bearer <token>";
        return Err(Problem::new(StatusCode::UNAUTHORIZED, detail));
    };
    may(role, request).map(|()| name)
}

/// What a role may not do is 403.
fn may(role: Role, request: &Request) -> Result<(), Problem> {
    let (method, path) = (request.method(), request.uri().path());
    let reads = matches!(*method, Method::GET | Method::HEAD);
    let only_asks = super::ASKING.iter().any(|one| path.ends_with(one));
    let refusal = match role {
        Role::Viewer if !reads && !only_asks => "this token may only read",
        Role::Feedback if *method != Method::POST || !path.ends_with(super::FEEDBACK) => {
            "this token may only send feedback"
        }
        Role::SuperAdmin | Role::Viewer | Role::Feedback => return Ok(()),
    };
    Err(Problem::new(StatusCode::FORBIDDEN, refusal))
}

fn bearer(headers: &HeaderMap) -> Option<&str> {
    let (scheme, token) = headers.get(AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    (scheme.eq_ignore_ascii_case("bearer") && !token.is_empty()).then_some(token)
}

/// A page in a browser can make any name of its own point here (DNS rebinding), but cannot make the
/// browser ask for an IP address or `localhost` in that name.
fn check_host(headers: &HeaderMap, allowed: &[String]) -> Result<(), Problem> {
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
    let is_allowed = |host: &str| {
        let name = host_name(host).to_ascii_lowercase();
        name == "localhost"
            || name.trim_matches(['[', ']']).parse::<IpAddr>().is_ok()
            || allowed.contains(&name)
    };
    if let Some(host) = text(HOST).filter(|host| !is_allowed(host)) {
        let shown: String = host.chars().take(100).collect();
        let detail = format!(
            "the admin API does not answer to the name {shown:?}; name it in control.allowed_hosts"
        );
        return Err(Problem::new(StatusCode::MISDIRECTED_REQUEST, detail));
    }
    let origin = text(ORIGIN).and_then(|origin| origin.split_once("://"));
    match (origin, text(HOST)) {
        (Some((_, origin)), Some(host)) if origin.eq_ignore_ascii_case(host) => Ok(()),
        (None, _) if !headers.contains_key(ORIGIN) => Ok(()),
        _ => {
            let detail = "pages of other origins may not use the admin API";
            Err(Problem::new(StatusCode::FORBIDDEN, detail))
        }
    }
}

/// Without the port.
fn host_name(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|one| one.is_ascii_digit()) => name,
        _ => host,
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;
    use std::time::Duration;

    use axum::http::HeaderMap;

    use super::{FAILURES_MAX, Throttle, check_host};
    use crate::words::clock;

    #[test]
    fn failures_are_throttled_and_forgiven() {
        let throttle = Throttle::default();
        let (one, other) = (IpAddr::from([10, 0, 0, 1]), IpAddr::from([10, 0, 0, 2]));
        let start = clock::monotonic();
        for _ in 0..FAILURES_MAX {
            assert!(throttle.admits(one, start));
        }
        assert!(!throttle.admits(one, start) && throttle.admits(other, start));
        let later = start + Duration::from_secs(1);
        assert!(throttle.admits(one, later), "one more a second");
        assert!(!throttle.admits(one, later));
    }

    #[test]
    fn names_a_browser_page_could_own_are_refused() {
        let allowed = ["admin.internal".to_owned()];
        for (host, origin, passes) in [
            ("127.0.0.1:9090", None, true),
            ("localhost:9090", None, true),
            ("[::1]:9090", None, true),
            ("10.1.2.3", None, true),
            ("ADMIN.internal:9090", None, true),
            ("evil.example:9090", None, false),
            ("localhost.evil.example", None, false),
            ("127.0.0.1:9090", Some("http://127.0.0.1:9090"), true),
            ("127.0.0.1:9090", Some("https://evil.example"), false),
            ("127.0.0.1:9090", Some("null"), false),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert("host", host.parse().unwrap());
            if let Some(origin) = origin {
                headers.insert("origin", origin.parse().unwrap());
            }
            assert_eq!(check_host(&headers, &allowed).is_ok(), passes, "{host} {origin:?}");
        }
    }
}
