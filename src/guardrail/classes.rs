//! Kinds of bytes, looked up rather than compared: each text is walked several times.

/// A decimal digit.
pub(super) const DIGIT: u8 = 1;
/// A letter that codes and tokens are written in: a letter, a digit, `+ / - _ =`.
pub(super) const CODE: u8 = 2;
/// Reads as it is written and begins no escape.
pub(super) const PLAIN: u8 = 4;

/// A letter or digit of ASCII.
pub(super) const WORD: u8 = 8;
/// That, or a sign that is written for a letter.
pub(super) const LEET: u8 = 16;
/// A letter of ASCII.
pub(super) const LETTER: u8 = 32;

/// A letter of codes that no number in hexadecimal has, with or without its `0x`.
pub(super) const BEYOND_HEX: u8 = 64;

/// The kinds of a byte.
pub(super) fn of(byte: u8) -> u8 {
    KINDS.get(usize::from(byte)).copied().unwrap_or(0)
}

/// Whether a byte is of a kind.
pub(super) fn is(byte: u8, kind: u8) -> bool {
    of(byte) & kind != 0
}

#[expect(
    clippy::indexing_slicing,
    reason = "in a constant, what is out of bounds does not compile"
)]
static KINDS: [u8; 256] = {
    let mut kinds = [0; 256];
    let mut byte = 0_u8;
    while byte < 128 {
        kinds[byte as usize] = kinds_of(byte);
        byte += 1;
    }
    kinds
};

const fn kinds_of(byte: u8) -> u8 {
    let mut kinds = 0;
    if byte.is_ascii_digit() {
        kinds |= DIGIT;
    }
    if byte.is_ascii_alphanumeric() {
        kinds |= WORD | LEET;
    }
    if matches!(byte, b'@' | b'$' | b'!' | b'|' | b'+') {
        kinds |= LEET;
    }
    if byte.is_ascii_alphabetic() {
        kinds |= LETTER;
    }
    if byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/' | b'-' | b'_' | b'=') {
        kinds |= CODE;
        if !byte.is_ascii_hexdigit() && byte != b'x' {
            kinds |= BEYOND_HEX;
        }
    }
    let is_shown = !byte.is_ascii_control() || matches!(byte, b'\t' | b'\n' | b'\r');
    if is_shown && !matches!(byte, b'%' | b'&' | b'\\') {
        kinds |= PLAIN;
    }
    kinds
}

#[cfg(test)]
mod tests {
    use super::{CODE, DIGIT, PLAIN, is};

    #[test]
    fn bytes_are_of_their_kinds() {
        assert!(is(b'7', DIGIT) && is(b'7', CODE) && is(b'7', PLAIN) && !is(b'a', DIGIT));
        assert!(is(b'=', CODE) && !is(b' ', CODE) && is(b'\n', PLAIN));
        assert!(!is(b'%', PLAIN) && !is(0x07, PLAIN) && !is(0xc3, PLAIN | CODE | DIGIT));
    }
}
