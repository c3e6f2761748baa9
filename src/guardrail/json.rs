//! Whether a text that arrives in pieces is one JSON value (RFC 8259), decided byte by byte.
//!
//! A text passes as long as it is the beginning of some value, so a stream need not be held to its end.
//! What is taken is what `serde_json` takes, and numbers that are too large for it: the grammar has them.

use std::ops::Range;

use super::compile::Guardrails;
use super::rule::{Direction, Rule};
use super::scan::{Finding, RuleSet, What};

/// Arrays and objects inside each other, as many as `serde_json` reads: one bit of [`Json::open`] each.
const DEPTH_MAX: u32 = 127;

/// A text that must become one JSON value.
#[derive(Debug, Clone, Default)]
pub(super) struct Json {
    state: State,
    /// The arrays and objects that are open, the innermost last: 1 for an object.
    open: u128,
    depth: u32,
    /// Whether the string is the name of a member.
    is_name: bool,
    len: usize,
    is_wrong: bool,
}

/// What was read last, and so what may come.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum State {
    /// Where a value must stand.
    #[default]
    Value,
    /// Behind `[`: a value or the end.
    Array,
    /// Behind `{`: a name or the end.
    Object,
    /// Behind the comma of an object.
    Name,
    /// Behind a name.
    Colon,
    /// Behind a value.
    Behind,
    /// In `true`, `false` or `null`: what is left of it.
    Word(&'static [u8]),
    Number(Number),
    String,
    /// Behind `\`.
    Escape,
    Hex(Hex),
    /// Behind the first half of a pair of surrogates: what must stand before the digits of the second.
    Pair(&'static [u8]),
}

/// How much of a number was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Number {
    Minus,
    Zero,
    Digits,
    Point,
    Fraction,
    Exponent,
    Sign,
    Power,
}

/// The digits behind `\u`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Hex {
    value: u32,
    read: u8,
    /// The second half of a pair.
    is_second: bool,
}

impl Json {
    /// Takes the next piece. Gives the place of the first character that no JSON value has there, once.
    pub(super) fn push(&mut self, piece: &str) -> Option<Range<usize>> {
        let before = self.len;
        self.len += piece.len();
        if self.is_wrong {
            return None;
        }
        for (at, byte) in piece.bytes().enumerate() {
            let Some(state) = self.next(byte) else {
                self.is_wrong = true;
                return Some(before + at..before + piece.ceil_char_boundary(at + 1));
            };
            self.state = state;
        }
        None
    }

    /// Ends the text. Gives its end if the value is not whole. Nothing at all is no value that was broken off.
    pub(super) fn finish(&self) -> Option<Range<usize>> {
        let is_whole = match self.state {
            State::Behind => self.depth == 0,
            State::Number(number) => self.depth == 0 && number.is_whole(),
            _ => self.len == 0,
        };
        (!self.is_wrong && !is_whole).then_some(self.len..self.len)
    }

    /// The state behind a byte; `None`: no value has it there.
    fn next(&mut self, byte: u8) -> Option<State> {
        match self.state {
            State::String => self.in_string(byte),
            State::Escape => escaped(byte),
            State::Hex(hex) => hex.next(byte),
            State::Pair([expected]) if byte == *expected => Some(State::Hex(Hex::second())),
            State::Pair([expected, rest @ ..]) if byte == *expected => Some(State::Pair(rest)),
            State::Word([expected]) if byte == *expected => Some(State::Behind),
            State::Word([expected, rest @ ..]) if byte == *expected => Some(State::Word(rest)),
            State::Pair(_) | State::Word(_) => None,
            State::Number(number) => match number.next(byte) {
                Some(number) => Some(State::Number(number)),
                None if number.is_whole() => self.behind(byte),
                None => None,
            },
            State::Behind => self.behind(byte),
            state if is_space(byte) => Some(state),
            State::Array if byte == b']' => self.close(),
            State::Value | State::Array => self.value(byte),
            State::Object if byte == b'}' => self.close(),
            State::Object | State::Name => (byte == b'"').then(|| self.string(true)),
            State::Colon => (byte == b':').then_some(State::Value),
        }
    }

    fn value(&mut self, byte: u8) -> Option<State> {
        Some(match byte {
            b'"' => self.string(false),
            b'{' => return self.open(true),
            b'[' => return self.open(false),
            b't' => State::Word(b"rue"),
            b'f' => State::Word(b"alse"),
            b'n' => State::Word(b"ull"),
            b'-' => State::Number(Number::Minus),
            b'0' => State::Number(Number::Zero),
            b'1'..=b'9' => State::Number(Number::Digits),
            _ => return None,
        })
    }

    fn behind(&mut self, byte: u8) -> Option<State> {
        let is_object = self.open & 1 == 1;
        match byte {
            _ if is_space(byte) => Some(State::Behind),
            _ if self.depth == 0 => None,
            b',' => Some(if is_object { State::Name } else { State::Value }),
            b'}' if is_object => self.close(),
            b']' if !is_object => self.close(),
            _ => None,
        }
    }

    fn open(&mut self, is_object: bool) -> Option<State> {
        if self.depth == DEPTH_MAX {
            return None;
        }
        self.depth += 1;
        self.open = self.open << 1 | u128::from(is_object);
        Some(if is_object { State::Object } else { State::Array })
    }

    /// Only where something is open.
    fn close(&mut self) -> Option<State> {
        self.depth = self.depth.checked_sub(1)?;
        self.open >>= 1;
        Some(State::Behind)
    }

    fn string(&mut self, is_name: bool) -> State {
        self.is_name = is_name;
        State::String
    }

    fn in_string(&self, byte: u8) -> Option<State> {
        match byte {
            b'"' if self.is_name => Some(State::Colon),
            b'"' => Some(State::Behind),
            b'\\' => Some(State::Escape),
            ..b' ' => None,
            _ => Some(State::String),
        }
    }
}

impl Number {
    fn next(self, byte: u8) -> Option<Self> {
        Some(match (self, byte) {
            (Self::Minus, b'0') => Self::Zero,
            (Self::Minus, b'1'..=b'9') | (Self::Digits, b'0'..=b'9') => Self::Digits,
            (Self::Zero | Self::Digits, b'.') => Self::Point,
            (Self::Point | Self::Fraction, b'0'..=b'9') => Self::Fraction,
            (Self::Zero | Self::Digits | Self::Fraction, b'e' | b'E') => Self::Exponent,
            (Self::Exponent, b'+' | b'-') => Self::Sign,
            (Self::Exponent | Self::Sign | Self::Power, b'0'..=b'9') => Self::Power,
            _ => return None,
        })
    }

    fn is_whole(self) -> bool {
        matches!(self, Self::Zero | Self::Digits | Self::Fraction | Self::Power)
    }
}

impl Hex {
    fn first() -> Self {
        Self { value: 0, read: 0, is_second: false }
    }

    fn second() -> Self {
        Self { is_second: true, ..Self::first() }
    }

    /// A second half of a pair stands behind a first one and nowhere else, which two digits tell.
    fn next(self, byte: u8) -> Option<State> {
        let digit = char::from(byte).to_digit(16)?;
        let hex = Self { value: self.value << 4 | digit, read: self.read + 1, ..self };
        let can_be = match hex.read {
            1 => !hex.is_second || hex.value == 0xd,
            2 => hex.is_second == (0xdc..=0xdf).contains(&hex.value),
            _ => true,
        };
        let is_first = (0xd800..=0xdbff).contains(&hex.value);
        can_be.then_some(match hex.read {
            4 if is_first => State::Pair(b"\\u"),
            4 => State::String,
            _ => State::Hex(hex),
        })
    }
}

fn escaped(byte: u8) -> Option<State> {
    match byte {
        b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't' => Some(State::String),
        b'u' => Some(State::Hex(Hex::first())),
        _ => None,
    }
}

fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\n' | b'\r')
}

/// Refuses a rule that would never look.
pub(super) fn check(rule: &Rule) -> Result<(), String> {
    if rule.config.requires_json && !rule.looks_at(Direction::Response) {
        let what = "looks at answers only, and applies_to names requests only; add \"response\"";
        return Err(what.to_owned());
    }
    Ok(())
}

/// The rules that require JSON.
pub(super) fn wanting(rules: &[Rule]) -> Vec<usize> {
    let all = rules.iter().enumerate().filter(|(_, rule)| rule.config.requires_json);
    all.map(|(index, _)| index).collect()
}

impl Guardrails {
    /// Whether one of these rules wants the text of a candidate to be JSON.
    pub fn want_json(&self, rules: &RuleSet) -> bool {
        !rules.is_request() && self.wanting_json.iter().any(|rule| rules.contains(*rule))
    }

    /// The findings of these rules about a text that ceases to be JSON at a place.
    pub(super) fn broken(&self, place: &Range<usize>, rules: &RuleSet) -> Vec<Finding> {
        let Range { start, end } = *place;
        let wanting = self.wanting_json.iter().copied().filter(|rule| rules.contains(*rule));
        wanting.map(|rule| Finding { start, end, rule, what: What::Json, begins: start }).collect()
    }

    /// What keeps the complete text of a candidate of an answer, in pieces, from being the JSON that these
    /// rules want.
    pub fn not_json(&self, pieces: &[&str], rules: &RuleSet) -> Vec<Finding> {
        if !self.want_json(rules) {
            return Vec::new();
        }
        let mut json = Json::default();
        let broken = pieces.iter().find_map(|piece| json.push(piece));
        let place = broken.or_else(|| json.finish());
        place.map(|place| self.broken(&place, rules)).unwrap_or_default()
    }

    /// All findings in the complete text of a candidate of an answer, or in a text of a request.
    pub fn scan_whole(&self, text: &str, rules: &RuleSet) -> Vec<Finding> {
        let mut findings = self.scan(text, rules);
        findings.extend(self.not_json(&[text], rules));
        findings.sort();
        findings
    }
}

#[cfg(test)]
mod tests;
