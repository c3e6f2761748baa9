//! What is recorded, when the store is there and when it is not.

use std::sync::Arc;

use serde_json::{Value, json};

use crate::harness::binary::Binary;
use crate::harness::database::Database;
use crate::harness::{
    CHAT, GENERATE, Options, STREAM, Sidecar, TempDir, Upstream, chat, contents, eventually, pair,
};

/// The executions waiting in a sidecar's local file, once there are `count`.
pub async fn outbox_rows(data_dir: &Arc<TempDir>, count: usize) -> Vec<Value> {
    let connection = rusqlite::Connection::open(data_dir.path().join("chaperone.db")).unwrap();
    eventually("the outbox holds them", async || {
        let mut statement = connection.prepare("select batch from outbox order by id").unwrap();
        let batches = statement.query_map([], |row| row.get::<_, String>(0)).unwrap();
        let rows: Vec<Value> = batches
            .flat_map(|batch| batch.unwrap().lines().map(record).collect::<Vec<_>>())
            .collect();
        (rows.len() >= count).then_some(rows)
    })
    .await
}

/// A line: checksum, space, JSON.
fn record(line: &str) -> Value {
    serde_json::from_str(line.split_once(' ').unwrap().1).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_holds_what_happened() {
    let (upstream, sidecar) = pair().await;
    let headers = [
        ("x-chaperone-user", "ann"),
        ("x-chaperone-conversation", "c-1"),
        ("x-chaperone-variables", r#"{"text":"We talked about fractions."}"#),
    ];
    let path = format!("/t/nlu_topic_extraction{GENERATE}");
    let answer = sidecar.post(&path, &headers, "{}").await;
    let row = sidecar.execution(&answer).await;
    for (name, value) in [
        ("tenant_id", json!("default")),
        ("template_name", json!("nlu_topic_extraction")),
        ("template_version", json!(1)),
        ("call", json!("generateContent")),
        ("streamed", json!(false)),
        ("user_id", json!("ann")),
        ("conversation_id", json!("c-1")),
        ("variables_used", json!({"text": "We talked about fractions."})),
        ("model_name", json!("gemini-2.5-flash")),
        ("outcome", json!("success")),
        ("success", json!(true)),
        ("http_status", json!(200)),
        ("finish_reason", json!("STOP")),
        ("guardrail_violations", json!([])),
        ("catalog_source", json!("database")),
        ("catalog_generation", json!(1)),
        ("error_type", json!(null)),
        ("usage_partial", json!(false)),
    ] {
        assert_eq!(row[name], value, "{name}");
    }
    let usage = &answer.json()["usageMetadata"];
    assert_eq!(row["prompt_tokens"], usage["promptTokenCount"]);
    assert_eq!(row["token_count"], usage["totalTokenCount"]);
    let (prompt, said) = (
        usage["promptTokenCount"].as_u64().unwrap(),
        usage["candidatesTokenCount"].as_u64().unwrap(),
    );
    let pico = prompt * 300_000 + said * 2_500_000;
    assert_eq!(row["estimated_cost_usd"], format!("0.{pico:012}"));
    assert_eq!(
        row["rendered_prompt"].as_array().unwrap().last().unwrap()["text"],
        "We talked about fractions."
    );
    assert_eq!(row["body_sha256"], upstream.received()[0].body_sha256.as_str());
    assert_eq!(row["template_content_hash"].as_str().unwrap().len(), 64);
    let evaluated: Vec<&str> = row["guardrails_evaluated"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| one["rule_name"].as_str().unwrap())
        .collect();
    assert_eq!(
        evaluated,
        [
            "hidden_text_detection",
            "jailbreak_detection",
            "pii_detection_basic",
            "pii_identifiers",
            "prompt_injection_detection",
            "secret_detection",
            "toxic_content_filter",
            "toxic_language"
        ]
    );
    assert!(row["overhead_ms"].as_f64().unwrap() < row["execution_time_ms"].as_f64().unwrap());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_warning_is_recorded_and_the_call_goes_on() {
    let (_upstream, sidecar) = pair().await;
    let answer = sidecar.say(GENERATE, &[], "Write to ann@acme.test please.").await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.header("x-chaperone-guardrails"), "pii_detection_basic=warn");
    let row = sidecar.execution(&answer).await;
    let violations = row["guardrail_violations"].as_array().unwrap();
    let directions: Vec<&str> =
        violations.iter().map(|one| one["direction"].as_str().unwrap()).collect();
    assert_eq!(directions, ["request", "response"], "the simulator echoes the address");
    let of_request = json!({
        "rule_name": "pii_detection_basic", "entity": "email", "direction": "request",
        "action": "warn", "place": "contents[0].parts[0].text", "start": 9, "end": 22,
    });
    assert_eq!(violations[0], of_request);
    assert_eq!(violations[1]["place"], "candidates[0].content.parts[0].text");
    assert!(
        !row["guardrail_violations"].to_string().contains("ann@"),
        "violations hold no matched text"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn unknown_prices_are_null_and_counted() {
    let (_upstream, sidecar) = pair().await;
    let answer =
        sidecar.say("/v1beta/models/gemini-unheard-of:generateContent", &[], "hello").await;
    let row = sidecar.execution(&answer).await;
    assert_eq!((&row["outcome"], &row["estimated_cost_usd"]), (&json!("success"), &json!(null)));
    assert!(row["prompt_tokens"].as_u64().unwrap() > 0);
    let metrics = sidecar.page("/metrics").await.text;
    let line = metrics
        .lines()
        .find(|line| line.starts_with("chaperone_unpriced_executions_total"))
        .unwrap();
    assert_ne!(line.rsplit(' ').next().unwrap(), "0");
    assert!(!metrics.contains("gemini-unheard-of"), "names from callers never become labels");
}

#[tokio::test(flavor = "multi_thread")]
async fn prompts_can_be_kept_as_hashes_only() {
    let upstream = Upstream::start().await;
    for (mode, text, hashed) in [
        ("hash", "plain words", true),
        ("redacted", "plain words", false),
        ("redacted", "write to ann@acme.test", true),
        ("full", "write to ann@acme.test", false),
    ] {
        let toml = format!("[audit]\nstore_prompts = \"{mode}\"");
        let sidecar = Sidecar::start(Options::to(&upstream.url()).toml(&toml)).await;
        let variables = json!({"text": text}).to_string();
        let path = format!("/t/nlu_topic_extraction{GENERATE}");
        let answer = sidecar.post(&path, &[("x-chaperone-variables", &variables)], "{}").await;
        let row = sidecar.execution(&answer).await;
        assert_eq!(!row.to_string().contains(text), hashed, "{mode} {text}");
        if mode == "redacted" && hashed {
            let redacted = "write to [REDACTED:email]";
            assert_eq!(row["variables_used"]["text"], redacted);
            assert!(row["rendered_prompt"].to_string().contains(redacted), "{row}");
            assert!(!row.to_string().contains("acme"), "{row}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_template_may_keep_its_prompts_otherwise_from_the_first_file_on() {
    let upstream = Upstream::start().await;
    let data_dir = Arc::new(TempDir::new());
    // Nothing migrates this database: what is recorded stays in the local files.
    let database = Database::new().await;
    let toml = "[audit]\nstore_prompts_of = \"nlu_topic_extraction=hash, other=full\"";
    let options = Options::to(&upstream.url()).toml(toml);
    let sidecar = Sidecar::start(options.database(&database.url).data_dir(&data_dir)).await;
    let secret = "the secret of the whole class";
    for (path, variables) in [
        ("/t/nlu_topic_extraction", json!({"text": secret})),
        ("/t/clarification_question_generation", json!({"question": "plain words"})),
    ] {
        let headers = [("x-chaperone-variables", &*variables.to_string())];
        sidecar.post(&format!("{path}{GENERATE}"), &headers, "{}").await;
    }
    let rows = outbox_rows(&data_dir, 2).await;
    assert!(rows[0]["rendered_prompt"]["sha256"].is_string(), "{}", rows[0]);
    let holds = |text: &str| {
        let files = std::fs::read_dir(data_dir.path()).unwrap();
        files
            .filter(|file| {
                let bytes = std::fs::read(file.as_ref().unwrap().path()).unwrap();
                bytes.windows(text.len()).any(|window| window == text.as_bytes())
            })
            .count()
    };
    assert!(holds("\"request_id\"") > 0, "the files are those that hold records");
    assert_eq!(holds(secret), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn records_survive_a_store_that_is_away_and_a_restart() {
    let (upstream, database) = (Upstream::start().await, Database::new().await);
    let data_dir = Arc::new(TempDir::new());
    let start = || {
        let options = Options::to(&upstream.url()).database(&database.url).data_dir(&data_dir);
        Sidecar::start(options)
    };
    let sidecar = start().await;
    for path in [GENERATE, STREAM] {
        assert_eq!(sidecar.post(path, &[], contents("hello \u{0} there")).await.status, 200);
    }
    assert_eq!(sidecar.post(CHAT, &[], chat("hello", true)).await.status, 200);
    assert_eq!(outbox_rows(&data_dir, 3).await.len(), 3);
    let status = sidecar.status().await;
    assert_eq!(
        (&status["executions"]["waiting"], &status["executions"]["stored"]),
        (&json!(3), &json!(0))
    );
    let ready = sidecar.page("/readyz").await;
    assert_eq!((ready.status, ready.json()["status"].as_str().unwrap()), (200, "degraded"));
    sidecar.stop().await.unwrap();
    database.migrate().await;
    let sidecar = start().await;
    eventually("everything is stored", async || {
        (database.count("select count(*) from prompt_executions").await == 3).then_some(())
    })
    .await;
    let executions = eventually("the ledger agrees", async || {
        let executions = sidecar.status().await["executions"].clone();
        (executions["stored"] == 3).then_some(executions)
    })
    .await;
    assert_eq!((&executions["waiting"], &executions["lost"]), (&json!(0), &json!(0)));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_came_with_a_refused_call_is_not_recorded() {
    let (_upstream, sidecar) = pair().await;
    let template = ("x-chaperone-template", "nlu_topic_extraction");
    for (headers, body, status) in [
        (vec![], r#"{"chaperone":{"variables":"SECRETTEXT"}}"#, 400),
        (vec![], r#"{"SECRETTEXT":1,"SECRETTEXT":2}"#, 400),
        (vec![template, ("x-chaperone-variables", r#"{"SECRETTEXT":"x"}"#)], "{}", 400),
    ] {
        let answer = sidecar.post(GENERATE, &headers, body).await;
        assert_eq!(answer.status, status, "{}", answer.text);
        let row = sidecar.execution(&answer).await;
        assert_eq!(row["outcome"], "rejected");
        assert!(
            !row["error_message"].is_null() && !row.to_string().contains("SECRETTEXT"),
            "{row}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_local_file_is_for_its_owner_and_for_one_process() {
    use std::os::unix::fs::PermissionsExt;
    let (_upstream, sidecar) = pair().await;
    let mode = |name: &str| {
        let path = sidecar.data_dir().path().join(name);
        std::fs::metadata(path).unwrap().permissions().mode() & 0o777
    };
    assert_eq!(
        (mode("chaperone.db"), mode("chaperone.db-wal"), mode("lock")),
        (0o600, 0o600, 0o600)
    );
    let data_dir = sidecar.data_dir();
    let environment = std::collections::BTreeMap::from([
        ("CHAPERONE_STORAGE__DATA_DIR".to_owned(), data_dir.path().to_str().unwrap().to_owned()),
        ("CHAPERONE_DATA__LISTEN".to_owned(), "127.0.0.1:0".to_owned()),
        ("CHAPERONE_CONTROL__LISTEN".to_owned(), "127.0.0.1:0".to_owned()),
    ]);
    let settings = chaperone::config::Settings::read("", &environment).unwrap();
    let second = Box::pin(chaperone::app::App::build(settings)).await.unwrap_err().to_string();
    assert!(second.contains("another process uses it"), "{second}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_store_refuses_is_kept_aside_and_can_be_sent_again() {
    let (upstream, database) = (Upstream::start().await, Database::new().await);
    database.migrate().await;
    database
        .execute(
            "alter table prompt_executions add constraint poison check (user_id <> 'poison');
             create function object() returns trigger language plpgsql as $$
                 begin raise exception 'not %', new.user_id; end $$;
             create trigger object before insert on prompt_executions
                 for each row when (new.user_id = 'odd') execute function object()",
        )
        .await;
    let (cable, url) = database.through_cable().await;
    let sidecar = Sidecar::start(Options::to(&upstream.url()).database(&url)).await;
    // All of them wait, so that they go as one batch.
    cable.pull();
    for number in 0..40 {
        let user = match number {
            7 => "poison",
            27 => "odd",
            _ => "ann",
        };
        sidecar.say(GENERATE, &[("x-chaperone-user", user)], "hello").await;
    }
    cable.plug();
    let standing = async |name: &str, count: u64| {
        eventually(&format!("{count} are {name}"), async || {
            (sidecar.status().await["executions"][name] == count).then_some(())
        })
        .await;
    };
    standing("stored", 38).await;
    standing("dead_lettered", 2).await;
    let ready = sidecar.page("/readyz").await.json();
    assert!(ready["degraded"].to_string().contains("kept aside"), "{ready}");
    let first = sidecar.admin("/dead-letters?limit=1").await.json();
    let letter = &first["items"][0];
    assert_eq!(letter["reason"], "SQLSTATE 23514 on poison");
    assert_eq!(letter["execution"]["user_id"], "poison");
    let cursor = first["next_cursor"].as_str().unwrap();
    let second = sidecar.admin(&format!("/dead-letters?limit=1&cursor={cursor}")).await.json();
    assert_eq!(
        (&second["items"][0]["reason"], &second["next_cursor"]),
        (&json!("SQLSTATE P0001"), &json!(null))
    );
    sidecar.must(422, "POST", "/dead-letters/retry", &json!({"id": "none"})).await;

    database.execute("alter table prompt_executions drop constraint poison; drop trigger object on prompt_executions").await;
    let one = json!({"id": letter["id"]});
    let retried = sidecar.must(200, "POST", "/dead-letters/retry", &one).await;
    assert_eq!(retried, json!({"retried": 1, "unreadable": 0}));
    sidecar.must(200, "POST", "/dead-letters/retry", &json!({})).await;
    standing("stored", 40).await;
    standing("accepted", 42).await;
    assert_eq!(sidecar.admin("/dead-letters").await.json()["items"], json!([]));
    assert_eq!(database.count("select count(*) from prompt_executions").await, 40);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_earlier_process_left_in_the_journal_is_stored_but_for_what_is_spoilt() {
    let upstream = Upstream::start().await;
    let data_dir = Arc::new(TempDir::new());
    let start = || {
        let away = "postgres://nobody@127.0.0.1:1/none";
        Sidecar::start(Options::to(&upstream.url()).database(away).data_dir(&data_dir))
    };
    let sidecar = start().await;
    for _ in 0..3 {
        sidecar.say(GENERATE, &[], "hello").await;
    }
    outbox_rows(&data_dir, 3).await;
    sidecar.stop().await.unwrap();
    // As a kill right after the third answer leaves it, and a disk that flips a bit of the second.
    let connection = rusqlite::Connection::open(data_dir.path().join("chaperone.db")).unwrap();
    let batches: Vec<String> = connection
        .prepare("select batch from outbox order by id")
        .unwrap()
        .query_map([], |row| row.get(0))
        .unwrap()
        .map(Result::unwrap)
        .collect();
    connection.execute("delete from outbox", []).unwrap();
    drop(connection);
    let mut journal = batches.concat().into_bytes();
    let second = journal.iter().position(|byte| *byte == b'\n').unwrap() + 100;
    journal[second] ^= 1;
    // The last write did not come to its end.
    journal.extend_from_slice(b"0123abcd {\"id\":");
    std::fs::write(data_dir.path().join("outbox-00000007.journal"), journal).unwrap();
    let sidecar = start().await;
    let executions = eventually("all is told", async || {
        let executions = sidecar.status().await["executions"].clone();
        (executions["accepted"] == 4 && executions["dead_lettered"] == 2).then_some(executions)
    })
    .await;
    assert_eq!((&executions["waiting"], &executions["lost"]), (&json!(2), &json!(0)));
    assert_eq!(outbox_rows(&data_dir, 2).await.len(), 2);
    let letters = sidecar.admin("/dead-letters").await.json();
    assert_eq!(letters["items"][0]["reason"], "it was spoilt on the disk");
    let retried = sidecar.must(200, "POST", "/dead-letters/retry", &json!({})).await;
    assert_eq!(retried, json!({"retried": 0, "unreadable": 2}));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_waited_for_the_disk_is_there_after_a_kill() {
    let (upstream, data_dir) = (Upstream::start().await, Arc::new(TempDir::new()));
    let power = ("CHAPERONE_AUDIT__DURABILITY", "power");
    let away = ("DATABASE_URL", "postgres://nobody@127.0.0.1:1/none");
    let binary = Binary::start(&upstream.url(), &data_dir, &[power, away]);
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let calls = (0..40).map(|_| {
        let call = client.post(format!("http://{}{GENERATE}", binary.data));
        call.header("x-goog-api-key", "k").body(contents("hello")).send()
    });
    for answer in futures_util::future::join_all(calls).await {
        let answer = answer.unwrap();
        assert_eq!(answer.status(), 200);
        // The last byte waits for the disk.
        answer.bytes().await.unwrap();
    }
    binary.kill();
    let sidecar = Sidecar::start(Options::to(&upstream.url()).database(away.1).data_dir(&data_dir));
    let sidecar = sidecar.await;
    // What the kill found between journal and table is in both.
    eventually("all are found", async || {
        let rows = outbox_rows(&data_dir, 40).await;
        let ids: std::collections::BTreeSet<&str> =
            rows.iter().map(|row| row["id"].as_str().unwrap()).collect();
        (ids.len() == 40).then_some(())
    })
    .await;
    sidecar.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_outbox_loses_exactly_or_refuses() {
    let upstream = Upstream::start().await;
    let start = async |when_full: &str| {
        let toml = format!("[audit]\noutbox_bytes_max = 1048576\nwhen_full = \"{when_full}\"");
        let away = "postgres://nobody@127.0.0.1:1/none";
        Sidecar::start(Options::to(&upstream.url()).database(away).toml(&toml)).await
    };
    // Kept twice in a record: as a variable and as rendered.
    let text = "many words ".repeat(2_900);
    let body =
        json!({"chaperone": {"template": "nlu_topic_extraction", "variables": {"text": text}}});
    let say = async |sidecar: &Sidecar| sidecar.post(GENERATE, &[], body.to_string()).await;
    let sidecar = start("serve").await;
    for _ in 0..40 {
        let answer = say(&sidecar).await;
        assert_eq!(answer.status, 200, "{}", answer.text);
    }
    let executions = sidecar.status().await["executions"].clone();
    let count = |name: &str| executions[name].as_u64().unwrap();
    assert_eq!(count("accepted"), 40);
    assert_eq!(count("waiting") + count("lost"), 40, "{executions}");
    assert!(count("waiting") > 0 && count("lost") > 0, "{executions}");
    assert!(count("outbox_bytes") <= 1_048_576, "{executions}");
    let kept = usize::try_from(count("waiting")).unwrap();
    assert_eq!(outbox_rows(&sidecar.data_dir(), kept).await.len(), kept);
    let ready = sidecar.page("/readyz").await.json();
    assert!(ready["degraded"].to_string().contains("were lost"), "{ready}");
    let metrics = sidecar.page("/metrics").await.text;
    let lost = format!("chaperone_executions_lost_total {}", count("lost"));
    assert!(metrics.contains(&lost), "{metrics}");

    let sidecar = start("refuse").await;
    let mut served = 0;
    for _ in 0..40 {
        match say(&sidecar).await.status {
            200 => served += 1,
            status => assert_eq!(status, 503),
        }
    }
    assert!((1..40).contains(&served), "{served}");
    let executions = sidecar.status().await["executions"].clone();
    assert_eq!((&executions["waiting"], &executions["lost"]), (&json!(served), &json!(0)));
}
