//! Copies of executions for other systems: JSON lines, and spans over OTLP.
//!
//! Each sink has a queue of its own that nobody waits for: what it has no room for is dropped and counted.

mod json_lines;
mod otlp;
mod span;

use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::mpsc::{Receiver, Sender, channel};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::config::Export;
use crate::execution::Execution;
use crate::telemetry::events;
use crate::telemetry::metrics::{self, Exported};
use json_lines::JsonLines;
use otlp::Otlp;
use span::Spans;

/// Executions in one queue, beside the bound on their bytes.
const QUEUE_MAX: usize = 16_384;
/// Executions that go at once.
const BATCH_MAX: usize = 512;
/// How long executions wait for company.
const GATHER: Duration = Duration::from_millis(500);

/// A sink that could not be made.
#[derive(Debug, thiserror::Error)]
#[error("export.otlp_url: {0}")]
pub struct BadSink(String);

/// Where the executions of a process go beside the store.
#[derive(Debug, Default)]
pub struct Taps(Vec<Tap>);

/// The open ends of queues: each runs until its tap is gone and its queue is empty.
pub type Drains = Vec<BoxFuture<'static, ()>>;

/// The entrance to one queue.
#[derive(Debug)]
struct Tap {
    form: Form,
    queue: Sender<Item>,
    /// Bytes that the queue may still take.
    room: Arc<Semaphore>,
}

/// How a sink wants an execution.
#[derive(Debug)]
enum Form {
    Line,
    Span(Spans),
}

/// An execution on its way, holding its room in the queue.
#[derive(Debug)]
struct Item {
    bytes: Vec<u8>,
    _room: OwnedSemaphorePermit,
}

/// Makes the sinks of a configuration, for calls to one upstream; connects to nothing yet.
pub fn open(export: &Export, upstream: &str) -> Result<(Taps, Drains), BadSink> {
    let (mut taps, mut drains) = (Taps::default(), Drains::new());
    let mut add = |form: Form| {
        let (sender, receiver) = channel(QUEUE_MAX);
        let room = Arc::new(Semaphore::new(export.queue_bytes_max));
        metrics::exporting(form.sink());
        taps.0.push(Tap { form, queue: sender, room });
        receiver
    };
    if let Some(target) = &export.json_lines {
        let queue = add(Form::Line);
        drains.push(JsonLines::new(target.clone()).run(queue).boxed());
    }
    if let Some(collector) = &export.otlp {
        let sink = Otlp::new(collector)?;
        let queue = add(Form::Span(Spans::to(upstream)));
        drains.push(sink.run(queue).boxed());
    }
    Ok((taps, drains))
}

impl Taps {
    /// Offers an execution, also as the JSON that the outbox holds, to every sink.
    pub fn offer(&self, execution: &Execution, json: &str) {
        for tap in &self.0 {
            let bytes = match &tap.form {
                Form::Line => Some([json.as_bytes(), b"\n"].concat()),
                Form::Span(spans) => spans.of(execution),
            };
            if let Some(bytes) = bytes
                && !tap.take(bytes)
            {
                metrics::exported(tap.form.sink(), Exported::Dropped, 1);
            }
        }
    }
}

impl Tap {
    fn take(&self, bytes: Vec<u8>) -> bool {
        let size = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
        let Ok(room) = self.room.clone().try_acquire_many_owned(size) else { return false };
        match self.queue.try_send(Item { bytes, _room: room }) {
            Ok(()) => true,
            Err(TrySendError::Full(_) | TrySendError::Closed(_)) => false,
        }
    }
}

impl Form {
    fn sink(&self) -> &'static str {
        match self {
            Self::Line => json_lines::SINK,
            Self::Span(_) => otlp::SINK,
        }
    }
}

/// What became of the copies of one sink. The first failure of several in a row is told.
#[derive(Debug)]
struct Books {
    sink: &'static str,
    fails: bool,
}

impl Books {
    fn of(sink: &'static str) -> Self {
        Self { sink, fails: false }
    }

    fn sent(&mut self, count: u64) {
        self.fails = false;
        metrics::exported(self.sink, Exported::Sent, count);
    }

    fn failed(&mut self, count: u64, why: &str) {
        if !std::mem::replace(&mut self.fails, true) {
            events::export_failed(self.sink, why);
        }
        metrics::exported(self.sink, Exported::Failed, count);
    }
}

/// The next executions, after a moment for others to come along; `None` when there will be none.
async fn next(queue: &mut Receiver<Item>) -> Option<Vec<Item>> {
    let mut items = Vec::new();
    if queue.recv_many(&mut items, BATCH_MAX).await == 0 {
        return None;
    }
    if items.len() < BATCH_MAX && !queue.is_closed() {
        tokio::time::sleep(GATHER).await;
        while items.len() < BATCH_MAX
            && let Ok(item) = queue.try_recv()
        {
            items.push(item);
        }
    }
    Some(items)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tap(bytes: usize) -> (Tap, Receiver<Item>) {
        let (queue, receiver) = channel(QUEUE_MAX);
        (Tap { form: Form::Line, queue, room: Arc::new(Semaphore::new(bytes)) }, receiver)
    }

    #[tokio::test]
    async fn a_full_queue_takes_nothing_until_there_is_room() {
        let (tap, mut queue) = tap(10);
        assert!(tap.take(vec![0; 6]) && !tap.take(vec![0; 6]) && tap.take(vec![0; 4]));
        assert_eq!(next(&mut queue).await.unwrap().len(), 2);
        assert!(tap.take(vec![0; 10]) && !tap.take(vec![0; 1]));
        drop(tap);
        assert_eq!(next(&mut queue).await.unwrap().len(), 1, "what waits is not lost");
        assert!(next(&mut queue).await.is_none());
    }
}
