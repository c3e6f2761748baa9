#!/usr/bin/env bash
# How Chaperone bears a large catalog: 100,000 template versions and 10,000 guardrails.
#   bench/scale.sh             on the embedded store
#   DATABASE_URL=... bench/scale.sh    on an empty PostgreSQL database
# Prints times to ready, of reloads and of a change, memory, and Chaperone's own share of a call before
# and after. Needs a release build.
set -euo pipefail

cd "$(dirname "$0")/.."
. scripts/processes.sh

chaperone=target/release/chaperone
names=${SCALE_NAMES:-1000} versions=${SCALE_VERSIONS:-100} guardrails=${SCALE_GUARDRAILS:-10000}
token=$(od -An -N24 -tx1 /dev/urandom | tr -d ' \n')
export NO_PROXY=127.0.0.1 no_proxy=127.0.0.1

main() {
  dir=$(mktemp -d)
  trap 'stop_all; rm -rf "$dir"' EXIT
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
    timed 'moving the pointer' -X POST "$admin/templates/$id/activate"
  done
  own_share 'own share of a call, large catalog'
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

fill() {
  echo "filling: $names names with $versions versions each, $guardrails guardrails"
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
SQL
  else
    NAMES=$names VERSIONS=$versions GUARDRAILS=$guardrails DB="$dir/data/chaperone.db" python3 - <<'PY'
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
db.commit()
PY
  fi
}

main "$@"
