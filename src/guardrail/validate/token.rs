//! Tokens and addresses that carry a checksum, and what only looks like a secret.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sha2::{Digest as _, Sha256};

/// GitHub's token format of 2021: CRC-32 of the random part in base 62.
pub(super) fn github(text: &str) -> bool {
    let body = text.split_once('_').map_or("", |(_, body)| body);
    let (Some(random), Some(check)) = (body.get(..30), body.get(30..)) else { return false };
    let value = check.bytes().try_fold(0_u64, |sum, letter| Some(sum * 62 + base62(letter)?));
    check.len() == 6 && value == Some(u64::from(crc32(random.as_bytes())))
}

fn base62(letter: u8) -> Option<u64> {
    Some(u64::from(match letter {
        b'0'..=b'9' => letter - b'0',
        b'A'..=b'Z' => letter - b'A' + 10,
        b'a'..=b'z' => letter - b'a' + 36,
        _ => return None,
    }))
}

/// ISO 3309, reflected, bit by bit.
fn crc32(bytes: &[u8]) -> u32 {
    let step = |crc: u32, _| (crc >> 1) ^ if crc & 1 == 1 { 0xedb8_8320 } else { 0 };
    !bytes.iter().fold(u32::MAX, |crc, byte| (0..8).fold(crc ^ u32::from(*byte), step))
}

/// RFC 7519: the header is a JSON object that names an algorithm.
pub(super) fn jwt(text: &str) -> bool {
    let header = text.split('.').next().unwrap_or_default();
    let decoded = URL_SAFE_NO_PAD.decode(header).unwrap_or_default();
    let json: Option<serde_json::Value> = serde_json::from_slice(&decoded).ok();
    json.is_some_and(|json| json.get("alg").is_some_and(serde_json::Value::is_string))
}

/// Bitcoin's `Base58Check`: four bytes of a double SHA-256 behind 21 bytes.
pub(super) fn base58check(text: &str) -> bool {
    let Some(bytes) = base58(text) else { return false };
    let Some((payload, check)) = bytes.split_last_chunk::<4>() else { return false };
    let hash = Sha256::digest(Sha256::digest(payload));
    matches!(bytes.first(), Some(0x00 | 0x05 | 0x6f | 0xc4)) && hash.starts_with(check)
}

/// The 25 bytes of an address.
fn base58(text: &str) -> Option<[u8; 25]> {
    const LETTERS: &str = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz";
    let mut bytes = [0; 25];
    for letter in text.chars() {
        let mut carry = u16::try_from(LETTERS.find(letter)?).ok()?;
        for byte in bytes.iter_mut().rev() {
            let [high, low] = (u16::from(*byte) * 58 + carry).to_be_bytes();
            (*byte, carry) = (low, u16::from(high));
        }
        if carry > 0 {
            return None;
        }
    }
    Some(bytes)
}

/// Bitcoin improvement proposals 173 and 350.
pub(super) fn bech32(text: &str) -> bool {
    const LETTERS: &str = "qpzry9x8gf2tvdw0s3jn54khce6mua7l";
    let text = text.to_ascii_lowercase();
    let Some((network, data)) = text.rsplit_once('1') else { return false };
    let high = network.bytes().map(|letter| u32::from(letter >> 5));
    let low = network.bytes().map(|letter| u32::from(letter & 31));
    let place = |letter| LETTERS.find(letter).and_then(|at| u32::try_from(at).ok());
    let Some(data) = data.chars().map(place).collect::<Option<Vec<u32>>>() else { return false };
    let sum = high.chain([0]).chain(low).chain(data).fold(1, polynomial);
    matches!(sum, 1 | 0x2bc8_30a3)
}

/// One step of the checksum over the field of 32.
fn polynomial(sum: u32, value: u32) -> u32 {
    const GENERATOR: [u32; 5] = [0x3b6a_57b2, 0x2650_8e6d, 0x1ea1_19fa, 0x3d42_33dd, 0x2a14_62b3];
    let shifted = ((sum & 0x01ff_ffff) << 5) ^ value;
    let top = sum >> 25;
    let set = GENERATOR.iter().enumerate().filter(|(bit, _)| (top >> bit) & 1 == 1);
    set.fold(shifted, |sum, (_, word)| sum ^ word)
}

/// Ethereum's 20 bytes in hexadecimal, in any case; not the zero address.
pub(super) fn eth(text: &str) -> bool {
    let digits = text.get(2..).unwrap_or_default();
    digits.len() == 40
        && digits.chars().all(|letter| letter.is_ascii_hexdigit())
        && digits.bytes().any(|letter| Some(&letter) != digits.as_bytes().first())
}

/// Words in a value that stands for a secret and is none.
const PLACEHOLDERS: [&str; 25] = [
    "your",
    "example",
    "placeholder",
    "changeme",
    "change_me",
    "change-me",
    "dummy",
    "redacted",
    "insert",
    "xxxx",
    "****",
    "....",
    "____",
    "undefined",
    "getenv",
    "environ",
    "process.",
    "config.",
    "settings.",
    "localhost",
    "replace",
    "enter_",
    "secret_name",
    "aaaaaaaa",
    "0000000000",
];

/// A credential mixes letters with digits or signs; it is no UUID, no placeholder, no name and no
/// piece of code.
pub(super) fn secret(text: &str) -> bool {
    is_value(text) && !is_name(text)
}

/// What a person chose: a word is enough when a digit or a sign makes it a password.
pub(super) fn password(text: &str) -> bool {
    let plain = |letter: char| letter.is_alphabetic() || "_-./ ,:;?'".contains(letter);
    is_value(text) && text.chars().count() > 5 && !text.chars().all(plain)
}

/// Neither a placeholder nor code nor the beginning of a UUID (RFC 9562), which names a thing.
fn is_value(text: &str) -> bool {
    let lower = text.to_ascii_lowercase();
    let is_code = lower.contains(['(', '<', '{', '[', '`']) || lower.starts_with(['$', '%', '&']);
    let groups = lower.split('-').map(str::len).take(3);
    let is_uuid = groups.eq([8, 4, 4])
        && lower.chars().all(|letter| letter.is_ascii_hexdigit() || letter == '-');
    !is_code && !is_uuid && !PLACEHOLDERS.iter().any(|word| lower.contains(word))
}

/// Whether a text is words joined as in a program: `camelCase`, `snake_case`, `a/path.txt`. A short
/// piece that is no word may be a version or a hash at the end of a name.
fn is_name(text: &str) -> bool {
    text.split(|letter: char| !letter.is_ascii_alphanumeric())
        .all(|piece| is_word(piece) || piece.len() < 8)
}

/// A word has few digits, few turns to capitals and no end that never comes.
fn is_word(word: &str) -> bool {
    let letters = word.trim_end_matches(|letter: char| letter.is_ascii_digit());
    let digits = word.len() - letters.len();
    let inner = letters.bytes().filter(u8::is_ascii_digit).count();
    let turns = count(letters, |pair| matches!(pair, [b'a'..=b'z', b'A'..=b'Z']));
    let mixes = count(letters, |pair| match pair {
        [left, right] => left.is_ascii_digit() != right.is_ascii_digit(),
        _ => false,
    });
    let longest = if inner == 1 { 20 } else { 9 };
    let reads_well = inner == 0 || (mixes < 3 && word.len() < longest);
    let is_short = letters.len() < 20 * (turns + 1) && turns * 3 <= word.len();
    reads_well && is_short && digits < if letters.is_empty() { 5 } else { 4 }
}

/// How many neighbours are like this.
fn count(word: &str, like: impl Fn(&[u8]) -> bool) -> usize {
    word.as_bytes().windows(2).filter(|pair| like(pair)).count()
}
