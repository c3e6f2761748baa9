//! The five ways to ask for a template, and what reaches the upstream.

use serde_json::{Value, json};

use crate::harness::{CHAT, GENERATE, Options, Sidecar, Upstream, chat, contents, pair, pair_with};

const NAME: &str = "greeting";

fn definitions() -> Value {
    json!({"templates": [
        {
            "id": uuid::Uuid::from_u128(1), "name": NAME, "version": 1,
            "template_text": "Old {who}", "variables": ["who"],
        },
        {
            "id": uuid::Uuid::from_u128(2), "name": NAME, "version": 2, "is_active": true,
            "messages": [
                {"role": "system", "text": "Greet {who} in {tone}."},
                {"role": "user", "text": "Hi"}, {"role": "model", "text": "Hello {who}"},
            ],
            "variables": ["who", {"name": "tone", "default": "prose"}],
            "model_config": {"model": "gemini-2.5-pro", "temperature": 0.5},
        },
        {
            "id": uuid::Uuid::from_u128(3), "name": "system", "version": 1, "is_active": true,
            "template_syntax": "jinja", "target": "system_instruction",
            "template_text": "{% if loud %}LOUD{% else %}quiet{% endif %}\n", "variables": [{"name": "loud", "type": "boolean"}],
        },
    ], "guardrails": []})
}

const EXPECTED: &str = r#"{"contents":[{"role":"user","parts":[{"text":"Hi"}]},{"role":"model","parts":[{"text":"Hello Ann"}]},{"role":"user","parts":[{"text":"now"}]}],"systemInstruction":{"parts":[{"text":"Greet Ann in prose."}]},"generationConfig":{"temperature":0.5}}"#;

/// The bytes the upstream received last, rebuilt: the simulator keeps bodies as JSON in order.
fn last_body(upstream: &Upstream) -> String {
    upstream.received().last().unwrap().body.to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn five_ways_lead_to_the_same_request() {
    let upstream = Upstream::start().await;
    let rule = "
        [[routes]]
        header = { name = \"x-app\", value = \"greeter\" }
        template = \"greeting\"
        variables = { who = \"header:x-who\" }
    ";
    let sidecar =
        Sidecar::start(Options::to(&upstream.url()).definitions(&definitions()).toml(rule)).await;
    let who = ("x-chaperone-variables", r#"{"who":"Ann"}"#);
    let encoded = ("x-chaperone-variables", "eyJ3aG8iOiJBbm4ifQ");
    let in_body = r#"{"contents":[{"role":"user","parts":[{"text":"now"}]}],"chaperone":{"template":"greeting","variables":{"who":"Ann"},"user":"u"}}"#;
    let plain = contents("now");
    let prefix = format!("/t/{NAME}{GENERATE}");
    let cases = [
        (prefix.as_str(), vec![who], plain.as_str()),
        (GENERATE, vec![("x-chaperone-template", NAME), encoded], plain.as_str()),
        (GENERATE, vec![], in_body),
        (GENERATE, vec![("x-app", "greeter"), ("x-who", "Ann")], plain.as_str()),
        ("/t/greeting@2/models/gemini-2.5-flash:generateContent", vec![who], plain.as_str()),
    ];
    for (path, headers, body) in cases {
        let answer = sidecar.post(path, &headers, body.to_owned()).await;
        assert_eq!(answer.status, 200, "{path}: {}", answer.text);
        assert_eq!(answer.header("x-chaperone-template"), "greeting@2");
        let received = upstream.received().pop().unwrap();
        assert_eq!(received.path, "/v1beta/models/gemini-2.5-pro:generateContent");
        assert_eq!(last_body(&upstream), EXPECTED, "{path}");
        assert_eq!(received.body_sha256, chaperone::words::digest::sha256_hex(EXPECTED.as_bytes()));
        assert!(received.headers.iter().all(|(name, _)| !name.starts_with("x-chaperone-")));
    }
    for row in crate::recording::outbox_rows(&sidecar.data_dir(), 5).await {
        assert_eq!(row["body_sha256"], chaperone::words::digest::sha256_hex(EXPECTED.as_bytes()));
        assert_eq!(row["model_name"], "gemini-2.5-pro");
    }
    let none = sidecar.post(GENERATE, &[], plain.clone()).await;
    assert_eq!((none.header("x-chaperone-template"), last_body(&upstream)), ("", plain));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_older_version_the_system_target_and_chat() {
    let (upstream, sidecar) = pair_with(&definitions()).await;
    let old = sidecar
        .post(
            "/t/greeting@1/v1beta/models/gemini-2.5-flash:generateContent",
            &[("x-chaperone-variables", r#"{"who":"Bob"}"#)],
            "{}",
        )
        .await;
    assert_eq!(old.header("x-chaperone-template"), "greeting@1");
    assert_eq!(
        last_body(&upstream),
        r#"{"contents":[{"role":"user","parts":[{"text":"Old Bob"}]}]}"#
    );
    let headers =
        [("x-chaperone-template", "system"), ("x-chaperone-variables", r#"{"loud":true}"#)];
    sidecar.say(GENERATE, &headers, "now").await;
    assert_eq!(
        upstream.received().pop().unwrap().body["systemInstruction"]["parts"][0]["text"],
        "LOUD\n"
    );
    let headers = [("x-chaperone-template", NAME), ("x-chaperone-variables", r#"{"who":"Ann"}"#)];
    let answer = sidecar.post(CHAT, &headers, chat("now", false)).await;
    assert_eq!(answer.status, 200);
    let body = upstream.received().pop().unwrap().body;
    assert_eq!((&body["model"], &body["temperature"]), (&json!("gemini-2.5-pro"), &json!(0.5)));
    assert_eq!(body["messages"][0], json!({"role": "system", "content": "Greet Ann in prose."}));
    assert_eq!(body["messages"][3], json!({"role": "user", "content": "now"}));
    let count = sidecar
        .post("/v1beta/models/gemini-2.5-flash:countTokens", &headers, contents("now"))
        .await;
    assert!(count.json()["totalTokens"].as_u64().unwrap() > 5, "{}", count.text);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_does_not_exist_or_does_not_fit_is_said_and_not_sent() {
    let (upstream, sidecar) = pair_with(&definitions()).await;
    for (headers, status, hint) in [
        (vec![("x-chaperone-template", "nope")], 404, "there is no template \"nope\""),
        (vec![("x-chaperone-template", "greeting@9")], 404, "has no version 9"),
        (vec![("x-chaperone-template", "greeting@x")], 404, "a version is a number"),
        (vec![("x-chaperone-tenant", "nobody")], 404, "there is no tenant"),
        (vec![("x-chaperone-template", NAME)], 400, "who is missing"),
        (
            vec![("x-chaperone-template", NAME), ("x-chaperone-variables", r#"{"who":1,"x":"y"}"#)],
            400,
            "x is not declared",
        ),
        (
            vec![("x-chaperone-template", NAME), ("x-chaperone-variables", "nonsense")],
            400,
            "base64url",
        ),
        (vec![("x-chaperone-variables", r#"{"who":"Ann"}"#)], 400, "no template is named"),
    ] {
        let native = sidecar.post(GENERATE, &headers, contents("now")).await;
        assert_eq!(native.status, status, "{headers:?}");
        assert!(
            native.json()["error"]["message"].as_str().unwrap().contains(hint),
            "{}",
            native.text
        );
        let openai = sidecar.post(CHAT, &headers, chat("now", true)).await;
        assert_eq!(openai.status, status);
        assert!(
            openai.json()["error"]["message"].as_str().unwrap().contains(hint),
            "{}",
            openai.text
        );
    }
    let body = r#"{"contents":[],"chaperone":{"templte":"x"}}"#;
    let answer = sidecar.post(GENERATE, &[], body).await;
    assert!(
        answer.status == 400
            && answer.text.contains("templte")
            && answer.text.contains("conversation"),
        "{}",
        answer.text
    );
    assert!(upstream.received().is_empty());
    let rows = crate::recording::outbox_rows(&sidecar.data_dir(), 17).await;
    assert!(rows.iter().all(|row| row["outcome"] == "rejected"));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_seeds_answer() {
    let (upstream, sidecar) = pair().await;
    for (name, variables, temperature) in [
        ("nlu_topic_extraction", r#"{"text":"We talked about fractions."}"#, 0.2),
        ("clarification_question_generation", r#"{"question":"How long?"}"#, 0.3),
        ("educational_script_generation", r#"{"topic":"fractions","grade_level":"4"}"#, 0.7),
    ] {
        let path = format!("/t/{name}/v1beta/models/gemini-2.5-pro:generateContent");
        let answer = sidecar.post(&path, &[("x-chaperone-variables", variables)], "{}").await;
        assert_eq!(answer.status, 200, "{}", answer.text);
        let received = upstream.received().pop().unwrap();
        assert_eq!(received.path, GENERATE);
        assert_eq!(received.body["generationConfig"]["temperature"], temperature);
        // The simulator refuses members that a dialect does not know.
        for (own, body, place) in [
            ("/v1beta/openai/chat/completions", r#"{"model":"m","messages":[]}"#, "/temperature"),
            ("/v1beta/interactions", r#"{"model":"m"}"#, "/generation_config/temperature"),
        ] {
            let path = format!("/t/{name}{own}");
            let answer = sidecar.post(&path, &[("x-chaperone-variables", variables)], body).await;
            assert_eq!(answer.status, 200, "{path}: {}", answer.text);
            let received = upstream.received().pop().unwrap();
            assert_eq!(
                received.body.pointer(place),
                Some(&json!(temperature)),
                "{}",
                received.body
            );
        }
    }
}
