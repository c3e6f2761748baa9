//! What was taken out of a request, and goes back into its answer where its guardrail says so.

use std::collections::HashMap;
use std::ops::Range;

use crate::guardrail::{Finding, Guardrails, Salt};

/// Where every placeholder begins and ends.
const MARK: char = '[';
const END: char = ']';

/// The values behind the placeholders of one call.
#[derive(Default)]
pub(super) struct Vault {
    salt: Salt,
    /// By placeholder in lower case, since models change the case of words.
    kept: HashMap<String, String>,
    /// Bytes of the longest placeholder.
    longest: usize,
}

impl std::fmt::Debug for Vault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Vault")
    }
}

/// What is to be put back: bytes of a text, and the value.
pub(super) type Restored = Vec<(Range<usize>, String)>;

impl Vault {
    pub(super) fn new(salt: Salt) -> Self {
        Self { salt, ..Self::default() }
    }

    /// Takes a value in; gives what stands in its place.
    pub(super) fn hide(
        &mut self,
        guardrails: &Guardrails,
        finding: &Finding,
        value: &str,
    ) -> String {
        let placeholder = self.stand_in(guardrails, finding, value);
        if guardrails.is_reversible(finding) {
            self.longest = self.longest.max(placeholder.len());
            self.kept.insert(placeholder.to_ascii_lowercase(), value.to_owned());
        }
        placeholder
    }

    /// What stands in the place of a value that does not come back: one of an answer.
    pub(super) fn stand_in(
        &self,
        guardrails: &Guardrails,
        finding: &Finding,
        value: &str,
    ) -> String {
        guardrails.placeholder(finding, value, &self.salt)
    }

    /// Whether nothing is to be put back.
    pub(super) fn is_empty(&self) -> bool {
        self.kept.is_empty()
    }

    /// What is to be put back into a whole text.
    pub(super) fn restore(&self, text: &str) -> Restored {
        self.search(text, false).0
    }

    /// The placeholders in a text, and up to where there can be no other.
    fn search(&self, text: &str, open: bool) -> (Restored, usize) {
        let mut found = Vec::new();
        let mut at = 0;
        while let Some(start) =
            text.get(at..).and_then(|rest| rest.find(MARK)).map(|next| at + next)
        {
            let rest =
                text.get(start..text.floor_char_boundary(start + self.longest)).unwrap_or_default();
            let end = rest.find(END).map(|end| start + end + END.len_utf8());
            let key = end.and_then(|end| text.get(start..end)).map(str::to_ascii_lowercase);
            let value = key.and_then(|key| self.kept.get(&key));
            match (value, end) {
                (Some(value), Some(end)) => {
                    found.push((start..end, value.clone()));
                    at = end;
                }
                // The rest of one may come.
                (_, None) if open && text.len() < start + self.longest => return (found, start),
                _ => at = start + MARK.len_utf8(),
            }
        }
        (found, text.len())
    }
}

/// Finds placeholders in a text that arrives in pieces.
#[derive(Debug, Default)]
pub(super) struct Restorer {
    /// What may be the beginning of one.
    tail: String,
    /// Where it begins in the whole text.
    base: usize,
}

impl Restorer {
    /// Takes the next piece: what is to be put back, in bytes of the whole text, and up to where nothing
    /// else can be.
    pub(super) fn push(&mut self, vault: &Vault, piece: &str) -> (Restored, usize) {
        if vault.is_empty() {
            return (Vec::new(), usize::MAX);
        }
        self.tail.push_str(piece);
        let (mut found, decided) = vault.search(&self.tail, true);
        for (span, _) in &mut found {
            *span = span.start + self.base..span.end + self.base;
        }
        self.tail.drain(..decided);
        self.base += decided;
        (found, self.base)
    }
}

#[cfg(test)]
mod tests {
    use super::{Restorer, Vault};

    fn vault() -> Vault {
        let kept = [("[EMAIL_0123abcd]", "ann@example.com"), ("[PHONE_99999999]", "555-0101")];
        let kept = kept.map(|(placeholder, value)| (placeholder.to_lowercase(), value.to_owned()));
        Vault { kept: kept.into(), longest: 16, ..Vault::default() }
    }

    #[test]
    fn values_come_back_however_the_text_is_cut() {
        let (vault, text) =
            (vault(), "[x] to [EMAIL_0123abcd], [[phone_99999999]] [EMAIL_0123abce] [EMA");
        let whole = vault.restore(text);
        assert_eq!(whole.len(), 2);
        for first in 0..text.len() {
            for second in first..text.len() {
                let mut restorer = Restorer::default();
                let mut found = Vec::new();
                let mut len = 0;
                let (before, after) = text.split_at(second);
                let (before, between) = before.split_at(first);
                for piece in [before, between, after] {
                    let (more, decided) = restorer.push(&vault, piece);
                    found.extend(more);
                    len += piece.len();
                    for (span, _) in &whole {
                        assert!(found.iter().any(|(one, _)| one == span) || decided <= span.start);
                    }
                    assert!(decided <= len);
                }
                assert_eq!(found, whole);
            }
        }
    }
}
