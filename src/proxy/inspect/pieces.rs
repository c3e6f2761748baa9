//! Files that are uploaded in pieces: of each, how the text ends that came by so far.

use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};

use http::HeaderMap;

use crate::proxy::arrive::Head;
use crate::proxy::headers;
use crate::words::digest::sha256_parts;

/// Uploads that are remembered; a piece of one that was begun before so many others is not read.
const UPLOADS_MAX: usize = 4096;
/// More than any guardrail needs to find what two pieces share.
const BEFORE_BYTES: usize = 4096;

/// An upload: the address it goes to, which is all that it takes to write there, as SHA-256.
type Key = [u8; 32];

/// The uploads under way.
#[derive(Debug, Default)]
pub struct Pieces(Mutex<Known>);

#[derive(Debug, Default)]
struct Known {
    uploads: HashMap<Key, Upload>,
    oldest_first: VecDeque<Key>,
}

#[derive(Debug)]
enum Upload {
    /// By where the next piece begins, what stands before it. The last two: a piece may be sent again.
    Text([(u64, Vec<u8>); 2]),
    NoText,
}

/// A piece of a file, as its head tells it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Piece {
    key: Key,
    pub(super) offset: u64,
    pub(super) is_last: bool,
}

impl Piece {
    /// What a request brings, if that is not a whole file; `None` as well where nothing tells its place.
    pub(super) fn of(head: &Head) -> Option<Self> {
        let (path, query) = (head.route.path.as_str(), head.query.as_deref().unwrap_or_default());
        let offset = head.headers.get(headers::UPLOAD_OFFSET);
        let offset = offset.map_or(Some(0), |offset| offset.to_str().ok()?.parse().ok());
        Some(Self {
            key: sha256_parts(&[path.as_bytes(), query.as_bytes()]),
            // Of an offset that is none, nothing can be known.
            offset: offset.unwrap_or(u64::MAX),
            is_last: commands(&head.headers, "finalize"),
        })
        .filter(|piece| commands(&head.headers, "upload") && !piece.is_whole())
    }

    fn is_whole(&self) -> bool {
        self.offset == 0 && self.is_last
    }
}

impl Pieces {
    /// What stands before a piece; `None`: nobody knows, or it is no text.
    pub(super) fn before(&self, piece: &Piece) -> Option<Vec<u8>> {
        match self.lock().uploads.get(&piece.key) {
            _ if piece.offset == 0 => Some(Vec::new()),
            Some(Upload::Text(ends)) => {
                let (_, before) = ends.iter().find(|(end, _)| *end == piece.offset)?;
                Some(before.clone())
            }
            Some(Upload::NoText) | None => None,
        }
    }

    /// Remembers how a text ends, up to and with this piece of so many bytes.
    pub(super) fn passed(&self, piece: &Piece, bytes: usize, text: &[u8]) {
        let mut known = self.lock();
        if piece.is_last {
            known.uploads.remove(&piece.key);
            known.oldest_first.retain(|key| *key != piece.key);
            return;
        }
        let before = match known.uploads.remove(&piece.key) {
            Some(Upload::Text(ends)) => ends.into_iter().find(|(end, _)| *end == piece.offset),
            Some(Upload::NoText) | None => None,
        };
        let end = (piece.offset.saturating_add(bytes as u64), ending(text).to_vec());
        known.put(piece.key, Upload::Text([before.unwrap_or_default(), end]));
    }

    /// Remembers that a file is no text.
    pub(super) fn is_no_text(&self, piece: &Piece) {
        self.lock().put(piece.key, Upload::NoText);
    }

    fn lock(&self) -> MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Known {
    fn put(&mut self, key: Key, upload: Upload) {
        if !self.oldest_first.contains(&key) {
            self.oldest_first.push_back(key);
        }
        self.uploads.insert(key, upload);
        if self.oldest_first.len() > UPLOADS_MAX
            && let Some(oldest) = self.oldest_first.pop_front()
        {
            self.uploads.remove(&oldest);
        }
    }
}

/// The end of a text, from the beginning of a letter on.
fn ending(text: &[u8]) -> &[u8] {
    let end = text.get(text.len().saturating_sub(BEFORE_BYTES)..).unwrap_or_default();
    let goes_on = |byte: &u8| *byte & 0xc0 == 0x80;
    let cut = end.iter().take_while(|byte| goes_on(byte)).count();
    end.get(cut..).unwrap_or_default()
}

/// Whether a request does this to an upload.
pub(super) fn commands(headers: &HeaderMap, what: &str) -> bool {
    let values = headers.get_all(headers::UPLOAD_COMMAND).iter();
    let mut commands =
        values.filter_map(|value| value.to_str().ok()).flat_map(|all| all.split(','));
    commands.any(|one| one.trim().eq_ignore_ascii_case(what))
}

#[cfg(test)]
mod tests {
    use super::{BEFORE_BYTES, Piece, Pieces, UPLOADS_MAX};

    fn piece(key: u16, offset: u64, is_last: bool) -> Piece {
        let mut of = [0; 32];
        of[..2].copy_from_slice(&key.to_le_bytes());
        Piece { key: of, offset, is_last }
    }

    #[test]
    fn a_piece_is_read_behind_what_came_before() {
        let pieces = Pieces::default();
        assert_eq!(pieces.before(&piece(1, 0, false)), Some(Vec::new()));
        assert_eq!(pieces.before(&piece(1, 9, false)), None);
        pieces.passed(&piece(1, 0, false), 9, b"one text ");
        assert_eq!(pieces.before(&piece(1, 9, false)).unwrap(), b"one text ");
        let long = format!("{}é", "x".repeat(BEFORE_BYTES - 1));
        pieces.passed(&piece(1, 9, false), 100, long.as_bytes());
        // It may be sent again, and the next one follows.
        assert_eq!(pieces.before(&piece(1, 9, false)).unwrap(), b"one text ");
        assert_eq!(pieces.before(&piece(1, 109, false)).unwrap(), &long.as_bytes()[1..]);
        assert_eq!(pieces.before(&piece(2, 109, false)), None);
        pieces.passed(&piece(1, 109, true), 1, b"end");
        assert_eq!(pieces.before(&piece(1, 109, false)), None);
    }

    #[test]
    fn what_is_no_text_stays_so_and_the_oldest_are_forgotten() {
        let pieces = Pieces::default();
        pieces.passed(&piece(0, 0, false), 3, b"abc");
        pieces.is_no_text(&piece(0, 3, false));
        assert_eq!(pieces.before(&piece(0, 3, false)), None);
        pieces.passed(&piece(1, 0, false), 3, b"abc");
        for key in 2..=u16::try_from(UPLOADS_MAX).unwrap() {
            pieces.passed(&piece(key, 0, false), 3, b"abc");
        }
        assert!(pieces.before(&piece(1, 3, false)).is_some());
        pieces.passed(&piece(9999, 0, false), 3, b"abc");
        assert!(pieces.before(&piece(1, 3, false)).is_none());
    }
}
