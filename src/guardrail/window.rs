//! The same verdict for a stream as for its whole text.
//!
//! A window keeps only the tail that is still undecided (plus what context may need). A text is safe to
//! release up to the first byte that could still belong to a match of a rule that blocks or redacts. For
//! every way of cutting a stream, the findings equal those of the whole text.
//!
//! From the first disguised character on, the text is also followed as a reader takes it.

use std::ops::Range;
use std::sync::Arc;

use super::compile::Guardrails;
use super::json::Json;
use super::kinds::Kinds;
use super::pattern::CONTEXT_BYTES_MAX;
use super::reading::{Reader, firm, first_disguise};
use super::scan::{Finding, Resume, RuleSet, back};
use super::sweep::{Undecided, View, Work};

/// One text that arrives in pieces.
#[derive(Debug)]
pub struct Window {
    guardrails: Arc<Guardrails>,
    rules: Arc<RuleSet>,
    written: Tail,
    read: Option<(Reader, Tail)>,
    /// Found lately: what stands at the edge of a disguise may be found in both readings.
    recent: Vec<Finding>,
    /// What the text must be, if it is a candidate's and a rule asks for it.
    json: Option<Json>,
    /// Where it ceased to be that, to a rule that acts on it: nothing from there on is released.
    broken_at: Option<usize>,
}

/// What a piece of text decided. Positions are bytes of the whole text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Progress {
    /// Findings decided by this piece.
    pub findings: Vec<Finding>,
    /// Text before this byte can no longer become part of a match that is acted on.
    pub safe_to: usize,
}

/// The undecided end of a text.
#[derive(Debug, Clone, Default)]
struct Tail {
    /// The undecided text, with context before it.
    text: String,
    /// Where it begins in the whole text.
    base: usize,
    /// Where the undecided part begins in it.
    from: usize,
    /// By pattern, where its next match may begin, in the whole text.
    resume: Resume,
}

impl Window {
    /// An empty text under these rules.
    pub fn new(guardrails: Arc<Guardrails>, rules: Arc<RuleSet>) -> Self {
        let written = Tail::default();
        let (read, recent, json, broken_at) = (None, Vec::new(), None, None);
        Self { guardrails, rules, written, read, recent, json, broken_at }
    }

    /// The same for the text of a candidate of an answer, which may have to be JSON.
    pub fn of_candidate(guardrails: Arc<Guardrails>, rules: Arc<RuleSet>) -> Self {
        let json = guardrails.want_json(&rules).then(Json::default);
        Self { json, ..Self::new(guardrails, rules) }
    }

    /// Whether a rule acts on it if the text ends here, which says nothing of what else it may hold.
    pub fn breaks_off(&self) -> bool {
        let place = self.json.as_ref().and_then(Json::finish);
        let found = place.map(|place| self.guardrails.broken(&place, &self.rules));
        found.is_some_and(|all| all.iter().any(|one| self.guardrails.enforces(one)))
    }

    /// Takes the next piece.
    pub fn push(&mut self, piece: &str) -> Progress {
        let before = self.written.base + self.written.text.len();
        self.written.text.push_str(piece);
        match &mut self.read {
            Some((reader, _)) => reader.push(piece),
            None => {
                let kinds = Kinds::of(&self.written.text);
                if let Some(first) = first_disguise(&self.written.text, &kinds) {
                    let mut reader = Reader::at(self.written.base);
                    reader.begin(&self.written.text, first);
                    let tail = Tail { text: String::new(), ..self.written.clone() };
                    self.read = Some((reader, tail));
                }
            }
        }
        let mut progress = self.advance(true);
        let grown = (before, before + piece.len());
        progress.findings.extend(self.guardrails.too_long(grown, &self.rules));
        let broken = self.json.as_mut().and_then(|json| json.push(piece));
        self.broken(broken, progress)
    }

    /// Ends the text: everything left is decided.
    pub fn finish(&mut self) -> Progress {
        let broken = self.json.as_ref().and_then(Json::finish);
        let progress = self.advance(false);
        self.broken(broken, progress)
    }

    fn broken(&mut self, place: Option<Range<usize>>, mut progress: Progress) -> Progress {
        if let Some(place) = place {
            let found = self.guardrails.broken(&place, &self.rules);
            if found.iter().any(|one| self.guardrails.enforces(one)) {
                self.broken_at = Some(place.start);
            }
            progress.findings.extend(found);
        }
        progress.safe_to = progress.safe_to.min(self.broken_at.unwrap_or(usize::MAX));
        progress
    }

    fn advance(&mut self, open: bool) -> Progress {
        let (guardrails, rules) = (&self.guardrails, &self.rules);
        // An escape that has only begun reads otherwise once it is whole.
        let firm = if open { firm(&self.written.text) } else { self.written.text.len() };
        let (mut findings, mut undecided) = self.written.advance(guardrails, rules, (open, firm));
        if let Some((reader, tail)) = &mut self.read {
            tail.text.push_str(&reader.take(!open));
            let firm = tail.text.len();
            let (of_read, of_tail) = tail.advance(guardrails, rules, (open, firm));
            findings.extend(of_read.iter().map(|one| back(one, reader.origin())));
            let end = tail.base + tail.text.len();
            let in_written =
                |at: usize| if at < end { reader.origin().start(at) } else { reader.undecided() };
            undecided.enforced = undecided.enforced.min(in_written(of_tail.enforced));
            reader.forget(tail.base);
        }
        findings.sort();
        findings.dedup();
        findings.retain(|one| !self.recent.contains(one));
        self.recent.extend(findings.iter().cloned());
        let of_read = self.read.as_ref().map(|(reader, tail)| reader.origin().start(tail.base));
        let first = of_read.unwrap_or(usize::MAX).min(self.written.base);
        self.recent.retain(|one| one.begins >= first);
        Progress { findings, safe_to: undecided.enforced }
    }
}

impl Tail {
    /// Sweeps what is undecided; of an open text, nothing from `firm` on is decided. Positions are of the whole text.
    fn advance(
        &mut self,
        guardrails: &Guardrails,
        rules: &RuleSet,
        (open, firm): (bool, usize),
    ) -> (Vec<Finding>, Undecided) {
        let mut resume: Resume =
            self.resume.iter().map(|(one, at)| (*one, at.saturating_sub(self.base))).collect();
        // An escape made of escapes may take back what was decided.
        let from = self.text.floor_char_boundary(self.from);
        let kinds = Kinds::of(&self.text);
        let view = View { text: &self.text, kinds: &kinds, from, open, firm };
        let (mut findings, undecided) =
            guardrails.sweep(view, rules, &mut resume, &mut Work::of(&self.text));
        for finding in &mut findings {
            finding.shift(self.base);
        }
        for (pattern, at) in resume {
            let kept = self.resume.entry(pattern).or_default();
            *kept = (*kept).max(at + self.base);
        }
        let Undecided { all, enforced } = undecided;
        let decided = Undecided { all: all + self.base, enforced: enforced + self.base };
        self.forget(all);
        (findings, decided)
    }

    /// Drops the decided text but for what context may need.
    fn forget(&mut self, decided: usize) {
        let context = self.text.floor_char_boundary(decided.saturating_sub(CONTEXT_BYTES_MAX));
        self.text.drain(..context);
        self.base += context;
        self.from = decided - context;
    }
}
