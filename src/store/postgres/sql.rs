//! The statements of PostgreSQL, columns listed.

use crate::store::Table;
use crate::store::audit::AuditQuery;
use crate::store::columns::{Column, Shape};

/// The rows above a revision.
pub(super) fn changed() -> String {
    told("revision > $1")
}

/// The transaction that wrote a row: every other way to find what changed relies on whoever changed it. With
/// its revision, because the numbers of transactions begin anew where a database is made anew.
const MARK: &str = "hashint8extended(row.revision, row.xmin::text::bigint)";

/// The rows without these marks.
pub(super) fn differing() -> String {
    told(&format!(
        "not exists (select from unnest($1, $2) as known (id, mark)
                      where known.id = row.id and known.mark = {MARK})"
    ))
}

/// What a catalog is compiled from, in one statement and so as of one moment: a word for each row, the
/// row, its id, its mark. Counters are left out: they change all the time and decide nothing.
fn told(which: &str) -> String {
    let rows = Table::ALL.map(|table| {
        let (name, columns) = (table.name(), selected(table.columns(), "row"));
        format!(
            " union all
            select '{name}', row_to_json(one)::text, row.id, {MARK}
              from {name} row cross join lateral (select {columns}) one
             where {which}"
        )
    });
    format!(
        "select 'revision', revision::text, null::uuid, null::bigint from catalog_revision
          union all
         select 'counts', json_build_array(
                    (select count(*) from prompt_templates),
                    (select count(*) from prompt_guardrails),
                    (select count(*) from ab_test_experiments))::text, null, null{}",
        rows.concat()
    )
}

/// A page of one kind of definition.
pub(super) fn rows(table: Table) -> String {
    let (name, columns) = (table.name(), selected(table.columns(), "one"));
    let (counters, group) = (selected(table.counters(), "one"), table.group());
    let (version, by, state, latest, tag) = match table {
        Table::Templates => (
            "version",
            ", version",
            "is_active::text",
            ", (select max(newest.version) from prompt_templates newest
                where newest.tenant_id = one.tenant_id and newest.name = one.name) as latest_version",
            "tags ? $6",
        ),
        Table::Guardrails => ("0", "", "is_active::text", "", "false"),
        Table::Experiments => ("0", "", "status", "", "false"),
    };
    format!(
        "select row_to_json(page)::text from (
            select {columns}, {counters}, revision{latest}
              from {name} one
             where tenant_id = $1
               and ($2::uuid is null or id = $2)
               and ($3::text is null or name = $3)
               and ($4::text is null or {state} = $4)
               and ($5::text is null or {group} = $5)
               and ($6::text is null or {tag})
               and ($7::text is null or (name collate \"C\", {version}) > ($7, $8))
             order by name collate \"C\"{by}
             limit $9) page"
    )
}

/// Experiments whose results may still change: those that run, and those that ended after a moment.
pub(super) fn under_way() -> String {
    let table = Table::Experiments;
    let (columns, counters) = (selected(table.columns(), "one"), selected(table.counters(), "one"));
    format!(
        "select row_to_json(found)::text from (
            select {columns}, {counters}, revision
              from ab_test_experiments one
             where status in ('active', 'paused') or (status = 'completed' and updated_at >= $1)
             order by id) found"
    )
}

/// Makes rows, or brings those of a known id up to date.
pub(super) fn put(table: Table) -> String {
    let name = table.name();
    let columns = list(table.columns(), |column| column.name.to_owned());
    let values = list(table.columns(), |column| match column.name {
        "created_at" | "updated_at" => format!("coalesce({}, now())", column.name),
        plain => plain.to_owned(),
    });
    let moving: Vec<Column> =
        table.columns().iter().filter(|column| !column.fixed).copied().collect();
    let moving = list(&moving, |column| format!("{0} = excluded.{0}", column.name));
    format!(
        "insert into {name} ({columns})
         select {values} from jsonb_populate_recordset(null::{name}, $1)
             on conflict (id) do update set {moving}"
    )
}

pub(super) fn revisions(table: Table) -> String {
    format!("select id, revision from {} where id = any($1)", table.name())
}

/// Columns of the row of this name. One that the schema may lack is looked for in the row as JSON.
fn selected(columns: &[Column], row: &str) -> String {
    list(columns, |column| match column.shape {
        _ if column.new => format!("to_jsonb({row}) -> '{0}' as {0}", column.name),
        Shape::Money => format!("{0}::text as {0}", column.name),
        Shape::Text | Shape::Json | Shape::Flag | Shape::Number | Shape::Percentage => {
            column.name.to_owned()
        }
    })
}

fn list(columns: &[Column], one: impl Fn(&Column) -> String) -> String {
    columns.iter().map(one).collect::<Vec<_>>().join(", ")
}

/// Writers take turns, and with them the links of the audit's chain.
pub(super) const LOCK_CATALOG: &str =
    "select revision from catalog_revision where id = 1 for update";

pub(super) const INSERT_ACTIVATIONS: &str = "
    insert into prompt_template_activations
          (id, tenant_id, template_name, template_id, restores_id, action, actor, reason,
           request_id, at)
    select id, tenant_id, template_name, template_id, restores_id, action, actor, reason,
           request_id, at
      from jsonb_populate_recordset(null::prompt_template_activations, $1)";

pub(super) const ACTIVATIONS: &str = "
    select row_to_json(one)::text from (
        select id, tenant_id, template_name, template_id, restores_id, action, actor, reason,
               request_id, at
          from prompt_template_activations
         where tenant_id = $1 and template_name = $2
         order by sequence desc
         limit $3) one";

pub(super) const END_PHASE: &str = "
    update ab_test_phases set ended_at = greatest(started_at, $2)
     where experiment_id = $1 and ended_at is null";

pub(super) const BEGIN_PHASE: &str = "
    insert into ab_test_phases
          (experiment_id, phase, mode, arms, enrollment_percentage, moved_percentage, salt,
           hash_version, actor, reason, started_at, ended_at)
    select experiment_id, phase, mode, arms, enrollment_percentage, moved_percentage, salt,
           hash_version, actor, reason, started_at, ended_at
      from jsonb_populate_recordset(null::ab_test_phases, $1)";

/// A schema without salts had none but the experiment's own.
pub(super) const PHASES: &str = "
    select row_to_json(one)::text from (
        select phases.experiment_id, phase, mode, phases.arms, phases.enrollment_percentage,
               moved_percentage, actor, reason, started_at, ended_at,
               coalesce(to_jsonb(phases) ->> 'salt', experiments.salt, experiments.id::text) as salt,
               coalesce((to_jsonb(phases) ->> 'hash_version')::integer, experiments.hash_version)
                   as hash_version
          from ab_test_phases phases
          join ab_test_experiments experiments on experiments.id = phases.experiment_id
         where phases.experiment_id = $1
         order by phase) one";

pub(super) const EXPOSURES: &str = "
    select json_build_object('unit', unit_key, 'arm', ab_test_group)::text
      from prompt_executions
     where ab_test_experiment_id = $1 and assignment_reason = 'assigned'
       and unit_key is not null and ab_test_group is not null
     group by unit_key, ab_test_group
     limit $2";

pub(super) const LAST_HASH: &str = "select hash from prompt_audit order by sequence desc limit 1";

/// The texts before and after stay as they are to the byte: the hash is over them.
pub(super) const INSERT_AUDIT: &str = "
    insert into prompt_audit
          (id, tenant_id, at, actor, action, object_type, object_id, before, after, reason,
           request_id, previous_hash, hash)
    select id, tenant_id, at, actor, action, object_type, object_id, before::json, after::json,
           reason, request_id, previous_hash, hash
      from unnest($1::uuid[], $2::text[], $3::timestamptz[], $4::text[], $5::text[], $6::text[],
                  $7::text[], $8::text[], $9::text[], $10::text[], $11::text[], $12::text[],
                  $13::text[])
           with ordinality as entry
               (id, tenant_id, at, actor, action, object_type, object_id, before, after, reason,
                request_id, previous_hash, hash, position)
     order by position";

/// Newest first, or oldest first behind an entry.
pub(super) fn audit(query: &AuditQuery) -> String {
    let order = if query.after.is_some() { "asc" } else { "desc" };
    format!(
        "select sequence, id, tenant_id, at, actor, action, object_type, object_id, before::text,
           after::text, reason, request_id, previous_hash, hash
      from prompt_audit
     where ($1::text is null or tenant_id = $1)
       and ($2::text is null or object_type = $2)
       and ($3::text is null or object_id = $3)
       and ($4::text is null or actor = $4)
       and ($5::bigint is null or sequence < $5)
       and ($6::bigint is null or sequence > $6)
     order by sequence {order}
     limit $7"
    )
}

/// Keys are kept for a day.
pub(super) const FORGET_DONE: &str =
    "delete from admin_idempotency_keys where created_at < now() - interval '1 day'";

pub(super) const REMEMBER_DONE: &str = "
    insert into admin_idempotency_keys (actor, key, fingerprint, status, object_id)
    values ($1, $2, $3, $4, $5)";

pub(super) const DONE: &str = "
    select fingerprint, status, object_id
      from admin_idempotency_keys
     where actor = $1 and key = $2 and created_at >= now() - interval '1 day'";

/// Where a batch arrives. It belongs to the session, and is empty outside a transaction.
pub(super) const STAGE: &str =
    "create temp table if not exists chaperone_staging (record jsonb) on commit delete rows";

/// One record a line. JSON holds no control characters, so that nothing needs to be escaped.
pub(super) const COPY_RECORDS: &str = "copy pg_temp.chaperone_staging (record) from stdin \
     with (format csv, quote e'\\x01', escape e'\\x01', delimiter e'\\x02')";

/// From the staging table; the outbox may send a batch twice. `has_list_cost`: the schema is not older than
/// migration 8.
pub(super) fn insert_executions(has_list_cost: bool) -> String {
    let columns = if has_list_cost {
        format!("{EXECUTION_COLUMNS}, cost_list_usd")
    } else {
        EXECUTION_COLUMNS.to_owned()
    };
    format!(
        "insert into prompt_executions ({columns})
         select {columns}
           from pg_temp.chaperone_staging,
                jsonb_populate_record(null::prompt_executions, record)
             on conflict do nothing"
    )
}

const EXECUTION_COLUMNS: &str = "
           id, tenant_id, request_id, template_id, template_name, template_version,
           template_content_hash, call, streamed, user_id, unit_key, conversation_id,
           variables_used, rendered_prompt, model_name, model_config, execution_time_ms,
           time_to_first_token_ms, overhead_ms, token_count, prompt_tokens,
           cached_tokens, candidates_tokens, thoughts_tokens, tool_use_tokens,
           usage_partial, estimated_cost_usd, price_version, outcome, success,
           error_type, error_message, http_status, finish_reason, guardrails_evaluated,
           guardrail_violations, ab_test_group, ab_test_experiment_id,
           assignment_reason, enroll_bucket, variant_bucket, body_sha256,
           catalog_generation, catalog_source, created_at";

/// Costs go out as text: JSON numbers would round them. The list cost is read so that a schema without it does.
pub(super) const EXECUTIONS: &str = "
    select to_jsonb(one) || jsonb_build_object('estimated_cost_usd', one.estimated_cost_usd::text,
               'cost_list_usd', to_jsonb(one) ->> 'cost_list_usd',
               'feedback', (select coalesce(jsonb_object_agg(key, value), '{}') from prompt_feedback f
                             where f.tenant_id = one.tenant_id and f.execution_id = one.id))
      from prompt_executions one
     where tenant_id = $1
       and ($2::timestamptz is null or (created_at, id) < ($2, $3::uuid))
       and ($4::text is null or template_name = $4)
       and ($5::text is null or user_id = $5)
       and ($6::text is null or outcome = $6)
       and ($7::uuid is null or id = $7)
     order by created_at desc, id desc
     limit $8";

/// The number is this program's own; a transaction's lock needs no clean-up. Waiting for another process's
/// migration may take as long as that one; waiting for a table may not, because everybody who comes later
/// waits behind it.
pub(super) const LOCK_MIGRATIONS: &str = "
    set local statement_timeout = '10min';
    set local lock_timeout = 0;
    set local idle_in_transaction_session_timeout = '1min';
    select pg_advisory_xact_lock(7120413300251);
    set local lock_timeout = '30s';
    create table if not exists chaperone_migrations (
        version integer primary key,
        name text not null,
        checksum text not null,
        applied_at timestamptz not null default now())";

pub(super) const APPLIED: &str =
    "select version, applied_at::text from chaperone_migrations order by version";

pub(super) const CHECKSUM: &str = "select checksum from chaperone_migrations where version = $1";

pub(super) const REMEMBER_MIGRATION: &str =
    "insert into chaperone_migrations (version, name, checksum) values ($1, $2, $3)";

pub(super) const FORGET_MIGRATION: &str = "delete from chaperone_migrations where version = $1";

/// Executions go on arriving until the tables go.
pub(super) const LOCK_EXECUTIONS: &str = "lock table prompt_executions in access exclusive mode";

pub(super) const COUNT_EXECUTIONS: &str = "select count(*) from prompt_executions";

pub(super) const ROW_COUNTS: &str = "
    select (select count(*) from prompt_templates),
           (select count(*) from prompt_guardrails),
           (select count(*) from prompt_executions)";
