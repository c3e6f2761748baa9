//! One contract, run against PostgreSQL and SQLite.

use std::sync::Arc;

use chaperone::catalog::Version;
use chaperone::catalog::definitions::{Definitions, TemplateDefinition};
use chaperone::catalog::files::seeds;
use chaperone::execution::{Evaluation, Execution, Outcome, Violation};
use chaperone::store::audit::{AuditQuery, Entry};
use chaperone::store::{
    Change, Cursor, ExecutionQuery, Expect, Exposure, NameCursor, Phase, Row, RowQuery, Sqlite,
    Store, StoreError, Table, Turn,
};
use chaperone::words::ids::{ExecutionId, ExperimentId, TemplateId, Tenant};
use chaperone::words::money::PicoUsd;
use serde_json::{Value, json};

use crate::harness::TempDir;
use crate::harness::database::Database;

/// Runs a contract against both stores, each empty and not migrated.
async fn both(contract: impl AsyncFn(&dyn Store)) {
    let directory = TempDir::new();
    contract(&Sqlite::new(directory.path()).unwrap()).await;
    let database = Database::new().await;
    contract(&database.store()).await;
}

fn execution(number: u32) -> Execution {
    Execution {
        id: Some(ExecutionId(uuid::Uuid::from_u128(u128::from(number)))),
        request_id: format!("r-{number}"),
        call: "generateContent".to_owned(),
        template_name: Some(if number.is_multiple_of(2) { "even" } else { "odd" }.to_owned()),
        user_id: Some(format!("u-{}", number % 3)),
        outcome: Outcome::Success,
        success: true,
        created_at: "2026-11-22T20:00:00.123456Z".parse().unwrap(),
        ..Execution::default()
    }
}

fn full() -> Execution {
    Execution {
        variables_used: Some(json!({"x": "nul \u{0} é \u{10ffff} \"quoted\"", "n": 1.5})),
        rendered_prompt: Some(json!("only a string")),
        model_config: Some(json!({"temperature": 0.2})),
        execution_time_ms: 12.25,
        token_count: Some(u64::try_from(i64::MAX).unwrap()),
        estimated_cost_usd: Some(PicoUsd(123_456_789_012_345_678)),
        http_status: Some(200),
        guardrails_evaluated: vec![Evaluation {
            rule_name: "r".to_owned(),
            passed: false,
            reason: Some("a".to_owned()),
        }],
        guardrail_violations: vec![Violation {
            rule_name: "r".to_owned(),
            entity: "e".to_owned(),
            direction: "request".to_owned(),
            action: "warn".to_owned(),
            place: Some("contents[0].parts[0].text".to_owned()),
            start: 1,
            end: 2,
        }],
        ..execution(7)
    }
}

fn ids(rows: &[Value]) -> Vec<u128> {
    rows.iter()
        .map(|row| row["id"].as_str().unwrap().parse::<uuid::Uuid>().unwrap().as_u128())
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn migrations_go_up_down_and_up() {
    both(async |store| {
        assert!(matches!(store.changed(None).await, Err(StoreError::NotMigrated)));
        assert!(matches!(store.revision().await, Err(StoreError::NotMigrated)));
        assert!(!store.migration_state().await.unwrap().is_current());
        assert_eq!(store.migrate_up().await.unwrap().versions, [1, 2, 3, 4, 5, 6, 7, 8]);
        assert!(
            store.migrate_up().await.unwrap().versions.is_empty(),
            "a second time does nothing"
        );
        assert!(store.migration_state().await.unwrap().is_current());
        store.insert_executions(&[execution(1), execution(2)]).await.unwrap();
        let down = store.migrate_down(0).await.unwrap();
        assert_eq!((down.versions, down.archived), (vec![8, 7, 6, 5, 4, 3, 2, 1], 2));
        assert!(matches!(store.changed(None).await, Err(StoreError::NotMigrated)));
        assert_eq!(store.migrate_up().await.unwrap().versions, [1, 2, 3, 4, 5, 6, 7, 8]);
        assert!(
            store
                .executions(&ExecutionQuery { limit: 9, ..ExecutionQuery::default() })
                .await
                .unwrap()
                .is_empty()
        );
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fresh_store_equals_the_files() {
    both(async |store| {
        store.migrate_up().await.unwrap();
        let mut stored = store.changed(None).await.unwrap().definitions;
        let seeds = Definitions::default().updated(seeds().unwrap(), true);
        for template in &mut stored.templates {
            let template = Arc::make_mut(template);
            (template.created_at, template.updated_at) = (None, None);
        }
        for guardrail in &mut stored.guardrails {
            let guardrail = Arc::make_mut(guardrail);
            (guardrail.created_at, guardrail.updated_at) = (None, None);
        }
        let stored = Definitions::default().updated(stored, true);
        // PostgreSQL's jsonb orders keys by its own rule; the meaning is what must be equal.
        assert_eq!(stored, seeds);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn executions_go_in_once_and_come_out_whole() {
    both(async |store| {
        store.migrate_up().await.unwrap();
        store.insert_executions(&[full()]).await.unwrap();
        store.insert_executions(&[full(), execution(8)]).await.unwrap();
        let rows = store
            .executions(&ExecutionQuery { limit: 9, ..ExecutionQuery::default() })
            .await
            .unwrap();
        assert_eq!(ids(&rows), [8, 7], "the same id is stored once");
        let row = &rows[1];
        for (name, value) in [
            ("estimated_cost_usd", json!("123456.789012345678")),
            ("rendered_prompt", json!("only a string")),
            ("token_count", json!(i64::MAX)),
            ("execution_time_ms", json!(12.25)),
            ("success", json!(true)),
            ("streamed", json!(false)),
            ("outcome", json!("success")),
            ("http_status", json!(200)),
            ("error_type", json!(null)),
            ("guardrails_evaluated", json!([{"rule_name": "r", "passed": false, "reason": "a"}])),
        ] {
            assert_eq!(row[name], value, "{} {name}", store.kind());
        }
        let text = row["variables_used"]["x"].as_str().unwrap();
        assert!(text.ends_with(" é \u{10ffff} \"quoted\""), "{text}");
        let at: jiff::Timestamp = row["created_at"].as_str().unwrap().parse().unwrap();
        assert_eq!(at, full().created_at, "{}", store.kind());
        let none = rows[0]["estimated_cost_usd"].is_null() && rows[0]["variables_used"].is_null();
        assert!(none, "null stays null");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_are_stable_and_filters_hold() {
    both(async |store| {
        store.migrate_up().await.unwrap();
        let batch: Vec<Execution> = (1..=25).map(execution).collect();
        store.insert_executions(&batch).await.unwrap();
        let mut query = ExecutionQuery { limit: 10, ..ExecutionQuery::default() };
        let mut seen = Vec::new();
        loop {
            let rows = store.executions(&query).await.unwrap();
            let Some(last) = rows.last() else { break };
            seen.extend(ids(&rows));
            query.after = Some(Cursor {
                created_at: last["created_at"].as_str().unwrap().parse().unwrap(),
                id: last["id"].as_str().unwrap().parse().unwrap(),
            });
            // Newer rows do not move the pages behind the cursor.
            let newer = Execution {
                created_at: "2026-11-22T21:00:00Z".parse().unwrap(),
                ..execution(100 + u32::try_from(seen.len()).unwrap())
            };
            store.insert_executions(&[newer]).await.unwrap();
        }
        assert_eq!(seen, (1..=25).rev().collect::<Vec<u128>>(), "{}", store.kind());
        let some =
            |template: Option<&str>, user: Option<&str>, outcome: Option<&str>| ExecutionQuery {
                limit: 100,
                template: template.map(str::to_owned),
                user: user.map(str::to_owned),
                outcome: outcome.map(str::to_owned),
                ..ExecutionQuery::default()
            };
        let hostile = "x' or '1'='1";
        for (query, count) in [
            (some(Some("even"), Some("u-1"), None), 4),
            (some(None, None, Some("failed")), 0),
            (some(Some(hostile), None, None), 0),
            (
                ExecutionQuery {
                    tenant: Tenant("other".into()),
                    limit: 9,
                    ..ExecutionQuery::default()
                },
                0,
            ),
        ] {
            let rows = store.executions(&query).await.unwrap();
            let rows = rows
                .iter()
                .filter(|row| row["created_at"].as_str().unwrap().contains("20:00"))
                .count();
            assert_eq!(rows, count, "{query:?}");
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_migration_that_fails_leaves_no_trace() {
    let (directory, database) = (TempDir::new(), Database::new().await);
    let (sqlite, postgres) = (Sqlite::new(directory.path()).unwrap(), database.store());
    let file = rusqlite::Connection::open(directory.path().join("chaperone.db")).unwrap();
    for store in [&sqlite as &dyn Store, &postgres] {
        let execute = async |sql: &str| match store.kind() {
            "sqlite" => file.execute_batch(sql).unwrap(),
            _ => database.execute(sql).await,
        };
        store.migrate_up().await.unwrap();
        store.migrate_down(1).await.unwrap();
        let before = store.migration_state().await.unwrap();
        // Stands in the way of the second half of what is due.
        execute("create table prompt_audit_head (x integer)").await;
        let failed = store.migrate_up().await.unwrap_err();
        assert!(matches!(failed, StoreError::Migration(_)), "{failed}");
        assert_eq!(store.migration_state().await.unwrap(), before, "{}", store.kind());
        execute("drop table prompt_audit_head").await;
        assert_eq!(
            store.migrate_up().await.unwrap().versions,
            [2, 3, 4, 5, 6, 7, 8],
            "{}",
            store.kind()
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn four_starters_migrate_an_empty_database_once() {
    let database = Database::new().await;
    let starters: Vec<_> = (0..4)
        .map(|_| {
            let store = database.store();
            tokio::spawn(async move { store.migrate_up().await.unwrap().versions.len() })
        })
        .collect();
    let mut ran = 0;
    for starter in starters {
        ran += starter.await.unwrap();
    }
    assert_eq!(ran, 8, "every migration, once");
    assert_eq!(database.count("select count(*) from prompt_templates").await, 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_is_not_there_is_unavailable_and_tells_no_secret() {
    let url = chaperone::words::secret::Secret::new("postgres://user:hunter2@127.0.0.1:1/none");
    drop(rustls::crypto::ring::default_provider().install_default());
    let store = chaperone::store::Postgres::new(&url, 2, None).unwrap();
    let error = store.changed(None).await.unwrap_err();
    assert!(matches!(error, StoreError::Unavailable(_)));
    assert!(!format!("{error} {error:?} {store:?}").contains("hunter2"));
}

/// A template version with everything a change may need.
fn template(name: &str, version: u32) -> TemplateDefinition {
    let now = Some("2026-11-23T20:00:00.123456Z".parse().unwrap());
    let json = json!({
        "id": uuid::Uuid::new_v4(), "name": name, "version": version, "template_text": "é \u{10ffff} {x}",
        "variables": ["x"], "tags": ["a", "ü"], "model_config": {"temperature": 0.25, "seed": 9_007_199_254_740_993_i64},
        "traffic_percentage": 12.345,
    });
    TemplateDefinition { created_at: now, updated_at: now, ..serde_json::from_value(json).unwrap() }
}

fn puts(templates: &[&TemplateDefinition]) -> Definitions {
    let templates = templates.iter().map(|one| Arc::new((*one).clone())).collect();
    Definitions { templates, ..Definitions::default() }
}

fn entry(action: &str) -> Entry {
    Entry {
        id: uuid::Uuid::now_v7(),
        tenant_id: Tenant::default(),
        at: "2026-11-23T20:00:00.000001Z".parse().unwrap(),
        actor: "ann".to_owned(),
        action: action.to_owned(),
        object_type: "template",
        object_id: "1".to_owned(),
        before: None,
        after: Some(r#"{"b": 1.0, "a": "\ud83d\ude00", "a2": [1e2]}"#.to_owned()),
        reason: None,
        request_id: None,
    }
}

async fn row(store: &dyn Store, id: uuid::Uuid) -> Option<Row> {
    let query = RowQuery { id: Some(id), ..RowQuery::of(Table::Templates, &Tenant::default()) };
    store.rows(&query).await.unwrap().into_iter().next()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_is_whole_or_nothing() {
    both(async |store| {
        store.migrate_up().await.unwrap();
        let mut one = template("t", 1);
        let fresh = |one: &TemplateDefinition| Expect {
            table: Table::Templates,
            id: one.id.0,
            revision: None,
        };
        let change = Change {
            expects: vec![fresh(&one)],
            puts: puts(&[&one]),
            audit: vec![entry("made")],
            ..Change::default()
        };
        store.commit(&change).await.unwrap();
        let read = row(store, one.id.0).await.unwrap();
        assert_eq!(
            read.definition::<TemplateDefinition>(Table::Templates).unwrap(),
            one,
            "{}",
            store.kind()
        );
        assert_eq!(read.columns["latest_version"], 1);
        assert!(matches!(store.commit(&change).await, Err(StoreError::Moved { .. })));

        // The same version again, a name taken, a version edited: refused, and nothing of it stays.
        let twin = TemplateDefinition { id: TemplateId::new(), ..one.clone() };
        let also = template("also", 1);
        let taken =
            Change { puts: puts(&[&also, &twin]), audit: vec![entry("no")], ..Change::default() };
        assert!(
            matches!(store.commit(&taken).await, Err(StoreError::Exists(_))),
            "{}",
            store.kind()
        );
        assert!(row(store, also.id.0).await.is_none());
        let moved = Expect { revision: Some(read.revision - 1), ..fresh(&one) };
        one.is_active = true;
        let stale = Change { expects: vec![moved], puts: puts(&[&one]), ..Change::default() };
        assert!(matches!(store.commit(&stale).await, Err(StoreError::Moved { .. })));
        let held = Expect { revision: Some(read.revision), ..fresh(&one) };
        store
            .commit(&Change { expects: vec![held], puts: puts(&[&one]), ..Change::default() })
            .await
            .unwrap();
        assert!(row(store, one.id.0).await.unwrap().revision > read.revision);

        // One active version of a name, by the store itself.
        let second = TemplateDefinition { is_active: true, ..template("t", 2) };
        let both_active =
            store.commit(&Change { puts: puts(&[&second]), ..Change::default() }).await;
        assert!(matches!(both_active, Err(StoreError::Exists(_))), "{both_active:?}");
        one.is_active = false;
        store.commit(&Change { puts: puts(&[&one, &second]), ..Change::default() }).await.unwrap();

        let chain = store
            .audit(&AuditQuery { after: Some(-1), limit: 9, ..AuditQuery::default() })
            .await
            .unwrap();
        assert_eq!(chain.len(), 1, "what was refused left no entry");
        assert_eq!(
            chain[0].hash.as_deref(),
            Some(chain[0].expected_hash().as_str()),
            "{}",
            store.kind()
        );
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_version_has_one_hash_wherever_it_is_kept() {
    let json = json!({
        "id": uuid::Uuid::new_v4(), "name": "hashed", "version": 1, "template_text": "{zeta}{alpha}",
        "variables": {"zeta": {"type": "string", "max_length": 10}, "alpha": "string"},
        "model_config": {"topP": 1.0, "temperature": 0.25, "maxOutputTokens": 1e3,
            "responseSchema": {"type": "OBJECT", "properties": {"b": {"type": "STRING"}, "a": {"type": "STRING"}}}},
    });
    let one: TemplateDefinition = serde_json::from_value(json).unwrap();
    let hash = |definition: &TemplateDefinition| Version::compile(definition).unwrap().content_hash;
    let (name, content) = puts(&[&one]).to_files().unwrap().pop().unwrap();
    let mut read = Definitions::default();
    read.add_file(&name, &content).unwrap();
    assert_eq!(hash(&read.templates[0]), hash(&one), "a file");
    both(async |store| {
        store.migrate_up().await.unwrap();
        store.commit(&Change { puts: puts(&[&one]), ..Change::default() }).await.unwrap();
        let stored = store.changed(None).await.unwrap().definitions;
        let stored = stored.templates.iter().find(|there| there.id == one.id).unwrap();
        assert_eq!(hash(stored), hash(&one), "{}", store.kind());
    })
    .await;
    let other = TemplateDefinition { model_config: serde_json::Map::new(), ..one.clone() };
    assert_ne!(hash(&other), hash(&one));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_is_told_what_changed_since_it_last_read() {
    both(async |store| {
        store.migrate_up().await.unwrap();
        let first = store.changed(None).await.unwrap();
        assert_eq!(first.counts, [3, 8, 0]);
        let nothing = store.changed(Some(first.revision)).await.unwrap();
        assert_eq!((nothing.definitions.counts(), nothing.counts), ([0, 0, 0], [3, 8, 0]));
        let same = store.differing(&first.marks).await.unwrap();
        // A store without marks tells everything.
        let all = if store.kind() == "sqlite" { first.counts } else { [0, 0, 0] };
        assert_eq!((same.definitions.counts(), same.counts), (all, first.counts));
        let one = template("new", 1);
        store.commit(&Change { puts: puts(&[&one]), ..Change::default() }).await.unwrap();
        let other = store.differing(&first.marks).await.unwrap();
        assert_eq!(
            (other.definitions.counts(), other.revision > first.revision),
            ([all[0] + 1, all[1], 0], true)
        );
        assert!(other.definitions.templates.iter().any(|there| there.id == one.id));
        let more = store.changed(Some(first.revision)).await.unwrap();
        assert_eq!((more.definitions.counts(), more.counts), ([1, 0, 0], [4, 8, 0]));
        let edited = TemplateDefinition { description: Some("d".to_owned()), ..one };
        store.commit(&Change { puts: puts(&[&edited]), ..Change::default() }).await.unwrap();
        let last = store.changed(Some(more.revision)).await.unwrap();
        assert_eq!(last.definitions.templates[0].description.as_deref(), Some("d"));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn lists_go_by_name_in_the_order_of_bytes() {
    both(async |store| {
        store.migrate_up().await.unwrap();
        let names = ["b", "B", "a/b", "a", "ä", "a-b", "a_b"];
        let templates: Vec<TemplateDefinition> =
            names.iter().map(|name| template(name, 1)).collect();
        store
            .commit(&Change {
                puts: puts(&templates.iter().collect::<Vec<_>>()),
                ..Change::default()
            })
            .await
            .unwrap();
        let mut seen: Vec<String> = Vec::new();
        let mut query = RowQuery { limit: 2, ..RowQuery::of(Table::Templates, &Tenant::default()) };
        query.tag = Some("ü".to_owned());
        loop {
            let rows = store.rows(&query).await.unwrap();
            let Some(last) = rows.last() else { break };
            let name = last.columns["name"].as_str().unwrap().to_owned();
            query.after = Some(NameCursor { name, version: 1 });
            seen.extend(rows.iter().map(|row| row.columns["name"].as_str().unwrap().to_owned()));
            // What comes in before the cursor does not move the pages behind it.
            let early = template(&format!("A{}", seen.len()), 1);
            store.commit(&Change { puts: puts(&[&early]), ..Change::default() }).await.unwrap();
        }
        assert_eq!(seen, ["B", "a", "a-b", "a/b", "a_b", "b", "ä"], "{}", store.kind());
        let hostile = RowQuery { name: Some("x' or '1'='1".to_owned()), ..query.clone() };
        assert!(store.rows(&hostile).await.unwrap().is_empty());
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_audit_holds_through_migrations() {
    both(async |store| {
        store.migrate_up().await.unwrap();
        let change = Change { audit: vec![entry("one"), entry("two")], ..Change::default() };
        store.commit(&change).await.unwrap();
        let seen = store.changed(None).await.unwrap().revision;
        assert_eq!(store.migrate_down(1).await.unwrap().versions, [8, 7, 6, 5, 4, 3, 2]);
        assert_eq!(store.migrate_up().await.unwrap().versions, [2, 3, 4, 5, 6, 7, 8]);
        let query = AuditQuery { after: Some(-1), limit: 9, ..AuditQuery::default() };
        let chain = store.audit(&query).await.unwrap();
        assert_eq!(chain.len(), 2, "{}", store.kind());
        for entry in &chain {
            assert_eq!(
                entry.hash.as_deref(),
                Some(entry.expected_hash().as_str()),
                "{}",
                store.kind()
            );
        }
        assert_eq!(chain[1].previous_hash, chain[0].hash);
        let head = store.audit_head().await.unwrap().unwrap();
        assert_eq!((head.entries, head.sequence), (2, Some(chain[1].sequence)), "{}", store.kind());
        assert_eq!(head.hash, chain[1].hash, "{}", store.kind());
        let again = store.changed(Some(seen)).await.unwrap();
        assert_eq!(again.definitions.counts(), [3, 8, 0], "every row is told anew");
        // All the way down and up twice: an archive that is there takes more.
        for _ in 0..2 {
            store.migrate_down(0).await.unwrap();
            store.migrate_up().await.unwrap();
        }
    })
    .await;
}

/// An experiment that runs on two versions, and they.
fn running(name: &str) -> (ExperimentId, Definitions) {
    let (control, variant) = (template(name, 1), template(name, 2));
    let id = ExperimentId(uuid::Uuid::new_v4());
    let experiment = serde_json::from_value(json!({
        "id": id, "name": name, "template_name": name, "status": "active",
        "control_template_id": control.id, "variant_template_ids": [variant.id],
        "traffic_split": {"control": 50, "variant_a": 50}, "enrollment_percentage": 12.5,
        "arms": [{"ordinal": 0, "key": "control"}], "start_date": "2026-11-23T20:00:00Z",
        "assignment": {"phase": 2, "enrolled_most": 25.0, "forced_units": {"é": "control"}},
    }));
    let definitions = puts(&[&control, &variant]);
    (id, Definitions { experiments: vec![Arc::new(experiment.unwrap())], ..definitions })
}

fn phase(experiment_id: ExperimentId, number: u32, mode: &str, second: i64) -> Phase {
    Phase {
        experiment_id,
        phase: number,
        mode: mode.to_owned(),
        arms: json!([{"key": "control", "ranges": [{"enroll": [0, 100_000], "variant": [0, 7]}]}]),
        enrollment_percentage: 12.5,
        moved_percentage: (mode == "min_move").then_some(16.667),
        salt: "demo-0001".to_owned(),
        hash_version: 1,
        actor: "ann".to_owned(),
        reason: None,
        started_at: jiff::Timestamp::from_second(second).unwrap(),
        ended_at: None,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn phases_follow_each_other_and_outlive_their_schema() {
    both(async |store| {
        store.migrate_up().await.unwrap();
        let (id, definitions) = running("phased");
        let turn = |at: i64, begins| Turn {
            experiment: id,
            at: jiff::Timestamp::from_second(at).unwrap(),
            begins,
        };
        let change = Change {
            puts: definitions,
            turns: vec![
                turn(10, Some(phase(id, 1, "start", 10))),
                turn(20, Some(phase(id, 2, "min_move", 20))),
                // Ends before it began: it never was.
                turn(15, None),
            ],
            audit: vec![entry("phases")],
            ..Change::default()
        };
        store.commit(&change).await.unwrap();
        let ended =
            |phase: Phase, at| Phase { ended_at: jiff::Timestamp::from_second(at).ok(), ..phase };
        let expected =
            [ended(phase(id, 1, "start", 10), 20), ended(phase(id, 2, "min_move", 20), 20)];
        assert_eq!(store.phases(id).await.unwrap(), expected, "{}", store.kind());
        let again = Change {
            turns: vec![turn(30, Some(phase(id, 2, "pause", 30)))],
            audit: vec![entry("x")],
            ..Change::default()
        };
        assert!(store.commit(&again).await.is_err(), "a phase has one number");

        // Down and up: what ran has a first phase, and what cannot be made again is kept.
        assert_eq!(
            store.migrate_down(3).await.unwrap().versions,
            [8, 7, 6, 5, 4],
            "{}",
            store.kind()
        );
        store.migrate_up().await.unwrap();
        let phases = store.phases(id).await.unwrap();
        assert_eq!((phases.len(), phases[0].mode.as_str(), phases[0].ended_at), (1, "start", None));
        assert_eq!(phases[0].salt, id.to_string(), "the experiment's own");
        let read = store.changed(None).await.unwrap().definitions.experiments;
        let beside = read[0].assignment.clone().unwrap();
        assert_eq!((beside.phase, beside.enrolled_most.to_bits()), (1, 12.5_f64.to_bits()));
        assert_eq!(read[0].design.clone().unwrap().target_sample_size, Some(5000));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_was_served_what_is_told_once_a_unit_and_without_hands() {
    both(async |store| {
        store.migrate_up().await.unwrap();
        let (id, _) = running("exposed");
        let served = |number: u32, unit: &str, reason: &str| Execution {
            unit_key: Some(unit.to_owned()),
            ab_test_group: Some("control".to_owned()),
            ab_test_experiment_id: Some(id),
            assignment_reason: Some(reason.to_owned()),
            ..execution(number)
        };
        let rows = [
            served(1, "a", "assigned"),
            served(2, "a", "assigned"),
            served(3, "qa", "forced"),
            served(4, "b", "assigned"),
            execution(5),
        ];
        store.insert_executions(&rows).await.unwrap();
        let mut told = store.exposures(id, 9).await.unwrap();
        told.sort_by(|one, other| one.unit.cmp(&other.unit));
        let exposure = |unit: &str| Exposure { unit: unit.to_owned(), arm: "control".to_owned() };
        assert_eq!(told, [exposure("a"), exposure("b")], "{}", store.kind());
        assert_eq!(store.exposures(id, 1).await.unwrap().len(), 1);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_version_that_is_an_arm_cannot_be_deleted() {
    let (directory, database) = (TempDir::new(), Database::new().await);
    let (sqlite, postgres) = (Sqlite::new(directory.path()).unwrap(), database.store());
    for store in [&sqlite as &dyn Store, &postgres] {
        store.migrate_up().await.unwrap();
        let (_, definitions) = running("held");
        let spare = template("held", 3);
        let mut all = definitions.clone();
        all.templates.push(Arc::new(spare.clone()));
        store
            .commit(&Change { puts: all, audit: vec![entry("x")], ..Change::default() })
            .await
            .unwrap();
        for (version, is_kept) in
            definitions.templates.iter().map(|one| (one.id, true)).chain([(spare.id, false)])
        {
            let delete = format!("delete from prompt_templates where id = '{version}'");
            if store.kind() == "sqlite" {
                let file =
                    rusqlite::Connection::open(directory.path().join("chaperone.db")).unwrap();
                file.execute_batch("pragma foreign_keys = on").unwrap();
                assert_eq!(file.execute_batch(&delete).is_err(), is_kept);
            } else {
                let tried = format!(
                    "do $$ begin {delete}; exception when integrity_constraint_violation or restrict_violation
                        or foreign_key_violation then null; end $$"
                );
                database.execute(&tried).await;
            }
            let still = row(store, version.0).await.is_some();
            assert_eq!(still, is_kept, "{}", store.kind());
        }
    }
}
