//! Executions that the store refused, or that the disk spoilt: seen, and sent again, by an admin.

use std::sync::Arc;

use serde::Serialize;
use tokio::sync::Notify;
use tokio::task::spawn_blocking;

use super::file::OutboxFile;
use crate::store::StoreError;
use crate::store::erasure::Erasure;

/// The dead letters of this process's local file.
#[derive(Debug, Clone)]
pub struct DeadLetters {
    pub(super) file: Arc<OutboxFile>,
    pub(super) filled: Arc<Notify>,
}

/// One of them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Letter {
    /// The execution's request id, or a place where the disk spoilt one.
    pub id: String,
    /// Why it was kept aside.
    pub reason: String,
    /// Its JSON, or what is left of it.
    pub execution: String,
    /// When, in UTC.
    pub at: String,
}

/// What became of those that were to be sent again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retried {
    /// Back in the outbox.
    pub sent: u64,
    /// Spoilt: they stay.
    pub kept: u64,
    pub(super) bytes: u64,
}

impl DeadLetters {
    /// The oldest after the one with an id, at most `limit` of them.
    pub async fn list(&self, after: Option<String>, limit: u32) -> Result<Vec<Letter>, StoreError> {
        self.on_file(move |file| file.letters(after.as_deref(), limit)).await
    }

    /// Puts one, or all, back into the outbox.
    pub async fn retry(&self, id: Option<String>) -> Result<Retried, StoreError> {
        let retried = self.on_file(move |file| file.retry(id.as_deref())).await?;
        if retried.sent > 0 {
            self.filled.notify_one();
        }
        Ok(retried)
    }

    /// Removes those of a user from before the order, and what the disk has spoilt that names the user;
    /// gives how many.
    pub async fn erase(&self, erasure: &Erasure) -> Result<u64, StoreError> {
        let erasure = erasure.clone();
        self.on_file(move |file| file.erase(&erasure)).await
    }

    async fn on_file<T: Send + 'static>(
        &self,
        work: impl FnOnce(&OutboxFile) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let file = self.file.clone();
        spawn_blocking(move || work(&file))
            .await
            .map_err(|error| StoreError::Unavailable(error.to_string()))?
    }
}
