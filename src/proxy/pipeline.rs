//! The life of a request, step by step. Each type can only be made from the one before.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use futures_util::FutureExt as _;
use http::Request;
use hyper::body::Incoming;

use super::arrive::Arrival;
use super::exchange::Exchange;
use super::refusal::{Kind, Refusal};
use super::reply::Reply;
use super::{
    Proxy, arrive, forward, headers, identify, inspect, live, relay, render, reply, select,
};
use crate::catalog::Catalog;
use crate::gemini::Dialect;
use crate::telemetry;
use crate::words::clock;

impl Proxy {
    /// Answers one request. Never fails: whatever goes wrong is an answer, and a record.
    pub async fn handle(&self, request: Request<Incoming>) -> Reply {
        let catalog = self.catalog.load();
        let mut exchange = Exchange::begin(self, &catalog, clock::now());
        let mut dialect = None;
        let request_id = exchange.fact(|one| one.request_id.clone()).unwrap_or_default();
        let steps = caught(self.steps(request, catalog.clone(), &mut exchange, &mut dialect));
        let answered = tokio::select! {
            answered = steps => answered.unwrap_or_else(|| {
                Err(Refusal::new(Kind::Internal, "an internal error; only this request failed"))
            }),
            () = self.drained.cancelled() => {
                Err(Refusal::new(Kind::Draining, "the proxy is shutting down"))
            }
        };
        let mut reply =
            answered.unwrap_or_else(|refusal| refuse(&refusal, dialect, exchange.take()));
        headers::set(reply.headers_mut(), headers::REQUEST_ID, &request_id);
        if !reply.headers().contains_key(headers::SOURCE) {
            headers::set(reply.headers_mut(), headers::SOURCE, catalog.source.name());
        }
        reply
    }

    async fn steps(
        &self,
        request: Request<Incoming>,
        catalog: Arc<Catalog>,
        exchange: &mut Exchange,
        dialect: &mut Option<Dialect>,
    ) -> Result<Reply, Refusal> {
        let arrived = match arrive::arrive(self, request, catalog, exchange, dialect).await? {
            Arrival::Text(arrived) => arrived,
            Arrival::Opaque(arrived) => {
                identify::check_prefix(&arrived.catalog, &arrived.head)?;
                let cleared = match inspect::unread(self, arrived, exchange).await? {
                    inspect::Verdict::Passed(cleared) => cleared,
                    inspect::Verdict::Blocked(blocked) => return Ok(blocked.reply(self, exchange)),
                };
                let answered = forward::forward(self, cleared, exchange).await?;
                return Ok(relay::unread(self, answered, exchange));
            }
            Arrival::Live(live) => return live::tunnel(self, live, exchange).await,
        };
        let identified = identify::identify(self, arrived, exchange)?;
        let planned = select::select(identified, exchange)?;
        let screened = match inspect::untrusted(self, planned, exchange)? {
            inspect::Verdict::Passed(screened) => screened,
            inspect::Verdict::Blocked(blocked) => return Ok(blocked.reply(self, exchange)),
        };
        let rendered = render::render(screened, exchange)?;
        let cleared = match inspect::rendered(self, rendered, exchange)? {
            inspect::Verdict::Passed(cleared) => cleared,
            inspect::Verdict::Blocked(blocked) => return Ok(blocked.reply(self, exchange)),
        };
        let answered = forward::forward(self, cleared, exchange).await?;
        relay::inspected(self, answered, exchange).await
    }
}

fn refuse(refusal: &Refusal, dialect: Option<Dialect>, mut exchange: Exchange) -> Reply {
    let mut reply = refusal.reply(dialect);
    reply::decorate(&mut reply, &exchange);
    exchange.note(|execution| {
        execution.http_status = Some(reply.status().as_u16());
        execution.error_message.get_or_insert_with(|| refusal.recorded.clone());
    });
    if refusal.kind == Kind::Unrecordable {
        // Refused because it could not be recorded: it is no loss.
        exchange.forget();
    } else {
        exchange.finish(refusal.kind.outcome(), Some(refusal.kind.name()));
    }
    reply
}

/// A panic in a request is one failed request.
async fn caught<T>(steps: impl Future<Output = T>) -> Option<T> {
    let answered = AssertUnwindSafe(steps).catch_unwind().await;
    if answered.is_err() {
        telemetry::events::panicked();
    }
    answered.ok()
}
