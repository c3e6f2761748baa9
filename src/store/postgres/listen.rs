//! Hearing of changes as they happen, and knowing whether one does.
//!
//! Behind a pooler in transaction mode `listen` succeeds and nothing is ever heard; a server that hangs
//! closes nothing. So this process tells itself something through another connection, from time to time,
//! and counts as listening only while it hears it.

use std::future::poll_fn;
use std::time::Duration;

use tokio::sync::Notify;
use tokio_postgres::AsyncMessage;
use tokio_postgres::types::Type;

use super::{DEADLINE, Postgres, from_driver, within};
use crate::store::StoreError;

/// The channel that the migration's trigger announces on.
const CHANNEL: &str = "chaperone_catalog";
const SAY: &str = "select pg_notify($1, '')";
/// Between two proofs that announcements arrive.
const HEARTBEAT: Duration = Duration::from_secs(3);
/// How long one may take.
const ECHO_DEADLINE: Duration = Duration::from_secs(1);

impl Postgres {
    pub(super) async fn hear(&self, changed: &(dyn Fn() + Send + Sync)) -> Result<(), StoreError> {
        let connecting = self.config.connect(self.tls.clone());
        let connecting = self.pool.manager().gate().attempt(within(DEADLINE, connecting));
        let (client, mut connection) = Box::pin(connecting).await?;
        let echoed = Notify::new();
        let drive = async {
            while let Some(message) = poll_fn(|context| connection.poll_message(context)).await {
                if let AsyncMessage::Notification(heard) =
                    message.map_err(|error| from_driver(&error))?
                {
                    if heard.channel() == CHANNEL { changed() } else { echoed.notify_one() }
                }
            }
            Err::<(), _>(StoreError::Unavailable("the listening connection closed".to_owned()))
        };
        let listen = async {
            let listen = format!("listen {CHANNEL}; listen {}", self.echo);
            within(DEADLINE, client.batch_execute(&listen)).await?;
            let mut hears = false;
            loop {
                let before = std::mem::replace(&mut hears, self.echoes(&echoed).await?);
                match (before, hears) {
                    // What was announced while nobody listened is found now.
                    (false, true) => changed(),
                    (true, false) => return Err(unheard()),
                    (true, true) | (false, false) => {}
                }
                tokio::time::sleep(HEARTBEAT).await;
            }
        };
        tokio::try_join!(drive, listen).map(|((), ())| ())
    }

    /// Whether what this process says through the pool arrives.
    async fn echoes(&self, echoed: &Notify) -> Result<bool, StoreError> {
        self.ask(ECHO_DEADLINE, SAY, &[(&self.echo, Type::TEXT)]).await?;
        Ok(tokio::time::timeout(ECHO_DEADLINE, echoed.notified()).await.is_ok())
    }
}

fn unheard() -> StoreError {
    StoreError::Unavailable("announcements no longer arrive".to_owned())
}
