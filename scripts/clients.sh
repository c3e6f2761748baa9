#!/usr/bin/env bash
# Runs the real Gemini and OpenAI SDKs, and the programs of docs/clients.md, against a release build of Chaperone in
# front of the simulator.
# The last line is `N passed, M failed`.
set -euo pipefail

cd "$(dirname "$0")/.."
. scripts/processes.sh

chaperone=target/release/chaperone
work=target/clients
program_seconds_max=240

# Both ends are on this machine, whatever proxy the machine uses for the rest.
export NO_PROXY=127.0.0.1 no_proxy=127.0.0.1

main() {
  mkdir -p "$work"
  install_sdks
  data_dir=$(mktemp -d)
  trap 'stop_all; rm -rf "$data_dir"' EXIT
  trap 'exit 130' INT
  trap 'exit 143' TERM
  start_servers
  passed=0 failed=0
  run_program "$work/venv/bin/python" tests/clients/google_genai.py
  run_program "$work/venv/bin/python" tests/clients/google_genai_features.py
  run_program "$work/venv/bin/python" tests/clients/openai_sdk.py
  run_program "$work/venv/bin/python" tests/clients/frameworks_features.py
  run_program node tests/clients/google_genai.mjs
  run_program node tests/clients/google_genai_features.mjs
  run_program node tests/clients/openai_sdk.mjs
  run_program node tests/clients/frameworks_features.mjs
  run_program "$work/venv/bin/python" tests/clients/page.py
  run_live
  check_clean_stop
  ((failed == 0)) || echo "The servers' logs are in $work."
  echo "$passed passed, $failed failed"
  ((failed == 0))
}

# Each set is installed again only when its list has changed.
install_sdks() {
  if ! cmp -s tests/clients/requirements.txt "$work/venv/requirements.txt"; then
    rm -rf "$work/venv"
    python3 -m venv "$work/venv"
    "$work/venv/bin/pip" install --quiet --disable-pip-version-check -r tests/clients/requirements.txt
    cp tests/clients/requirements.txt "$work/venv/requirements.txt"
  fi
  if ! cmp -s tests/clients/package-lock.json tests/clients/node_modules/installed-lock.json; then
    npm ci --prefix tests/clients --ignore-scripts --no-audit --no-fund --loglevel=error
    cp tests/clients/package-lock.json tests/clients/node_modules/installed-lock.json
  fi
}

# A proxy of its own, since its upstream is another one.
run_live() {
  pick_port LIVE_PORT
  export LIVE_PORT
  start_proxy live "http://127.0.0.1:$LIVE_PORT"
  export CHAPERONE_LIVE_URL="http://127.0.0.1:$data_port"
  run_program node tests/clients/live.mjs
}

start_servers() {
  local simulator_port
  pick_port simulator_port
  export SIMULATOR_URL="http://127.0.0.1:$simulator_port"
  CHAPERONE_ADMIN_TOKEN=$(od -An -N24 -tx1 /dev/urandom | tr -d ' \n')
  export CHAPERONE_ADMIN_TOKEN

  start_proxy chaperone "$SIMULATOR_URL"
  proxy=$started
  export CHAPERONE_URL="http://127.0.0.1:$data_port"
}

# start_proxy NAME UPSTREAM: a proxy with its data and its log under this name. Leaves its port in $data_port and the
# address of its control plane in the environment.
start_proxy() {
  local control_port
  pick_port data_port
  pick_port control_port
  export CHAPERONE_ADMIN_URL="http://127.0.0.1:$control_port"
  # In an empty environment, so that nothing in the caller's shell configures what is tested here.
  start "$work/$1.log" env -i PATH="$PATH" HOME="$HOME" \
    CHAPERONE_DATA__LISTEN="127.0.0.1:$data_port" \
    CHAPERONE_CONTROL__LISTEN="127.0.0.1:$control_port" \
    CHAPERONE_CONTROL__SUPER_ADMIN_TOKEN="$CHAPERONE_ADMIN_TOKEN" \
    CHAPERONE_UPSTREAM__URL="$2" \
    CHAPERONE_STORAGE__DATA_DIR="$data_dir/$1" \
    CHAPERONE_CATALOG__CONFIG_DIR=config \
    CHAPERONE_GUARDRAILS__INSPECT_UPLOADS=true \
    "$chaperone" serve
  wait_until_ready "$CHAPERONE_ADMIN_URL/readyz" "$started" "$work/$1.log"
}

# A new one for each program: they read all that it has received, and some send much.
start_simulator() {
  [ -z "${simulator:-}" ] || stop "$simulator"
  start "$work/simulator.log" "$chaperone" simulate-gemini --listen "${SIMULATOR_URL#http://}"
  simulator=$started
  wait_until_ready "$SIMULATOR_URL/simulator/requests" "$simulator" "$work/simulator.log"
}

# Adds a program's count to the sum. A program that ends without a count has failed.
run_program() {
  local output="$work/output" status=0
  start_simulator
  echo "-- $(basename "$2")"
  timeout "$program_seconds_max" "$@" >"$output" 2>&1 || status=$?
  cat "$output"
  if [[ $(tail -n 1 "$output") =~ ^([0-9]+)\ passed,\ ([0-9]+)\ failed$ ]]; then
    passed=$((passed + BASH_REMATCH[1]))
    failed=$((failed + BASH_REMATCH[2]))
    ((status == 0 || BASH_REMATCH[2] > 0)) && return
  fi
  echo "FAILED $(basename "$2"): it ended with status $status"
  failed=$((failed + 1))
}

# SIGTERM drains, and a drained process ends with success.
check_clean_stop() {
  local status=0
  echo "-- stop"
  stop "$proxy" || status=$?
  if ((status == 0)); then
    echo "ok clean_stop"
    passed=$((passed + 1))
  else
    echo "FAILED clean_stop: chaperone ended with status $status"
    failed=$((failed + 1))
  fi
}

main
