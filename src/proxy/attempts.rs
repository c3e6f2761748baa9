//! Whether a call that the upstream did not answer as it should is tried again, when, and on which model.
//!
//! Only calls that change nothing and whose body is here as a whole are, and only before anything of an answer
//! has gone to the caller.

use std::time::Duration;

use futures_util::{StreamExt as _, stream};
use http::header::RETRY_AFTER;
use http::response::Parts;
use http::{Response, StatusCode};
use http_body_util::{BodyExt as _, BodyStream, StreamBody};
use jiff::Timestamp;
use jiff::fmt::rfc2822;
use serde_json::Value;

use super::headers;
use super::relay::coding;
use crate::config::Retries;
use crate::gemini::route::Call;
use crate::upstream::{self, UpstreamError};
use crate::words::clock;
use crate::words::dice;

/// Before the second try, unless the upstream says how long to wait; doubled before each one after it.
const WAIT_FIRST: Duration = Duration::from_millis(250);
/// Of an answer that is an error.
const ERROR_BYTES_MAX: usize = 64 * 1024;
const RETRY_INFO: &str = "type.googleapis.com/google.rpc.RetryInfo";

/// What came of sending a call.
pub(super) type Sent = Result<Response<reqwest::Body>, UpstreamError>;

/// A failure that another try may mend.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Failure {
    /// `None`: there was no connection.
    pub(super) status: Option<StatusCode>,
    /// How long the upstream wants nobody to come back.
    pub(super) pause: Option<Duration>,
}

/// What follows a failure.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Next {
    /// The same again, after a wait.
    Again(Duration),
    /// The same on another model, at once.
    Model(String),
    /// Nothing: the failure is the answer.
    Nothing,
}

/// The tries of one call.
#[derive(Debug)]
pub(super) struct Attempts<'r> {
    /// Of the model that was asked for, with the one under way.
    made: usize,
    tries_max: usize,
    wait_max: Duration,
    fallback: Option<&'r str>,
}

impl<'r> Attempts<'r> {
    /// The first try of a call. `model`: as its path names it.
    pub(super) fn of(rules: &'r Retries, call: Option<Call>, model: Option<&str>) -> Self {
        let may_repeat = matches!(
            call,
            Some(Call::Generate | Call::StreamGenerate(_) | Call::CountTokens | Call::Chat)
        );
        let tries_max = if may_repeat { rules.tries_max } else { 1 };
        let fallback = model.filter(|_| may_repeat).and_then(|one| rules.fallback_models.get(one));
        let fallback = fallback.map(String::as_str);
        Self { made: 1, tries_max, wait_max: rules.wait_max, fallback }
    }

    /// Whether the one under way may be followed by another.
    pub(super) fn may_go_on(&self) -> bool {
        self.made < self.tries_max || self.fallback.is_some()
    }

    /// What follows the failure of the one under way.
    pub(super) fn next(&mut self, failure: Failure) -> Next {
        let wait = failure.pause.unwrap_or_else(|| {
            let doublings = u32::try_from(self.made).unwrap_or(u32::MAX).saturating_sub(1);
            dice::part_of(WAIT_FIRST.saturating_mul(1 << doublings.min(16)).min(self.wait_max))
        });
        if self.made < self.tries_max && wait <= self.wait_max {
            self.made += 1;
            return Next::Again(wait);
        }
        self.tries_max = 0;
        self.fallback.take().map_or(Next::Nothing, |model| Next::Model(model.to_owned()))
    }
}

/// Looks at what came. The body of an error is read as far as it is short; all of it can still be passed on.
pub(super) async fn look(sent: Sent) -> (Sent, Option<Failure>) {
    let (head, mut body) = match sent {
        Ok(answer) if may_pass(answer.status()) => answer.into_parts(),
        Err(UpstreamError::Unreachable) => {
            return (sent, Some(Failure { status: None, pause: None }));
        }
        sent => return (sent, None),
    };
    let (mut frames, mut begin) = (Vec::new(), Vec::new());
    let mut failure = Failure { status: Some(head.status), pause: None };
    while begin.len() <= ERROR_BYTES_MAX {
        match body.frame().await {
            Some(Ok(frame)) => {
                begin.extend_from_slice(frame.data_ref().map_or(&[], |data| data));
                frames.push(Ok(frame));
            }
            Some(Err(error)) => return (Err(upstream::kind(&error)), Some(failure)),
            None => break,
        }
    }
    failure.pause = pause(&head, &begin, clock::now());
    let body = StreamBody::new(stream::iter(frames).chain(BodyStream::new(body)));
    (Ok(Response::from_parts(head, reqwest::Body::wrap(body))), Some(failure))
}

fn may_pass(status: StatusCode) -> bool {
    matches!(status.as_u16(), 429 | 500 | 502 | 503 | 504)
}

/// From `Retry-After`, else from the error's `RetryInfo`.
fn pause(head: &Parts, body: &[u8], now: Timestamp) -> Option<Duration> {
    let told = head.headers.get(RETRY_AFTER).and_then(|value| value.to_str().ok());
    told.and_then(|told| retry_after(told, now)).or_else(|| {
        let coded = headers::coding(&head.headers);
        let plain = coding::decode(coded, body, ERROR_BYTES_MAX).ok()?;
        retry_info(&serde_json::from_slice(&plain).ok()?)
    })
}

/// Seconds, or a date: RFC 9110, section 10.2.3.
fn retry_after(told: &str, now: Timestamp) -> Option<Duration> {
    if let Ok(seconds) = told.trim().parse() {
        return Some(Duration::from_secs(seconds));
    }
    let until = rfc2822::DateTimeParser::new().parse_timestamp(told.trim()).ok()?;
    Some(Duration::try_from(until.duration_since(now)).unwrap_or_default())
}

/// Of the first error; a stream answers a list of one.
fn retry_info(body: &Value) -> Option<Duration> {
    let body = body.get(0).unwrap_or(body);
    let details = body.get("error")?.get("details")?.as_array()?;
    let info = details.iter().find(|detail| detail.get("@type").is_some_and(|is| is == RETRY_INFO));
    let delay = info?.get("retryDelay")?.as_str()?.strip_suffix('s')?.parse().ok()?;
    Duration::try_from_secs_f64(delay).ok()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde_json::json;

    use super::*;

    fn rules(tries_max: usize, fallback: &[(&str, &str)]) -> Retries {
        let pair = |(asked, other): &(&str, &str)| ((*asked).to_owned(), (*other).to_owned());
        Retries {
            tries_max,
            wait_max: Duration::from_secs(2),
            fallback_models: fallback.iter().map(pair).collect::<BTreeMap<_, _>>(),
        }
    }

    fn failure(pause_ms: Option<u64>) -> Failure {
        let status = Some(StatusCode::SERVICE_UNAVAILABLE);
        Failure { status, pause: pause_ms.map(Duration::from_millis) }
    }

    #[test]
    fn nothing_is_tried_again_unless_told() {
        let rules = rules(1, &[("a", "b")]);
        assert!(!Attempts::of(&rules, Some(Call::Generate), Some("c")).may_go_on());
        assert!(!Attempts::of(&rules, Some(Call::Interact), Some("a")).may_go_on());
        assert!(!Attempts::of(&rules, None, Some("a")).may_go_on());
        assert!(Attempts::of(&rules, Some(Call::Generate), Some("a")).may_go_on());
    }

    #[test]
    fn tries_on_the_model_come_before_the_other_one() {
        let rules = rules(3, &[("a", "b")]);
        let mut attempts = Attempts::of(&rules, Some(Call::Chat), Some("a"));
        assert_eq!(attempts.next(failure(Some(70))), Next::Again(Duration::from_millis(70)));
        let Next::Again(wait) = attempts.next(failure(None)) else { panic!("a third try") };
        assert!(wait <= WAIT_FIRST * 2, "{wait:?}");
        assert!(attempts.may_go_on());
        assert_eq!(attempts.next(failure(None)), Next::Model("b".to_owned()));
        assert!(!attempts.may_go_on());
        assert_eq!(attempts.next(failure(None)), Next::Nothing);
    }

    #[test]
    fn who_would_wait_too_long_goes_on_elsewhere_or_not_at_all() {
        let rules = rules(3, &[("a", "b")]);
        let mut attempts = Attempts::of(&rules, Some(Call::Generate), Some("a"));
        assert_eq!(attempts.next(failure(Some(2_001))), Next::Model("b".to_owned()));
        assert_eq!(attempts.next(failure(Some(1))), Next::Nothing, "the other one has one try");
        let mut attempts = Attempts::of(&rules, Some(Call::Generate), Some("c"));
        assert_eq!(attempts.next(failure(Some(2_001))), Next::Nothing);
    }

    #[test]
    fn the_upstream_says_how_long_in_three_ways() {
        let now: Timestamp = "1994-11-06T08:49:00Z".parse().unwrap();
        let seconds = |seconds| Some(Duration::from_secs(seconds));
        assert_eq!(retry_after("37", now), seconds(37));
        assert_eq!(retry_after("Sun, 06 Nov 1994 08:49:37 GMT", now), seconds(37));
        assert_eq!(retry_after("Sun, 06 Nov 1994 08:48:37 GMT", now), seconds(0), "it is over");
        assert_eq!(retry_after("soon", now), None);
        let error = json!({"error": {"code": 429, "details": [
            {"@type": "type.googleapis.com/google.rpc.QuotaFailure"},
            {"@type": RETRY_INFO, "retryDelay": "1.5s"}]}});
        assert_eq!(retry_info(&error), Some(Duration::from_millis(1_500)));
        assert_eq!(retry_info(&json!([error])), Some(Duration::from_millis(1_500)));
        assert_eq!(retry_info(&json!({"error": {"code": 429}})), None);
    }
}
