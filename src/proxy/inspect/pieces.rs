//! Files that are uploaded in pieces: of each, how the text ends that came by so far.

use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};

use http::HeaderMap;
use http::header::CONTENT_RANGE;

use crate::proxy::arrive::Head;
use crate::proxy::headers;
use crate::words::digest::sha256_parts;

/// Uploads that are remembered; a piece of one that was begun before so many others is not read.
const UPLOADS_MAX: usize = 512;
/// Bytes before a piece that are read with it, of which so many are letters and digits: what fills the space between
/// two words must not keep them apart.
const BEFORE_BYTES: usize = 4096;
const BEFORE_LETTERS: usize = 2048;
/// Of a text that goes on and on without letters the next piece is not read.
const BEFORE_BYTES_MAX: usize = 64 * 1024;
/// Where a code may be cut: four letters of base64 stand for three bytes, and there are codes in codes in codes.
const CODE_STEP: usize = 64;

/// An upload: the address it goes to, which is all that it takes to write there, as SHA-256.
type Key = [u8; 32];

/// The uploads under way.
#[derive(Debug, Default)]
pub struct Pieces(Mutex<Known>);

#[derive(Debug, Default)]
struct Known {
    uploads: HashMap<Key, Ends>,
    oldest_first: VecDeque<Key>,
}

/// By where the next piece begins, how the text before it ends; `None`: that is no text. The last two: a piece may be
/// sent again.
type Ends = [(u64, Option<Vec<u8>>); 2];

/// A piece of a file, as its head tells it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Piece {
    key: Key,
    /// Where it begins in the file; `None`: that is not clear.
    offset: Option<u64>,
    pub(super) is_last: bool,
}

/// What is remembered of a piece once the upstream has taken it.
#[derive(Debug)]
pub(in crate::proxy) struct Passed {
    piece: Piece,
    end: u64,
    before_next: Option<Vec<u8>>,
}

impl Piece {
    /// What a request brings; `None`: a file as a whole.
    pub(super) fn of(head: &Head) -> Option<Self> {
        let (path, query) = (head.route.path.as_str(), head.query.as_deref().unwrap_or_default());
        let key = sha256_parts(&[path.as_bytes(), query.as_bytes()]);
        if head.headers.contains_key(CONTENT_RANGE) {
            return Some(Self { key, offset: None, is_last: false });
        }
        if !commands(&head.headers, "upload") {
            return None;
        }
        let mut offsets = head.headers.get_all(headers::UPLOAD_OFFSET).iter();
        let offset = match (offsets.next(), offsets.next()) {
            (Some(offset), None) => offset.to_str().ok().and_then(|offset| offset.parse().ok()),
            _ => None,
        };
        let piece = Self { key, offset, is_last: commands(&head.headers, "finalize") };
        Some(piece).filter(|piece| piece.offset != Some(0) || !piece.is_last)
    }

    /// Where in the file it begins.
    pub(super) fn start(&self) -> u64 {
        self.offset.unwrap_or(0)
    }

    /// What is to be remembered of it: so many bytes, with which the text ends; `None`: it is no text.
    pub(super) fn passed(self, bytes: usize, text: Option<&[u8]>) -> Passed {
        let end = self.start().saturating_add(bytes as u64);
        Passed { piece: self, end, before_next: text.and_then(ending).map(<[u8]>::to_vec) }
    }
}

impl Pieces {
    /// What stands before a piece; `None`: nobody knows, or it cannot be read.
    pub(super) fn before(&self, piece: &Piece) -> Option<Vec<u8>> {
        let offset = piece.offset?;
        if offset == 0 {
            return Some(Vec::new());
        }
        let known = self.lock();
        let (_, before) = known.uploads.get(&piece.key)?.iter().find(|(end, _)| *end == offset)?;
        before.clone()
    }

    /// Remembers a piece that the upstream has taken.
    pub(in crate::proxy) fn keep(&self, passed: Passed) {
        let Passed { piece, end, before_next } = passed;
        let mut known = self.lock();
        if piece.is_last {
            known.uploads.remove(&piece.key);
            known.oldest_first.retain(|key| *key != piece.key);
            return;
        }
        let before = known.uploads.remove(&piece.key).into_iter().flatten();
        let before = before.into_iter().find(|(end, _)| Some(*end) == piece.offset);
        known.put(piece.key, [before.unwrap_or_default(), (end, before_next)]);
    }

    fn lock(&self) -> MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Known {
    fn put(&mut self, key: Key, ends: Ends) {
        if !self.oldest_first.contains(&key) {
            self.oldest_first.push_back(key);
        }
        self.uploads.insert(key, ends);
        if self.oldest_first.len() > UPLOADS_MAX
            && let Some(oldest) = self.oldest_first.pop_front()
        {
            self.uploads.remove(&oldest);
        }
    }
}

/// The end of a text that the next piece is read with. `None`: there is too little in it to read.
fn ending(text: &[u8]) -> Option<&[u8]> {
    // Its last letter may go on in the next piece.
    let whole = std::str::from_utf8(text).map_or_else(|error| error.valid_up_to(), str::len);
    let readable = std::str::from_utf8(text.get(..whole)?).ok()?;
    let (mut letters, mut start) = (0, whole);
    for (at, letter) in readable.char_indices().rev() {
        if letters >= BEFORE_LETTERS && whole - start >= BEFORE_BYTES {
            break;
        }
        if whole - at > BEFORE_BYTES_MAX {
            return None;
        }
        letters += usize::from(letter.is_alphanumeric());
        start = at;
    }
    let is_code = |byte: &u8| byte.is_ascii_alphanumeric() || b"+/-_=".contains(byte);
    let before = text.get(..start)?.iter().rev().take_while(|byte| is_code(byte)).count();
    let ahead = text.get(start..)?.iter().take_while(|byte| is_code(byte)).count();
    // In the middle of a code: behind whole groups of it.
    let cut = if before > 0 { (CODE_STEP - before % CODE_STEP) % CODE_STEP } else { 0 };
    text.get(start + cut.min(ahead)..)
}

/// Whether a request does this to an upload.
pub(super) fn commands(headers: &HeaderMap, what: &str) -> bool {
    headers::listed(headers, &headers::UPLOAD_COMMAND).any(|one| one.eq_ignore_ascii_case(what))
}

#[cfg(test)]
mod tests {
    use super::{BEFORE_BYTES, BEFORE_BYTES_MAX, Piece, Pieces, UPLOADS_MAX, ending};

    fn piece(key: u16, offset: u64, is_last: bool) -> Piece {
        let mut of = [0; 32];
        of[..2].copy_from_slice(&key.to_le_bytes());
        Piece { key: of, offset: Some(offset), is_last }
    }

    #[test]
    fn a_piece_is_read_behind_what_came_before() {
        let pieces = Pieces::default();
        assert_eq!(pieces.before(&piece(1, 0, false)), Some(Vec::new()));
        assert_eq!(pieces.before(&piece(1, 9, false)), None);
        pieces.keep(piece(1, 0, false).passed(9, Some(b"one text ")));
        assert_eq!(pieces.before(&piece(1, 9, false)).unwrap(), b"one text ");
        pieces.keep(piece(1, 9, false).passed(4, Some(b"one text two ")));
        // It may be sent again, and the next one follows.
        assert_eq!(pieces.before(&piece(1, 9, false)).unwrap(), b"one text ");
        assert_eq!(pieces.before(&piece(1, 13, false)).unwrap(), b"one text two ");
        assert_eq!(pieces.before(&piece(2, 13, false)), None);
        let unplaced = Piece { offset: None, ..piece(1, 0, false) };
        assert_eq!(pieces.before(&unplaced), None);
        pieces.keep(piece(1, 13, true).passed(3, Some(b"end")));
        assert_eq!(pieces.before(&piece(1, 13, false)), None);
    }

    #[test]
    fn what_is_no_text_is_not_read_on_and_the_oldest_are_forgotten() {
        let pieces = Pieces::default();
        pieces.keep(piece(0, 0, false).passed(3, None));
        assert_eq!(pieces.before(&piece(0, 3, false)), None);
        for key in 1..=u16::try_from(UPLOADS_MAX).unwrap() {
            assert!(key == 1 || pieces.before(&piece(1, 3, false)).is_some());
            pieces.keep(piece(key, 0, false).passed(3, Some(b"abc")));
        }
        pieces.keep(piece(9999, 0, false).passed(3, Some(b"abc")));
        assert!(pieces.before(&piece(1, 3, false)).is_none());
    }

    #[test]
    fn an_end_has_letters_enough_and_whole_letters_and_groups_of_codes() {
        let words = "one two ".repeat(2000);
        let end = |text: &str| ending(text.as_bytes()).map(|end| text.len() - end.len());
        assert_eq!(end("short"), Some(0));
        assert_eq!(end(&words), Some(words.len() - BEFORE_BYTES));
        for filler in [" ", "\u{200b}", "🙂", ". "] {
            let far = format!("{words}{}", filler.repeat(10_000 / filler.len()));
            let rest = far.get(end(&far).unwrap()..).unwrap();
            let letters = rest.chars().filter(|one| one.is_alphanumeric());
            let letters = letters.count();
            assert!((2_040..=super::BEFORE_LETTERS).contains(&letters), "{letters} {filler}");
            let endless = format!("{words}{}", filler.repeat(BEFORE_BYTES_MAX));
            assert_eq!(end(&endless), None);
        }
        let code = "x".repeat(10_000);
        for lead in 0..70 {
            let text = format!("{} {code}", "a".repeat(lead));
            assert_eq!((end(&text).unwrap() - lead - 1) % 64, 0, "{lead}");
        }
        // A letter that is cut stays with what follows.
        assert_eq!(ending(b"a\xc3").unwrap(), b"a\xc3");
    }
}
