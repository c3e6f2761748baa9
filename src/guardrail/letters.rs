//! What a letter looks like to a reader: the plain one behind fullwidth forms, accents, look-alikes of
//! other alphabets, styled letters, and the characters nobody sees.
//!
//! Compatibility forms come from Unicode's own tables (NFKD), look-alikes from the list below. A letter is
//! folded to ASCII or left alone: marks of Thai, Hebrew, Devanagari and other scripts that need them stay.

use std::collections::HashMap;
use std::sync::LazyLock;

use unicode_normalization::char::{decompose_compatible, is_combining_mark};

/// What stands for a character in the folded text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Folded {
    /// The character itself.
    Same,
    /// Nothing: it cannot be seen.
    Gone,
    /// These ASCII characters.
    Ascii(&'static str),
    /// The small letter of a capital one that is not ASCII: case is a disguise in every script.
    Small(char),
}

/// Look-alikes: the ASCII letter, then the letters of other alphabets that pass for it.
const LOOK_ALIKES: [(&str, &str); 75] = [
    ("A", "АΑᎪꓮꭺ"),
    ("B", "ВΒᏴꓐꞴ"),
    ("C", "СϹᏟꓚᑕ"),
    ("D", "Ꭰꓓᗞ"),
    ("E", "ЕΕᎬꓰ"),
    ("F", "ꓝϜᖴ"),
    ("G", "ᏀꓖԌ"),
    ("H", "НΗᎻꓧ"),
    ("I", "ІΙӀᏆꓲ"),
    ("J", "ЈᎫꓙͿ"),
    ("K", "КΚᏦꓗ"),
    ("L", "ᏞꓡᒪԼ"),
    ("M", "МΜᎷꓟᗰ"),
    ("N", "Νꓠ"),
    ("O", "ОΟՕꓳ"),
    ("P", "РΡᏢꓑ"),
    ("Q", "Ԛ"),
    ("R", "ᎡᏒꓣᖇ"),
    ("S", "ЅᏚꓢՏ"),
    ("T", "ТΤᎢꓔ"),
    ("U", "ꓴՍᑌ"),
    ("V", "ᏙꓦѴᐯ"),
    ("W", "ᎳᏔꓪԜ"),
    ("X", "ХΧꓫ"),
    ("Y", "УΥҮᎽᎩꓬ"),
    ("Z", "ΖᏃꓜ"),
    ("a", "аαɑᴀ"),
    ("b", "ʙᏏƅЬвβ"),
    ("c", "сϲᴄ"),
    ("d", "ԁᴅɗđ"),
    ("e", "еεᴇɛҽє"),
    ("f", "ꜰƒ"),
    ("g", "ɡɢցǥ"),
    ("h", "һʜհħᏂн"),
    ("i", "іιıɪɩᎥ"),
    ("j", "јᴊյ"),
    ("k", "кκᴋ"),
    ("l", "ӏʟłǀⅼ"),
    ("m", "мᴍ"),
    ("n", "ոռɴηп"),
    ("o", "оοօᴏøσ"),
    ("p", "рρᴘ"),
    ("q", "ԛզգǫ"),
    ("r", "ʀгɾ"),
    ("s", "ѕꜱ"),
    ("t", "тτᴛŧ"),
    ("u", "սυᴜʋ"),
    ("v", "νѵᴠ"),
    ("w", "ԝᴡաω"),
    ("x", "хχ"),
    ("y", "уγʏү"),
    ("z", "ᴢʐ"),
    ("ae", "æ"),
    ("AE", "Æ"),
    ("oe", "œ"),
    ("OE", "Œ"),
    ("ss", "ß"),
    ("th", "þ"),
    ("D", "ĐÐ"),
    ("d", "ð"),
    ("O", "Ø"),
    ("L", "Ł"),
    ("H", "Ħ"),
    ("T", "Ŧ"),
    ("'", "‘’‚‛′´ʼ＇"),
    ("\"", "“”„‟″«»"),
    ("-", "‐‑‒–—―−"),
    ("...", "…"),
    ("/", "⁄∕"),
    ("*", "•∙⁎∗"),
    (":", "ː։"),
    (",", "，、"),
    (".", "。․"),
    ("|", "∣│"),
    (" ", "\u{1680}\u{2028}\u{2029}"),
];

/// Characters nobody sees: format characters, fillers, variation selectors, tags, and controls but for
/// white space and U+0000, which stands between texts that do not belong together.
const UNSEEN: [(u32, u32); 24] = [
    (0x01, 0x08),
    (0x0b, 0x0c),
    (0x0e, 0x1f),
    (0x7f, 0x9f),
    (0xad, 0xad),
    (0x34f, 0x34f),
    (0x61c, 0x61c),
    (0x115f, 0x1160),
    (0x17b4, 0x17b5),
    (0x180b, 0x180f),
    (0x200b, 0x200f),
    (0x202a, 0x202e),
    (0x2060, 0x206f),
    (0x2800, 0x2800),
    (0x3164, 0x3164),
    (0xfe00, 0xfe0f),
    (0xfeff, 0xfeff),
    (0xffa0, 0xffa0),
    (0xfff9, 0xfffb),
    (0x1_bca0, 0x1_bca3),
    (0x1_d173, 0x1_d17a),
    (0xe_0000, 0xe_001f),
    (0xe_007f, 0xe_00ff),
    (0xe_0100, 0xe_01ef),
];

/// Marks put over, under and through Latin, Greek and Cyrillic letters.
const MARKS: [(u32, u32); 5] =
    [(0x300, 0x36f), (0x1ab0, 0x1aff), (0x1dc0, 0x1dff), (0x20d0, 0x20ff), (0xfe20, 0xfe2f)];

/// The zero of decimal digits that other scripts write.
const ZEROS: [u32; 12] =
    [0x660, 0x6f0, 0x7c0, 0x966, 0x9e6, 0xa66, 0xae6, 0xb66, 0xbe6, 0xc66, 0xe50, 0x17e0];

/// ASCII letters drawn in boxes and discs that Unicode does not decompose, as a first character.
const DRAWN: [(u32, u8); 4] =
    [(0x1_f150, b'A'), (0x1_f170, b'A'), (0x1_f1e6, b'A'), (0x1_f130, b'A')];

/// Tag characters repeat ASCII where nobody sees it.
const TAGS: (u32, u32) = (0xe_0020, 0xe_007e);

/// What stands for a character in the folded text.
pub(super) fn folded(letter: char) -> Folded {
    if letter.is_ascii() && !letter.is_ascii_control() {
        return Folded::Same;
    }
    let mut small = letter.to_lowercase();
    match (TABLE.get(letter), small.next(), small.next()) {
        (Folded::Same, Some(small), None) if small != letter => match TABLE.get(small) {
            Folded::Same => Folded::Small(small),
            folded => folded,
        },
        (folded, ..) => folded,
    }
}

/// Whether folding a character changes how a text reads: not for typographic quotes, dashes and spaces.
pub(super) fn is_disguise(letter: char) -> bool {
    match folded(letter) {
        Folded::Same => false,
        Folded::Gone | Folded::Small(_) => true,
        Folded::Ascii(text) => text.bytes().any(|byte| byte.is_ascii_alphanumeric()),
    }
}

/// Whether a character that passes for an ASCII sign or a space does so within a number or an address, where the
/// plain one belongs: `536–22–8745`, `joe＠example.com`. Quotes, and dashes between words, are typography.
pub(super) fn is_sign_behind(letter: char, before: char) -> bool {
    let Folded::Ascii(sign) = folded(letter) else { return false };
    match sign {
        "'" | "\"" => false,
        "-" | "..." | "," => before.is_ascii_digit(),
        " " if matches!(letter, '\u{a0}' | '\u{202f}') => before.is_ascii_digit(),
        _ => before.is_ascii_alphanumeric(),
    }
}

static TABLE: LazyLock<Table> = LazyLock::new(Table::new);

/// Indices into the texts: 0 for the same, 1 for gone, then the ASCII texts.
struct Table {
    texts: Vec<&'static str>,
    /// U+0000 to U+FFFF.
    low: Vec<u16>,
    high: HashMap<u32, u16>,
}

impl Table {
    fn get(&self, letter: char) -> Folded {
        let code = u32::from(letter);
        let index = usize::try_from(code).ok().and_then(|at| self.low.get(at).copied());
        match index.or_else(|| self.high.get(&code).copied()).unwrap_or(0) {
            0 => Folded::Same,
            1 => Folded::Gone,
            index => {
                self.texts.get(usize::from(index)).map_or(Folded::Same, |text| Folded::Ascii(text))
            }
        }
    }

    /// A few milliseconds, once a process.
    fn new() -> Self {
        let listed: HashMap<char, &'static str> = LOOK_ALIKES
            .iter()
            .flat_map(|(ascii, letters)| letters.chars().map(|letter| (letter, *ascii)))
            .collect();
        let mut table = Self { texts: vec!["", ""], low: vec![0; 0x1_0000], high: HashMap::new() };
        let mut known: HashMap<String, u16> = HashMap::new();
        let planes = (0..0x2_0000).chain(0xe_0000..0xe_0200);
        for letter in planes.filter_map(char::from_u32) {
            let index = if is_unseen(letter) {
                1
            } else {
                match ascii(letter, &listed) {
                    None => continue,
                    Some(text) => *known.entry(text).or_insert_with_key(|text| {
                        table.texts.push(String::leak(text.clone()));
                        u16::try_from(table.texts.len() - 1).unwrap_or(0)
                    }),
                }
            };
            let code = u32::from(letter);
            match usize::try_from(code).ok().and_then(|at| table.low.get_mut(at)) {
                Some(slot) => *slot = index,
                None => drop(table.high.insert(code, index)),
            }
        }
        table
    }
}

fn within(ranges: &[(u32, u32)], letter: char) -> bool {
    ranges.iter().any(|(first, last)| (*first..=*last).contains(&u32::from(letter)))
}

fn is_unseen(letter: char) -> bool {
    within(&UNSEEN, letter) || within(&MARKS, letter)
}

/// The ASCII text that a character passes for, if it is not ASCII itself.
fn ascii(letter: char, listed: &HashMap<char, &'static str>) -> Option<String> {
    if letter.is_ascii() {
        return None;
    }
    if let Some(ascii) = listed.get(&letter) {
        return Some((*ascii).to_owned());
    }
    let code = u32::from(letter);
    if within(&[TAGS], letter) {
        return char::from_u32(code - 0xe_0000).map(String::from);
    }
    if let Some(zero) = ZEROS.iter().find(|zero| (**zero..**zero + 10).contains(&code)) {
        return char::from_digit(code - zero, 10).map(String::from);
    }
    if let Some((first, letter)) =
        DRAWN.iter().find(|(first, _)| (*first..first + 26).contains(&code))
    {
        return char::from_u32(code - first + u32::from(*letter)).map(String::from);
    }
    let mut text = String::new();
    decompose_compatible(letter, |part| match listed.get(&part) {
        Some(ascii) => text.push_str(ascii),
        None if is_combining_mark(part) && within(&MARKS, part) => {}
        None => text.push(part),
    });
    let text = match text.strip_prefix('(').and_then(|text| text.strip_suffix(')')) {
        Some(inner) if !inner.is_empty() => inner.to_owned(),
        _ => text,
    };
    (text.is_ascii() && !text.is_empty()).then_some(text)
}

#[cfg(test)]
mod tests {
    use super::{Folded, folded, is_disguise};

    fn fold(text: &str) -> String {
        text.chars()
            .map(|letter| match folded(letter) {
                Folded::Same => letter.to_string(),
                Folded::Small(small) => small.to_string(),
                Folded::Gone => String::new(),
                Folded::Ascii(text) => text.to_owned(),
            })
            .collect()
    }

    #[test]
    fn disguised_letters_read_as_what_they_look_like() {
        for (text, plain) in [
            ("ｉｇｎｏｒｅ", "ignore"),
            ("іgnоrе", "ignore"),
            ("ιgnοrε", "ignore"),
            ("𝐢𝓰𝕟𝖔𝗋𝚎", "ignore"),
            ("ⓘⓖⓝⓞⓡⓔ", "ignore"),
            ("⒤⒢", "ig"),
            ("🅸🅶🅝🅞", "IGNO"),
            ("ɪɢɴᴏʀᴇ", "ignore"),
            ("i\u{200b}g\u{ad}n\u{2060}o\u{feff}re", "ignore"),
            ("i\u{301}g\u{336}n\u{20dd}ore", "ignore"),
            ("ﬁle", "file"),
            ("\u{e0069}\u{e0067}", "ig"),
            ("précédentes", "precedentes"),
            ("٠١٢٣ ०१२", "0123 012"),
            ("don’t — “x”", "don't - \"x\""),
            ("ЖЩЮ", "жщю"),
        ] {
            assert_eq!(fold(text), plain, "{text}");
        }
    }

    #[test]
    fn scripts_keep_their_own() {
        for text in ["สวัสดีครับ", "שָׁלוֹם", "नमस्ते", "こんにちは 日本語", "안녕하세요", "मैं"]
        {
            assert_eq!(fold(text), text);
            assert!(!text.chars().any(is_disguise), "{text}");
        }
        assert!(!"don’t — “x” … •".chars().any(is_disguise));
    }
}
