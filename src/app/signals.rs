//! What signals mean: TERM and INT stop, HUP reloads.

use tokio::signal::unix::{Signal, SignalKind, signal};

/// Waits for the next request to stop. A process that cannot hear signals waits for ever.
pub async fn stop() {
    let (mut terminate, mut interrupt) =
        (listen(SignalKind::terminate()), listen(SignalKind::interrupt()));
    tokio::select! {
        () = next(&mut terminate) => {}
        () = next(&mut interrupt) => {}
    }
}

/// Every request to reload.
#[derive(Debug)]
pub struct Reloads(Option<Signal>);

impl Reloads {
    /// Starts hearing them.
    pub fn listen() -> Self {
        Self(listen(SignalKind::hangup()))
    }

    /// Waits for the next one.
    pub async fn next(&mut self) {
        next(&mut self.0).await;
    }
}

fn listen(kind: SignalKind) -> Option<Signal> {
    signal(kind).ok()
}

async fn next(signal: &mut Option<Signal>) {
    match signal {
        Some(signal) => drop(signal.recv().await),
        None => std::future::pending().await,
    }
}
