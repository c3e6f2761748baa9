//! The checker against `serde_json`, on texts as they stand and cut everywhere.

use std::ops::Range;
use std::sync::Arc;

use serde_json::{Value, json};

use super::super::tests::{Dice, rule};
use super::super::{Action, Direction, Guardrails, Inspects, RuleSet, Verdict, Window};
use super::Json;

/// Where the text ceases to be JSON, as a checker says that is given these pieces.
fn place(pieces: &[&str]) -> Option<Range<usize>> {
    let mut json = Json::default();
    let found: Vec<Range<usize>> = pieces.iter().filter_map(|piece| json.push(piece)).collect();
    let ended = json.finish();
    assert!(found.len() < 2 && (found.is_empty() || ended.is_none()), "said twice: {pieces:?}");
    found.into_iter().next().or(ended)
}

/// What `serde_json` says; `None` for numbers that only a machine finds too large.
fn reads(text: &str) -> Option<Result<(), serde_json::Error>> {
    match serde_json::from_str::<Value>(text) {
        Ok(_) => Some(Ok(())),
        Err(error) if error.to_string().starts_with("number out of range") => None,
        Err(error) => Some(Err(error)),
    }
}

/// One of these ends what was begun, but for the arrays and objects around it.
const ENDINGS: [&str; 25] = [
    "",
    "0",
    "\"",
    "\"\":0",
    ":0",
    "n\"",
    "e",
    "se",
    "lse",
    "alse",
    "ue",
    "rue",
    "l",
    "ll",
    "ull",
    "0\"",
    "00\"",
    "000\"",
    "0000\"",
    "c00\"",
    "dc00\"",
    "udc00\"",
    "\\udc00\"",
    "00\\udc00\"",
    "0\\udc00\"",
];

/// Whether some text makes a value of what was read until now.
fn is_beginning(before: &str) -> bool {
    let mut json = Json::default();
    assert_eq!(json.push(before), None, "{before:?}");
    let is_object = |level: u32| json.open >> level & 1 == 1;
    let close: String =
        (0..json.depth).map(|level| if is_object(level) { '}' } else { ']' }).collect();
    ENDINGS.iter().any(|ending| {
        ["", ":0"].iter().any(|member| {
            reads(&format!("{before}{ending}{member}{close}")).is_none_or(|read| read.is_ok())
        })
    })
}

/// Checks everything that must hold for a text. Gives whether it is JSON.
fn check(text: &str) -> bool {
    let whole = place(&[text]);
    assert_eq!(place(&text.split("").collect::<Vec<_>>()), whole, "letter by letter: {text:?}");
    for (cut, _) in text.char_indices() {
        let (before, after) = text.split_at(cut);
        assert_eq!(place(&[before, "", after]), whole, "{before:?}, {after:?}");
    }
    if text.is_empty() {
        assert_eq!(whole, None, "no text is no broken one");
        return false;
    }
    if let Some(read) = reads(text) {
        assert_eq!(whole.is_none(), read.is_ok(), "{text:?}: {whole:?}, {read:?}");
        // `serde_json` reads four digits before it looks at them, so it may notice later.
        if let (Some(place), Err(error)) = (&whole, &read) {
            assert!(error.is_eof() || place.start < text.len(), "{text:?}: {error}");
        }
    }
    if let Some(place) = &whole {
        let (before, _) = text.split_at(place.start);
        assert!(is_beginning(before), "no value begins so: {before:?}");
        let (with, _) = text.split_at(place.end);
        let read = reads(with);
        assert!(read.is_none_or(|read| read.is_err()), "{with:?} is JSON, said {place:?}");
    }
    whole.is_none()
}

#[test]
fn takes_what_serde_json_takes() {
    for text in [
        "0",
        "-0",
        "12",
        "-1.5",
        "0.25e10",
        "1E+2",
        "1e-2",
        "true",
        "false",
        "null",
        "\"\"",
        "[]",
        "{}",
        " \t\r\n[ ] \n",
        "[1, 2 ,3]",
        "{\"a\":1 , \"b\" : [ {} , [] ]}",
        "\"ünï 🍃 \u{7f}\u{2028}\"",
        r#""\"\\\/\b\f\n\r\t""#,
        r#""\u0041\u00e9\uD83D\uDE00""#,
        r#""\ud7ff\ue000\uFFFF\u0000""#,
        r#"{"\u0061":{"":null},"":[]}"#,
        "[[[[[[[[]]]]]]]]",
        r#"{"a":{"a":{"a":{"a":[true]}}}}"#,
        "[-1]",
        "[0,1e1,true,\"\"]",
        r#"{"a":1,"a":2}"#,
    ] {
        assert!(check(text), "{text:?}");
    }
}

#[test]
fn says_where_a_text_ceases_to_be_json() {
    for (text, expected) in [
        (" ", 1..1),
        ("{", 1..1),
        ("[1,", 3..3),
        ("{\"a\"", 4..4),
        ("\"ab", 3..3),
        ("tru", 3..3),
        ("-", 1..1),
        ("1.", 2..2),
        ("1e", 2..2),
        ("\"\\ud83d\"", 7..8),
        ("Here it is: {}", 0..1),
        ("```json\n{}\n```", 0..1),
        ("{} {}", 3..4),
        ("{}\n```", 3..4),
        ("été", 0..2),
        ("[1 🍃]", 3..7),
        ("\u{feff}{}", 0..3),
        ("\u{a0}1", 0..2),
        ("01", 1..2),
        ("-01", 2..3),
        ("+1", 0..1),
        (".5", 0..1),
        ("1.e", 2..3),
        ("1.5.", 3..4),
        ("1ee", 2..3),
        ("1e+-", 3..4),
        ("[1,]", 3..4),
        ("[,", 1..2),
        ("{,", 1..2),
        ("{\"a\":1,}", 7..8),
        ("{\"a\",", 4..5),
        ("{a", 1..2),
        ("{'a'", 1..2),
        ("{1", 1..2),
        ("[}", 1..2),
        ("[1}", 2..3),
        ("{\"a\":1]", 6..7),
        ("]", 0..1),
        ("\"a\nb\"", 2..3),
        ("\"\u{0}\"", 1..2),
        ("\"\\x41\"", 2..3),
        ("\"\\é\"", 2..4),
        ("\"\\u00g0\"", 5..6),
        ("\"\\udc00\"", 4..5),
        ("\"\\ud83dx\"", 7..8),
        ("\"\\ud83d\\n\"", 8..9),
        ("\"\\ud83d\\ud83d\"", 10..11),
        ("\"\\ud83d\\u0041\"", 9..10),
        ("True", 0..1),
        ("nul1", 3..4),
        ("nulll", 4..5),
        ("NaN", 0..1),
        ("[1] // one", 4..5),
        ("\u{c}1", 0..1),
    ] {
        assert!(!check(text), "{text:?}");
        assert_eq!(place(&[text]), Some(expected), "{text:?}");
    }
}

#[test]
fn is_as_deep_as_serde_json() {
    for (open, close) in [("[", "]"), ("{\"a\":", "}")] {
        let nested = |depth: usize| {
            let inner = if open == "[" { "" } else { "1" };
            format!("{}{inner}{}", open.repeat(depth), close.repeat(depth))
        };
        assert!(check(&nested(127)) && !check(&nested(128)), "{open}");
        assert_eq!(place(&[&nested(128)]).unwrap().start, open.len() * 127);
    }
}

#[test]
fn numbers_are_those_of_the_grammar() {
    for text in ["1e999", "-1e400", "[123456789012345678901234567890e300]"] {
        assert!(reads(text).is_none() && check(text), "{text}");
    }
}

#[test]
fn three_pieces_say_what_one_says() {
    for text in [r#" {"a\ud83d\ude00é": [-1.5e+3, true, null]} "#, r#"[{"b":"\u00e9"},01]"#] {
        let whole = place(&[text]);
        let cuts: Vec<usize> = (0..=text.len()).filter(|at| text.is_char_boundary(*at)).collect();
        for first in &cuts {
            for second in cuts.iter().filter(|second| *second >= first) {
                let (before, rest) = text.split_at(*first);
                let (middle, after) = rest.split_at(second - first);
                assert_eq!(place(&[before, middle, after]), whole, "{before}|{middle}|{after}");
            }
        }
    }
}

const TOKENS: [&str; 44] = [
    "{", "}", "[", "]", ",", ":", "\"", "\"", "\\", "\\\"", "\\n", "\\u", "\\ud83d", "\\ude00",
    "d8", "DC", "00", "0", "1", "29", "-", ".", "e", "E", "+", "true", "false", "null", "tr", "ul",
    "l", "x", " ", "\n", "\t", "\r", "\u{1}", "\u{b}", "é", "🍃", "/", "\"a\"", "\"b\":", "\u{a0}",
];

fn value(dice: &mut Dice, depth: usize) -> String {
    let space = [" ", "", "", "\n\t"][dice.below(4)];
    let plain = [
        "0",
        "-12.5e1",
        "1E9",
        "true",
        "null",
        "false",
        "\"\"",
        "\"é\\n\"",
        r#""\uD83d\ude00 \u0041""#,
    ];
    let kinds = if depth > 3 { 1 } else { 3 };
    let inner = match dice.below(kinds) {
        0 => plain[dice.below(plain.len())].to_owned(),
        1 => {
            let items: Vec<String> = (0..dice.below(4)).map(|_| value(dice, depth + 1)).collect();
            format!("[{space}{}]", items.join(","))
        }
        _ => {
            let member =
                |dice: &mut Dice| format!("{space}\"n\\u00e9\"{space}:{}", value(dice, depth + 1));
            let members: Vec<String> = (0..dice.below(4)).map(|_| member(dice)).collect();
            format!("{{{}{space}}}", members.join(","))
        }
    };
    format!("{space}{inner}{space}")
}

#[test]
fn generated_texts_are_what_serde_json_says() {
    let mut dice = Dice(0x9e37_79b9_7f4a_7c15);
    let (mut whole, mut broken) = (0, 0);
    for _ in 0..20_000 {
        let mut text = match dice.below(3) {
            0 => (0..dice.below(9)).map(|_| TOKENS[dice.below(TOKENS.len())]).collect(),
            _ => value(&mut dice, 0),
        };
        text.truncate(text.floor_char_boundary(300));
        for _ in 0..dice.below(3) {
            let at = text.floor_char_boundary(dice.below(text.len() + 1));
            if dice.below(2) == 0 && at < text.len() {
                text.remove(at);
            } else {
                text.insert_str(at, TOKENS[dice.below(TOKENS.len())]);
            }
        }
        *(if check(&text) { &mut whole } else { &mut broken }) += 1;
    }
    assert!(whole > 5_000 && broken > 5_000, "both must be met: {whole}, {broken}");
}

fn guardrails() -> Arc<Guardrails> {
    let rules = vec![
        rule("blocks", true, json!({"requires_json": true})),
        rule("warns", false, json!({"requires_json": true, "literals": ["falcon"]})),
        rule("redacts", false, json!({"requires_json": true, "action": "redact"})),
        rule("watches", true, json!({"requires_json": true, "mode": "shadow"})),
        rule("other", true, json!({"literals": ["heron"]})),
    ];
    Arc::new(Guardrails::compile(rules).unwrap())
}

fn only(guardrails: &Guardrails, names: &[&str]) -> RuleSet {
    let all = guardrails.select(Direction::Response, Inspects::Untrusted, None);
    all.only(|rule| names.contains(&guardrails.rules()[rule].name.as_str()))
}

#[test]
fn a_rule_does_what_it_does_about_anything_else() {
    let guardrails = guardrails();
    for (name, text, verdict, effect) in [
        ("blocks", "{} x", Verdict::Block, "block"),
        ("warns", "{} x", Verdict::Warn, "warn"),
        ("redacts", "{} x", Verdict::Block, "block"),
        ("watches", "{} x", Verdict::Allow, "shadow_block"),
        ("blocks", "{\"a\":", Verdict::Block, "block"),
        ("blocks", " {} ", Verdict::Allow, ""),
        ("blocks", "", Verdict::Allow, ""),
        ("other", "{} x", Verdict::Allow, ""),
    ] {
        let found = guardrails.scan_whole(text, &only(&guardrails, &[name]));
        assert_eq!(guardrails.judge(&found), verdict, "{name}: {text}");
        assert_eq!(
            found.first().map_or("", |one| guardrails.effect(one)),
            effect,
            "{name}: {text}"
        );
        assert!(found.iter().all(|one| guardrails.entity(one) == "json"), "{name}: {found:?}");
    }
}

#[test]
fn only_answers_are_looked_at() {
    let guardrails = guardrails();
    let asked = guardrails.select(Direction::Request, Inspects::Untrusted, None);
    let names: Vec<&str> =
        asked.iter().map(|rule| guardrails.rules()[rule].name.as_str()).collect();
    assert_eq!(names, ["warns", "other"], "those that look for something else too");
    assert!(guardrails.scan_whole("no JSON", &asked).is_empty());
}

#[test]
fn a_stream_decides_like_the_whole_and_holds_nothing_else_back() {
    let guardrails = guardrails();
    for names in
        [&["blocks", "warns"][..], &["redacts", "other"], &["warns", "watches"], &["other"]]
    {
        let rules = Arc::new(only(&guardrails, names));
        for text in [r#" {"a": [1, "b"]} "#, r#"{"a": 1} é"#, r#"{"a": ["#, r#"{"the heron": tru}"#]
        {
            let expected = guardrails.scan_whole(text, &rules);
            let acted_on: Vec<usize> = expected
                .iter()
                .filter(|one| guardrails.entity(one) == "json")
                .filter(|one| guardrails.action(one).is_some_and(|action| action != Action::Warn))
                .map(|one| one.start)
                .collect();
            let first = acted_on.iter().copied().min().unwrap_or(usize::MAX);
            for (cut, _) in text.char_indices() {
                let mut window = Window::of_candidate(guardrails.clone(), rules.clone());
                let mut found = Vec::new();
                let (before, after) = text.split_at(cut);
                for (piece, end) in [(before, cut), (after, text.len())] {
                    let progress = window.push(piece);
                    assert!(progress.safe_to <= first, "{names:?} {text:?} at {cut}: {progress:?}");
                    let holds = names.contains(&"other");
                    assert!(holds || progress.safe_to == end.min(first), "{names:?} {text:?}");
                    found.extend(progress.findings);
                }
                let may_end = !window.breaks_off();
                let last = window.finish();
                assert!(
                    may_end || last.findings.iter().any(|one| guardrails.entity(one) == "json")
                );
                assert!(last.safe_to <= first, "{names:?} {text:?} at {cut}: {last:?}");
                found.extend(last.findings);
                found.sort();
                assert_eq!(found, expected, "{names:?} {text:?} at {cut}");
            }
        }
    }
}
