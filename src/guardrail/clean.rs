//! Texts in which nothing was found, told by a hash of all that this depends on. Most of what an application sends,
//! it sends again with its next call: instructions, tools, what was said before.

use std::fmt;
use std::sync::{Mutex, PoisonError};

use super::compile::Guardrails;
use crate::words::digest::sha256_parts;

/// So many are remembered, in half a megabyte.
const TEXTS_MAX: usize = 16_384;

/// A text, what stands before it, and the rules that look at it: SHA-256, so that nobody makes a bad text that
/// passes for a good one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TextKey([u8; 32]);

/// What is remembered: each key has one slot, which the next one with that slot takes.
#[derive(Default)]
pub(super) struct Clean(Mutex<Vec<[u8; 32]>>);

impl fmt::Debug for Clean {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("Clean")
    }
}

impl Clean {
    fn with<T>(&self, key: &TextKey, on: impl FnOnce(&mut [u8; 32]) -> T) -> Option<T> {
        let mut slots = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if slots.is_empty() {
            slots.resize(TEXTS_MAX, [0; 32]);
        }
        let number = u64::from_le_bytes(*key.0.first_chunk()?);
        let slot = usize::try_from(number % TEXTS_MAX as u64).ok()?;
        slots.get_mut(slot).map(on)
    }
}

impl TextKey {
    /// Of a text in two forms behind the end of another, for rules with this
    /// [digest](super::RuleSet::digest).
    pub fn of(rules: &[u8; 32], before: &str, [text, other]: [&str; 2]) -> Self {
        Self(sha256_parts(&[rules, before.as_bytes(), text.as_bytes(), other.as_bytes()]))
    }
}

impl Guardrails {
    /// Whether nothing was found in this text, looked at as a whole.
    pub fn is_clean(&self, key: &TextKey) -> bool {
        self.clean.with(key, |slot| *slot == key.0).unwrap_or(false)
    }

    /// Remembers that nothing was found.
    pub fn keep_clean(&self, key: &TextKey) {
        self.clean.with(key, |slot| *slot = key.0);
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Direction, Guardrails, Inspects};
    use super::TextKey;

    #[test]
    fn a_text_is_known_in_both_forms_and_with_who_looks() {
        let guardrails = Guardrails::compile(Vec::new()).unwrap();
        let rules = |way| guardrails.select(way, Inspects::Untrusted, None).digest();
        let (request, response) = (rules(Direction::Request), rules(Direction::Response));
        let key = TextKey::of(&request, "a", ["b", "c"]);
        assert!(!guardrails.is_clean(&key));
        guardrails.keep_clean(&key);
        assert!(guardrails.is_clean(&key));
        for other in [
            TextKey::of(&request, "", ["ab", "c"]),
            TextKey::of(&request, "ab", ["", "c"]),
            TextKey::of(&request, "a", ["b", ""]),
            TextKey::of(&response, "a", ["b", "c"]),
        ] {
            assert!(!guardrails.is_clean(&other), "{other:?}");
        }
    }
}
