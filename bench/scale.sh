#!/usr/bin/env bash
# How Chaperone bears a large catalog: 100,000 template versions, 10,000 guardrails, 100,000 entries of the
# audit.
#   bench/scale.sh             on the embedded store
#   bench/scale.sh postgres    on a PostgreSQL of its own, with a second sidecar beside the first
#   DATABASE_URL=... bench/scale.sh    on an empty PostgreSQL database
# Prints times to ready, of reloads, of a change and of the audit, memory, Chaperone's own share of a call
# before and after, and on PostgreSQL how long a change takes to reach the other sidecar. Needs a release
# build.
set -euo pipefail

cd "$(dirname "$0")/.."
if [ "${1:-}" = postgres ] && [ -z "${CHAPERONE_TEST_POSTGRES_URL:-}" ]; then
  exec scripts/with-postgres.sh "$0" postgres
fi
. scripts/processes.sh

chaperone=target/release/chaperone
names=${SCALE_NAMES:-1000} versions=${SCALE_VERSIONS:-100} guardrails=${SCALE_GUARDRAILS:-10000}
entries=${SCALE_ENTRIES:-100000} changes=${SCALE_CHANGES:-100}
token=$(od -An -N24 -tx1 /dev/urandom | tr -d ' \n')
export NO_PROXY=127.0.0.1 no_proxy=127.0.0.1

main() {
  local id new number
  dir=$(mktemp -d)
  trap 'stop_all; rm -rf "$dir"' EXIT
  if [ -n "${CHAPERONE_TEST_POSTGRES_URL:-}" ]; then
    psql -q "$CHAPERONE_TEST_POSTGRES_URL" -c 'create database scale'
    export DATABASE_URL=${CHAPERONE_TEST_POSTGRES_URL%/*}/scale
  fi
  pick_port simulator_port
  pick_port data_port
  pick_port control_port
  admin="http://127.0.0.1:$control_port/api/v1/admin/prompts"
  export CHAPERONE_DATA__LISTEN="127.0.0.1:$data_port" CHAPERONE_CONTROL__LISTEN="127.0.0.1:$control_port"
  export CHAPERONE_CONTROL__SUPER_ADMIN_TOKEN="$token" CHAPERONE_STORAGE__DATA_DIR="$dir/data"
  export CHAPERONE_UPSTREAM__URL="http://127.0.0.1:$simulator_port" CHAPERONE_LOG__LEVEL=warn
  start "$dir/simulator.log" "$chaperone" simulate-gemini --listen "127.0.0.1:$simulator_port"
  "$chaperone" migrate up >/dev/null
  run_chaperone
  own_share 'own share of a call, seeds only'
  stop "$proxy"
  fill
  run_chaperone
  curl -s -H "authorization: Bearer $token" "$admin/status" | python3 -c '
import json, sys
catalog = json.load(sys.stdin)["catalog"]
print("catalog:", catalog["source"], catalog["templates"], "versions,", catalog["guardrails"], "guardrails")'
  for _ in 1 2 3; do
    timed 'reload of everything' -X POST "$admin/reload"
  done
  id=$(curl -s -H "authorization: Bearer $token" "$admin/templates?name=scale-1&limit=1" |
    python3 -c 'import json, sys; print(json.load(sys.stdin)["items"][0]["id"])')
  for number in 1 2 3; do
    timed 'a new version' -X PUT -H 'content-type: application/json' \
      -d "{\"template_text\": \"changed $number {text}\"}" "$admin/templates/$id"
    new=$(python3 -c 'import json, sys; print(json.load(open(sys.argv[1]))["id"])' "$dir/answer")
    timed 'moving the pointer' -X POST "$admin/templates/$new/activate"
  done
  for number in 1 2 3; do
    timed "the audit, request $number" "$admin/audit?limit=1"
    python3 -c 'import json, sys; print("  ", json.load(open(sys.argv[1]))["chain"])' "$dir/answer"
  done
  own_share 'own share of a call, large catalog'
  if [ -n "${DATABASE_URL:-}" ]; then
    propagation
  fi
  awk '/VmRSS/ {printf "memory: %.0f MiB\n", $2 / 1024}' "/proc/$proxy/status"
}

run_chaperone() {
  local began now
  began=$(date +%s%N)
  start "$dir/chaperone.log" "$chaperone" serve
  proxy=$started
  wait_until_ready "http://127.0.0.1:$control_port/readyz" "$proxy" "$dir/chaperone.log"
  now=$(date +%s%N)
  echo "start to ready: $(((now - began) / 1000000)) ms"
}

# Moves a pointer back and forth through one sidecar and asks another what it serves.
propagation() {
  local other_data other_control
  pick_port other_data
  pick_port other_control
  CHAPERONE_DATA__LISTEN="127.0.0.1:$other_data" CHAPERONE_CONTROL__LISTEN="127.0.0.1:$other_control" \
    CHAPERONE_STORAGE__DATA_DIR="$dir/other" start "$dir/other.log" "$chaperone" serve
  wait_until_ready "http://127.0.0.1:$other_control/readyz" "$started" "$dir/other.log"
  TOKEN=$token WRITER=127.0.0.1:$control_port READER=127.0.0.1:$other_control CHANGES=$changes python3 - <<'PY'
import http.client, json, os, time
api, headers = "/api/v1/admin/prompts", {"authorization": "Bearer " + os.environ["TOKEN"], "content-type": "application/json"}
writer, reader = (http.client.HTTPConnection(os.environ[one]) for one in ("WRITER", "READER"))
def ask(connection, method, path):
    connection.request(method, api + path, "{}" if method == "POST" else None, headers)
    answer = connection.getresponse()
    return answer.status, json.loads(answer.read())
versions = ask(writer, "GET", "/templates?name=scale-2&limit=2")[1]["items"]
while not ask(reader, "GET", "/status")[1]["catalog"]["listening"]:
    time.sleep(0.05)
answered, arrived = [], []
for number in range(int(os.environ["CHANGES"])):
    version = versions[(number + 1) % 2]
    began = time.monotonic()
    status, _ = ask(writer, "POST", f"/templates/{version['id']}/activate")
    assert status == 200, status
    answered.append(time.monotonic() - began)
    while ask(reader, "GET", "/in-force?name=scale-2")[1]["templates"][0]["version"] != version["version"]:
        time.sleep(0.002)
    arrived.append(time.monotonic() - began)
at = lambda times, share: sorted(times)[min(int(len(times) * share), len(times) - 1)] * 1000
for what, times in ("answered by the writing sidecar", answered), ("in force in the other", arrived):
    print(f"a change, {what}: p50 {at(times, 0.5):.0f} ms, p99 {at(times, 0.99):.0f} ms, most {max(times) * 1000:.0f} ms")
PY
}

timed() {
  local what=$1
  shift
  curl -s -o "$dir/answer" -w "$what: %{time_total} s, status %{http_code}\n" -H "authorization: Bearer $token" "$@"
}

# The median and the 99th percentile of server-timing over 1,000 calls of 2 KB.
own_share() {
  WHAT=$1 URL="http://127.0.0.1:$data_port" python3 - <<'PY'
import http.client, json, os
url = os.environ["URL"].removeprefix("http://")
connection = http.client.HTTPConnection(url)
text = "The quick brown fox jumps over the lazy dog. " * 45
body = json.dumps({"contents": [{"role": "user", "parts": [{"text": text}]}]})
shares = []
for number in range(1100):
    connection.request("POST", "/v1beta/models/gemini-2.5-flash:generateContent", body,
                       {"content-type": "application/json", "x-goog-api-key": "k"})
    answer = connection.getresponse()
    answer.read()
    if number >= 100:
        shares.append(float(answer.getheader("server-timing").split("dur=")[1]))
shares.sort()
print(f"{os.environ['WHAT']}: p50 {shares[500] * 1000:.0f} us, p99 {shares[990] * 1000:.0f} us")
PY
}

# Entries as the program writes them, chained, one JSON list a line.
audit_entries() {
  ENTRIES=$entries python3 - <<'PY'
import hashlib, json, os, uuid
previous = None
after = json.dumps({"template_text": "Answer in one sentence. " * 40})
for number in range(int(os.environ["ENTRIES"])):
    fields = [str(uuid.UUID(int=number + 1)), "default", "2026-01-01T00:00:00.000000Z", "ann", "template.update", "template", str(number),
              None, after, None, None]
    text = json.dumps([previous, *fields], separators=(",", ":"), ensure_ascii=False)
    digest = hashlib.sha256(text.encode()).hexdigest()
    print(json.dumps([*fields, previous, digest]))
    previous = digest
PY
}

fill() {
  echo "filling: $names names with $versions versions each, $guardrails guardrails, $entries entries of the audit"
  audit_entries >"$dir/audit"
  if [ -n "${DATABASE_URL:-}" ]; then
    psql -q "$DATABASE_URL" -v ON_ERROR_STOP=1 <<SQL
insert into prompt_templates (id, name, template_text, variables, version, is_active)
select gen_random_uuid(), 'scale-' || name, repeat('Answer in one sentence. ', 20) || '{text} ' || version, '["text"]', version, version = 1
  from generate_series(1, $names) name, generate_series(1, $versions) version;
insert into prompt_guardrails (id, name, rule_type, severity, blocking, rule_config)
select gen_random_uuid(), 'scale-' || one, 'custom', 'error', true, jsonb_build_object(
           'applies_to', '["request"]'::jsonb,
           'literals', jsonb_build_array('forbidden phrase ' || one, 'codename ' || md5(one::text)),
           'patterns', jsonb_build_array(jsonb_build_object('entity', 'code', 'regex', 'CODE-' || one || '-[0-9]{4,8}')))
  from generate_series(1, $guardrails) one;
create temporary table lines (number bigint generated always as identity, line json);
\\copy lines (line) from '$dir/audit' csv quote e'\\x01' delimiter e'\\x02'
insert into prompt_audit (id, tenant_id, at, actor, action, object_type, object_id, before, after, reason, request_id, previous_hash, hash)
select (line->>0)::uuid, line->>1, (line->>2)::timestamptz, line->>3, line->>4, line->>5, line->>6, (line->>7)::json, (line->>8)::json,
       line->>9, line->>10, line->>11, line->>12
  from lines order by number;
SQL
  else
    NAMES=$names VERSIONS=$versions GUARDRAILS=$guardrails AUDIT=$dir/audit DB="$dir/data/chaperone.db" python3 - <<'PY'
import hashlib, json, os, sqlite3, uuid
names, versions, guardrails = (int(os.environ[one]) for one in ("NAMES", "VERSIONS", "GUARDRAILS"))
db = sqlite3.connect(os.environ["DB"])
text = "Answer in one sentence. " * 20
db.executemany("insert into prompt_templates (id, name, template_text, variables, version, is_active) values (?, ?, ?, ?, ?, ?)",
    ((str(uuid.uuid4()), f"scale-{name}", f"{text}{{text}} {version}", '["text"]', version, version == 1)
     for name in range(1, names + 1) for version in range(1, versions + 1)))
def config(one):
    digest = hashlib.md5(str(one).encode()).hexdigest()
    pattern = {"entity": "code", "regex": f"CODE-{one}-[0-9]{{4,8}}"}
    return json.dumps({"applies_to": ["request"], "literals": [f"forbidden phrase {one}", f"codename {digest}"], "patterns": [pattern]})
db.executemany("insert into prompt_guardrails (id, name, rule_type, severity, blocking, rule_config) values (?, ?, 'custom', 'error', 1, ?)",
    ((str(uuid.uuid4()), f"scale-{one}", config(one)) for one in range(1, guardrails + 1)))
db.executemany("insert into prompt_audit (id, tenant_id, at, actor, action, object_type, object_id, before, after, reason, request_id, previous_hash, hash) values (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
    (json.loads(line) for line in open(os.environ["AUDIT"])))
db.commit()
PY
  fi
}

main "$@"
