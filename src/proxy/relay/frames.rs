//! A stream, frame by frame, with the guardrails in front of the client.
//!
//! A frame leaves when none of its text can become part of a match that is acted on any more. What
//! leaves unchanged leaves as the bytes that came.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Range;

use bytes::Bytes;

use super::terminal::{self, Ending};
use super::watch;
use crate::execution::Outcome;
use crate::gemini::answer::Answer;
use crate::gemini::stream::{Frame, Frames, Framing};
use crate::gemini::text::{Run, Segment};
use crate::gemini::{json, text};
use crate::guardrail::{Direction, Finding, Holes, Stands, Verdict, Window};
use crate::proxy::exchange::Exchange;
use crate::proxy::inspect::{AnswerPlan, edit};
use crate::proxy::texts::{Hole, fill, without_nul};
use crate::proxy::vault::Restorer;
use crate::telemetry;

/// A stream being read.
#[derive(Debug)]
pub(super) struct FrameReader {
    plan: AnswerPlan,
    framing: Framing,
    frames: Frames,
    answer: Answer,
    /// By candidate, its text so far.
    texts: BTreeMap<Run, Channel>,
    held: VecDeque<Held>,
    held_bytes: usize,
    /// What cannot be decided within this many bytes cannot be inspected.
    held_bytes_max: usize,
    /// Whether anything was sent.
    begun: bool,
    noted: bool,
    state: State,
}

/// How far reading came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Frames are read.
    Reading,
    /// A frame does not read or is too large to hold. Where nobody inspects, the stream goes on.
    Unreadable,
}

#[derive(Debug)]
struct Channel {
    window: Window,
    restorer: Restorer,
    len: usize,
    /// What is to be replaced, and not yet decided.
    holes: Holes,
    /// No hole can begin before this byte any more.
    decided: usize,
    safe_to: usize,
}

/// A frame that waits for its text to be decided.
#[derive(Debug)]
struct Held {
    frame: Frame,
    segments: Vec<Segment>,
    /// Where the text of each segment stands in its channel.
    spans: Vec<Option<(Run, Range<usize>)>>,
    /// Replacements inside segments: segment, bytes of its text, what goes there.
    holes: Vec<Hole>,
    /// Whether it may tell the client that the answer is over.
    ends: bool,
}

/// Whether the stream goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Flow {
    On,
    Stop,
}

impl FrameReader {
    pub(super) fn new(framing: Framing, plan: AnswerPlan, frame_bytes_max: usize) -> Self {
        telemetry::metrics::streams(1.0);
        Self {
            framing,
            frames: Frames::new(framing, frame_bytes_max),
            plan,
            answer: Answer::default(),
            texts: BTreeMap::new(),
            held: VecDeque::new(),
            held_bytes: 0,
            held_bytes_max: frame_bytes_max,
            begun: false,
            noted: false,
            state: State::Reading,
        }
    }

    pub(super) fn answer(&self) -> &Answer {
        &self.answer
    }

    /// Takes a chunk; puts what may leave into `out`.
    pub(super) fn chunk(
        &mut self,
        data: &Bytes,
        exchange: &mut Exchange,
        out: &mut VecDeque<Bytes>,
    ) -> Flow {
        if !self.plan.looks() {
            self.watch(data, out);
            return Flow::On;
        }
        self.frames.push(data);
        loop {
            match self.frames.next_frame() {
                Ok(Some(frame)) => {
                    if self.frame(frame, exchange, out) == Flow::Stop {
                        return Flow::Stop;
                    }
                }
                Ok(None) => return Flow::On,
                Err(_too_large) => return self.unreadable(exchange, out),
            }
        }
    }

    /// Nobody inspects: chunks go on as they come and are read along.
    fn watch(&mut self, data: &Bytes, out: &mut VecDeque<Bytes>) {
        self.begun = true;
        out.push_back(data.clone());
        if self.state == State::Unreadable {
            return;
        }
        self.frames.push(data);
        loop {
            match self.frames.next_frame() {
                Ok(Some(frame)) => drop(self.answer.read(self.plan.dialect, &frame.payload)),
                Ok(None) => return,
                Err(_too_large) => {
                    self.state = State::Unreadable;
                    return;
                }
            }
        }
    }

    /// The upstream's end: everything left is decided.
    pub(super) fn end(
        &mut self,
        exchange: &mut Exchange,
        out: &mut VecDeque<Bytes>,
    ) -> (Outcome, Option<&'static str>) {
        let rest = self.frames.rest();
        if !self.plan.looks() {
            self.answer.read(self.plan.dialect, &rest.payload);
        } else if !rest.is_empty() && self.frame(rest, exchange, out) == Flow::Stop {
            return self.blocked(exchange);
        }
        let channels: Vec<Run> = self.texts.keys().copied().collect();
        for channel in channels {
            let Some(text) = self.texts.get_mut(&channel) else { continue };
            text.decided = text.len;
            let findings = text.window.finish().findings;
            if self.found(channel, &findings, exchange, out) == Flow::Stop {
                return self.blocked(exchange);
            }
            self.settle(channel);
        }
        for held in std::mem::take(&mut self.held) {
            self.release(held, out);
        }
        exchange.answered(&self.answer, !self.answer.is_complete());
        self.note_clean(exchange);
        watch::outcome(http::StatusCode::OK, &self.answer)
    }

    /// Whether a last frame can follow what was sent. A stream that nobody inspects may stand in the
    /// middle of one.
    pub(super) fn can_end_here(&self) -> bool {
        self.plan.looks() || (self.frames.is_between_frames() && self.state == State::Reading)
    }

    /// The end of the process: the stream says so instead of being cut.
    pub(super) fn drain(
        &mut self,
        exchange: &mut Exchange,
        out: &mut VecDeque<Bytes>,
    ) -> (Outcome, Option<&'static str>) {
        exchange.answered(&self.answer, true);
        self.note_clean(exchange);
        let place = (self.plan.dialect, self.framing);
        out.push_back(terminal::frames(place, &self.answer, (0, Ending::Drained), self.begun));
        (Outcome::Drained, Some("shutdown"))
    }

    /// How a stream that a guardrail stopped is recorded.
    pub(super) fn blocked(&self, exchange: &mut Exchange) -> (Outcome, Option<&'static str>) {
        exchange.answered(&self.answer, !self.answer.is_complete());
        let why = if self.state == State::Unreadable { "unreadable_answer" } else { "guardrail" };
        (Outcome::ResponseBlocked, Some(why))
    }

    fn frame(
        &mut self,
        mut frame: Frame,
        exchange: &mut Exchange,
        out: &mut VecDeque<Bytes>,
    ) -> Flow {
        let Some(beside) = frame.beside(self.framing) else {
            return self.unreadable(exchange, out);
        };
        // Comments and names of events are text too; clients can do without them.
        if !beside.is_empty() && self.condemns(&beside, exchange) {
            frame.strip_to_payload();
        }
        self.answer.read(self.plan.dialect, &frame.payload);
        if frame.payload.is_empty() || frame.payload.as_ref() == b"[DONE]" {
            let ends = !frame.payload.is_empty() || self.framing == Framing::JsonArray;
            let (segments, spans, holes) = (Vec::new(), Vec::new(), Vec::new());
            self.hold(Held { frame, segments, spans, holes, ends }, out);
            return Flow::On;
        }
        let segments = json::check(&frame.payload)
            .and_then(|document| text::answer(self.plan.dialect, document));
        let Ok(segments) = segments else {
            return self.unreadable(exchange, out);
        };
        let (spans, ends) = (vec![None; segments.len()], self.answer.is_complete());
        let mut held = Held { frame, spans, segments, holes: Vec::new(), ends };
        let mut found: Vec<(Run, Vec<Finding>)> = Vec::new();
        for (index, segment) in held.segments.iter().enumerate() {
            let mut seen = found.iter().map(|(run, _)| *run);
            // A part that begins anew is also looked at alone: joined to the one before, its first
            // word could hide in the last one there.
            let is_alone =
                segment.run.is_none_or(|run| seen.any(|one| one == run) || run.is_fragment());
            let alone = if is_alone { self.alone(segment, exchange) } else { Vec::new() };
            let verdict = self.plan.guardrails.judge(&alone);
            // A name cannot be replaced without changing what it names.
            let is_name = segment.literal.is_empty();
            if verdict == Verdict::Block || (is_name && verdict == Verdict::Redact) {
                return self.stop(segment.run, exchange, out);
            }
            let Some(run) = segment.run else {
                held.holes.extend(self.replaced((index, segment), &alone));
                continue;
            };
            let (span, findings) = self.push(run, &segment.text);
            self.replace(run, alone.into_iter().map(|one| one.behind(span.start)));
            if let Some(slot) = held.spans.get_mut(index) {
                *slot = Some((run, span));
            }
            found.push((run, findings));
        }
        self.held_bytes += held.frame.len();
        if self.held_bytes > self.held_bytes_max {
            return self.unreadable(exchange, out);
        }
        self.held.push_back(held);
        for (channel, findings) in found {
            if self.found(channel, &findings, exchange, out) == Flow::Stop {
                return Flow::Stop;
            }
            self.settle(channel);
        }
        self.release_decided(out);
        Flow::On
    }

    fn condemns(&mut self, text: &str, exchange: &mut Exchange) -> bool {
        let findings = self.plan.guardrails.scan(&without_nul(text), &self.plan.rules);
        if !findings.is_empty() {
            self.note(&findings, exchange);
        }
        self.plan.guardrails.judge(&findings) >= Verdict::Redact
    }

    fn push(&mut self, channel: Run, piece: &str) -> (Range<usize>, Vec<Finding>) {
        let (guardrails, rules) = (&self.plan.guardrails, &self.plan.rules);
        let window = if channel.is_said() { Window::of_candidate } else { Window::new };
        let channel = self.texts.entry(channel).or_insert_with(|| Channel {
            window: window(guardrails.clone(), rules.clone()),
            restorer: Restorer::default(),
            len: 0,
            holes: Holes::default(),
            decided: 0,
            safe_to: 0,
        });
        let start = channel.len;
        channel.len += piece.len();
        let progress = channel.window.push(&without_nul(piece));
        let (restored, decided) = channel.restorer.push(&self.plan.vault, piece);
        channel.decided = progress.safe_to.min(decided);
        for (span, value) in restored {
            channel.holes.put(span, value);
        }
        (start..channel.len, progress.findings)
    }

    /// Acts on findings in the text of a candidate.
    fn found(
        &mut self,
        channel: Run,
        findings: &[Finding],
        exchange: &mut Exchange,
        out: &mut VecDeque<Bytes>,
    ) -> Flow {
        if findings.is_empty() {
            return Flow::On;
        }
        self.note(findings, exchange);
        if self.plan.guardrails.judge(findings) == Verdict::Block {
            return self.stop(Some(channel), exchange, out);
        }
        self.replace(channel, findings.iter().cloned());
        Flow::On
    }

    /// Notes what of a candidate's text is to be replaced.
    fn replace(&mut self, channel: Run, findings: impl Iterator<Item = Finding>) {
        let guardrails = &self.plan.guardrails;
        if let Some(channel) = self.texts.get_mut(&channel) {
            let redacting = findings.filter(|one| guardrails.redacts(one));
            redacting.for_each(|one| channel.holes.found(one));
        }
    }

    /// Cuts the holes in a candidate's text that are decided.
    fn settle(&mut self, run: Run) {
        let Some(channel) = self.texts.get_mut(&run) else { return };
        let (holes, safe_to) = channel.holes.take(channel.decided);
        channel.safe_to = safe_to;
        for hole in holes {
            let text = self.stand_in(hole.stands, |value| self.text(run, &value));
            self.put(run, &hole.span, text);
        }
    }

    fn stand_in(&self, stands: Stands, value: impl Fn(Range<usize>) -> String) -> String {
        match stands {
            Stands::Text(text) => text,
            Stands::For(finding, span) => {
                self.plan.vault.stand_in(&self.plan.guardrails, &finding, &value(span))
            }
        }
    }

    /// The held text of a candidate in a stretch.
    fn text(&self, channel: Run, span: &Range<usize>) -> String {
        let texts = self.held.iter().flat_map(|held| {
            held.places(channel, span).into_iter().filter_map(|(segment, place)| {
                held.segments.get(segment).and_then(|segment| segment.text.get(place))
            })
        });
        texts.collect()
    }

    /// Puts other text into the place of a stretch that is held, over however many frames.
    fn put(&mut self, channel: Run, span: &Range<usize>, mut text: String) {
        for held in &mut self.held {
            for (segment, place) in held.places(channel, span) {
                held.holes.push((segment, place, std::mem::take(&mut text)));
            }
        }
    }

    /// What is found in a string by itself.
    fn alone(&mut self, segment: &Segment, exchange: &mut Exchange) -> Vec<Finding> {
        let findings = self.plan.guardrails.scan(&without_nul(&segment.text), &self.plan.rules);
        if !findings.is_empty() {
            self.note(&findings, exchange);
        }
        findings
    }

    /// What is replaced in a string that stands alone.
    fn replaced(&self, (index, segment): (usize, &Segment), findings: &[Finding]) -> Vec<Hole> {
        let (text, mut holes) = (&segment.text, Holes::default());
        let redacting = findings.iter().filter(|one| self.plan.guardrails.redacts(one));
        redacting.for_each(|one| holes.found(one.clone()));
        let restored = self.plan.vault.restore(text).into_iter();
        restored.for_each(|(span, value)| holes.put(span, value));
        let value = |span: Range<usize>| text.get(span).unwrap_or_default().to_owned();
        let holes = holes.take(text.len()).0.into_iter();
        holes.map(|hole| (index, hole.span, self.stand_in(hole.stands, value))).collect()
    }

    fn note(&mut self, findings: &[Finding], exchange: &mut Exchange) {
        self.noted = true;
        exchange.inspected(
            &self.plan.guardrails,
            &self.plan.rules,
            (findings, &[]),
            Direction::Response,
        );
    }

    /// Rules that looked and found nothing are evaluations too.
    fn note_clean(&mut self, exchange: &mut Exchange) {
        if !self.noted && !self.plan.rules.is_empty() {
            self.note(&[], exchange);
        }
    }

    /// What cannot be read cannot be inspected, so it does not pass.
    fn unreadable(&mut self, exchange: &mut Exchange, out: &mut VecDeque<Bytes>) -> Flow {
        self.state = State::Unreadable;
        self.stop(None, exchange, out)
    }

    /// Ends the stream here: what is held goes nowhere.
    fn stop(
        &mut self,
        channel: Option<Run>,
        exchange: &mut Exchange,
        out: &mut VecDeque<Bytes>,
    ) -> Flow {
        self.held.clear();
        self.note_clean(exchange);
        let ending = match self.state {
            State::Reading => Ending::Blocked,
            State::Unreadable => Ending::Unreadable,
        };
        let place = (self.plan.dialect, self.framing);
        out.push_back(terminal::frames(
            place,
            &self.answer,
            (channel.map_or(0, Run::candidate), ending),
            self.begun,
        ));
        Flow::Stop
    }

    fn hold(&mut self, held: Held, out: &mut VecDeque<Bytes>) {
        self.held_bytes += held.frame.len();
        self.held.push_back(held);
        self.release_decided(out);
    }

    /// Whether a text must not be over yet, and nothing that is held goes on with any.
    fn breaks_off(&self) -> bool {
        let has_text = |held: &Held| held.spans.iter().any(Option::is_some);
        !self.held.iter().skip(1).any(has_text)
            && self.texts.values().any(|one| one.window.breaks_off())
    }

    fn release_decided(&mut self, out: &mut VecDeque<Bytes>) {
        while let Some(held) = self.held.front() {
            let decided = held.spans.iter().flatten().all(|(channel, span)| {
                self.texts.get(channel).is_none_or(|channel| span.end <= channel.safe_to)
            });
            // A client that has read of the end does not wait for what a guardrail says of it.
            if !decided || (held.ends && self.breaks_off()) {
                return;
            }
            if let Some(held) = self.held.pop_front() {
                self.held_bytes -= held.frame.len();
                self.release(held, out);
            }
        }
    }

    fn release(&mut self, held: Held, out: &mut VecDeque<Bytes>) {
        self.begun |= !held.frame.payload.is_empty();
        let bytes = held.into_bytes();
        if !bytes.is_empty() {
            out.push_back(bytes);
        }
    }
}

impl Drop for FrameReader {
    fn drop(&mut self) {
        telemetry::metrics::streams(-1.0);
    }
}

impl Held {
    /// The places of this frame in a stretch of a candidate's text.
    fn places(&self, channel: Run, stretch: &Range<usize>) -> Vec<(usize, Range<usize>)> {
        let place = |(segment, span): (usize, &Option<(Run, Range<usize>)>)| {
            let (_, span) = span.as_ref().filter(|(one, _)| *one == channel)?;
            let from = stretch.start.max(span.start);
            let to = stretch.end.min(span.end);
            (from < to).then(|| (segment, from - span.start..to - span.start))
        };
        self.spans.iter().enumerate().filter_map(place).collect()
    }

    fn into_bytes(mut self) -> Bytes {
        if !self.holes.is_empty() {
            let document = std::str::from_utf8(&self.frame.payload).unwrap_or_default();
            let changed = fill(&self.segments, &self.holes);
            let payload = edit(document, &self.segments, &changed).into();
            self.frame.replace_payload(payload);
        }
        self.frame.into_bytes()
    }
}
