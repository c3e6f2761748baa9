//! Accepting connections and serving HTTP on them, within bounds, until told to stop.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use hyper::Request;
use hyper::body::{Body, Incoming};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::config::Limits;
use crate::telemetry::{events, metrics};

/// After a failed accept, which is mostly a lack of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// For a TLS handshake.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// Longer than clients keep idle connections in their pools, Chaperone's own included: whoever closes
/// first must not be the side that may be sent a request at that moment.
const RELAXED_HEAD_TIMEOUT: Duration = Duration::from_secs(90);
const HTTP2_STREAMS_MAX: u32 = 100;

/// Bounds of one listener.
#[derive(Debug, Clone)]
pub struct Bounds {
    /// Its name in metrics and logs.
    pub plane: &'static str,
    /// For a head to arrive, and for an idle connection to say something.
    pub head_timeout: Duration,
    /// Bytes of a head.
    pub head_bytes_max: usize,
    /// Connections at once; more wait in the kernel's backlog.
    pub connections_max: usize,
}

impl Bounds {
    /// Those of the data plane.
    pub fn data(limits: &Limits) -> Self {
        Self {
            plane: "data",
            head_timeout: limits.request_head_timeout,
            head_bytes_max: limits.request_head_bytes_max,
            connections_max: limits.connections_max,
        }
    }

    /// Those of a listener for people and probes.
    pub fn relaxed(plane: &'static str) -> Self {
        Self {
            plane,
            head_timeout: RELAXED_HEAD_TIMEOUT,
            head_bytes_max: 65_536,
            connections_max: 1_024,
        }
    }
}

/// What ends a listener and who waits for its connections.
#[derive(Debug, Clone, Default)]
pub struct Lifetime {
    /// Stops accepting and lets open connections end after their exchange.
    pub stop: CancellationToken,
    /// Cuts what is still open.
    pub abort: CancellationToken,
    /// Holds every connection.
    pub tasks: TaskTracker,
}

/// A certificate that cannot be served.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct BadCertificate(String);

/// TLS with HTTP/1.1 and HTTP/2 from PEM files.
pub fn tls(cert: &Path, key: &Path) -> Result<TlsAcceptor, BadCertificate> {
    let broken =
        |file: &Path, error: String| BadCertificate(format!("{}: {error}", file.display()));
    let chain = CertificateDer::pem_file_iter(cert)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|error| broken(cert, error.to_string()))?;
    let key_der =
        PrivateKeyDer::from_pem_file(key).map_err(|error| broken(key, error.to_string()))?;
    let mut config =
        ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(|error| BadCertificate(error.to_string()))?
            .with_no_client_auth()
            .with_single_cert(chain, key_der)
            .map_err(|error| broken(cert, error.to_string()))?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}

/// Binds an address.
pub async fn bind(address: SocketAddr) -> std::io::Result<TcpListener> {
    TcpListener::bind(address).await
}

/// Accepts until stopped. Each connection gets a service made for its peer.
pub async fn serve<S, B>(
    listener: TcpListener,
    tls: Option<TlsAcceptor>,
    bounds: Bounds,
    lifetime: Lifetime,
    service_for: impl Fn(SocketAddr) -> S,
) where
    S: hyper::service::Service<Request<Incoming>, Response = http::Response<B>, Error = Infallible>
        + Send
        + 'static,
    S::Future: Send + 'static,
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let places = Arc::new(Semaphore::new(bounds.connections_max));
    loop {
        let place = tokio::select! {
            () = lifetime.stop.cancelled() => return,
            place = places.clone().acquire_owned() => place,
        };
        let accepted = tokio::select! {
            () = lifetime.stop.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        let ready = accepted.and_then(|(stream, peer)| Ok((without_delay(stream)?, peer)));
        let (stream, peer) = match ready {
            Ok(ready) => ready,
            Err(error) => {
                events::accept_failed(bounds.plane, &error.to_string());
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let (tls, bounds, service) = (tls.clone(), bounds.clone(), service_for(peer));
        let (stop, abort) = (lifetime.stop.clone(), lifetime.abort.clone());
        lifetime.tasks.spawn(async move {
            let plane = bounds.plane;
            metrics::connections(plane, 1.0);
            tokio::select! {
                () = abort.cancelled() => {}
                () = connection(stream, tls, bounds, stop, service) => {}
            }
            metrics::connections(plane, -1.0);
            drop(place);
        });
    }
}

fn without_delay(stream: TcpStream) -> std::io::Result<TcpStream> {
    stream.set_nodelay(true)?;
    Ok(stream)
}

async fn connection<S, B>(
    stream: TcpStream,
    tls: Option<TlsAcceptor>,
    bounds: Bounds,
    stop: CancellationToken,
    service: S,
) where
    S: hyper::service::Service<Request<Incoming>, Response = http::Response<B>, Error = Infallible>
        + Send
        + 'static,
    S::Future: Send + 'static,
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let Some(tls) = tls else {
        // Boxed: the state of a connection is large and lives in a task of its own.
        return Box::pin(plain(stream, &bounds, stop, service)).await;
    };
    match tokio::time::timeout(HANDSHAKE_TIMEOUT, tls.accept(stream)).await {
        Ok(Ok(stream)) => {
            let mut builder = auto::Builder::new(TokioExecutor::new());
            builder
                .http1()
                .timer(TokioTimer::new())
                .header_read_timeout(bounds.head_timeout)
                .max_buf_size(bounds.head_bytes_max);
            builder.http2().timer(TokioTimer::new()).max_concurrent_streams(HTTP2_STREAMS_MAX);
            let serving = builder.serve_connection_with_upgrades(TokioIo::new(stream), service);
            let mut serving = Box::pin(serving);
            let ended = tokio::select! {
                ended = serving.as_mut() => ended.map_err(|error| error.to_string()),
                () = stop.cancelled() => {
                    serving.as_mut().graceful_shutdown();
                    serving.await.map_err(|error| error.to_string())
                }
            };
            if ended.is_err() {
                events::connection_failed(bounds.plane, "http");
            }
        }
        Ok(Err(_)) | Err(_) => events::connection_failed(bounds.plane, "tls"),
    }
}

async fn plain<S, B>(stream: TcpStream, bounds: &Bounds, stop: CancellationToken, service: S)
where
    S: hyper::service::Service<Request<Incoming>, Response = http::Response<B>, Error = Infallible>,
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let serving = http1::Builder::new()
        // Without a timer the head time-out would do nothing.
        .timer(TokioTimer::new())
        .header_read_timeout(bounds.head_timeout)
        .max_buf_size(bounds.head_bytes_max)
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades();
    let mut serving = std::pin::pin!(serving);
    let ended = tokio::select! {
        ended = serving.as_mut() => ended,
        () = stop.cancelled() => {
            serving.as_mut().graceful_shutdown();
            serving.await
        }
    };
    if ended.is_err() {
        events::connection_failed(bounds.plane, "http");
    }
}

#[cfg(test)]
mod tests {
    use super::{bind, without_delay};

    #[tokio::test]
    async fn accepted_connections_do_not_delay() {
        let listener = bind(([127, 0, 0, 1], 0).into()).await.unwrap();
        let client = tokio::net::TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (accepted, _) = listener.accept().await.unwrap();
        assert!(without_delay(accepted).unwrap().nodelay().unwrap());
        drop(client);
    }
}
