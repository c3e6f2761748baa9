//! Calls that go on while something else happens.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::{GENERATE, Sidecar, contents};

/// Running calls.
pub struct Traffic {
    stop: CancellationToken,
    workers: Vec<JoinHandle<()>>,
    counts: Arc<Counts>,
}

#[derive(Default)]
struct Counts {
    good: AtomicUsize,
    bad: std::sync::Mutex<Vec<String>>,
}

impl Traffic {
    /// Starts a few clients that call without pause.
    pub fn start(sidecar: &Sidecar) -> Self {
        let stop = CancellationToken::new();
        let counts = Arc::new(Counts::default());
        let workers = (0..4)
            .map(|_| {
                let (client, url) = (sidecar.client.clone(), sidecar.url(GENERATE));
                let (stop, counts) = (stop.clone(), counts.clone());
                tokio::spawn(async move {
                    while !stop.is_cancelled() {
                        let request =
                            client.post(&url).header("x-goog-api-key", "k").body(contents("hello"));
                        let ended = match request.send().await {
                            Ok(answer) if answer.status() == 200 => {
                                answer.text().await.map_err(|error| error.to_string()).map(drop)
                            }
                            Ok(answer) => Err(format!("{}", answer.status())),
                            Err(error) => Err(error.to_string()),
                        };
                        match ended {
                            Ok(()) => drop(counts.good.fetch_add(1, Relaxed)),
                            Err(why) => counts.bad.lock().unwrap().push(why),
                        }
                    }
                })
            })
            .collect();
        Self { stop, workers, counts }
    }

    pub fn good(&self) -> usize {
        self.counts.good.load(Relaxed)
    }

    /// Lets some more calls through before going on.
    pub async fn flow(&self) {
        let target = self.good() + 40;
        super::eventually("traffic flows", async || (self.good() >= target).then_some(())).await;
    }

    /// Stops and gives the number of good calls; fails if any was bad.
    pub async fn end(self) -> usize {
        self.stop.cancel();
        for worker in self.workers {
            worker.await.unwrap();
        }
        let bad = self.counts.bad.lock().unwrap();
        assert!(bad.is_empty(), "{} failed calls: {:?}", bad.len(), &bad[..bad.len().min(5)]);
        self.counts.good.load(Relaxed)
    }
}
