#!/usr/bin/env bash
# How long the results of an experiment take over many stored executions:
#   scripts/with-postgres.sh bench/results.sh [EXECUTIONS] [CHAPERONE]
# Stores that many executions of one experiment (five a user), counts them as the trigger would, and asks
# a running sidecar for GET /ab-tests/{id} ten times. Beside it, the same sums from the rows themselves.
set -euo pipefail

executions=${1:-1000000}
chaperone=${2:-target/release/chaperone}
experiment=00000000-0000-0000-0000-0000000000e1
token=bench-results-token-0123456789
data=$(mktemp -d)
sidecar=''
trap '[ -z "$sidecar" ] || kill "$sidecar" 2>/dev/null; rm -rf "$data"' EXIT

database() { psql -qAt -v ON_ERROR_STOP=1 "$CHAPERONE_TEST_POSTGRES_URL" "$@"; }
seconds() { local start; start=$(date +%s.%N); "$@" >"$data/out"; printf '%.2f' "$(echo "$(date +%s.%N) - $start" | bc)"; }

export DATABASE_URL=$CHAPERONE_TEST_POSTGRES_URL CHAPERONE_STORAGE__DATA_DIR=$data
export CHAPERONE_CONTROL__SUPER_ADMIN_TOKEN=$token CHAPERONE_DATA__LISTEN=127.0.0.1:0
export CHAPERONE_CONTROL__LISTEN=127.0.0.1:${CONTROL_PORT:-19093}

define() {
  database -c "
    insert into prompt_templates (id, name, template_text, version, is_active)
    values ('00000000-0000-0000-0000-000000000001', 't', 'x', 1, true),
           ('00000000-0000-0000-0000-000000000002', 't', 'x', 2, false);
    insert into ab_test_experiments (id, name, template_name, control_template_id, variant_template_ids,
        traffic_split, status, start_date)
    values ('$experiment', 'e', 't', '00000000-0000-0000-0000-000000000001',
        '[\"00000000-0000-0000-0000-000000000002\"]', '{\"control\": 50, \"variant_a\": 50}', 'active',
        now() - interval '20 days')"
}

fill() {
  database -c "
    alter table prompt_executions disable trigger prompt_executions_count;
    insert into prompt_executions (id, tenant_id, request_id, call, streamed, execution_time_ms, outcome,
        success, ab_test_experiment_id, ab_test_group, unit_key, assignment_reason, created_at, template_id,
        template_name, token_count, prompt_tokens, cached_tokens, estimated_cost_usd)
    select gen_random_uuid(), 'default', 'r', 'generateContent', false, 200 + 900 * random(),
           case when i % 20 = 0 then 'failed' else 'success' end, i % 20 <> 0, '$experiment',
           case when (i / 5) % 2 = 0 then 'control' else 'variant_a' end, 'user-' || i / 5, 'assigned',
           now() - interval '20 days' + i * (interval '20 days' / $executions),
           ('00000000-0000-0000-0000-00000000000' || 1 + (i / 5) % 2)::uuid, 't', 500, 400, 100, 0.0004
      from generate_series(0::bigint, $executions - 1) i;
    alter table prompt_executions enable trigger prompt_executions_count"
  # For the pieces below; batches need no index to be counted.
  database -c 'create index bench_at on prompt_executions (created_at)' -c 'vacuum analyze prompt_executions'
}

# In pieces of some hours, each in a transaction of its own, as batches arrive.
count() {
  local hour
  for ((hour = 0; hour < 480; hour += 2)); do
    database -c "
      select chaperone_count(array_agg(row(tenant_id, template_id, template_name, ab_test_experiment_id,
                 ab_test_group, unit_key, assignment_reason, outcome, success, error_type,
                 execution_time_ms, estimated_cost_usd, token_count, prompt_tokens, cached_tokens,
                 guardrails_evaluated, created_at, cost_list_usd)::chaperone_call))
        from prompt_executions, (select min(created_at) as first from prompt_executions) began
       where created_at >= first + $hour * interval '1 hour'
         and created_at < first + ($hour + 2) * interval '1 hour'"
  done
}

from_rows() {
  database -c "
    select ab_test_group, count(*), sum(n), sum(s), sum(n * n), sum(s * s), sum(n * s), sum(ms), sum(ms * ms)
      from (select ab_test_group, unit_key, count(*) as n, count(*) filter (where success) as s,
                   sum(execution_time_ms) as ms
              from prompt_executions where ab_test_experiment_id = '$experiment' group by 1, 2) units
     group by 1"
}

ask() { curl -fsS -o "$data/results.json" -w '%{time_total}\n' -H "authorization: Bearer $token" "http://$CHAPERONE_CONTROL__LISTEN/api/v1/admin/prompts/ab-tests/$experiment"; }

"$chaperone" migrate up >"$data/migrate.log"
define
echo "$executions executions stored in $(seconds fill) s"
echo "counted in $(seconds count) s"
echo "the same sums from the rows: $(seconds from_rows) s"
"$chaperone" serve >"$data/log" 2>&1 &
sidecar=$!
until curl -fsS "http://$CHAPERONE_CONTROL__LISTEN/healthz" >/dev/null 2>&1; do sleep 0.2; done
for _ in 1 2 3 4 5 6 7 8 9 10; do ask; done | sort -n | awk '{t[NR] = $1} END {printf "GET /ab-tests/{id}: median %.1f ms, slowest %.1f ms of %d\n", t[int((NR + 1) / 2)] * 1000, t[NR] * 1000, NR}'
python3 - "$data/results.json" "$executions" <<'PYTHON'
import json, sys
results = json.load(open(sys.argv[1]))["results"]
counted = results["watermark"]
assert counted["executions"] == int(sys.argv[2]), counted
print(f"over {counted['executions']} executions of {counted['units']} units; verdict {results['verdict']}")
PYTHON
