//! A text as a reader takes it: letters folded, unseen characters gone, escapes undone; with the way
//! back to the bytes it came from.
//!
//! Escapes are undone at the end of what was read so far, so that an escape that comes out of another one
//! is undone as well, and so that a text in pieces reads like the whole.

use super::classes::{self, PLAIN};
use super::kinds::Kinds;
use super::letters::{Folded, folded, is_disguise, is_sign_behind};

/// Bytes of the longest escape: `%F0%9F%98%80`, `&CapitalDifferentialD;` is not among those undone.
const ESCAPE_BYTES_MAX: usize = 12;
/// Bytes of the original that one escape may be made of: however deep it is nested, and whatever nobody sees
/// stands in it. More would have a stream wait for ever for the end of `&&&&…`, and look at all of it again
/// and again.
const NESTED_BYTES_MAX: usize = 512;

/// Where the bytes of a derived text come from.
#[derive(Debug, Clone, Default)]
pub(super) struct Origin {
    marks: Vec<Mark>,
}

/// From here on, up to the next mark.
#[derive(Debug, Clone, Copy)]
struct Mark {
    /// In the derived text.
    at: usize,
    /// In the original.
    raw: usize,
    /// Where what was changed ends in the original; `None`: a stretch that is the same in both.
    raw_end: Option<usize>,
}

impl Origin {
    /// Where in the original the character at this byte begins.
    pub(super) fn start(&self, at: usize) -> usize {
        match self.mark(at) {
            Some(Mark { raw, raw_end: Some(_), .. }) => *raw,
            Some(mark) => mark.raw + (at - mark.at),
            None => at,
        }
    }

    /// Where in the original the character that ends at this byte ends.
    pub(super) fn end(&self, at: usize) -> usize {
        let Some(last) = at.checked_sub(1) else { return self.start(at) };
        match self.mark(last) {
            Some(Mark { raw_end: Some(end), .. }) => *end,
            Some(mark) => mark.raw + (at - mark.at),
            None => at,
        }
    }

    /// Whether anything in a stretch, or right at its edges, is not as it was.
    pub(super) fn is_changed(&self, start: usize, end: usize) -> bool {
        let first = self.marks.partition_point(|mark| mark.at < start);
        // A longer change may begin before the stretch.
        let first = first.saturating_sub(1);
        let of_changes = self.marks.iter().skip(first).take_while(|mark| mark.at <= end);
        let mut changes = of_changes.filter(|mark| mark.raw_end.is_some());
        changes.any(|mark| mark.at >= start || self.next(mark.at) >= start)
    }

    /// Where something is not as it was.
    pub(super) fn changes(&self) -> impl Iterator<Item = usize> + '_ {
        self.marks.iter().filter(|mark| mark.raw_end.is_some()).map(|mark| mark.at)
    }

    /// Where the stretch of the mark at this byte ends.
    fn next(&self, at: usize) -> usize {
        let next = self.marks.partition_point(|mark| mark.at <= at);
        self.marks.get(next).map_or(usize::MAX, |mark| mark.at)
    }

    fn mark(&self, at: usize) -> Option<&Mark> {
        let next = self.marks.partition_point(|mark| mark.at <= at);
        self.marks.get(next.checked_sub(1)?)
    }

    /// Notes a stretch that is the same in both.
    pub(super) fn same(&mut self, at: usize, raw: usize) {
        match self.marks.last() {
            Some(last) if last.raw_end.is_none() && last.raw + (at - last.at) == raw => {}
            _ => self.marks.push(Mark { at, raw, raw_end: None }),
        }
    }

    /// Notes that what stands here comes from elsewhere.
    pub(super) fn changed(&mut self, at: usize, raw: usize, raw_end: usize) {
        self.marks.push(Mark { at, raw, raw_end: Some(raw_end) });
    }

    /// Takes back everything behind a byte.
    fn truncate(&mut self, at: usize) {
        let kept = self.marks.partition_point(|mark| mark.at < at);
        let here = self.marks.iter().skip(kept).take_while(|mark| mark.at == at).count();
        // The last mark here is of the character itself; those before are of what vanished before it.
        self.marks.truncate(kept + here.saturating_sub(1));
    }

    /// Drops what is needed for no byte at or behind this one.
    fn forget(&mut self, at: usize) {
        let first = self.marks.partition_point(|mark| mark.at <= at);
        self.marks.drain(..first.saturating_sub(1));
    }
}

/// Reads a text that comes in pieces.
#[derive(Debug, Default)]
pub(super) struct Reader {
    /// What was read and not taken yet.
    text: String,
    /// Where it begins in the whole derived text.
    base: usize,
    origin: Origin,
    /// Bytes of the original read so far.
    raw: usize,
}

impl Reader {
    /// A reader of what follows byte `raw`, at the same byte of the derived text.
    pub(super) fn at(raw: usize) -> Self {
        let mut reader = Self { base: raw, raw, ..Self::default() };
        reader.origin.same(raw, raw);
        reader
    }

    /// Reads a whole text.
    pub(super) fn whole(text: &str) -> (String, Origin) {
        let mut reader = Self::at(0);
        reader.push(text);
        (reader.text, reader.origin)
    }

    /// Reads a whole text as a stream of it is read.
    pub(super) fn streamed(text: &str, first: usize) -> (String, Origin) {
        let mut reader = Self::at(0);
        reader.begin(text, first);
        (reader.text, reader.origin)
    }

    /// Reads the first piece, with its first disguise at this byte. Quotes and dashes before it stay as
    /// they are: a stream has let go of them before it knows that anything is disguised.
    pub(super) fn begin(&mut self, piece: &str, first: usize) {
        let (plain, disguised) = piece.split_at(piece.floor_char_boundary(first));
        self.same(plain);
        self.push(disguised);
    }

    pub(super) fn origin(&self) -> &Origin {
        &self.origin
    }

    /// Reads the next piece.
    pub(super) fn push(&mut self, piece: &str) {
        let mut rest = piece;
        while !rest.is_empty() {
            let plain = if self.may_escape() { 0 } else { plain_len(rest) };
            let (same, tail) = rest.split_at(plain);
            self.same(same);
            let Some(letter) = tail.chars().next() else { return };
            let end = self.raw + letter.len_utf8();
            self.letter(letter, self.raw, end, false);
            self.raw = end;
            rest = tail.get(letter.len_utf8()..).unwrap_or_default();
        }
    }

    /// Reads what reads as it is written.
    fn same(&mut self, piece: &str) {
        if !piece.is_empty() {
            self.origin.same(self.base + self.text.len(), self.raw);
            self.text.push_str(piece);
            self.raw += piece.len();
        }
    }

    /// Text that no later piece can change.
    pub(super) fn take(&mut self, is_last: bool) -> String {
        let stable = if is_last { self.text.len() } else { self.unfinished() };
        let rest = self.text.split_off(stable);
        self.base += stable;
        std::mem::replace(&mut self.text, rest)
    }

    /// Where the text begins that an escape may yet be made of.
    fn unfinished(&self) -> usize {
        // What began longer ago is no part of an escape any more.
        let may_grow =
            |start: &usize| self.raw - self.origin.start(self.base + start) < NESTED_BYTES_MAX;
        unfinished(&self.text).take_while(may_grow).last().unwrap_or(self.text.len())
    }

    /// Where in the original the text begins that a later piece may change.
    pub(super) fn undecided(&self) -> usize {
        if self.text.is_empty() { self.raw } else { self.origin.start(self.base) }
    }

    /// Drops the way back from before a byte of the derived text.
    pub(super) fn forget(&mut self, at: usize) {
        self.origin.forget(at);
    }

    /// Adds a character that stands for a stretch of the original, and undoes the escapes that it ends:
    /// what comes of one may end another.
    fn letter(&mut self, letter: char, raw: usize, raw_end: usize, changed: bool) {
        self.put(letter, raw, raw_end, changed);
        while let Some((start, letter)) = escape_at_end(&self.text) {
            let at = self.base + start;
            let raw = self.origin.start(at);
            if raw_end - raw > NESTED_BYTES_MAX {
                break;
            }
            self.text.truncate(start);
            self.origin.truncate(at);
            self.put(letter, raw, raw_end, true);
        }
    }

    fn put(&mut self, letter: char, raw: usize, raw_end: usize, changed: bool) {
        let at = self.base + self.text.len();
        match folded(letter) {
            Folded::Same if changed => {
                self.origin.changed(at, raw, raw_end);
                self.text.push(letter);
            }
            Folded::Same => {
                self.origin.same(at, raw);
                self.text.push(letter);
            }
            Folded::Gone => self.origin.changed(at, raw, raw_end),
            Folded::Small(small) => {
                self.origin.changed(at, raw, raw_end);
                self.text.push(small);
            }
            Folded::Ascii(text) => {
                self.origin.changed(at, raw, raw_end);
                self.text.push_str(text);
            }
        }
    }

    fn may_escape(&self) -> bool {
        let bytes = self.text.as_bytes();
        let tail = bytes.get(bytes.len().saturating_sub(ESCAPE_BYTES_MAX)..).unwrap_or_default();
        tail.iter().any(|byte| matches!(byte, b'%' | b'&' | b'\\'))
    }
}

/// Bytes at the beginning of a text that read as they are and begin no escape.
fn plain_len(text: &str) -> usize {
    let bytes = text.as_bytes();
    bytes.iter().position(|byte| !classes::is(*byte, PLAIN)).unwrap_or(bytes.len())
}

/// Where a text first reads otherwise than it is written, if it does.
pub(super) fn first_disguise(text: &str, kinds: &Kinds) -> Option<usize> {
    kinds.odd.within(0..text.len()).find(|at| {
        let Some(rest) = text.get(*at..) else { return false };
        match rest.chars().next() {
            Some('%' | '&' | '\\') => begins_escape(rest),
            Some(letter) => {
                let before = text.get(..*at).and_then(|head| head.chars().next_back());
                is_disguise(letter) || before.is_some_and(|one| is_sign_behind(letter, one))
            }
            None => false,
        }
    })
}

fn begins_escape(rest: &str) -> bool {
    let mut end = ESCAPE_BYTES_MAX.min(rest.len());
    while !rest.is_char_boundary(end) {
        end -= 1;
    }
    (2..=end)
        .any(|end| rest.get(..end).and_then(escape_at_end).is_some_and(|(start, _)| start == 0))
}

/// Where a text that reads as it is written begins to be one that an escape may yet be made of; its end if
/// there is none.
pub(super) fn firm(text: &str) -> usize {
    let may_grow = |start: &usize| text.len() - start < NESTED_BYTES_MAX;
    unfinished(text).take_while(may_grow).last().unwrap_or(text.len())
}

/// Where escapes begin that the end of a text may be the beginning of, last one first. What comes of one
/// escape may be the end of another that stands before it.
fn unfinished(text: &str) -> impl Iterator<Item = usize> + '_ {
    let before = |end: &usize| unfinished_before(text.as_bytes(), *end);
    std::iter::successors(before(&text.len()), before)
}

/// Where an escape begins that ends, unfinished, at a byte.
fn unfinished_before(bytes: &[u8], end: usize) -> Option<usize> {
    let first = end.saturating_sub(ESCAPE_BYTES_MAX);
    (first..end).find(|at| {
        matches!(bytes.get(*at), Some(b'%' | b'&' | b'\\'))
            && bytes.get(*at..end).is_some_and(could_be_escape)
    })
}

/// Whether some continuation of these bytes is an escape from their first byte on.
fn could_be_escape(bytes: &[u8]) -> bool {
    let hex =
        |bytes: &[u8], max: usize| bytes.len() <= max && bytes.iter().all(u8::is_ascii_hexdigit);
    match bytes {
        [b'%', b'u', rest @ ..] => hex(rest, 3),
        [b'%', rest @ ..] if rest.len() < 2 => hex(rest, 1),
        // Of a letter beyond ASCII: a `%XX` for each of its bytes.
        [b'%', ..] => bytes.chunks(3).all(|one| match one {
            [b'%', rest @ ..] => hex(rest, 2),
            _ => false,
        }),
        [b'&', rest @ ..] => rest.iter().all(|byte| byte.is_ascii_alphanumeric() || *byte == b'#'),
        [b'\\', b'u', b'{', rest @ ..] => hex(rest, 6),
        [b'\\', b'u', first @ .., b'\\'] | [b'\\', b'u', first @ .., b'\\', b'u'] => {
            first.len() == 4 && hex(first, 4)
        }
        [b'\\', b'u', rest @ ..] if rest.len() > 6 => {
            hex(rest.get(..4).unwrap_or_default(), 4)
                && rest.get(4..6) == Some(b"\\u")
                && hex(rest.get(6..).unwrap_or_default(), 3)
        }
        [b'\\', b'u', rest @ ..] => hex(rest, 4),
        [b'\\', b'U', rest @ ..] => hex(rest, 7),
        [b'\\', b'x', rest @ ..] => hex(rest, 1),
        [b'\\', rest @ ..] => {
            rest.len() <= 2 && rest.iter().all(|byte| (b'0'..=b'7').contains(byte))
        }
        _ => false,
    }
}

/// The escape that a text ends with: where it begins, and what it stands for.
fn escape_at_end(text: &str) -> Option<(usize, char)> {
    let bytes = text.as_bytes();
    let escape = match bytes.last()? {
        b';' => entity(text),
        b'}' => braced(text),
        last if last.is_ascii_hexdigit() => {
            percent(bytes).or_else(|| fixed(text)).or_else(|| pair(text)).or_else(|| octal(text))
        }
        _ => None,
    };
    escape.filter(|(_, letter)| *letter != '\0')
}

/// `%69`, or several for the bytes of one letter.
fn percent(bytes: &[u8]) -> Option<(usize, char)> {
    let mut letter = Vec::new();
    for count in 1..=4 {
        let start = bytes.len().checked_sub(3 * count)?;
        let [b'%', high, low] = bytes.get(start..start + 3)? else { return None };
        let digit = |byte: u8| char::from(byte).to_digit(16);
        letter.insert(0, u8::try_from(digit(*high)? * 16 + digit(*low)?).ok()?);
        match letter.first()? {
            // In the middle of a letter: more stands before.
            0x80..=0xbf => {}
            _ => {
                let text = std::str::from_utf8(&letter).ok()?;
                return text.chars().next().map(|letter| (start, letter));
            }
        }
    }
    None
}

/// `\u0069`, `\U00000069`, `%u0069`, `\x69`.
fn fixed(text: &str) -> Option<(usize, char)> {
    [("\\u", 4), ("\\U", 8), ("%u", 4), ("\\x", 2)].into_iter().find_map(|(mark, digits)| {
        let start = text.len().checked_sub(digits + 2)?;
        let code = text.get(start..)?.strip_prefix(mark)?;
        number(code, 16).map(|letter| (start, letter))
    })
}

/// `\ud835\udc22`: a letter beyond the first plane, as JSON writes it.
fn pair(text: &str) -> Option<(usize, char)> {
    let start = text.len().checked_sub(12)?;
    let (high, low) = text.get(start..)?.strip_prefix("\\u")?.split_once("\\u")?;
    let unit = |digits: &str| (digits.len() == 4).then(|| u16::from_str_radix(digits, 16).ok())?;
    let mut letters = char::decode_utf16([unit(high)?, unit(low)?]);
    letters.next()?.ok().map(|letter| (start, letter))
}

/// `\151`, of what can be seen.
fn octal(text: &str) -> Option<(usize, char)> {
    let start = text.len().checked_sub(4)?;
    let code = text.get(start..)?.strip_prefix('\\')?;
    let letter = code.starts_with(['0', '1', '2', '3']).then(|| number(code, 8)).flatten()?;
    letter.is_ascii_graphic().then_some((start, letter))
}

/// `\u{69}`.
fn braced(text: &str) -> Option<(usize, char)> {
    let tail = tail(text);
    let start = tail.rfind("\\u{")?;
    let code = tail.get(start + 3..tail.len() - 1)?;
    number(code, 16).map(|letter| (text.len() - tail.len() + start, letter))
}

/// `&#105;`, `&#x69;`, and the names that markup cannot do without.
fn entity(text: &str) -> Option<(usize, char)> {
    let tail = tail(text);
    let start = tail.rfind('&')?;
    let name = tail.get(start + 1..tail.len() - 1)?;
    let letter = match name {
        "amp" => '&',
        "lt" => '<',
        "gt" => '>',
        "quot" => '"',
        "apos" => '\'',
        "nbsp" | "Tab" | "NewLine" => ' ',
        "shy" => '\u{ad}',
        "zwj" => '\u{200d}',
        "zwnj" => '\u{200c}',
        _ => {
            let code = name.strip_prefix('#')?;
            match code.strip_prefix(['x', 'X']) {
                Some(hex) => number(hex, 16)?,
                None => number(code, 10)?,
            }
        }
    };
    Some((text.len() - tail.len() + start, letter))
}

fn number(digits: &str, radix: u32) -> Option<char> {
    let is_number = !digits.is_empty() && digits.chars().all(|digit| digit.is_digit(radix));
    let code = is_number.then(|| u32::from_str_radix(digits, radix).ok())??;
    char::from_u32(code)
}

fn tail(text: &str) -> &str {
    let start = text.ceil_char_boundary(text.len().saturating_sub(ESCAPE_BYTES_MAX));
    text.get(start..).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::super::kinds::Kinds;
    use super::{Reader, first_disguise};

    fn read(text: &str) -> String {
        Reader::whole(text).0
    }

    #[test]
    fn escapes_are_undone_however_they_are_nested() {
        for (text, plain) in [
            ("%69gnore", "ignore"),
            ("%2569gnore", "ignore"),
            ("%25252569", "i"),
            ("%D1%96gnore", "ignore"),
            ("&#105;&#x67;n&amp;#111;re", "ignore"),
            ("\\u0069\\x67\\u{6e}", "ign"),
            ("%u0069", "i"),
            ("\\U00000069\\151g", "iig"),
            ("\\ud835\\udc22gn&shy;ore", "ignore"),
            ("%26%23105%3B", "i"),
            ("a &lt;b&gt; &quot;c&quot;", "a <b> \"c\""),
            ("100% of AT&T; \\user %zz &nope; \\u12", "100% of AT&T; \\user %zz &nope; \\u12"),
            ("\\1 \\477 \\007 \\ud835 \\ud835\\u0041", "\\1 \\477 \\007 \\ud835 \\ud835A"),
            ("%00\\u0000", "%00\\u0000"),
        ] {
            assert_eq!(read(text), plain, "{text}");
            assert_eq!(first_disguise(text, &Kinds::of(text)).is_some(), text != plain, "{text}");
        }
    }

    #[test]
    fn signs_are_a_disguise_where_the_plain_one_belongs() {
        let is_disguised = |text: &str| first_disguise(text, &Kinds::of(text)).is_some();
        for text in [
            "536–22–8745",
            "joe＠example.com",
            "a@b．com",
            "4111\u{2003}1111",
            "4111\u{a0}1111",
            "or\u{3000}go",
        ] {
            assert!(is_disguised(text), "{text}");
        }
        for text in ["well—yes", "don’t", "« 5 »", "a\u{a0}la", "wait… no", "“quoted”", "6’ tall"]
        {
            assert!(!is_disguised(text), "{text}");
        }
    }

    #[test]
    fn every_byte_knows_where_it_comes_from() {
        let text = "a%69ｇ\u{200b}nо&#114;e z";
        let (plain, origin) = Reader::whole(text);
        assert_eq!(plain, "aignore z");
        let part = |from: usize, to: usize| text.get(origin.start(from)..origin.end(to)).unwrap();
        for (from, to, raw) in [
            (0, 1, "a"),
            (1, 2, "%69"),
            (2, 3, "ｇ"),
            (3, 4, "n"),
            (4, 5, "о"),
            (5, 6, "&#114;"),
            (6, 9, "e z"),
            (1, 7, "%69ｇ\u{200b}nо&#114;e"),
        ] {
            assert_eq!(part(from, to), raw, "{from}..{to}");
        }
        assert!(origin.is_changed(1, 2) && origin.is_changed(3, 4) && !origin.is_changed(7, 9));
    }

    #[test]
    fn pieces_read_like_the_whole() {
        let text =
            "x%2569%D1%96&amp;#105;\\u{69}\u{e0069}ｉ%zz \\ud835\\udc22\\U00000069\\151 &am %4";
        let (plain, origin) = Reader::whole(text);
        for step in 1..9 {
            let mut reader = Reader::at(0);
            let mut out = String::new();
            let mut rest = text;
            while !rest.is_empty() {
                let (piece, tail) = rest.split_at(rest.ceil_char_boundary(step.min(rest.len())));
                reader.push(piece);
                out += &reader.take(false);
                rest = tail;
            }
            out += &reader.take(true);
            assert_eq!(out, plain, "{step}");
            for at in 0..=out.len() {
                assert_eq!(reader.origin().start(at), origin.start(at), "{step} {at}");
                assert_eq!(reader.origin().end(at), origin.end(at), "{step} {at}");
            }
        }
    }

    #[test]
    fn what_no_escape_can_be_made_of_any_more_is_let_go() {
        for piece in ["&", "%", "%25", "&amp;", "\\"] {
            let mut reader = Reader::at(0);
            let mut taken = String::new();
            for _ in 0..2_000 {
                reader.push(piece);
                taken += &reader.take(false);
                assert!(reader.text.len() <= super::NESTED_BYTES_MAX, "{piece}");
            }
            taken += &reader.take(true);
            assert_eq!(taken, read(&piece.repeat(2_000)), "{piece}");
        }
        let nested = |depth: usize| format!("%{}69", "25".repeat(depth));
        assert_eq!(read(&nested(250)), "i");
        assert_ne!(read(&nested(300)), "i");
    }
}
