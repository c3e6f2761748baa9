//! What the guardrail engine costs: `cargo run --release --example engine -- [DIR]`.
//!
//! DIR holds labelled texts (`.jsonl`, `.jsonl.gz`), as `chaperone eval` reads them; without it a generated
//! text serves. Prints figures and asserts nothing. One thread.

#![expect(
    clippy::disallowed_methods,
    clippy::print_stdout,
    clippy::expect_used,
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::indexing_slicing,
    reason = "a measuring program owns its clock and its output"
)]

use std::hint::black_box;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use chaperone::catalog::files;
use chaperone::guardrail::{
    Direction, Guardrails, Inspects, Kind, Rule, RuleConfig, RuleSet, Severity, Window,
};
use chaperone::words::ids::GuardrailId;
use serde_json::{Value, json};

const CHUNK: usize = 2048;
const PIECE: usize = 24;

fn main() {
    let seeds = files::seeds().expect("the seeds compile");
    let rules: Vec<Rule> = seeds.guardrails.iter().map(|one| one.as_ref().into()).collect();
    let began = Instant::now();
    let default = Arc::new(Guardrails::compile(rules.clone()).expect("the seeds compile"));
    say("compile the default rules", &format!("{:.0} ms", ms(began.elapsed())));
    let chunks = chunks();
    let bytes: usize = chunks.iter().map(String::len).sum();
    say(
        "texts",
        &format!("{} chunks of {CHUNK} bytes, {:.1} MB", chunks.len(), bytes as f64 / 1e6),
    );

    for (name, direction) in [("request", Direction::Request), ("response", Direction::Response)] {
        report(&format!("default rules, {name}"), &default, direction, &chunks);
    }
    report_stream(&default, &chunks);
    for rule in &rules {
        let alone = Guardrails::compile(vec![rule.clone()]).expect("it compiles");
        report(&format!("  {}", rule.name), &alone, Direction::Request, &chunks);
    }
    let mut many = rules;
    many.push(large(10_000, 100));
    let many = Guardrails::compile(many).expect("it compiles");
    report("default rules, 10,000 literals, 100 expressions", &many, Direction::Request, &chunks);
    for (name, guardrails) in [("default", &*default), ("with 10,000", &many)] {
        for size in [CHUNK, 1 << 20] {
            let (worst, text) = worst(guardrails, size);
            let shown: String = text.chars().take(40).collect();
            say(
                &format!("worst text of {size} bytes, {name}"),
                &format!("{:.2} ms ({shown:?})", ms(worst)),
            );
        }
    }
}

fn report(name: &str, guardrails: &Guardrails, direction: Direction, chunks: &[String]) {
    let rules = rules(guardrails, direction);
    let mut times: Vec<Duration> = Vec::new();
    for round in 0..4 {
        for chunk in chunks {
            let began = Instant::now();
            black_box(guardrails.scan(chunk, &rules));
            // The first round warms lazy automata.
            if round > 0 {
                times.push(began.elapsed());
            }
        }
    }
    times.sort_unstable();
    let bytes: usize = chunks.iter().map(String::len).sum();
    let all: Duration = times.iter().sum();
    let at =
        |share: usize| times[(times.len() * share / 1000).min(times.len() - 1)].as_secs_f64() * 1e6;
    let speed = bytes as f64 * 3.0 / all.as_secs_f64() / 1e6;
    say(
        name,
        &format!(
            "{speed:.0} MB/s, {:.1} us p50, {:.1} us p99, {:.1} us max",
            at(500),
            at(990),
            at(1000)
        ),
    );
}

/// Answers in pieces as small as models send them.
fn report_stream(guardrails: &Arc<Guardrails>, chunks: &[String]) {
    let rules = Arc::new(rules(guardrails, Direction::Response));
    let (mut times, mut held) = (Vec::new(), 0);
    for chunk in chunks {
        let mut window = Window::new(guardrails.clone(), rules.clone());
        let (mut rest, mut len) = (chunk.as_str(), 0);
        while !rest.is_empty() {
            let (piece, tail) = rest.split_at(rest.ceil_char_boundary(PIECE.min(rest.len())));
            let began = Instant::now();
            let progress = window.push(piece);
            times.push(began.elapsed());
            len += piece.len();
            held += usize::from(progress.safe_to < len);
            rest = tail;
        }
    }
    times.sort_unstable();
    let at = |share: usize| times[times.len() * share / 1000].as_secs_f64() * 1e6;
    let held = held as f64 * 100.0 / times.len() as f64;
    say(
        &format!("answers in pieces of {PIECE} bytes"),
        &format!("{:.1} us p50, {:.1} us p99 a piece; {held:.0} % held", at(500), at(990)),
    );
}

fn worst(guardrails: &Guardrails, size: usize) -> (Duration, String) {
    let rules = rules(guardrails, Direction::Request);
    let time = |text: &String| {
        let began = Instant::now();
        black_box(guardrails.scan(text, &rules));
        began.elapsed()
    };
    let texts = guardrails.worst_texts(size);
    let timed =
        texts.into_iter().map(|text| ((0..3).map(|_| time(&text)).min().unwrap_or_default(), text));
    timed.max_by_key(|(took, _)| *took).unwrap_or_default()
}

fn rules(guardrails: &Guardrails, direction: Direction) -> RuleSet {
    let select = |inspects| guardrails.select(direction, inspects, None);
    select(Inspects::Untrusted).union(&select(Inspects::Rendered))
}

/// A guardrail of made-up words and tokens.
fn large(literals: usize, patterns: usize) -> Rule {
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    let mut word = move |letters: usize| -> String {
        (0..letters)
            .map(|_| {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                char::from(b'a' + (state >> 33) as u8 % 26)
            })
            .collect()
    };
    let literals: Vec<String> = (0..literals).map(|_| format!("{} {}", word(6), word(5))).collect();
    let patterns: Vec<Value> = (0..patterns)
        .map(|_| json!({"entity": "token", "regex": format!("{}_[a-z0-9]{{8,20}}", word(4))}))
        .collect();
    let config = json!({"literals": literals, "patterns": patterns});
    let config: RuleConfig = serde_json::from_value(config).expect("it is a rule_config");
    Rule {
        id: GuardrailId::new(),
        name: "large".to_owned(),
        kind: Kind::Custom,
        severity: Severity::Warning,
        blocking: false,
        config,
        templates: Vec::new(),
        categories: Vec::new(),
    }
}

/// The benign texts of the directory, or generated ones, in chunks.
fn chunks() -> Vec<String> {
    let dir = std::env::args().nth(1);
    let text = match &dir {
        Some(dir) => benign(Path::new(dir)),
        None => "The quick brown fox reads 17 reports on the weather, and writes to nobody.\n"
            .repeat(10_000),
    };
    let mut chunks = Vec::new();
    let mut rest = text.as_str();
    while !rest.is_empty() {
        let (chunk, tail) = rest.split_at(rest.ceil_char_boundary(CHUNK.min(rest.len())));
        chunks.push(chunk.to_owned());
        rest = tail;
    }
    chunks
}

fn benign(dir: &Path) -> String {
    let mut text = String::new();
    for entry in std::fs::read_dir(dir).expect("the directory").flatten() {
        let path = entry.path();
        let file = std::fs::File::open(&path).expect("a file of it");
        let is_packed = path.extension().is_some_and(|extension| extension == "gz");
        let reader: Box<dyn Read> =
            if is_packed { Box::new(flate2::read::GzDecoder::new(file)) } else { Box::new(file) };
        for line in BufReader::new(reader).lines().map_while(Result::ok) {
            let row: Value = serde_json::from_str(&line).unwrap_or_default();
            if row["label"] == 0 {
                text.push_str(row["text"].as_str().unwrap_or_default());
                text.push('\n');
            }
        }
    }
    text
}

fn ms(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}

fn say(what: &str, figure: &str) {
    println!("{what:<50} {figure}");
}
