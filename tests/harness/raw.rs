//! Bytes on a socket, for what no HTTP client would send or answer.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// How long the first byte of an answer may take, and how long a silence ends it.
const PATIENCE: Duration = Duration::from_secs(10);
const QUIET: Duration = Duration::from_millis(500);

/// Sends bytes and reads until the other side closes or says no more.
pub async fn exchange(address: SocketAddr, bytes: &[u8]) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(bytes).await.unwrap();
    read(&mut stream, PATIENCE).await
}

/// Reads until close, until nothing comes at all for `patience`, or until an answer falls silent.
pub async fn read(stream: &mut TcpStream, patience: Duration) -> String {
    let mut answer = Vec::new();
    let mut buffer = [0; 4096];
    let mut wait = patience;
    while let Ok(Ok(read)) = tokio::time::timeout(wait, stream.read(&mut buffer)).await {
        if read == 0 {
            break;
        }
        wait = QUIET;
        answer.extend_from_slice(&buffer[..read]);
    }
    String::from_utf8_lossy(&answer).into_owned()
}

/// A server that does this with every connection. Gives its address.
pub async fn serve<F: Future<Output = ()> + Send + 'static>(
    connection: impl Fn(TcpStream) -> F + Send + 'static,
) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(connection(stream));
        }
    });
    address
}

/// An upstream that answers every connection with these bytes after it has read a request's head,
/// then closes. Gives its address.
pub async fn upstream(answer: &'static [u8]) -> SocketAddr {
    serve(move |mut stream| async move {
        let mut buffer = vec![0; 65536];
        drop(stream.read(&mut buffer).await);
        drop(stream.write_all(answer).await);
        drop(stream.shutdown().await);
    })
    .await
}

/// An upstream that reads and never answers; tells when its connection is closed.
pub async fn silent() -> (SocketAddr, tokio::sync::mpsc::Receiver<()>) {
    let (closed, seen) = tokio::sync::mpsc::channel(16);
    let address = serve(move |mut stream| {
        let closed = closed.clone();
        async move {
            let mut buffer = vec![0; 65536];
            while stream.read(&mut buffer).await.is_ok_and(|read| read > 0) {}
            assert!(closed.send(()).await.is_ok());
        }
    });
    (address.await, seen)
}
