//! A file on its way to a client, in which there may be the answers of a batch.

use crate::gemini::batch::AnswerFile;
use crate::proxy::exchange::Exchange;
use crate::telemetry::metrics;

/// Reads along, and has each answer recorded. No guardrail looks at them: that is counted.
#[derive(Debug)]
pub(super) struct FileReader {
    name: String,
    answers: AnswerFile,
    /// Whether there is an answer in it.
    has_answers: bool,
}

impl FileReader {
    /// Nothing of the file of this name read yet.
    pub(super) fn new(name: String, line_bytes_max: usize) -> Self {
        Self { name, answers: AnswerFile::new(line_bytes_max), has_answers: false }
    }

    /// Takes in a piece of it; an empty one is its end.
    pub(super) fn read(&mut self, piece: &[u8], exchange: &Exchange) {
        let Self { name, answers, has_answers } = self;
        answers.read(piece, |line, answer| {
            if !std::mem::replace(has_answers, true) {
                metrics::unscanned(false);
            }
            exchange.answered_in_file((name, line), answer);
        });
    }
}
