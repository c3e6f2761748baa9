//! How the pool comes by connections: at most one attempt a second, while the server takes none.
//!
//! Whoever asks in between is told what the last attempt was told, at once.

use std::time::{Duration, Instant};

use deadpool::managed::{self, Metrics, RecycleResult};
use deadpool_postgres::ClientWrapper;
use tokio::sync::Mutex;

use super::from_driver;
use crate::store::StoreError;
use crate::words::clock;

pub(super) type Pool = managed::Pool<Connector>;
pub(super) type Object = managed::Object<Connector>;

/// Between a failed attempt and the next.
const PAUSE: Duration = Duration::from_secs(1);

pub(super) struct Connector {
    manager: deadpool_postgres::Manager,
    gate: Gate,
}

/// Lets one attempt at a time through.
#[derive(Debug, Default)]
pub(super) struct Gate(Mutex<Option<(Instant, StoreError)>>);

impl Connector {
    pub(super) fn new(manager: deadpool_postgres::Manager) -> Self {
        Self { manager, gate: Gate::default() }
    }

    pub(super) fn gate(&self) -> &Gate {
        &self.gate
    }
}

impl Gate {
    /// Makes an attempt, unless one has failed just now: then its error is given again.
    pub(super) async fn attempt<T>(
        &self,
        connect: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, StoreError> {
        let mut last = self.0.lock().await;
        if let Some((at, error)) = &*last
            && clock::monotonic().duration_since(*at) < PAUSE
        {
            return Err(error.clone());
        }
        let connected = connect.await;
        *last = connected.as_ref().err().map(|error| (clock::monotonic(), error.clone()));
        connected
    }
}

impl managed::Manager for Connector {
    type Type = ClientWrapper;
    type Error = StoreError;

    async fn create(&self) -> Result<ClientWrapper, StoreError> {
        let connecting = managed::Manager::create(&self.manager);
        self.gate.attempt(async { connecting.await.map_err(|error| from_driver(&error)) }).await
    }

    async fn recycle(
        &self,
        client: &mut ClientWrapper,
        metrics: &Metrics,
    ) -> RecycleResult<StoreError> {
        managed::Manager::recycle(&self.manager, client, metrics)
            .await
            .map_err(|error| managed::RecycleError::message(error.to_string()))
    }

    fn detach(&self, client: &mut ClientWrapper) {
        managed::Manager::detach(&self.manager, client);
    }
}
