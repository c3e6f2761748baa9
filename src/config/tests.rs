//! Defaults are the published ones; mistakes are reported together.

use std::time::Duration;

use super::{BlockReply, Environment, Settings, VariableSource};

fn environment(pairs: &[(&str, &str)]) -> Environment {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

#[test]
fn defaults_are_the_published_ones() {
    let settings = Settings::read("", &Environment::new()).unwrap();
    assert_eq!(settings.data.listen.to_string(), "127.0.0.1:8080");
    assert_eq!(settings.control.listen.to_string(), "127.0.0.1:9090");
    assert_eq!(settings.upstream.url, "https://generativelanguage.googleapis.com");
    assert_eq!(settings.upstream.response_head_timeout, Duration::from_mins(10));
    assert_eq!(settings.limits.request_body_bytes_max, 115_343_360);
    assert_eq!(settings.audit.outbox_bytes_max, 1_073_741_824);
    assert!(settings.database.is_none());
}

#[test]
fn the_shipped_file_says_what_the_defaults_are() {
    let shipped = include_str!("../../config/chaperone.toml");
    assert!(Settings::read(shipped, &Environment::new()).is_ok());
    let is_setting = |line: &str| {
        let key = line.split(" = ").next().unwrap_or_default();
        line.contains(" = ")
            && key.chars().all(|one| one.is_ascii_lowercase() || one == '_' || one.is_ascii_digit())
    };
    let mut uncommented: Vec<&str> = Vec::new();
    for line in shipped.lines().take_while(|line| *line != "#[[routes]]") {
        match line.strip_prefix('#') {
            Some(rest) if is_setting(rest) => uncommented.push(rest),
            Some(_) => {}
            None => uncommented.push(line),
        }
    }
    let shown = Settings::read(&uncommented.join("\n"), &Environment::new()).unwrap();
    let defaults = Settings::read("", &Environment::new()).unwrap();
    for (shown, default) in [
        (format!("{:?}", shown.limits), format!("{:?}", defaults.limits)),
        (format!("{:?}", shown.audit), format!("{:?}", defaults.audit)),
        (
            format!("{:?}", (shown.guardrails.block_reply, shown.guardrails.unscannable)),
            format!("{:?}", (defaults.guardrails.block_reply, defaults.guardrails.unscannable)),
        ),
        (format!("{:?}", shown.log), format!("{:?}", defaults.log)),
        (
            format!("{:?}", shown.upstream.idle_timeout),
            format!("{:?}", defaults.upstream.idle_timeout),
        ),
    ] {
        assert_eq!(shown, default);
    }
    assert!(uncommented.contains(&"drain_ms = 30000"), "{uncommented:?}");
}

#[test]
fn the_environment_overrides_the_file() {
    let file = "[limits]\ndrain_ms = 5\n[guardrails]\nblock_reply = \"error\"";
    let environment = environment(&[
        ("CHAPERONE_LIMITS__DRAIN_MS", "7"),
        ("CHAPERONE_CONFIG", "ignored here"),
        ("DATABASE_URL", "postgres://u:p@h/d"),
        ("CHAPERONE_LOG__LEVEL", "warn,chaperone=debug"),
        ("UNRELATED", "x"),
    ]);
    let settings = Settings::read(file, &environment).unwrap();
    assert_eq!(settings.limits.drain, Duration::from_millis(7));
    assert_eq!(settings.guardrails.block_reply, BlockReply::Error);
    assert!(settings.database.is_some());
    assert!(!format!("{settings:?}").contains("u:p"), "secrets are masked");
}

#[test]
fn all_mistakes_are_reported_at_once() {
    let file = "
        [limits]
        drain_ms = \"soon\"
        streams_max = 0
        strems_max = 1
        [guardrails]
        block_reply = \"shout\"
        [surprise]
        a = 1
        [log]
        level = \"loud\"
        [data]
        tls_cert_file = \"cert.pem\"
        [control]
        super_admin_token = \"short\"
        [[routes]]
        template = \"x\"
    ";
    let environment =
        environment(&[("CHAPERONE_UPSTREAM__URL", "ftp://x"), ("CHAPERONE_NO__SUCH", "1")]);
    let mistakes = Settings::read(file, &environment).unwrap_err();
    let shown: Vec<String> = mistakes.iter().map(ToString::to_string).collect();
    for (key, hint) in [
        ("limits.drain_ms", "whole number from 1 to"),
        ("limits.streams_max", "from 1 to"),
        ("limits.strems_max", "keys are connections_max"),
        ("guardrails.block_reply", "prompt_feedback, error"),
        ("surprise", "sections are audit"),
        ("log.level", "error, warn, info"),
        ("data.tls_key_file", "beside tls_cert_file"),
        ("control.super_admin_token", "at least 16"),
        ("routes[0]", "at least one of"),
        ("upstream.url", "https://"),
        ("CHAPERONE_NO__SUCH", "no section"),
    ] {
        assert!(
            shown.iter().any(|line| line.starts_with(&format!("{key}: ")) && line.contains(hint)),
            "{key} in {shown:#?}"
        );
    }
    assert_eq!(shown.len(), 11, "{shown:#?}");
    let syntax = Settings::read("\n\n[limits", &Environment::new()).unwrap_err();
    assert!(syntax[0].to_string().starts_with("line 3"), "{syntax:?}");
}

#[test]
fn route_rules() {
    let file = "
        [[routes]]
        model = \"gemini-2.5-pro\"
        header = { name = \"X-App\", value = \"chat\" }
        template = \"greeting\"
        variables = { topic = \"header:X-Topic\", tone = \"value:warm\" }
    ";
    let settings = Settings::read(file, &Environment::new()).unwrap();
    let rule = &settings.routes[0];
    assert_eq!(rule.header, Some(("x-app".to_owned(), "chat".to_owned())));
    assert_eq!(
        rule.variables[1],
        ("topic".to_owned(), VariableSource::Header("x-topic".to_owned()))
    );
}

#[test]
fn callers_keys_are_replaced_by_one_that_is_there() {
    for (toml, env, key) in [
        ("caller_keys = \"replace\"", None, "upstream.caller_keys"),
        ("api_key = \"\"", None, "upstream.api_key"),
        ("api_key_file = \"\"", None, "upstream.api_key_file"),
        ("", Some(""), "upstream.api_key"),
        ("api_key_file = \"/k\"", Some("k"), "upstream.api_key_file"),
    ] {
        let env: Vec<_> = env.iter().map(|text| ("CHAPERONE_UPSTREAM__API_KEY", *text)).collect();
        let read = Settings::read(&format!("[upstream]\n{toml}"), &environment(&env));
        let mistakes: Vec<String> = read.unwrap_err().into_iter().map(|one| one.key).collect();
        assert_eq!(mistakes, [key], "{toml} {env:?}");
    }
    let whole = "[upstream]\ncaller_keys = \"replace\"\napi_key_file = \"/k\"";
    assert!(Settings::read(whole, &Environment::new()).is_ok());
}
