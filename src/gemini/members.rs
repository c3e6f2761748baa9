//! An object whose members can be replaced while everything else keeps its bytes.

use std::borrow::Cow;
use std::ops::Range;

use super::json::{camel, quote, string_end, unquote};

/// The members of one JSON object, each value kept as the text it came as.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Members<'a> {
    members: Vec<(Cow<'a, str>, Cow<'a, str>)>,
}

impl<'a> Members<'a> {
    /// Reads the object at the root of `text`, which [`super::json::check`] accepted. `None` when
    /// the root is no object. Names are decoded, values are raw JSON.
    pub fn parse(text: &'a str) -> Option<Self> {
        let bytes = text.as_bytes();
        let mut at = skip_space(bytes, 0);
        if bytes.get(at) != Some(&b'{') {
            return None;
        }
        let mut members = Vec::new();
        loop {
            at = skip_space(bytes, at + 1);
            if bytes.get(at) != Some(&b'"') {
                return Some(Self { members });
            }
            let name_end = string_end(bytes, at);
            let name = text.get(at..name_end).and_then(unquote)?;
            let colon = skip_space(bytes, name_end);
            let value = value_range(bytes, skip_space(bytes, colon + 1));
            at = skip_space(bytes, value.end);
            members.push((name, Cow::Borrowed(text.get(value)?)));
        }
    }

    /// The raw value of a member, found under either spelling.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.members.iter().find(|(key, _)| same(key, name)).map(|(_, value)| value.as_ref())
    }

    /// The member as a string, if it is one.
    pub fn text(&self, name: &str) -> Option<String> {
        self.get(name).and_then(|raw| serde_json::from_str(raw).ok())
    }

    /// Replaces a member where it stands (under either spelling), or adds it at the end.
    pub fn set(&mut self, name: &str, raw: String) {
        match self.members.iter_mut().find(|(key, _)| same(key, name)) {
            Some((_, value)) => *value = Cow::Owned(raw),
            None => self.members.push((Cow::Owned(name.to_owned()), Cow::Owned(raw))),
        }
    }

    /// Removes a member under either spelling; gives back its raw value.
    pub fn remove(&mut self, name: &str) -> Option<Cow<'a, str>> {
        let at = self.members.iter().position(|(key, _)| same(key, name))?;
        Some(self.members.remove(at).1)
    }

    /// The object as JSON.
    pub fn to_json(&self) -> String {
        let size: usize = self.members.iter().map(|(key, value)| key.len() + value.len() + 4).sum();
        let mut json = String::with_capacity(size + 2);
        json.push('{');
        for (index, (key, value)) in self.members.iter().enumerate() {
            if index > 0 {
                json.push(',');
            }
            json.push_str(&quote(key));
            json.push(':');
            json.push_str(value);
        }
        json.push('}');
        json
    }
}

/// The raw elements of the array that `text` is; `None` when it is no array.
pub fn elements(text: &str) -> Option<Vec<&str>> {
    let bytes = text.as_bytes();
    let mut at = skip_space(bytes, 0);
    if bytes.get(at) != Some(&b'[') {
        return None;
    }
    let mut elements = Vec::new();
    loop {
        at = skip_space(bytes, at + 1);
        if matches!(bytes.get(at), None | Some(b']')) {
            return Some(elements);
        }
        let value = value_range(bytes, at);
        at = skip_space(bytes, value.end);
        elements.push(text.get(value)?);
    }
}

fn same(key: &str, name: &str) -> bool {
    key == name || (key.contains('_') && camel(key.into()) == name)
}

fn skip_space(bytes: &[u8], mut at: usize) -> usize {
    while bytes.get(at).is_some_and(u8::is_ascii_whitespace) {
        at += 1;
    }
    at
}

fn value_range(bytes: &[u8], start: usize) -> Range<usize> {
    let mut depth = 0_usize;
    let mut at = start;
    while let Some(byte) = bytes.get(at) {
        match byte {
            b'"' => {
                at = string_end(bytes, at);
                if depth == 0 {
                    return start..at;
                }
                continue;
            }
            b'{' | b'[' => depth += 1,
            b'}' | b']' if depth == 0 => return start..at,
            b'}' | b']' => {
                depth -= 1;
                if depth == 0 {
                    return start..at + 1;
                }
            }
            b',' if depth == 0 => return start..at,
            _ if depth == 0 && byte.is_ascii_whitespace() => return start..at,
            _ => {}
        }
        at += 1;
    }
    start..at
}

#[cfg(test)]
mod tests {
    use super::{Members, elements};

    #[test]
    fn untouched_members_keep_their_bytes() {
        let text = r#"{ "a" : 1.0 , "b_c":{"x": [1, "]"]}, "d":"é\u00e9" ,"e":null}"#;
        let mut members = Members::parse(text).unwrap();
        assert_eq!(members.get("bC"), Some(r#"{"x": [1, "]"]}"#));
        assert_eq!(members.get("a"), Some("1.0"));
        assert_eq!(members.text("d").as_deref(), Some("éé"));
        members.set("bC", "2".to_owned());
        members.set("f", "3".to_owned());
        assert_eq!(members.remove("e").as_deref(), Some("null"));
        assert_eq!(members.to_json(), r#"{"a":1.0,"b_c":2,"d":"é\u00e9","f":3}"#);
    }

    #[test]
    fn only_objects_have_members() {
        for text in ["[1]", "1", "null", "\"{}\""] {
            assert_eq!(Members::parse(text), None);
        }
        assert_eq!(Members::parse(" {} ").unwrap().to_json(), "{}");
    }

    #[test]
    fn elements_of_an_array() {
        assert_eq!(
            elements(r#" [ {"a":[1,2]} , 3,"x,]" ] "#).unwrap(),
            [r#"{"a":[1,2]}"#, "3", r#""x,]""#]
        );
        assert_eq!(elements("[]").unwrap(), [""; 0]);
        assert_eq!(elements("{}"), None);
    }
}
