//! JSON bodies read so that nothing in them is lost: of a member that stands twice, one value would win and
//! the author would not know which.

use std::fmt;

use serde::de::{Deserialize, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};

/// Reads a document; refuses a member that stands twice in one object.
pub(super) fn read(bytes: &[u8]) -> Result<Value, serde_json::Error> {
    serde_json::from_slice(bytes).map(|Unique(value)| value)
}

struct Unique(Value);

impl<'de> Deserialize<'de> for Unique {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Reader).map(Self)
    }
}

struct Reader;

impl<'de> Visitor<'de> for Reader {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, flag: bool) -> Result<Value, E> {
        Ok(flag.into())
    }

    fn visit_u64<E>(self, number: u64) -> Result<Value, E> {
        Ok(number.into())
    }

    fn visit_i64<E>(self, number: i64) -> Result<Value, E> {
        Ok(number.into())
    }

    fn visit_f64<E>(self, number: f64) -> Result<Value, E> {
        Ok(number.into())
    }

    fn visit_str<E>(self, text: &str) -> Result<Value, E> {
        Ok(text.into())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut read = Vec::new();
        while let Some(Unique(item)) = items.next_element()? {
            read.push(item);
        }
        Ok(Value::Array(read))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Value, A::Error> {
        let mut read = Map::new();
        while let Some(name) = members.next_key::<String>()? {
            if read.contains_key(&name) {
                let name: String = name.chars().take(64).collect();
                return Err(A::Error::custom(format_args!("{name:?} stands twice in one object")));
            }
            let Unique(value) = members.next_value()?;
            read.insert(name, value);
        }
        Ok(Value::Object(read))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::read;

    #[test]
    fn reads_what_serde_reads() {
        for text in [
            r#"{"b":[1,-2,0.5,1e300,18446744073709551615],"a":{"x":null,"y":"\u00e9"}}"#,
            "true",
            "[]",
        ] {
            let plain: Value = serde_json::from_str(text).unwrap();
            assert_eq!(read(text.as_bytes()).unwrap().to_string(), plain.to_string());
        }
        assert!(read(b"{\"a\":1}x").is_err() && read(br#""\ud800""#).is_err());
        assert!(read("[".repeat(100_000).as_bytes()).is_err(), "too deep");
    }

    #[test]
    fn a_member_that_stands_twice_is_named() {
        for text in [r#"{"a":1,"b":{},"a":2}"#, r#"[{"x":{"\u0061":1,"a":1}}]"#] {
            let error = read(text.as_bytes()).unwrap_err();
            assert!(error.is_data() && error.to_string().contains("\"a\" stands twice"), "{error}");
        }
        assert!(read(br#"{"a":{"a":1}}"#).is_ok());
    }
}
