//! How long a call may take: its caller to send the body, the upstream to begin its answer.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::HeaderMap;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use tokio::time::{Sleep, sleep};

use super::headers;

use crate::upstream::ClientBodyFailed;
use crate::words::clock;
use crate::words::tokens::ServiceTier;

/// The seconds that a caller gives the upstream.
const SERVER_TIMEOUT: &str = "x-server-timeout";
const SERVER_TIMEOUT_MAX: Duration = Duration::from_hours(1);
/// Beyond what its caller gave it, for the upstream to say itself that the time is over.
const GRACE: Duration = Duration::from_secs(10);
/// What answers of the flex tier may take.
const FLEX: Duration = Duration::from_mins(15);

/// How long the head of an answer may take, once the request is sent: what the caller says, else what the
/// operator says, and for the flex tier no less than that tier may take.
pub(super) fn of_head(
    headers: &HeaderMap,
    tier: Option<ServiceTier>,
    configured: Duration,
) -> Duration {
    let told = headers.get(SERVER_TIMEOUT).and_then(|value| value.to_str().ok()?.parse().ok());
    let told = told.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    match (told, tier) {
        (Some(told), _) => told.min(SERVER_TIMEOUT_MAX) + GRACE,
        (None, Some(ServiceTier::Flex)) => configured.max(FLEX + GRACE),
        (None, _) => configured,
    }
}

/// When something last went on its way.
#[derive(Debug, Clone)]
pub(super) struct Progress {
    began: Instant,
    last_ms: Arc<AtomicU64>,
}

impl Progress {
    pub(super) fn begin() -> Self {
        Self { began: clock::monotonic(), last_ms: Arc::default() }
    }

    /// Something goes on its way.
    pub(super) fn note(&self) {
        self.last_ms.store(self.millis(), Relaxed);
    }

    fn millis(&self) -> u64 {
        u64::try_from(clock::monotonic().duration_since(self.began).as_millis()).unwrap_or(u64::MAX)
    }

    /// Waits until nothing has gone on its way for so long.
    pub(super) async fn none_for(&self, patience: Duration) {
        loop {
            let since = self.millis().saturating_sub(self.last_ms.load(Relaxed));
            match patience.checked_sub(Duration::from_millis(since)) {
                None | Some(Duration::ZERO) => return,
                Some(rest) => sleep(rest).await,
            }
        }
    }
}

/// A client's body that may not stall: its idle time is bounded.
pub(super) struct Patient {
    body: Incoming,
    patience: Duration,
    idle: Pin<Box<Sleep>>,
    progress: Progress,
}

impl Patient {
    pub(super) fn new(body: Incoming, patience: Duration, progress: Progress) -> Self {
        Self { body, patience, idle: Box::pin(sleep(patience)), progress }
    }
}

impl Body for Patient {
    type Data = Bytes;
    type Error = ClientBodyFailed;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, ClientBodyFailed>>> {
        let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(context) else {
            ready!(self.idle.as_mut().poll(context));
            return Poll::Ready(Some(Err(ClientBodyFailed)));
        };
        self.idle = Box::pin(sleep(self.patience));
        self.progress.note();
        Poll::Ready(match frame {
            None => None,
            Some(Err(_)) => Some(Err(ClientBodyFailed)),
            Some(Ok(frame)) => Some(Ok(match frame.into_trailers() {
                Ok(trailers) => Frame::trailers(headers::trailers(&trailers)),
                Err(data) => data,
            })),
        })
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn who_gives_the_upstream_time_is_heard() {
        let configured = Duration::from_mins(10);
        for (told, tier, seconds) in [
            (None, None, 600),
            (None, Some(ServiceTier::Flex), 910),
            (Some("900"), None, 910),
            (Some("2.5"), Some(ServiceTier::Flex), 12),
            (Some("9e9"), None, 3610),
            (Some("-1"), None, 600),
            (Some("soon"), None, 600),
        ] {
            let mut headers = HeaderMap::new();
            if let Some(told) = told {
                headers.insert(SERVER_TIMEOUT, HeaderValue::from_static(told));
            }
            assert_eq!(of_head(&headers, tier, configured).as_secs(), seconds, "{told:?}");
        }
    }
}
