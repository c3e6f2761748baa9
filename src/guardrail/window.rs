//! The same verdict for a stream as for its whole text.
//!
//! A window keeps only the tail that is still undecided (plus one character for word edges). A text
//! is safe to release up to the first byte that could still belong to a match of a rule that blocks
//! or redacts. For every way of cutting a stream, the findings equal those of the whole text.

use std::sync::Arc;

use super::compile::Guardrails;
use super::scan::{Finding, Resume, RuleSet, View};

/// One text that arrives in pieces.
#[derive(Debug)]
pub struct Window {
    guardrails: Arc<Guardrails>,
    rules: Arc<RuleSet>,
    /// The undecided tail, with a character of context before it.
    tail: String,
    /// Where the tail begins in the whole text.
    base: usize,
    /// Where the undecided part begins in the tail.
    from: usize,
    /// By pattern, where its next match may begin, in the whole text.
    resume: Resume,
}

/// What a piece of text decided. Positions are bytes of the whole text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Progress {
    /// Findings decided by this piece.
    pub findings: Vec<Finding>,
    /// Text before this byte can no longer become part of a match that is acted on.
    pub safe_to: usize,
}

impl Window {
    /// An empty text under these rules.
    pub fn new(guardrails: Arc<Guardrails>, rules: Arc<RuleSet>) -> Self {
        let resume = Resume::new();
        Self { guardrails, rules, tail: String::new(), base: 0, from: 0, resume }
    }

    /// Takes the next piece.
    pub fn push(&mut self, piece: &str) -> Progress {
        self.tail.push_str(piece);
        self.advance(true)
    }

    /// Ends the text: everything left is decided.
    pub fn finish(&mut self) -> Progress {
        self.advance(false)
    }

    fn advance(&mut self, open: bool) -> Progress {
        let mut resume: Resume =
            self.resume.iter().map(|(one, at)| (*one, at.saturating_sub(self.base))).collect();
        let view = View { text: &self.tail, from: self.from, open };
        let (mut findings, undecided) = self.guardrails.scan_view(view, &self.rules, &mut resume);
        for finding in &mut findings {
            finding.start += self.base;
            finding.end += self.base;
        }
        for (pattern, at) in resume {
            let kept = self.resume.entry(pattern).or_default();
            *kept = (*kept).max(at + self.base);
        }
        let safe_to = self.base + undecided.enforced;
        self.forget(undecided.all);
        Progress { findings, safe_to }
    }

    /// Drops the decided text but for its last character.
    fn forget(&mut self, decided: usize) {
        let context = self
            .tail
            .get(..decided)
            .and_then(|text| text.char_indices().next_back())
            .map_or(decided, |(at, _)| at);
        self.tail.drain(..context);
        self.base += context;
        self.from = decided - context;
    }
}
