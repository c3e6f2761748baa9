//! The body a client reads: the upstream's, through a reader, ending in a record.

use std::collections::VecDeque;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::StatusCode;
use hyper::body::{Body, Frame, SizeHint};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

use super::file::FileReader;
use super::frames::{Flow, FrameReader};
use super::watch::{Watch, failed};
use crate::execution::Outcome;
use crate::proxy::exchange::Exchange;
use crate::proxy::headers;
use crate::proxy::reply::BodyError;
use crate::upstream;

/// How an answer is read while it is relayed.
#[derive(Debug)]
pub(super) enum Reader {
    Unread(StatusCode),
    File(FileReader),
    Watch(Watch),
    Frames(Box<FrameReader>),
}

/// The relayed body.
pub(super) struct Relay {
    /// Gone once it ended, or once nobody needs its rest.
    upstream: Option<reqwest::Body>,
    reader: Reader,
    out: VecDeque<Bytes>,
    exchange: Exchange,
    drained: Pin<Box<WaitForCancellationFutureOwned>>,
    ended: bool,
    /// Ends by a cut, because a last frame would not be one.
    cut: Option<BodyError>,
}

impl Relay {
    pub(super) fn new(
        body: reqwest::Body,
        reader: Reader,
        exchange: Exchange,
        drained: CancellationToken,
    ) -> Self {
        let mut relay = Self {
            upstream: Some(body),
            reader,
            out: VecDeque::new(),
            exchange,
            drained: Box::pin(drained.cancelled_owned()),
            ended: false,
            cut: None,
        };
        relay.end_if_over();
        relay
    }

    fn chunk(&mut self, data: Bytes) {
        self.exchange.work();
        self.exchange.first_token();
        let flow = match &mut self.reader {
            Reader::Unread(_) => {
                self.out.push_back(data);
                Flow::On
            }
            Reader::File(file) => {
                file.read(&data, &self.exchange);
                self.out.push_back(data);
                Flow::On
            }
            Reader::Watch(watch) => {
                watch.chunk(&data);
                self.out.push_back(data);
                Flow::On
            }
            Reader::Frames(frames) => frames.chunk(&data, &mut self.exchange, &mut self.out),
        };
        if flow == Flow::Stop {
            // Cancels the call upstream.
            self.upstream = None;
            if let Reader::Frames(frames) = &self.reader {
                let (outcome, error_type) = frames.blocked(&mut self.exchange);
                self.close(outcome, error_type);
            }
        } else {
            self.end_if_over();
        }
        self.exchange.rest();
    }

    /// A body with a known length is never polled past it, so its end is noticed here.
    fn end_if_over(&mut self) {
        if self.upstream.as_ref().is_some_and(Body::is_end_stream) {
            self.end();
        }
    }

    fn end(&mut self) {
        self.upstream = None;
        let (outcome, error_type) = match &mut self.reader {
            Reader::Unread(status) if status.is_success() => (Outcome::Success, None),
            Reader::Unread(status) => (Outcome::Failed, Some(failed(*status))),
            Reader::File(file) => {
                file.read(&[], &self.exchange);
                (Outcome::Success, None)
            }
            Reader::Watch(watch) => {
                let (answer, outcome, error_type) = watch.end();
                self.exchange.answered(&answer, false);
                (outcome, error_type)
            }
            Reader::Frames(frames) => frames.end(&mut self.exchange, &mut self.out),
        };
        self.close(outcome, error_type);
    }

    fn drain(&mut self) {
        self.upstream = None;
        if let Reader::Frames(frames) = &mut self.reader {
            let can_end = frames.can_end_here();
            let (outcome, error_type) = frames.drain(&mut self.exchange, &mut self.out);
            if !can_end {
                self.out.clear();
                self.cut = Some("cut by the shutdown".into());
            }
            self.close(outcome, error_type);
        }
    }

    fn fail(&mut self, error: &reqwest::Error) {
        self.upstream = None;
        if let Reader::Frames(frames) = &self.reader {
            self.exchange.answered(frames.answer(), true);
        }
        let kind = upstream::kind(error);
        self.close(Outcome::Incomplete, Some(kind.name()));
        // Aborting is how the client learns that the answer is not whole.
        self.cut = Some(kind.into());
    }

    fn passes_trailers(&self) -> bool {
        matches!(self.reader, Reader::Unread(_) | Reader::File(_))
    }

    fn close(&mut self, outcome: Outcome, error_type: Option<&str>) {
        self.ended = true;
        self.exchange.take().finish(outcome, error_type);
    }
}

impl Body for Relay {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = &mut *self;
        loop {
            if let Some(bytes) = this.out.pop_front() {
                return Poll::Ready(Some(Ok(Frame::data(bytes))));
            }
            if let Some(cut) = this.cut.take() {
                return Poll::Ready(Some(Err(cut)));
            }
            let Some(body) = &mut this.upstream else { return Poll::Ready(None) };
            let is_stream = matches!(this.reader, Reader::Frames(_));
            if is_stream && this.drained.as_mut().poll(context).is_ready() {
                this.drain();
                if this.cut.is_some() {
                    return after_what_was_sent(context);
                }
                continue;
            }
            match ready!(Pin::new(body).poll_frame(context)) {
                None => this.end(),
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => this.chunk(data),
                    Err(frame) => {
                        let trailers =
                            frame.into_trailers().ok().filter(|_| this.passes_trailers());
                        if let Some(trailers) = trailers {
                            // Nobody asks for more behind them.
                            this.end();
                            let trailers = Frame::trailers(headers::trailers(&trailers));
                            return Poll::Ready(Some(Ok(trailers)));
                        }
                    }
                },
                Some(Err(error)) => {
                    this.fail(&error);
                    return after_what_was_sent(context);
                }
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.ended && self.out.is_empty() && self.cut.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        match (&self.reader, &self.upstream) {
            (Reader::Unread(_) | Reader::File(_) | Reader::Watch(_), Some(body)) => {
                body.size_hint()
            }
            (_, None) if self.out.is_empty() => SizeHint::with_exact(0),
            _ => SizeHint::default(),
        }
    }
}

/// Hyper forgets what it has not flushed when a body fails, the head included: let it flush first.
fn after_what_was_sent<T>(context: &Context<'_>) -> Poll<T> {
    context.waker().wake_by_ref();
    Poll::Pending
}

impl Drop for Relay {
    fn drop(&mut self) {
        if let (Reader::Frames(frames), false) = (&self.reader, self.ended) {
            // The client left: what was seen until now was billed.
            self.exchange.answered(frames.answer(), true);
        }
    }
}
