#!/usr/bin/env bash
# The admin API of a release build: the curls of docs/admin.md and docs/experiments.md, run as they stand, and
# schemathesis over the API's own description. The last line is `N passed, M failed`.
set -euo pipefail

cd "$(dirname "$0")/.."
. scripts/processes.sh

chaperone=$PWD/target/release/chaperone
work=$PWD/target/api
export NO_PROXY=127.0.0.1 no_proxy=127.0.0.1

main() {
  mkdir -p "$work"
  install_schemathesis
  dir=$(mktemp -d)
  trap 'stop_all; rm -rf "$dir"' EXIT
  trap 'exit 130' INT
  trap 'exit 143' TERM
  start_servers
  passed=0 failed=0
  check "the curls of docs/admin.md" run_page admin
  check "the curls of docs/experiments.md" run_page experiments
  check "schemathesis" run_schemathesis
  echo "$passed passed, $failed failed"
  ((failed == 0))
}

install_schemathesis() {
  if ! cmp -s tests/api/requirements.txt "$work/venv/requirements.txt"; then
    rm -rf "$work/venv"
    python3 -m venv "$work/venv"
    "$work/venv/bin/pip" install --quiet --disable-pip-version-check -r tests/api/requirements.txt
    cp tests/api/requirements.txt "$work/venv/requirements.txt"
  fi
}

start_servers() {
  local simulator_port
  pick_port simulator_port
  pick_port data_port
  pick_port control_port
  start "$work/simulator.log" "$chaperone" simulate-gemini --listen "127.0.0.1:$simulator_port"
  wait_until_ready "http://127.0.0.1:$simulator_port/simulator/requests" "$started" "$work/simulator.log"
  cp -r config "$dir/config"
  ln -s "$chaperone" "$dir/chaperone"
  cd "$dir"
  # In an empty environment, so that nothing in the caller's shell configures what is tested here.
  start "$work/chaperone.log" env -i PATH="$PATH" HOME="$HOME" \
    CHAPERONE_DATA__LISTEN="127.0.0.1:$data_port" \
    CHAPERONE_CONTROL__LISTEN="127.0.0.1:$control_port" \
    CHAPERONE_UPSTREAM__URL="http://127.0.0.1:$simulator_port" \
    "$chaperone" serve
  wait_until_ready "http://127.0.0.1:$control_port/readyz" "$started" "$work/chaperone.log"
}

check() {
  local name=$1
  shift
  if "$@"; then
    echo "ok $name"
    passed=$((passed + 1))
  else
    echo "FAILED $name"
    failed=$((failed + 1))
  fi
}

# Every line of a page's code, in one shell that stops at the first failure.
run_page() {
  local page=$1
  {
    echo 'set -euo pipefail'
    sed -n '/^```sh$/,/^```$/{/^```/d;p}' "$OLDPWD/docs/$page.md" |
      sed "s|127.0.0.1:9090|127.0.0.1:$control_port|; s|127.0.0.1:8080|127.0.0.1:$data_port|"
  } >page.sh
  if ! PATH="$dir:$PATH" bash page.sh >"$work/$page.log" 2>&1; then
    tail -n 5 "$work/$page.log"
    return 1
  fi
}

# Data that the description allows is refused where it means nothing (a split that does not add up), and
# wrong tokens are throttled: the checks of those two are left out, and tested by hand in tests/.
run_schemathesis() {
  local checks=not_a_server_error,status_code_conformance,content_type_conformance
  checks+=,response_headers_conformance,response_schema_conformance,unsupported_method
  if ! "$work/venv/bin/schemathesis" run "http://127.0.0.1:$control_port/openapi.json" \
    --header "Authorization: Bearer $(cat data/admin-token)" --checks "$checks" \
    --phases examples,coverage,fuzzing --max-examples 15 --seed 20261123 --continue-on-failure \
    --warnings off >"$work/schemathesis.log" 2>&1; then
    tail -n 60 "$work/schemathesis.log"
    return 1
  fi
  grep -E 'generated' "$work/schemathesis.log"
}

main "$@"
