//! The fuzz targets of `fuzz/` on their corpus: what once went wrong, and what looks as if it might, stays
//! right without cargo-fuzz.

#[path = "../fuzz/src/lib.rs"]
mod targets;

use std::path::Path;

/// Runs a target on each file of its corpus.
fn run(name: &str, target: fn(&[u8])) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(name);
    let mut files = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let input = std::fs::read(&path).unwrap();
        let tried = std::panic::catch_unwind(|| target(&input));
        assert!(tried.is_ok(), "{name} fails on {}", path.display());
        files += 1;
    }
    assert!(files >= 8, "{name} has {files} files");
}

#[test]
fn any_bytes_are_a_text_to_look_at() {
    run("read_scan", targets::read_scan);
}

#[test]
fn any_cut_of_a_stream_decides_like_the_whole() {
    run("window", targets::window);
}

#[test]
fn what_is_redacted_comes_back() {
    run("redact_restore", targets::redact_restore);
}

#[test]
fn any_rule_compiles_or_is_refused() {
    run("rule", targets::rule);
}
