//! `chaperone eval`: the guardrails of the configuration directory on labelled texts. Figures are by source,
//! never pooled: one large source would hide all others.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;
use flate2::read::GzDecoder;
use serde::Deserialize;

use super::scan::Inspector;
use super::{Direction, say, settings};
use crate::guardrail::Verdict;
use crate::words::clock;

/// Files that are read.
const ENDINGS: [&str; 2] = [".jsonl", ".jsonl.gz"];
/// Texts that took longest, shown at the end.
const SLOWEST: usize = 5;

/// One labelled text.
#[derive(Debug, Deserialize)]
struct Sample {
    text: String,
    /// 1: something should be found.
    label: Option<u8>,
    #[serde(default)]
    source: String,
    /// First byte, end and kind of what should be found.
    #[serde(default)]
    spans: Vec<(usize, usize, String)>,
}

/// What was seen of one source and label.
#[derive(Debug, Default)]
struct Tally {
    texts: usize,
    bytes: usize,
    found: usize,
    blocked: usize,
}

/// How long texts took.
#[derive(Debug, Default)]
struct Times {
    all: Vec<Duration>,
    slowest: Vec<(Duration, usize, String)>,
    bytes: usize,
}

/// Reads every `.jsonl` and `.jsonl.gz` below a directory and prints what was found in it.
pub fn eval(file: Option<&Path>, dir: &Path, asked: Direction) -> anyhow::Result<()> {
    let inspector = Inspector::new(&settings(file)?, asked)?;
    inspector.warm();
    let files = files(dir)?;
    anyhow::ensure!(!files.is_empty(), "{} has no .jsonl and no .jsonl.gz", dir.display());
    let mut times = Times::default();
    for path in files {
        let mut tallies: BTreeMap<(String, String), Tally> = BTreeMap::new();
        let mut kinds: BTreeMap<String, (usize, usize)> = BTreeMap::new();
        let name = path.display().to_string();
        for (index, line) in lines(&path)?.enumerate() {
            let place = || format!("{name}, line {}", index + 1);
            let line = line.with_context(place)?;
            if line.trim().is_empty() {
                continue;
            }
            let sample: Sample = serde_json::from_str(&line).with_context(place)?;
            let began = clock::monotonic();
            let findings = inspector.find(&sample.text);
            times.note(began.elapsed(), &sample.text, &place());
            let label = match sample.label {
                Some(0) => "benign",
                Some(_) => "flag",
                None => "",
            };
            let tally = tallies.entry((sample.source.clone(), label.to_owned())).or_default();
            tally.texts += 1;
            tally.bytes += sample.text.len();
            tally.found += usize::from(!findings.is_empty());
            tally.blocked += usize::from(inspector.judge(&findings) == Verdict::Block);
            for (from, to, kind) in characters(&sample) {
                let (all, met) = kinds.entry(kind).or_default();
                *all += 1;
                *met += usize::from(findings.iter().any(|one| one.start < to && from < one.end));
            }
        }
        show(&name, &tallies, &kinds);
    }
    times.show();
    Ok(())
}

/// The labelled spans in bytes; labels count characters.
fn characters(sample: &Sample) -> Vec<(usize, usize, String)> {
    let byte =
        |at: usize| sample.text.char_indices().nth(at).map_or(sample.text.len(), |(byte, _)| byte);
    sample.spans.iter().map(|(from, to, kind)| (byte(*from), byte(*to), kind.clone())).collect()
}

fn files(dir: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    let mut folders = vec![dir.to_owned()];
    while let Some(folder) = folders.pop() {
        let entries = std::fs::read_dir(&folder).with_context(|| folder.display().to_string())?;
        for entry in entries {
            let path = entry.with_context(|| folder.display().to_string())?.path();
            let name = path.file_name().map(|name| name.to_string_lossy().into_owned());
            if path.is_dir() {
                folders.push(path);
            } else if name.is_some_and(|name| ENDINGS.iter().any(|end| name.ends_with(end))) {
                files.push(path);
            }
        }
    }
    files.sort();
    Ok(files)
}

fn lines(path: &Path) -> anyhow::Result<impl Iterator<Item = std::io::Result<String>> + use<>> {
    let file = std::fs::File::open(path).with_context(|| path.display().to_string())?;
    let is_packed = path.extension().is_some_and(|extension| extension == "gz");
    let reader: Box<dyn Read> =
        if is_packed { Box::new(GzDecoder::new(file)) } else { Box::new(file) };
    Ok(BufReader::new(reader).lines())
}

fn percent(part: usize, whole: usize) -> f64 {
    let number = |count: usize| u32::try_from(count).map_or(f64::MAX, f64::from);
    if whole == 0 { 0.0 } else { number(part) * 100.0 / number(whole) }
}

fn show(
    name: &str,
    tallies: &BTreeMap<(String, String), Tally>,
    kinds: &BTreeMap<String, (usize, usize)>,
) {
    say(name);
    say(format!(
        "  {:>7} {:>8} {:>8} {:>7}  {:<7} source",
        "texts", "found", "blocked", "KB", "label"
    ));
    for ((source, label), tally) in tallies {
        say(format!(
            "  {:>7} {:>7.2}% {:>7.2}% {:>7}  {label:<7} {source}",
            tally.texts,
            percent(tally.found, tally.texts),
            percent(tally.blocked, tally.texts),
            tally.bytes.div_ceil(1000),
        ));
    }
    for (kind, (all, met)) in kinds {
        say(format!("  {all:>7} {:>7.2}%  labelled spans met: {kind}", percent(*met, *all)));
    }
}

impl Times {
    fn note(&mut self, took: Duration, text: &str, place: &str) {
        self.all.push(took);
        self.bytes += text.len();
        self.slowest.push((took, text.len(), place.to_owned()));
        self.slowest.sort_by_key(|(took, ..)| std::cmp::Reverse(*took));
        self.slowest.truncate(SLOWEST);
    }

    fn show(mut self) {
        self.all.sort_unstable();
        let at = |share: usize| {
            let index = (self.all.len() * share / 1000).min(self.all.len().saturating_sub(1));
            self.all.get(index).copied().unwrap_or_default().as_secs_f64() * 1e6
        };
        let seconds = self.all.iter().sum::<Duration>().as_secs_f64();
        let megabytes = percent(self.bytes, 100) / 1e6;
        say(format!(
            "{} texts, {megabytes:.2} MB, {:.1} MB/s, a text {:.1} us (p50), {:.1} us (p99)",
            self.all.len(),
            megabytes / seconds.max(1e-9),
            at(500),
            at(990),
        ));
        for (took, bytes, place) in &self.slowest {
            say(format!("  slow: {:.0} us for {bytes} bytes, {place}", took.as_secs_f64() * 1e6));
        }
    }
}
