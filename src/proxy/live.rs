//! The Live API: a WebSocket whose frames nobody reads, passed on where the operator lets such calls pass.

use http::header::{CONNECTION, HeaderValue, UPGRADE};
use http::{HeaderMap, StatusCode};
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use tokio::io::{copy, split};
use tokio::sync::OwnedSemaphorePermit;

use super::Proxy;
use super::arrive::Live;
use super::exchange::Exchange;
use super::forward::{self, Answered};
use super::refusal::Refusal;
use super::reply::Reply;
use super::{identify, inspect, relay};
use crate::execution::Outcome;

/// The name in metrics and records.
const CALL: &str = "live";

/// The two ends of a tunnel.
struct Ends {
    client: OnUpgrade,
    upstream: OnUpgrade,
    /// Its place among the streams that may be open.
    _place: OwnedSemaphorePermit,
}

/// Asks the upstream to switch, and carries bytes both ways once it has.
pub(super) async fn tunnel(
    proxy: &Proxy,
    live: Live,
    exchange: &mut Exchange,
) -> Result<Reply, Refusal> {
    let Live { head, upgrade, catalog } = live;
    identify::check_prefix(&catalog, &head)?;
    identify::identify_unread(proxy, &head, &catalog, exchange)?;
    exchange.is_model_call();
    exchange.note(|execution| {
        CALL.clone_into(&mut execution.call);
        execution.streamed = true;
    });
    let cleared = inspect::live(proxy, head)?;
    let place = proxy.place()?;
    let mut answered = forward::forward(proxy, cleared, exchange).await?;
    exchange.note(|execution| execution.http_status = Some(answered.head.status.as_u16()));
    let switched = answered.head.extensions.remove::<OnUpgrade>();
    let (StatusCode::SWITCHING_PROTOCOLS, Some(upstream)) = (answered.head.status, switched) else {
        return Ok(refused(proxy, answered, exchange));
    };
    exchange.rest();
    let mut reply = relay::respond(&answered.head, exchange);
    switch(reply.headers_mut());
    let (ends, drained) =
        (Ends { client: upgrade, upstream, _place: place }, proxy.drained.clone());
    let exchange = exchange.take();
    proxy.tunnels.spawn(async move {
        let (outcome, error) = tokio::select! {
            ended = carry(ends) => ended,
            () = drained.cancelled() => (Outcome::Drained, Some("drained")),
        };
        exchange.finish(outcome, error);
    });
    Ok(reply)
}

/// What the upstream says when it does not switch.
fn refused(proxy: &Proxy, answered: Answered, exchange: &mut Exchange) -> Reply {
    exchange.take().finish(Outcome::Failed, Some("upstream_status"));
    relay::unread(proxy, answered, exchange)
}

/// Asks for the switch, or agrees to it: both headers belong to one hop.
pub(super) fn switch(headers: &mut HeaderMap) {
    headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
    headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
}

/// Bytes both ways until one side ends.
async fn carry(ends: Ends) -> (Outcome, Option<&'static str>) {
    let Ok((client, upstream)) = tokio::try_join!(ends.client, ends.upstream) else {
        return (Outcome::ClientLeft, Some("client_left"));
    };
    let (mut from_client, mut to_client) = split(TokioIo::<Upgraded>::new(client));
    let (mut from_upstream, mut to_upstream) = split(TokioIo::<Upgraded>::new(upstream));
    tokio::select! {
        sent = copy(&mut from_client, &mut to_upstream) => match sent {
            Ok(_) => (Outcome::Success, None),
            Err(_) => (Outcome::ClientLeft, Some("client_left")),
        },
        said = copy(&mut from_upstream, &mut to_client) => match said {
            Ok(_) => (Outcome::Success, None),
            Err(_) => (Outcome::Incomplete, Some("upstream_broken")),
        },
    }
}
