//! Cutting a streamed answer into its frames, byte for byte.
//!
//! A frame is everything up to and including its terminator, so that writing all frames out again
//! gives the stream that came in, however the network cut it.

use bytes::{Buf, Bytes, BytesMut};

/// How a stream is framed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    /// Server-sent events: `data: {…}` and a blank line.
    Sse,
    /// One JSON array whose elements arrive one by one: `[{…}\r\n,{…}\r\n]`.
    JsonArray,
}

/// One frame: its bytes in three pieces, so that the payload can be replaced.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// What stands before the payload, `data: ` or a comma.
    pub before: Bytes,
    /// The JSON document, or empty for a frame that carries none.
    pub payload: Bytes,
    /// What stands behind it: line ends, blank lines.
    pub after: Bytes,
    /// The bytes that came, where they are others than the three pieces.
    original: Option<Bytes>,
}

/// The events of the Interactions API, whose clients go by the name.
const EVENTS: [&str; 9] = [
    "done",
    "error",
    "interaction.completed",
    "interaction.created",
    "interaction.status_update",
    "step.delta",
    "step.start",
    "step.stop",
    "ping",
];

impl Frame {
    /// The bytes of the whole frame.
    pub fn len(&self) -> usize {
        self.before.len() + self.payload.len() + self.after.len()
    }

    /// The text around the payload: comments, names of events, ids. `None` when there is something that is
    /// neither these nor framing.
    pub fn beside(&self, framing: Framing) -> Option<String> {
        if framing == Framing::JsonArray {
            let is_framing =
                |byte: &u8| byte.is_ascii_whitespace() || matches!(byte, b'[' | b']' | b',');
            return self.before.iter().chain(&self.after).all(is_framing).then(String::new);
        }
        let mut text = String::new();
        for piece in [&self.before, &self.after] {
            for line in std::str::from_utf8(piece).ok()?.split(['\n', '\r']) {
                text.push_str(beside(line)?);
            }
        }
        Some(text)
    }

    /// Takes away what stands around the payload and is no framing.
    pub fn strip_to_payload(&mut self) {
        (self.before, self.after) = if self.payload.is_empty() {
            (Bytes::new(), Bytes::new())
        } else {
            (Bytes::from_static(b"data: "), Bytes::from_static(b"\r\n\r\n"))
        };
        self.original = None;
    }

    /// Puts another document into the place of the payload.
    pub fn replace_payload(&mut self, payload: Bytes) {
        self.payload = payload;
        self.original = None;
    }

    /// Whether the frame has no bytes at all.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// What a line of an event says beside its data, which is read by itself; nothing of it is left out but names that
/// every stream has. `None`: it is no line of an event.
fn beside(line: &str) -> Option<&str> {
    let (field, value) = line.split_once(':').unwrap_or((line, ""));
    match field {
        "data" if value.trim().is_empty() => Some(""),
        "event" if EVENTS.contains(&value.trim()) => Some(""),
        "" | "event" | "id" | "retry" => Some(value),
        _ => None,
    }
}

/// A frame grew past the bound.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a stream frame is larger than {bytes_max} bytes")]
pub struct FrameTooLarge {
    /// The bound.
    pub bytes_max: usize,
}

/// Collects chunks and gives out whole frames.
#[derive(Debug)]
pub struct Frames {
    framing: Framing,
    bytes_max: usize,
    buffer: BytesMut,
    /// How far the buffer was searched already.
    scanned: usize,
    element: Element,
}

/// Where the scan of a JSON array stands.
#[derive(Debug, Default)]
struct Element {
    start: Option<usize>,
    depth: usize,
    in_string: bool,
    escaped: bool,
}

impl Frames {
    /// An empty stream. `bytes_max` bounds one frame.
    pub fn new(framing: Framing, bytes_max: usize) -> Self {
        Self {
            framing,
            bytes_max,
            buffer: BytesMut::new(),
            scanned: 0,
            element: Element::default(),
        }
    }

    /// Takes the next chunk from upstream.
    pub fn push(&mut self, chunk: &[u8]) {
        self.buffer.extend_from_slice(chunk);
    }

    /// The next whole frame, if there is one.
    pub fn next_frame(&mut self) -> Result<Option<Frame>, FrameTooLarge> {
        let frame = match self.framing {
            Framing::Sse => self.next_event(),
            Framing::JsonArray => self.next_element(),
        };
        if frame.is_none() && self.buffer.len() > self.bytes_max {
            return Err(FrameTooLarge { bytes_max: self.bytes_max });
        }
        Ok(frame)
    }

    /// Whether everything taken in was given out in whole frames.
    pub fn is_between_frames(&self) -> bool {
        self.buffer.is_empty()
    }

    /// What is left when the stream ends: the closing bracket, or a frame that was cut off.
    pub fn rest(&mut self) -> Frame {
        self.scanned = 0;
        let rest = self.buffer.split().freeze();
        match self.framing {
            Framing::Sse => event(rest),
            Framing::JsonArray => {
                Frame { before: rest, payload: Bytes::new(), after: Bytes::new(), original: None }
            }
        }
    }

    fn next_event(&mut self) -> Option<Frame> {
        let end = blank_line(&self.buffer, self.scanned);
        let Some(end) = end else {
            // A terminator may have begun in the last three bytes.
            self.scanned = self.buffer.len().saturating_sub(3);
            return None;
        };
        self.scanned = 0;
        Some(event(self.buffer.split_to(end).freeze()))
    }

    fn next_element(&mut self) -> Option<Frame> {
        while let Some(byte) = self.buffer.get(self.scanned).copied() {
            let at = self.scanned;
            self.scanned += 1;
            if self.element.step(byte, at) {
                let start = self.element.start.take().unwrap_or_default();
                let mut bytes = self.buffer.split_to(at + 1).freeze();
                self.scanned = 0;
                let before = bytes.split_to(start);
                let after = Bytes::new();
                return Some(Frame { before, payload: bytes, after, original: None });
            }
        }
        None
    }
}

impl Element {
    /// Takes one byte; true when it closes an element.
    fn step(&mut self, byte: u8, at: usize) -> bool {
        if self.in_string {
            match (self.escaped, byte) {
                (true, _) => self.escaped = false,
                (false, b'\\') => self.escaped = true,
                (false, b'"') => self.in_string = false,
                (false, _) => {}
            }
            return false;
        }
        match byte {
            b'"' => self.in_string = true,
            b'{' => {
                self.start.get_or_insert(at);
                self.depth += 1;
            }
            b'}' if self.depth > 0 => {
                self.depth -= 1;
                return self.depth == 0;
            }
            _ => {}
        }
        false
    }
}

/// The end of the first blank line at or behind `from`: two line ends in a row, in any of the three
/// forms that server-sent events allow.
fn blank_line(bytes: &[u8], from: usize) -> Option<usize> {
    let mut at = from;
    loop {
        let rest = bytes.get(at..)?;
        at += rest.iter().position(|byte| matches!(byte, b'\n' | b'\r'))?;
        let first = line_end(bytes.get(at..)?);
        let second = line_end(bytes.get(at + first..)?);
        if second > 0 {
            return Some(at + first + second);
        }
        at += first;
    }
}

fn line_end(bytes: &[u8]) -> usize {
    match bytes {
        [b'\r', b'\n', ..] => 2,
        [b'\r' | b'\n', ..] => 1,
        _ => 0,
    }
}

fn event(bytes: Bytes) -> Frame {
    let mut data = Vec::new();
    let mut at = 0;
    for line in bytes.split(|byte| matches!(byte, b'\n' | b'\r')) {
        if let Some(value) = line.strip_prefix(b"data:") {
            let space = usize::from(value.first() == Some(&b' '));
            data.push(at + 5 + space..at + line.len());
        }
        at += line.len() + 1;
    }
    match data.as_slice() {
        [] => bare(bytes),
        [one] => {
            let mut rest = bytes;
            let before = rest.split_to(one.start);
            let payload = rest.split_to(one.len());
            Frame { before, payload, after: rest, original: None }
        }
        // Several data lines are one document with line feeds between; changed, it goes on as one line.
        many => {
            let mut payload = BytesMut::new();
            for (index, range) in many.iter().enumerate() {
                if index > 0 {
                    payload.extend_from_slice(b" ");
                }
                payload.extend_from_slice(bytes.get(range.clone()).unwrap_or_default());
            }
            let others = bytes.split(|byte| matches!(byte, b'\n' | b'\r'));
            let others = others.filter(|line| !line.is_empty() && !line.starts_with(b"data:"));
            let mut before = others.fold(BytesMut::new(), |mut before, line| {
                before.extend_from_slice(line);
                before.extend_from_slice(b"\n");
                before
            });
            before.extend_from_slice(b"data: ");
            Frame {
                before: before.freeze(),
                payload: payload.freeze(),
                after: Bytes::from_static(b"\r\n\r\n"),
                original: Some(bytes),
            }
        }
    }
}

/// What is no event at all. An error in the middle of a stream comes as a bare document, over several lines.
fn bare(bytes: Bytes) -> Frame {
    let mut payload = bytes.clone();
    let before = payload.split_to(bytes.len() - bytes.trim_ascii_start().len());
    let after = payload.split_off(payload.trim_ascii_end().len());
    if payload.starts_with(b"{") {
        return Frame { before, payload, after, original: None };
    }
    Frame { before: bytes, payload: Bytes::new(), after: Bytes::new(), original: None }
}

impl Frame {
    /// The frame as one buffer, without copying when it is still in one piece upstream's way.
    pub fn into_bytes(mut self) -> Bytes {
        if let Some(original) = self.original {
            return original;
        }
        if self.payload.is_empty() && self.after.is_empty() {
            return self.before;
        }
        let len = self.len();
        let mut pieces = (&mut self.before).chain(&mut self.payload).chain(&mut self.after);
        pieces.copy_to_bytes(len)
    }
}

#[cfg(test)]
mod tests {
    use super::{Frames, Framing};

    fn cut(framing: Framing, text: &str, at: usize) -> (Vec<String>, Vec<u8>) {
        let mut frames = Frames::new(framing, 1 << 20);
        let (mut payloads, mut bytes) = (Vec::new(), Vec::new());
        for chunk in [&text.as_bytes()[..at], &text.as_bytes()[at..]] {
            frames.push(chunk);
            while let Some(frame) = frames.next_frame().unwrap() {
                payloads.push(String::from_utf8(frame.payload.to_vec()).unwrap());
                bytes.extend_from_slice(&frame.into_bytes());
            }
        }
        bytes.extend_from_slice(&frames.rest().into_bytes());
        (payloads, bytes)
    }

    #[test]
    fn every_cut_gives_the_same_frames_and_bytes() {
        for (framing, text, payloads) in [
            (
                Framing::Sse,
                "data: {\"a\":1}\r\n\r\ndata: {\"b\":\"é\"}\n\n: note\n\ndata:[DONE]\r\r",
                vec!["{\"a\":1}", "{\"b\":\"é\"}", "", "[DONE]"],
            ),
            (
                Framing::JsonArray,
                "[{\"a\":\"}\\\"{\"}\r\n,\r\n{\"b\":{\"c\":[]}}\r\n]",
                vec!["{\"a\":\"}\\\"{\"}", "{\"b\":{\"c\":[]}}"],
            ),
        ] {
            for at in 0..=text.len() {
                let (found, bytes) = cut(framing, text, at);
                // `\r\r` cut between the two is indistinguishable from a lone line end until the stream ends.
                if at < text.len() {
                    assert_eq!(bytes, text.as_bytes(), "cut at {at}");
                }
                assert_eq!(found, payloads, "cut at {at}");
            }
        }
    }

    #[test]
    fn what_stands_around_a_payload_is_told_and_can_be_taken_away() {
        for (text, framing, beside, left) in [
            ("data: {}\r\n\r\n", Framing::Sse, Some(""), "data: {}\r\n\r\n"),
            ("\ndata:{}\n\n", Framing::Sse, Some(""), "data: {}\r\n\r\n"),
            ("event: kill\ndata: {}\nid: x\n\n", Framing::Sse, Some(" kill x"), "data: {}\r\n\r\n"),
            ("event: done\ndata: {}\n\n", Framing::Sse, Some(""), "data: {}\r\n\r\n"),
            ("id:7\ndata: {\ndata: }\n\n", Framing::Sse, Some("7"), "data: { }\r\n\r\n"),
            (": kill\n\n", Framing::Sse, Some(" kill"), ""),
            ("<html>\n\n", Framing::Sse, None, ""),
            ("\n{\"a\": 1}\n\n", Framing::Sse, Some(""), "data: {\"a\": 1}\r\n\r\n"),
        ] {
            let mut frames = Frames::new(framing, 1 << 20);
            frames.push(text.as_bytes());
            let mut frame = frames.next_frame().unwrap().unwrap();
            assert_eq!(frame.beside(framing).as_deref(), beside, "{text}");
            assert_eq!(frame.clone().into_bytes(), text.as_bytes());
            frame.strip_to_payload();
            assert_eq!(frame.into_bytes(), left.as_bytes(), "{text}");
        }
        for (text, beside) in [(",\r\n{}", Some("")), ("kill {}", None)] {
            let mut frames = Frames::new(Framing::JsonArray, 1 << 20);
            frames.push(text.as_bytes());
            let frame = frames.next_frame().unwrap().unwrap();
            assert_eq!(frame.beside(Framing::JsonArray).as_deref(), beside, "{text}");
        }
    }

    #[test]
    fn a_frame_without_end_is_bounded() {
        let mut frames = Frames::new(Framing::Sse, 100);
        frames.push(&[b'x'; 101]);
        assert!(frames.next_frame().is_err());
    }

    #[test]
    fn several_data_lines_are_one_document() {
        let (payloads, _) = cut(Framing::Sse, "data: {\"a\":\ndata: 1}\n\n", 0);
        assert_eq!(payloads, ["{\"a\": 1}"]);
    }
}
