#!/usr/bin/env bash
# Measures the guardrail engine on one thread: time to compile, MB/s and microseconds on 2 KB of harmless text,
# for all shipped guardrails and one by one, with 10,000 literals more, and on the worst texts there are.
#   bench/guardrails.sh [DIR]     DIR: labelled texts; then also recall and false positives, source by source
set -euo pipefail

cd "$(dirname "$0")/.."
cargo build --release --locked --bin chaperone --example engine
target/release/examples/engine "$@"
[ $# -eq 0 ] || target/release/chaperone eval "$1"
