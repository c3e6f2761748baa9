//! `chaperone simulate-gemini`: the bundled stand-in upstream.

use std::net::SocketAddr;

use anyhow::Context;
use hyper_util::service::TowerToHyperService;

use super::say;
use crate::app::signals;
use crate::listen;
use crate::simulator::Simulator;

/// Serves until a signal says stop.
pub async fn simulate(address: SocketAddr) -> anyhow::Result<()> {
    let listener =
        listen::bind(address).await.with_context(|| format!("cannot listen on {address}"))?;
    say(format_args!("simulated Gemini on http://{}", listener.local_addr()?));
    let lifetime = listen::Lifetime::default();
    let service = TowerToHyperService::new(Simulator::default().router());
    let bounds = listen::Bounds::relaxed("simulator");
    tokio::select! {
        () = listen::serve(listener, None, bounds, lifetime, move |_peer| service.clone()) => {}
        () = signals::stop() => {}
    }
    Ok(())
}
