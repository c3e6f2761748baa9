//! SHA-256 in lower-case hex: proof of a body sent, of a template's content, of a token.

use serde_json::{Map, Number, Value};
use sha2::{Digest, Sha256};

/// Up to here a float holds every whole number exactly.
const EXACT_MAX: f64 = 9_007_199_254_740_992.0;

/// The 32 bytes of SHA-256.
pub fn sha256(bytes: &[u8]) -> [u8; 32] {
    Sha256::digest(bytes).into()
}

/// SHA-256 of several texts, each behind its length, so that no two lists make one.
pub fn sha256_parts(parts: &[&[u8]]) -> [u8; 32] {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update((part.len() as u64).to_le_bytes());
        hash.update(part);
    }
    hash.finalize().into()
}

/// SHA-256 as 64 lower-case hex digits.
pub fn sha256_hex(bytes: &[u8]) -> String {
    hex(&sha256(bytes))
}

/// A JSON value in the one form that all its spellings share: members sorted by name, whole numbers without
/// a fraction. PostgreSQL's `jsonb` and TOML keep neither as it was written.
pub fn canonical(value: &Value) -> Value {
    match value {
        Value::Object(members) => {
            let mut sorted: Vec<(&String, &Value)> = members.iter().collect();
            sorted.sort_unstable_by_key(|(name, _)| *name);
            let sorted = sorted.into_iter().map(|(name, value)| (name.clone(), canonical(value)));
            Value::Object(sorted.collect::<Map<_, _>>())
        }
        Value::Array(items) => items.iter().map(canonical).collect(),
        Value::Number(number) => Value::Number(whole(number).unwrap_or_else(|| number.clone())),
        Value::Null | Value::Bool(_) | Value::String(_) => value.clone(),
    }
}

fn whole(number: &Number) -> Option<Number> {
    let float = number.as_f64().filter(|_| number.is_f64())?;
    let is_whole = float.fract() == 0.0 && float.abs() <= EXACT_MAX;
    is_whole.then(|| format!("{float:.0}").parse::<i64>().ok()).flatten().map(Number::from)
}

/// Lower-case hex of any bytes.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        for nibble in [byte >> 4, byte & 0x0f] {
            text.push(char::from_digit(u32::from(nibble), 16).unwrap_or('0'));
        }
        text
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{canonical, sha256_hex};

    #[test]
    fn all_spellings_of_a_value_are_one() {
        for (one, other) in [
            (
                r#"{"b":1,"a":{"d":[{"y":1,"x":2}],"c":null}}"#,
                r#"{"a":{"c":null,"d":[{"x":2,"y":1}]},"b":1}"#,
            ),
            ("[1e2, -3.0, -0.0]", "[100, -3, 0]"),
        ] {
            let read = |text| canonical(&serde_json::from_str(text).unwrap()).to_string();
            assert_eq!(read(one), read(other));
        }
        assert_eq!(canonical(&json!([0.5, 1e300, "1.0"])), json!([0.5, 1e300, "1.0"]));
    }

    #[test]
    fn known_answer() {
        assert_eq!(
            sha256_hex(b"abc"),
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        );
    }
}
