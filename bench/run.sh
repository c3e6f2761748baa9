#!/usr/bin/env bash
# Measures Chaperone (seeds, template and recording on) beside nginx as a plain reverse proxy and beside
# no proxy at all: closed loop, open loop and the first piece of streams, 2 KB prompt, all in one run and in
# interleaved rounds.
# Load driver and simulator share core 0, the target has core 1.
#   BENCH_ROUNDS (3) and BENCH_SECONDS (5, of each measurement) make it longer or shorter.
set -euo pipefail

cd "$(dirname "$0")/.."
. scripts/processes.sh

rounds=${BENCH_ROUNDS:-3}
seconds=${BENCH_SECONDS:-5}
connections=16
rate=500
stream_rate=20

chaperone=target/release/chaperone
logs=target/bench
results=$logs/results.jsonl
template=nlu_topic_extraction
method=/v1beta/models/gemini-2.5-flash:generateContent
sentence='The lake is calm today.'
streamed=$(printf "$sentence%.0s" {1..20})
stream_method='/v1beta/models/gemini-2.5-flash:streamGenerateContent?alt=sse'
pin_load=()
pin_target=()

# Filled by the start functions, by target: where it listens, and the process whose CPU time counts.
declare -A url=() process=()

main() {
  local round target
  scripts/install.sh bench
  cargo build --release --locked --bin chaperone --example load
  choose_cores

  mkdir -p "$logs"
  : >"$results"
  data_dir=$(mktemp -d)
  trap 'stop_all; rm -rf "$data_dir"' EXIT
  trap 'exit 130' INT
  trap 'exit 143' TERM
  start_simulator
  start_nginx
  start_chaperone
  echo "Idle memory of Chaperone, right after its start: $(resident_kib "${process[chaperone]}") KiB"

  for target in direct nginx chaperone; do
    load "$target" closed 0 1 >/dev/null
  done
  for ((round = 1; round <= rounds; round++)); do
    echo "Round $round of $rounds"
    for target in direct nginx chaperone; do
      measure "$target" closed 0
      measure "$target" stream "$stream_rate"
      measure "$target" open "$rate"
    done
  done
  python3 bench/report.py "$results" "$connections" "$rate" "$stream_rate" "$data_dir/chaperone/chaperone.db"
}

choose_cores() {
  if taskset -c 1 true 2>/dev/null && taskset -c 0 true; then
    pin_load=(taskset -c 0)
    pin_target=(taskset -c 1)
  else
    echo "Nothing is pinned: taskset or a second core is missing. Do not compare these numbers with others."
  fi
}

start_simulator() {
  local simulator_port
  pick_port simulator_port
  url[direct]=http://127.0.0.1:$simulator_port
  start "$logs/simulator.log" "${pin_load[@]}" "$chaperone" simulate-gemini --listen "127.0.0.1:$simulator_port"
  wait_until_ready "${url[direct]}/simulator/requests" "$started" "$logs/simulator.log"
}

start_nginx() {
  local port
  pick_port port
  url[nginx]=http://127.0.0.1:$port
  cat >"$data_dir/nginx.conf" <<CONF
daemon off;
worker_processes 1;
pid $data_dir/nginx.pid;
events { worker_connections 1024; }
http {
  access_log off;
  client_body_temp_path $data_dir/nginx-body;
  proxy_temp_path $data_dir/nginx-proxy;
  fastcgi_temp_path $data_dir/nginx-fastcgi;
  scgi_temp_path $data_dir/nginx-scgi;
  uwsgi_temp_path $data_dir/nginx-uwsgi;
  upstream simulator {
    server ${url[direct]#http://};
    keepalive 64;
    keepalive_requests 1000000000;
  }
  server {
    listen 127.0.0.1:$port;
    keepalive_requests 1000000000;
    location / {
      proxy_pass http://simulator;
      proxy_http_version 1.1;
      proxy_set_header Connection "";
    }
  }
}
CONF
  start "$logs/nginx.log" "${pin_target[@]}" nginx -e "$PWD/$logs/nginx.log" -c "$data_dir/nginx.conf"
  process[nginx]=$started
  wait_until_ready "${url[nginx]}/simulator/requests" "$started" "$logs/nginx.log"
}

start_chaperone() {
  local data_port control_port
  pick_port data_port
  pick_port control_port
  url[chaperone]=http://127.0.0.1:$data_port/t/$template
  # In an empty environment, so that nothing in the caller's shell configures what is measured here.
  start "$logs/chaperone.log" "${pin_target[@]}" env -i PATH="$PATH" HOME="$HOME" \
    CHAPERONE_DATA__LISTEN="127.0.0.1:$data_port" \
    CHAPERONE_CONTROL__LISTEN="127.0.0.1:$control_port" \
    CHAPERONE_UPSTREAM__URL="${url[direct]}" \
    CHAPERONE_STORAGE__DATA_DIR="$data_dir/chaperone" \
    CHAPERONE_CATALOG__CONFIG_DIR=config \
    "$chaperone" serve
  process[chaperone]=$started
  wait_until_ready "http://127.0.0.1:$control_port/readyz" "$started" "$logs/chaperone.log"
}

# load TARGET MODE RATE SECONDS: prints the driver's JSON object. Rate 0 is the closed loop.
load() {
  local called=("--url" "${url[$1]}$method")
  if [[ $2 == stream ]]; then
    # A model takes its time between pieces. No end of one could become part of what a guardrail looks for.
    called=("--url" "${url[$1]}$stream_method" "--first-piece"
      "--header" "x-simulate: say=$(base64 -w 0 <<<"$streamed"),gap_ms=10,chunk=${#sentence}")
  fi
  "${pin_load[@]}" target/release/examples/load \
    "${called[@]}" --rate "$3" --connections "$connections" --seconds "$4" \
    --body bench/prompt.json \
    --header 'content-type: application/json' \
    --header 'x-goog-api-key: any-key' \
    --header 'x-chaperone-user: bench' \
    --header 'x-chaperone-variables: {"text": "Rivers, rain and clouds, and how they hang together."}'
}

# measure TARGET MODE RATE: adds one line to the results.
measure() {
  local target=$1 mode=$2 before after answer
  before=$(cpu_ticks "${process[$target]:-}")
  answer=$(load "$target" "$mode" "$3" "$seconds")
  after=$(cpu_ticks "${process[$target]:-}")
  echo "{\"target\": \"$target\", \"mode\": \"$mode\", \"cpu_ticks\": $((after - before)), \"load\": $answer}" >>"$results"
}

# User and system time of a process and its children, in clock ticks. 0 without a process.
cpu_ticks() {
  local pid ticks=0 stat
  for pid in $1 $(cat "/proc/${1:-0}/task/${1:-0}/children" 2>/dev/null); do
    # The name in brackets may hold blanks; after it, user time is field 12 and system time field 13.
    read -ra stat <<<"$(sed 's/.*) //' "/proc/$pid/stat")"
    ticks=$((ticks + stat[11] + stat[12]))
  done
  echo "$ticks"
}

resident_kib() {
  awk '/^VmRSS:/ { print $2 }' "/proc/$1/status"
}

main
