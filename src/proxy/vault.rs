//! What was taken out of a request, and goes back into its answer where its guardrail says so.

use std::ops::Range;

use crate::guardrail::{Finding, Guardrails, Salt};

/// Where every placeholder begins.
const MARK: char = '[';

/// The values behind the placeholders of one call.
#[derive(Default)]
pub(super) struct Vault {
    salt: Salt,
    kept: Vec<(String, String)>,
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
        Self { salt, kept: Vec::new() }
    }

    /// Takes a value in; gives what stands in its place.
    pub(super) fn hide(
        &mut self,
        guardrails: &Guardrails,
        finding: &Finding,
        value: &str,
    ) -> String {
        let placeholder = guardrails.placeholder(finding, value, &self.salt);
        let is_known = self.kept.iter().any(|(known, _)| *known == placeholder);
        if guardrails.is_reversible(finding) && !is_known {
            self.kept.push((placeholder.clone(), value.to_owned()));
        }
        placeholder
    }

    /// Whether nothing is to be put back.
    pub(super) fn is_empty(&self) -> bool {
        self.kept.is_empty()
    }

    /// What is to be put back into a whole text.
    pub(super) fn restore(&self, text: &str) -> Restored {
        self.search(text, false).0
    }

    /// The placeholders in a text, and up to where there can be no other; models change their case.
    fn search(&self, text: &str, open: bool) -> (Restored, usize) {
        let mut found = Vec::new();
        let mut at = 0;
        while let Some(start) =
            text.get(at..).and_then(|rest| rest.find(MARK)).map(|next| at + next)
        {
            let rest = text.get(start..).unwrap_or_default();
            let whole = self.kept.iter().find(|(placeholder, _)| begins(rest, placeholder));
            if let Some((placeholder, value)) = whole {
                at = start + placeholder.len();
                found.push((start..at, value.clone()));
            } else if open && self.kept.iter().any(|(placeholder, _)| begins(placeholder, rest)) {
                return (found, start);
            } else {
                at = start + MARK.len_utf8();
            }
        }
        (found, text.len())
    }
}

fn begins(text: &str, with: &str) -> bool {
    text.get(..with.len()).is_some_and(|head| head.eq_ignore_ascii_case(with))
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
        let kept = kept.map(|(placeholder, value)| (placeholder.to_owned(), value.to_owned()));
        Vault { kept: kept.to_vec(), ..Vault::default() }
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
