//! Executions for whoever looks for a better template: of those who agreed, and without their names.

use serde_json::{Value, json};

use crate::harness::database::Database;
use crate::harness::{GENERATE, Options, Sidecar, Upstream};
use crate::lifecycle::versions;

const TEMPLATES: &str = "CHAPERONE_AUDIT__CONSENTED_TEMPLATES";

/// Runs `chaperone dataset` with this setting on a sidecar's store.
async fn dataset(
    sidecar: &Sidecar,
    database: Option<&str>,
    consented: &str,
    arguments: &[&str],
) -> (bool, String, String) {
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_chaperone"));
    command.arg("dataset").args(arguments).env_clear().env(TEMPLATES, consented);
    command.env("CHAPERONE_STORAGE__DATA_DIR", sidecar.data_dir().path());
    command.envs(database.map(|url| ("DATABASE_URL", url)));
    let output = tokio::task::spawn_blocking(move || command.output()).await.unwrap().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.success(), text(output.stdout), text(output.stderr))
}

async fn ask(sidecar: &Sidecar, template: &str, who: &str) -> String {
    let variables = json!({"who": who}).to_string();
    let headers =
        [("x-chaperone-variables", variables.as_str()), ("x-chaperone-user", "secret-user")];
    let answer = sidecar.post(&format!("/t/{template}{GENERATE}"), &headers, "{}").await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    answer.header("x-chaperone-request-id").to_owned()
}

/// A store with calls on two templates: the sidecar, and the executions of `asked`.
async fn store(options: Options) -> (Sidecar, Vec<String>) {
    let sidecar = Sidecar::start(options).await;
    versions(&sidecar, "asked", &["tell {who} a joke"]).await;
    versions(&sidecar, "private", &["comfort {who}"]).await;
    let mut calls = Vec::new();
    for number in 0..130 {
        calls.push(ask(&sidecar, "asked", &format!("person {number}")).await);
    }
    ask(&sidecar, "private", "ann").await;
    sidecar.executions("", 131).await;
    (sidecar, calls)
}

async fn executions_are_told(sidecar: &Sidecar, database: Option<&str>, calls: &[String]) {
    let word = json!({"execution_id": calls[7], "key": "funny", "value": 0.5});
    sidecar.must(200, "POST", "/feedback", &word).await;
    let (ok, lines, said) = dataset(sidecar, database, "asked, other", &["asked"]).await;
    assert!(ok && said.starts_with("130 executions; 0 more"), "{said}");
    let told: Vec<Value> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(told.len(), 130);
    let one = told.iter().find(|one| one["id"] == calls[7].as_str()).unwrap();
    assert_eq!(one["variables_used"], json!({"who": "person 7"}));
    assert_eq!(one["rendered_prompt"][0]["text"], "tell person 7 a joke");
    assert_eq!((&one["template_version"], &one["outcome"]), (&json!(1), &json!("success")));
    assert_eq!(one["feedback"], json!({"funny": 0.5}));
    assert_eq!(told[0]["feedback"], json!({}));
    for hidden in ["secret-user", "comfort", "user_id", "unit_key"] {
        assert!(!lines.contains(hidden), "{hidden}");
    }
}

async fn the_audit_says_so(sidecar: &Sidecar, database: Option<&str>) {
    let (_, lines, _) = dataset(sidecar, database, "asked", &["asked", "--limit", "101"]).await;
    assert_eq!(lines.lines().count(), 101);
    let audit = sidecar.must(200, "GET", "/audit", &Value::Null).await;
    let entry = &audit["items"][0];
    assert_eq!(entry["action"], "template.dataset");
    assert_eq!((&entry["object_id"], &entry["after"]["limit"]), (&json!("asked"), &json!(101)));
}

async fn without_consent_nothing_is_told(sidecar: &Sidecar, database: Option<&str>) {
    for (consented, arguments, why) in [
        ("asked", ["private", "--limit", "5"], "audit.consented_templates"),
        ("", ["asked", "--limit", "5"], "audit.consented_templates"),
        ("asked", ["asked", "--to", "1960-01-01T00:00:00Z"], "1970"),
    ] {
        let (ok, lines, said) = dataset(sidecar, database, consented, &arguments).await;
        assert!(!ok && lines.is_empty() && said.contains(why), "{arguments:?}: {said}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn executions_of_those_who_agreed_are_told_without_their_names() {
    let (upstream, database) = (Upstream::start().await, Database::new().await);
    database.migrate().await;
    for url in [None, Some(database.url.as_str())] {
        let options = Options::to(&upstream.url());
        let options = match url {
            Some(url) => options.database(url),
            None => options,
        };
        let (sidecar, calls) = store(options).await;
        executions_are_told(&sidecar, url, &calls).await;
        the_audit_says_so(&sidecar, url).await;
        without_consent_nothing_is_told(&sidecar, url).await;
    }
}
