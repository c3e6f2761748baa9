#!/usr/bin/env bash
# What a database in trouble costs: latency of calls and of admin answers in each fault, beside the same
# with a healthy database right before. Starts a PostgreSQL of its own; the proxy reaches it through a
# relay that can be pulled, frozen and slowed down.
#   FAULTS (all: names of faults), FAULTS_ROUNDS (3), FAULTS_SECONDS (4, of each measurement), FAULTS_RATE (300 calls a second)
# Prints a table; "moved" is the median over the rounds of p99 in the fault minus p99 before it.
set -euo pipefail

cd "$(dirname "$0")/.."
if [ -z "${CHAPERONE_TEST_POSTGRES_URL:-}" ]; then
  cargo build --release --locked --bin chaperone --example load
  exec scripts/with-postgres.sh "$0" "$@"
fi
. scripts/processes.sh

rounds=${FAULTS_ROUNDS:-3} seconds=${FAULTS_SECONDS:-4} rate=${FAULTS_RATE:-300}
read -ra faults <<<"${FAULTS:-killed hung slow read-only no-connections wrong-password no-schema}"
chaperone=target/release/chaperone
root=$CHAPERONE_TEST_POSTGRES_URL
token=$(od -An -N24 -tx1 /dev/urandom | tr -d ' \n')
export NO_PROXY=127.0.0.1 no_proxy=127.0.0.1
pin_load=() pin_target=()

main() {
  local round fault
  dir=$(mktemp -d)
  trap 'stop_all; rm -rf "$dir"' EXIT
  trap 'exit 130' INT
  trap 'exit 143' TERM
  if taskset -c 1 true 2>/dev/null; then
    pin_load=(taskset -c 0) pin_target=(taskset -c 1)
  fi
  make_database
  start_relay
  start_proxy
  load 2 >/dev/null
  for ((round = 1; round <= rounds; round++)); do
    for fault in "${faults[@]}"; do
      through "$fault"
    done
  done
  report
}

make_database() {
  sql "$root" "do \$\$ begin create role by_password; exception when duplicate_object then null; end \$\$;
    create role faults login password 'right' in role by_password"
  sql "$root" 'create database faults owner faults'
  root=${root%/*}/faults
}

sql() {
  psql -q -v ON_ERROR_STOP=1 -o /dev/null "$1" -c "$2"
}

# Forwards to PostgreSQL as the word in the file MODE says.
start_relay() {
  local target
  pick_port relay_port
  target=${root#*@}
  echo pass >"$dir/mode"
  cat >"$dir/relay.py" <<'PY'
import asyncio, sys
port, target, mode_file = int(sys.argv[1]), sys.argv[2].split("/")[0].split(":"), sys.argv[3]
mode, open_ones = "pass", set()
async def watch():
    global mode
    while True:
        with open(mode_file) as file:
            word = file.read().strip() or mode
        if word != mode:
            mode = word
            if mode in ("pull", "pass"):
                for writer in list(open_ones):
                    writer.close()
        await asyncio.sleep(0.02)
async def pump(reader, writer, back):
    loop, queue = asyncio.get_running_loop(), asyncio.Queue(1024)
    async def take():
        while data := await reader.read(65536):
            await queue.put((loop.time() + (2 if back and mode == "slow" else 0), data))
        await queue.put((0, None))
    taking = asyncio.ensure_future(take())
    try:
        while True:
            due, data = await queue.get()
            if data is None:
                break
            await asyncio.sleep(max(0, due - loop.time()))
            while mode == "freeze":
                await asyncio.sleep(0.05)
            writer.write(data)
            await writer.drain()
    except OSError:
        pass
    finally:
        taking.cancel()
        writer.close()
async def serve(near_reader, near_writer):
    if mode == "pull":
        return near_writer.close()
    far_reader, far_writer = await asyncio.open_connection(target[0], int(target[1]))
    open_ones.update((near_writer, far_writer))
    try:
        await asyncio.gather(pump(near_reader, far_writer, False), pump(far_reader, near_writer, True), return_exceptions=True)
    finally:
        open_ones.difference_update((near_writer, far_writer))
async def main():
    server = await asyncio.start_server(serve, "127.0.0.1", port)
    async with server:
        await asyncio.gather(server.serve_forever(), watch())
asyncio.run(main())
PY
  start "$dir/relay.log" "${pin_load[@]}" python3 "$dir/relay.py" "$relay_port" "$target" "$dir/mode"
  until port_taken "127.0.0.1:$relay_port"; do sleep 0.05; done
}

start_proxy() {
  pick_port simulator_port
  pick_port data_port
  pick_port control_port
  start "$dir/simulator.log" "${pin_load[@]}" "$chaperone" simulate-gemini --listen "127.0.0.1:$simulator_port"
  wait_until_ready "http://127.0.0.1:$simulator_port/simulator/requests" "$started" "$dir/simulator.log"
  local settings=(
    DATABASE_URL="postgres://faults:right@127.0.0.1:$relay_port/faults"
    CHAPERONE_DATA__LISTEN="127.0.0.1:$data_port"
    CHAPERONE_CONTROL__LISTEN="127.0.0.1:$control_port"
    CHAPERONE_CONTROL__SUPER_ADMIN_TOKEN="$token"
    CHAPERONE_UPSTREAM__URL="http://127.0.0.1:$simulator_port"
    CHAPERONE_STORAGE__DATA_DIR="$dir/data"
    CHAPERONE_DATABASE__MIGRATE_AT_START=true
  )
  start "$dir/chaperone.log" "${pin_target[@]}" env -i PATH="$PATH" HOME="$HOME" "${settings[@]}" "$chaperone" serve
  wait_until_ready "http://127.0.0.1:$control_port/readyz" "$started" "$dir/chaperone.log"
  until_ready
}

# load SECONDS: prints the driver's JSON object.
load() {
  "${pin_load[@]}" target/release/examples/load --url "http://127.0.0.1:$data_port/t/nlu_topic_extraction/v1beta/models/gemini-2.5-flash:generateContent" \
    --rate "$rate" --connections 8 --seconds "$1" --body bench/prompt.json \
    --header 'content-type: application/json' --header 'x-goog-api-key: any-key' \
    --header 'x-chaperone-variables: {"text": "Rivers, rain and clouds, and how they hang together."}'
}

# Measures before, during and after one fault.
through() {
  local fault=$1 before during admin began
  before=$(load "$seconds")
  begin "$fault"
  sleep 1
  load "$seconds" >"$dir/during" &
  local loading=$!
  admin=$(ask_admin "$fault")
  wait "$loading"
  during=$(cat "$dir/during")
  finish "$fault"
  began=$(date +%s%N)
  until_ready
  echo "{\"fault\": \"$fault\", \"before\": $before, \"during\": $during, \"admin\": [$admin], \"heal_ms\": $((($(date +%s%N) - began) / 1000000))}" >>"$dir/results"
}

begin() {
  case $1 in
    killed) echo pull >"$dir/mode" ;;
    hung) echo freeze >"$dir/mode" ;;
    slow) echo slow >"$dir/mode" ;;
    read-only) sql "$root" 'alter role faults set default_transaction_read_only = on' && hang_up ;;
    no-connections) sql "$root" 'alter role faults connection limit 0' && hang_up ;;
    wrong-password) sql "$root" "alter role faults password 'wrong'" && hang_up ;;
    no-schema) sql "$root" 'alter schema public rename to elsewhere' ;;
  esac
}

finish() {
  case $1 in
    killed | hung | slow) echo pass >"$dir/mode" ;;
    read-only) sql "$root" 'alter role faults reset default_transaction_read_only' ;;
    no-connections) sql "$root" 'alter role faults connection limit -1' ;;
    wrong-password) sql "$root" "alter role faults password 'right'" ;;
    no-schema) sql "$root" 'alter schema elsewhere rename to public' ;;
  esac
}

hang_up() {
  sql "$root" "select pg_terminate_backend(pid) from pg_stat_activity where usename = 'faults'"
}

# Status and seconds of a write, as a JSON object; its last one of three.
ask_admin() {
  local number answer
  for number in 1 2 3; do
    answer=$(curl -s -o "$dir/answer" -w '{"status": %{http_code}, "seconds": %{time_total}}' \
      -H "authorization: Bearer $token" -H 'content-type: application/json' \
      -d "{\"name\": \"x-$number-$RANDOM\", \"template_text\": \"x\"}" "http://127.0.0.1:$control_port/api/v1/admin/prompts/templates")
    [ "$number" = 1 ] || echo -n ', '
    echo -n "$answer"
  done
}

until_ready() {
  until curl -s "http://127.0.0.1:$control_port/readyz" | grep -q '"status":"ready"'; do sleep 0.05; done
}

report() {
  curl -s -H "authorization: Bearer $token" "http://127.0.0.1:$control_port/api/v1/admin/prompts/status" >"$dir/status"
  python3 - "$dir/results" "$dir/status" <<'PY'
import json, statistics, sys
rows = [json.loads(line) for line in open(sys.argv[1])]
ms = lambda values: f"{statistics.median(values) / 1000:.2f}"
print(f"{'fault':15} {'p50 before':>10} {'p50':>6} {'p99 before':>10} {'p99':>6} {'moved':>6}  errors  admin               heals")
for fault in dict.fromkeys(row["fault"] for row in rows):
    mine = [row for row in rows if row["fault"] == fault]
    of = lambda when, what: [row[when][what] for row in mine]
    moved = [row["during"]["p99_us"] - row["before"]["p99_us"] for row in mine]
    asked = [one for row in mine for one in row["admin"]]
    statuses = "/".join(sorted({str(one["status"]) for one in asked}))
    errors = sum(of("during", "errors")) + sum(of("before", "errors"))
    print(f"{fault:15} {ms(of('before', 'p50_us')):>10} {ms(of('during', 'p50_us')):>6} {ms(of('before', 'p99_us')):>10} "
          f"{ms(of('during', 'p99_us')):>6} {ms(moved):>6}  {errors:>6}  {statuses} in <= {max(one['seconds'] for one in asked):.2f} s   "
          f"{max(row['heal_ms'] for row in mine) / 1000:.1f} s")
executions = json.load(open(sys.argv[2]))["executions"]
print(f"latencies in ms; executions: {executions['accepted']} accepted, {executions['waiting']} waiting, {executions['lost']} lost")
PY
}

main "$@"
