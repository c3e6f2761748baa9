#!/usr/bin/env bash
# Everything that CI checks, in one run. A failed step does not keep the later ones from running.
# The last line is `N passed, M failed`, over the Rust tests and the client programs.
set -euo pipefail

cd "$(dirname "$0")/.."
logs=target/test
cargo_deny_version=0.20.2
failed_steps=()

main() {
  scripts/install.sh test
  mkdir -p "$logs"
  rm -f "$logs"/*.log
  install_cargo_deny

  step "format" cargo fmt --check
  step "lints" cargo clippy --locked --all-targets -- -D warnings
  step "documentation" env RUSTDOCFLAGS="-D warnings" cargo doc --locked --no-deps --document-private-items
  step "licences, bans and sources of dependencies" cargo deny --locked check --hide-inclusion-graph licenses bans sources
  step "advisories on dependencies" check_advisories
  step "Rust tests" rust_tests
  step "release build" cargo build --locked --release
  step "client programs" client_programs
  step "admin API" admin_api

  report
}

# step NAME COMMAND...: runs the command, says what it is, how it ended and how long it took.
step() {
  local name=$1 started=$SECONDS outcome=ok
  shift
  echo "== $name"
  "$@" || outcome=FAILED
  echo "== $name: $outcome, $((SECONDS - started)) s"
  [ "$outcome" = ok ] || failed_steps+=("$name")
}

install_cargo_deny() {
  cargo deny --version >/dev/null 2>&1 && return
  echo "Installing cargo-deny $cargo_deny_version; this takes some minutes."
  cargo install cargo-deny --locked --version "$cargo_deny_version"
}

# The database is a git repository on GitHub. Being cut off from it is no fault of the dependencies.
check_advisories() {
  if ! cargo deny fetch db >"$logs/advisories.log" 2>&1; then
    grep . "$logs/advisories.log" | tail -n 1
    echo "advisories: NOT CHECKED, the advisory database cannot be reached from here"
    return
  fi
  cargo deny --locked check --hide-inclusion-graph --disable-fetch advisories
}

rust_tests() {
  scripts/with-postgres.sh cargo test --locked --no-fail-fast 2>&1 | tee "$logs/rust.log"
}

admin_api() {
  scripts/api.sh 2>&1 | tee "$logs/api.log"
}

client_programs() {
  scripts/clients.sh 2>&1 | tee "$logs/clients.log"
}

report() {
  local rust clients api
  # The numbers of all lines like `test result: ok. 12 passed; 0 failed; 0 ignored; ...`.
  rust=$(sed -n 's/^test result: .* \([0-9]*\) passed; \([0-9]*\) failed;.*/\1 \2/p' "$logs/rust.log" | sum)
  clients=$(tail -n 1 "$logs/clients.log" | sed -n 's/^\([0-9]*\) passed, \([0-9]*\) failed$/\1 \2/p' | sum)
  api=$(tail -n 1 "$logs/api.log" | sed -n 's/^\([0-9]*\) passed, \([0-9]*\) failed$/\1 \2/p' | sum)
  [ "$rust" != "0 0" ] || failed_steps+=("no Rust test ran")
  [ "$clients" != "0 0" ] || failed_steps+=("no client program ran")
  [ "$api" != "0 0" ] || failed_steps+=("the admin API was not tested")

  local failure
  for failure in "${failed_steps[@]}"; do
    echo "FAILED: $failure"
  done
  printf '%s\n%s\n%s\n' "$rust" "$clients" "$api" | sum | sed 's/^\(.*\) \(.*\)$/\1 passed, \2 failed/'
  ((${#failed_steps[@]} == 0))
}

# Adds up two columns of numbers.
sum() {
  awk '{ first += $1; second += $2 } END { print first + 0, second + 0 }'
}

main
