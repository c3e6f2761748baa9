//! What a finding does to a text, to a share of the calls, and when there is too much to look at.

use serde_json::json;

use super::{everything, rule};
use crate::guardrail::{Guardrails, Rule, Salt, Severity, Verdict};

#[test]
fn what_stands_in_the_place_of_a_value() {
    let of = |with: &str| {
        let config = json!({"action": "redact", "redact": {"with": with}, "patterns": [
            {"entity": "card] no", "regex": "[0-9]{4,16}"}]});
        Guardrails::compile(vec![rule("card", false, config)]).unwrap()
    };
    let salt = Salt::new("key", "acme", "talk");
    let redacted = |with: &str, text: &str, salt: &Salt| {
        let guardrails = of(with);
        guardrails.redacted(text, &guardrails.scan(text, &everything(&guardrails)), salt)
    };
    assert_eq!(redacted("label", "4111111111111111", &salt), "[REDACTED:card] no]");
    assert_eq!(redacted("mask", "4111111111111111", &salt), "*".repeat(16));
    assert_eq!(redacted("keep_last_4", "4111111111111234", &salt), "************1234");
    assert_eq!(redacted("keep_last_4", "123456", &salt), "******", "most of it would be shown");
    let placeholder = redacted("placeholder", "4111111111111111", &salt);
    assert!(
        placeholder.starts_with("[CARD__NO_")
            && placeholder.find(']') == Some(placeholder.len() - 1)
    );
    for with in ["placeholder", "hash"] {
        let here = redacted(with, "4111111111111111", &salt);
        assert_eq!(here, redacted(with, "4111111111111111", &salt), "{with}");
        assert_ne!(here, redacted(with, "4111111111111112", &salt), "{with}");
        assert!(!here.contains("4111"), "{here}");
        for other in [Salt::new("key", "initech", "talk"), Salt::new("other", "acme", "talk")] {
            assert_ne!(here, redacted(with, "4111111111111111", &other), "another tenant");
        }
    }
}

#[test]
fn a_share_of_the_calls_is_the_same_calls_and_about_as_many_as_asked_for() {
    let sampling = |percent: f64| {
        let config = json!({"sample_percent": percent, "literals": ["a"]});
        Guardrails::compile(vec![rule("some", true, config)]).unwrap()
    };
    for percent in [0.0, 1.0, 25.0, 100.0] {
        let guardrails = sampling(percent);
        let is_sampled = |call: usize| guardrails.is_sampled(0, &format!("call-{call}"));
        let share = (0..20_000).filter(|call| is_sampled(*call)).count();
        let expected = 200.0 * percent;
        // Five standard deviations of a fair draw.
        let spread = 5.0 * (20_000.0 * percent / 100.0 * (1.0 - percent / 100.0)).sqrt();
        #[expect(clippy::cast_precision_loss, reason = "a count far below 2^52")]
        let off = (share as f64 - expected).abs();
        assert!(off <= spread, "{percent} %: {share} of 20000");
        assert!((0..100).all(|call| is_sampled(call) == is_sampled(call)));
    }
}

#[test]
fn a_text_that_asks_for_too_much_work_is_a_finding_with_its_own_outcome() {
    let greedy = |blocking: bool, on_limit: serde_json::Value| {
        // Every place begins a long match, and none of them holds.
        let pattern = json!({"entity": "x", "regex": "key=([a-z0-9=]{4,250})", "entropy_min": 3.0});
        let config = json!({"patterns": [pattern], "on_limit": on_limit});
        Guardrails::compile(vec![rule("greedy", blocking, config)]).unwrap()
    };
    let text = "key=".repeat(4_000);
    for (blocking, on_limit, verdict) in [
        (true, json!(null), Verdict::Block),
        (true, json!("warn"), Verdict::Warn),
        (false, json!(null), Verdict::Warn),
        (false, json!("block"), Verdict::Block),
    ] {
        let guardrails = greedy(blocking, on_limit);
        let found = guardrails.scan(&text, &everything(&guardrails));
        let entities: Vec<&str> = found.iter().map(|one| guardrails.entity(one)).collect();
        assert_eq!(entities, ["work_limit"]);
        assert_eq!(guardrails.judge(&found), verdict);
        assert_eq!(
            guardrails.scan("key=k3jd92msq", &everything(&guardrails)).len(),
            1,
            "a short one is read"
        );
    }
}

#[test]
fn severity_and_blocking_decide_where_no_action_is_named() {
    for (severity, blocking, effect, verdict) in [
        (Severity::Info, false, "info", Verdict::Allow),
        (Severity::Warning, false, "warn", Verdict::Warn),
        (Severity::Critical, false, "warn", Verdict::Warn),
        (Severity::Info, true, "block", Verdict::Block),
    ] {
        let one = rule("one", blocking, json!({"literals": ["falcon"]}));
        let guardrails = Guardrails::compile(vec![Rule { severity, ..one }]).unwrap();
        let found = guardrails.scan("a falcon", &everything(&guardrails));
        assert_eq!((guardrails.effect(&found[0]), guardrails.judge(&found)), (effect, verdict));
    }
}
