//! An answer that flows through while a copy of its references is kept for reading at its end.

use bytes::{Bytes, BytesMut};
use http::StatusCode;

use super::coding;
use crate::execution::Outcome;
use crate::gemini::Dialect;
use crate::gemini::answer::Answer;
use crate::gemini::route::Call;

/// What was seen of an answer.
#[derive(Debug)]
pub(super) struct Watch {
    call: (Dialect, Call),
    status: StatusCode,
    coding: Option<String>,
    bytes_max: usize,
    seen: Vec<Bytes>,
    len: usize,
}

impl Watch {
    pub(super) fn new(
        call: (Dialect, Call),
        status: StatusCode,
        coding: Option<String>,
        bytes_max: usize,
    ) -> Self {
        Self { call, status, coding, bytes_max, seen: Vec::new(), len: 0 }
    }

    pub(super) fn chunk(&mut self, data: &Bytes) {
        self.len += data.len();
        if self.len <= self.bytes_max {
            self.seen.push(data.clone());
        }
    }

    /// What the answer said, and how the call ended.
    pub(super) fn end(&mut self) -> (Answer, Outcome, Option<&'static str>) {
        let (dialect, call) = self.call;
        let mut answer = Answer::to(call);
        if self.len <= self.bytes_max {
            let mut whole = BytesMut::with_capacity(self.len);
            self.seen.iter().for_each(|piece| whole.extend_from_slice(piece));
            if let Ok(plain) = coding::decode(self.coding.as_deref(), &whole, self.bytes_max) {
                answer.read(dialect, &plain);
            }
        }
        let (outcome, error_type) = outcome(self.status, &answer);
        (answer, outcome, error_type)
    }
}

/// What an answer with this status failed for.
pub(in crate::proxy) fn failed(status: StatusCode) -> &'static str {
    if status == StatusCode::TOO_MANY_REQUESTS { "upstream_quota" } else { "upstream_status" }
}

/// How an answer with this status and content ended.
pub(in crate::proxy) fn outcome(
    status: StatusCode,
    answer: &Answer,
) -> (Outcome, Option<&'static str>) {
    match status {
        status if !status.is_success() => (Outcome::Failed, Some(failed(status))),
        _ if answer.error.is_some() => (Outcome::Failed, Some("upstream_error")),
        _ if answer.is_success() => (Outcome::Success, None),
        _ if answer.block_reason.is_some() => (Outcome::Failed, Some("upstream_blocked")),
        _ if answer.is_complete() => (Outcome::Failed, Some("finish_reason")),
        _ => (Outcome::Incomplete, Some("no_finish_reason")),
    }
}
