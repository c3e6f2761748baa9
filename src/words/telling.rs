//! What may be said of a text that could not be read: where and what, never the text itself.

/// A parser's message without the values it quotes: those may be prompts.
pub fn without_values(message: &str) -> String {
    let quotes = message.find('"').zip(message.rfind('"'));
    match quotes.and_then(|(from, to)| Some((message.get(..from)?, message.get(to + 1..)?))) {
        Some((before, behind)) => format!("{before}\"\u{2026}\"{behind}"),
        None => message.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::without_values;

    #[test]
    fn values_are_left_out() {
        let message = r#"invalid type: string "you are \"X\"", expected a sequence at line 1"#;
        assert_eq!(
            without_values(message),
            "invalid type: string \"\u{2026}\", expected a sequence at line 1"
        );
        assert_eq!(without_values("missing field `name`"), "missing field `name`");
    }
}
