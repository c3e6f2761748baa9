//! The data plane: what applications point their base URL at.
//!
//! `pipeline` reads like the list of steps; each step turns one type into the next, and only the
//! guardrail step can make what may be forwarded. Nothing here knows the control plane.

mod arrive;
mod attempts;
mod blocked;
mod compose;
mod earlier;
mod exchange;
mod forward;
mod headers;
mod identify;
mod inspect;
mod kept;
mod key;
mod live;
mod patience;
mod pipeline;
mod refusal;
mod relay;
mod render;
mod reply;
mod select;
mod texts;
mod vault;

pub use earlier::Accounted;
pub use inspect::Pieces;
pub use key::{BadKey, Key};
pub use reply::{BodyError, Reply, ReplyBody};

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::catalog::Current;
use crate::config::{GuardrailSettings, Limits, Retries, RouteRule, StorePrompts, WhenFull};
use crate::outbox::Recorder;
use crate::price::Prices;
use crate::upstream::Upstream;
use crate::words::secret::Secret;
use refusal::{Kind, Refusal};

/// Everything a request may borrow.
#[derive(Debug)]
pub struct Proxy {
    /// What is in force.
    pub catalog: Arc<Current>,
    /// Where calls go.
    pub upstream: Upstream,
    /// The key that calls go out with; `None`: their callers'.
    pub key: Option<Key>,
    /// Where executions go.
    pub recorder: Recorder,
    /// What tokens cost.
    pub prices: Arc<Prices>,
    /// Answers made earlier that are recorded already.
    pub accounted: Arc<Accounted>,
    /// Uploads under way.
    pub pieces: Pieces,
    /// What the operator decided.
    pub rules: Rules,
    /// A place for each open stream.
    pub streams: Arc<Semaphore>,
    /// Holds every WebSocket.
    pub tunnels: TaskTracker,
    /// Cancelled at the drain deadline: open streams end themselves.
    pub drained: CancellationToken,
}

/// The settings that decide about requests.
#[derive(Debug)]
#[expect(missing_docs, reason = "named and documented in `config`")]
pub struct Rules {
    pub limits: Limits,
    pub retries: Retries,
    pub response_head_timeout: Duration,
    pub guardrails: GuardrailSettings,
    pub routes: Vec<RouteRule>,
    pub store_prompts: StorePrompts,
    /// By the name of a template.
    pub store_prompts_of: Arc<BTreeMap<String, StorePrompts>>,
    pub when_full: WhenFull,
    pub placeholder_key: Secret,
    /// Whether callers come by TLS.
    pub speaks_tls: bool,
}

impl Proxy {
    /// A place among the streams that may be open.
    fn place(&self) -> Result<OwnedSemaphorePermit, Refusal> {
        let place = self.streams.clone().try_acquire_owned();
        place.map_err(|_full| Refusal::new(Kind::Overloaded, "too many open streams"))
    }
}

impl Rules {
    fn body_idle_timeout(&self) -> Duration {
        self.limits.request_body_idle_timeout
    }
}
