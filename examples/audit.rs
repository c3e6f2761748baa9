//! What recording costs: `scripts/with-postgres.sh cargo run --release --example audit`.
//!
//! Prints what a record costs the request path; how many rows a second reach the store, for the embedded one
//! and, where `CHAPERONE_TEST_POSTGRES_URL` names a server, for PostgreSQL; and how long a start takes on an
//! outbox of a gigabyte, in what memory, and how fast it drains then. Asserts nothing.

#![expect(
    clippy::disallowed_methods,
    clippy::print_stdout,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    clippy::cast_precision_loss,
    clippy::cast_sign_loss,
    reason = "a measuring program owns its clock and its output"
)]

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use chaperone::config::{Environment, Settings};
use chaperone::execution::{Evaluation, Execution, Outcome};
use chaperone::export::Taps;
use chaperone::outbox;
use chaperone::store::{Postgres, Sqlite, Store};
use chaperone::words::ids::{ExecutionId, TemplateId, Tenant};
use chaperone::words::money::PicoUsd;
use chaperone::words::secret::Secret;
use jiff::Timestamp;
use serde_json::json;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

const RECORDS: usize = 100_000;
/// Of an outbox of a gigabyte.
const LEFT_OVER: usize = 320_000;

#[tokio::main]
async fn main() {
    drop(rustls::crypto::ring::default_provider().install_default());
    let dir = std::env::temp_dir().join(format!("chaperone-audit-{}", Uuid::new_v4()));
    for durability in ["process", "power"] {
        request_path(&dir.join(durability), durability);
    }
    let embedded = dir.join("embedded");
    std::fs::create_dir_all(&embedded).expect("a directory");
    let store = Sqlite::new(&embedded).expect("an embedded store");
    through_the_outbox("embedded", &embedded, Arc::new(store)).await;
    if let Ok(url) = std::env::var("CHAPERONE_TEST_POSTGRES_URL") {
        let store: Arc<dyn Store> =
            Arc::new(Postgres::new(&Secret::new(url), 4, None).expect("a store"));
        through_the_outbox("postgresql", &dir.join("postgresql"), store.clone()).await;
        after_an_outage(&dir.join("outage"), store).await;
    }
    std::fs::remove_dir_all(&dir).expect("the directory goes");
}

/// What `record` costs whoever calls it, at the pace of a busy sidecar.
fn request_path(dir: &Path, durability: &str) {
    std::fs::create_dir_all(dir).expect("a directory");
    let outbox = outbox::start(dir, &settings(dir, durability).audit, false, Taps::default())
        .expect("an outbox");
    let (count, pace) = match durability {
        "process" => (20_000, Duration::from_micros(200)),
        _ => (500, Duration::from_millis(2)),
    };
    let mut costs: Vec<Duration> = (0..count)
        .map(|number| {
            let execution = execution(number);
            std::thread::sleep(pace);
            let began = Instant::now();
            outbox.recorder.record(&execution);
            began.elapsed()
        })
        .collect();
    costs.sort_unstable();
    let at = |share: f64| costs[(costs.len() as f64 * share) as usize].as_secs_f64() * 1e6;
    println!("record, {durability:8} p50 {:8.1} µs  p99 {:8.1} µs", at(0.5), at(0.99));
}

async fn through_the_outbox(name: &str, dir: &Path, store: Arc<dyn Store>) {
    std::fs::create_dir_all(dir).expect("a directory");
    store.migrate_up().await.expect("migrations");
    let outbox = outbox::start(dir, &settings(dir, "process").audit, false, Taps::default())
        .expect("an outbox");
    let ledger = outbox.recorder.ledger().clone();
    let executions: Vec<Execution> = (0..RECORDS).map(execution).collect();
    let began = Instant::now();
    for execution in &executions {
        outbox.recorder.record(execution);
    }
    let recorded = began.elapsed();
    let stop = CancellationToken::new();
    let shipping = outbox::ship(outbox.file, store, ledger.clone(), outbox.filled, stop.clone());
    let shipper = tokio::spawn(shipping);
    while ledger.standing().stored < RECORDS as u64 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let rate = |took: Duration| RECORDS as f64 / took.as_secs_f64();
    println!(
        "{name:10} recorded {:8.0}/s  stored {:8.0} rows/s",
        rate(recorded),
        rate(began.elapsed())
    );
    stop.cancel();
    shipper.await.expect("the shipper ends");
}

/// A start on what an outage has left.
async fn after_an_outage(dir: &Path, store: Arc<dyn Store>) {
    std::fs::create_dir_all(dir).expect("a directory");
    let audit = settings(dir, "process").audit;
    let start = || outbox::start(dir, &audit, false, Taps::default()).expect("an outbox");
    let outbox = start();
    for number in 0..LEFT_OVER {
        outbox.recorder.record(&execution(number));
    }
    let bytes = outbox.recorder.ledger().standing().bytes;
    drop(outbox.recorder);
    outbox.writer.join().expect("the writer ends");
    drop(outbox.file);

    let (memory, began) = (resident_kib(), Instant::now());
    let outbox = start();
    let started = began.elapsed();
    let ledger = outbox.recorder.ledger().clone();
    assert_eq!(ledger.standing().waiting(), LEFT_OVER as u64, "all of it is there");
    let stop = CancellationToken::new();
    let began = Instant::now();
    let shipping = outbox::ship(outbox.file, store, ledger.clone(), outbox.filled, stop.clone());
    let shipper = tokio::spawn(shipping);
    let mut memory_most = memory;
    while ledger.standing().waiting() > 0 {
        memory_most = memory_most.max(resident_kib());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    println!(
        "outbox of {} MiB: started in {:.1} ms, drained {:.0} rows/s in {} MiB more memory",
        bytes >> 20,
        started.as_secs_f64() * 1e3,
        LEFT_OVER as f64 / began.elapsed().as_secs_f64(),
        (memory_most - memory) >> 10,
    );
    stop.cancel();
    shipper.await.expect("the shipper ends");
}

/// Memory of this process, as the kernel sees it.
fn resident_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|line| line.split_whitespace().next()?.parse().ok()).unwrap_or_default()
}

fn settings(dir: &Path, durability: &str) -> Settings {
    let path: PathBuf = dir.to_owned();
    let environment = Environment::from([
        ("CHAPERONE_STORAGE__DATA_DIR".to_owned(), path.to_string_lossy().into_owned()),
        ("CHAPERONE_AUDIT__DURABILITY".to_owned(), durability.to_owned()),
        ("CHAPERONE_AUDIT__OUTBOX_BYTES_MAX".to_owned(), "4294967296".to_owned()),
    ]);
    Settings::read("", &environment).expect("settings")
}

/// As a call with a template and the guardrails of a fresh installation leaves it.
fn execution(number: usize) -> Execution {
    let id = ExecutionId::new();
    let text =
        "We talked about fractions, and then about what a prime number is good for. ".repeat(12);
    Execution {
        id: Some(id),
        tenant_id: Tenant::default(),
        request_id: id.to_string(),
        template_id: Some(TemplateId(Uuid::from_u128(7))),
        template_name: Some("nlu_topic_extraction".to_owned()),
        template_version: Some(1),
        template_content_hash: Some("0".repeat(64)),
        call: "generateContent".to_owned(),
        user_id: Some(format!("user-{}", number % 1_000)),
        variables_used: Some(json!({"text": text})),
        rendered_prompt: Some(json!([{"role": "user", "text": text}])),
        model_name: Some("gemini-2.5-flash".to_owned()),
        execution_time_ms: 812.5,
        time_to_first_token_ms: Some(420.25),
        overhead_ms: Some(0.4),
        token_count: Some(900),
        prompt_tokens: Some(600),
        candidates_tokens: Some(300),
        estimated_cost_usd: Some(PicoUsd(930_000_000)),
        price_version: Some("2026-11".to_owned()),
        outcome: Outcome::Success,
        success: true,
        http_status: Some(200),
        finish_reason: Some("STOP".to_owned()),
        guardrails_evaluated: ["pii", "secrets", "injection", "jailbreak", "toxic", "hidden"]
            .map(|rule| Evaluation { rule_name: rule.to_owned(), passed: true, reason: None })
            .to_vec(),
        body_sha256: Some("f".repeat(64)),
        catalog_generation: 1,
        catalog_source: "database".to_owned(),
        created_at: Timestamp::now(),
        ..Execution::default()
    }
}
