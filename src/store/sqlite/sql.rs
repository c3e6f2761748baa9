//! The statements of SQLite, columns listed. Rows go in and out as JSON, as in PostgreSQL.

use crate::store::audit::AuditQuery;
use crate::store::columns::{Column, Shape};
use crate::store::{RowQuery, Table};

pub(super) const REVISION: &str = "select revision from catalog_revision";

/// Definitions written behind a revision. Counters are left out: they change all the time and decide
/// nothing.
pub(super) fn changed(table: Table) -> String {
    let (name, columns) = (table.name(), members(table.columns()));
    format!("select json_object({columns}) from {name} where revision > ?1")
}

pub(super) fn count(table: Table) -> String {
    format!("select count(*) from {}", table.name())
}

/// A page of one kind of definition. Only what is asked for is in the statement: SQLite would search the
/// whole table for a condition that may be absent.
pub(super) fn rows(query: &RowQuery) -> String {
    let table = query.table;
    let (name, columns) = (table.name(), members(table.columns()));
    let counters = members(table.counters());
    let (version, by, state, latest) = match table {
        Table::Templates => (
            "version",
            ", version",
            "iif(is_active, 'true', 'false')",
            ", 'latest_version', (select max(newest.version) from prompt_templates newest
                where newest.tenant_id = one.tenant_id and newest.name = one.name)",
        ),
        Table::Guardrails => ("0", "", "iif(is_active, 'true', 'false')", ""),
        Table::Experiments => ("0", "", "status", ""),
    };
    let tag = match table {
        Table::Templates => "exists (select 1 from json_each(tags) where value = ?6)",
        Table::Guardrails | Table::Experiments => "false",
    };
    let conditions = [
        (query.id.is_some(), "id = ?2".to_owned()),
        (query.name.is_some(), "name = ?3".to_owned()),
        (query.state.is_some(), format!("{state} = ?4")),
        (query.group.is_some(), format!("{} = ?5", table.group())),
        (query.tag.is_some(), tag.to_owned()),
        (query.after.is_some(), format!("(name, {version}) > (?7, ?8)")),
    ];
    let asked = conditions.into_iter().filter(|(is_asked, _)| *is_asked);
    let conditions: Vec<String> =
        std::iter::once("tenant_id = ?1".to_owned()).chain(asked.map(|(_, one)| one)).collect();
    let conditions = conditions.join(" and ");
    format!(
        "select json_object({columns}, {counters}, 'revision', revision{latest})
           from {name} one
          where {conditions}
          order by name{by}
          limit ?9"
    )
}

/// Experiments whose results may still change: those that run, and those that ended after a moment.
pub(super) fn under_way() -> String {
    let table = Table::Experiments;
    let (columns, counters) = (members(table.columns()), members(table.counters()));
    format!(
        "select json_object({columns}, {counters}, 'revision', revision)
           from ab_test_experiments
          where status in ('active', 'paused') or (status = 'completed' and updated_at >= ?1)
          order by id"
    )
}

/// Makes rows, or brings those of a known id up to date.
pub(super) fn put(table: Table) -> String {
    let name = table.name();
    let columns = list(table.columns(), |column| column.name.to_owned());
    let values = list(table.columns(), |column| match (column.name, column.shape) {
        ("created_at" | "updated_at", _) => {
            format!("coalesce(value ->> '{}', strftime('%Y-%m-%dT%H:%M:%fZ', 'now'))", column.name)
        }
        (name, Shape::Json) => format!("nullif(value -> '{name}', 'null')"),
        (name, Shape::Percentage) => format!("cast(value ->> '{name}' as text)"),
        (name, Shape::Text | Shape::Flag | Shape::Number | Shape::Money) => {
            format!("value ->> '{name}'")
        }
    });
    let moving: Vec<Column> =
        table.columns().iter().filter(|column| !column.fixed).copied().collect();
    let moving = list(&moving, |column| format!("{0} = excluded.{0}", column.name));
    format!(
        "insert into {name} ({columns})
         select {values} from json_each(?1)
          where true
             on conflict (id) do update set {moving}"
    )
}

pub(super) fn revision(table: Table) -> String {
    format!("select revision from {} where id = ?1", table.name())
}

/// Names and values for `json_object`.
fn members(columns: &[Column]) -> String {
    list(columns, |column| {
        let name = column.name;
        match column.shape {
            Shape::Text | Shape::Number | Shape::Money => format!("'{name}', {name}"),
            Shape::Json => format!("'{name}', json({name})"),
            Shape::Flag => format!("'{name}', json(iif({name}, 'true', 'false'))"),
            Shape::Percentage => format!("'{name}', cast({name} as real)"),
        }
    })
}

fn list(columns: &[Column], one: impl Fn(&Column) -> String) -> String {
    columns.iter().map(one).collect::<Vec<_>>().join(", ")
}

pub(super) const INSERT_ACTIVATION: &str = "
    insert into prompt_template_activations
          (id, tenant_id, template_name, template_id, restores_id, action, actor, reason,
           request_id, at)
    select value ->> 'id', value ->> 'tenant_id', value ->> 'template_name',
           value ->> 'template_id', value ->> 'restores_id', value ->> 'action',
           value ->> 'actor', value ->> 'reason', value ->> 'request_id', value ->> 'at'
      from json_each(?1)";

pub(super) const ACTIVATIONS: &str = "
    select json_object(
               'id', id, 'tenant_id', tenant_id, 'template_name', template_name,
               'template_id', template_id, 'restores_id', restores_id, 'action', action,
               'actor', actor, 'reason', reason, 'request_id', request_id, 'at', at)
      from prompt_template_activations
     where tenant_id = ?1 and template_name = ?2
     order by sequence desc
     limit ?3";

pub(super) const END_PHASE: &str = "
    update ab_test_phases
       set ended_at = iif(julianday(started_at) > julianday(?2), started_at, ?2)
     where experiment_id = ?1 and ended_at is null";

pub(super) const BEGIN_PHASE: &str = "
    insert into ab_test_phases
          (experiment_id, phase, mode, arms, enrollment_percentage, moved_percentage, salt,
           hash_version, actor, reason, started_at, ended_at)
    select value ->> 'experiment_id', value ->> 'phase', value ->> 'mode', value -> 'arms',
           cast(value ->> 'enrollment_percentage' as text),
           cast(value ->> 'moved_percentage' as text), value ->> 'salt', value ->> 'hash_version',
           value ->> 'actor', value ->> 'reason', value ->> 'started_at', value ->> 'ended_at'
      from json_each(?1)";

pub(super) const PHASES: &str = "
    select json_object(
               'experiment_id', phases.experiment_id, 'phase', phase, 'mode', mode,
               'arms', json(phases.arms),
               'enrollment_percentage', cast(phases.enrollment_percentage as real),
               'moved_percentage', cast(moved_percentage as real),
               'salt', coalesce(phases.salt, experiments.salt, experiments.id),
               'hash_version', phases.hash_version, 'actor', actor, 'reason', reason,
               'started_at', started_at, 'ended_at', ended_at)
      from ab_test_phases phases
      join ab_test_experiments experiments on experiments.id = phases.experiment_id
     where phases.experiment_id = ?1
     order by phase";

pub(super) const EXPOSURES: &str = "
    select json_object('unit', unit_key, 'arm', ab_test_group)
      from prompt_executions
     where ab_test_experiment_id = ?1 and assignment_reason = 'assigned'
       and unit_key is not null and ab_test_group is not null
     group by unit_key, ab_test_group
     limit ?2";

pub(super) const LAST_HASH: &str = "select hash from prompt_audit order by sequence desc limit 1";

pub(super) const INSERT_AUDIT: &str = "
    insert into prompt_audit
          (id, tenant_id, at, actor, action, object_type, object_id, before, after, reason,
           request_id, previous_hash, hash)
    values (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)";

/// Newest first, or oldest first behind an entry.
pub(super) fn audit(query: &AuditQuery) -> String {
    let order = if query.after.is_some() { "asc" } else { "desc" };
    // Said plainly, or every page would pass over all the rows before it.
    let before = if query.before.is_some() { "sequence < ?5" } else { "?5 is null" };
    let after = if query.after.is_some() { "sequence > ?6" } else { "?6 is null" };
    format!(
        "select sequence, id, tenant_id, at, actor, action, object_type, object_id, before, after,
           reason, request_id, previous_hash, hash
      from prompt_audit
     where (?1 is null or tenant_id = ?1)
       and (?2 is null or object_type = ?2)
       and (?3 is null or object_id = ?3)
       and (?4 is null or actor = ?4)
       and {before}
       and {after}
     order by sequence {order}
     limit ?7"
    )
}

/// Keys are kept for a day.
pub(super) const FORGET_DONE: &str = "
    delete from admin_idempotency_keys
     where created_at < strftime('%Y-%m-%dT%H:%M:%fZ', 'now', '-1 day')";

pub(super) const REMEMBER_DONE: &str = "
    insert into admin_idempotency_keys (actor, key, fingerprint, status, object_id)
    values (?, ?, ?, ?, ?)";

pub(super) const DONE: &str = "
    select fingerprint, status, object_id
      from admin_idempotency_keys
     where actor = ?1 and key = ?2
       and created_at >= strftime('%Y-%m-%dT%H:%M:%fZ', 'now', '-1 day')";

/// The columns of an execution in the order of [`INSERT_EXECUTION`]'s parameters.
pub(super) const EXECUTION_COLUMNS: [&str; 46] = [
    "id",
    "tenant_id",
    "request_id",
    "template_id",
    "template_name",
    "template_version",
    "template_content_hash",
    "call",
    "streamed",
    "user_id",
    "unit_key",
    "conversation_id",
    "variables_used",
    "rendered_prompt",
    "model_name",
    "model_config",
    "execution_time_ms",
    "time_to_first_token_ms",
    "overhead_ms",
    "token_count",
    "prompt_tokens",
    "cached_tokens",
    "candidates_tokens",
    "thoughts_tokens",
    "tool_use_tokens",
    "usage_partial",
    "estimated_cost_usd",
    "price_version",
    "outcome",
    "success",
    "error_type",
    "error_message",
    "http_status",
    "finish_reason",
    "guardrails_evaluated",
    "guardrail_violations",
    "ab_test_group",
    "ab_test_experiment_id",
    "assignment_reason",
    "enroll_bucket",
    "variant_bucket",
    "body_sha256",
    "catalog_generation",
    "catalog_source",
    "created_at",
    "cost_list_usd",
];

/// Columns that hold JSON text.
pub(super) const JSON_COLUMNS: [&str; 5] = [
    "variables_used",
    "rendered_prompt",
    "model_config",
    "guardrails_evaluated",
    "guardrail_violations",
];

/// One row, with a parameter a column: SQLite reads JSON again for every field it takes from it. The
/// outbox may send a row twice.
pub(super) const INSERT_EXECUTION: &str = "
    insert into prompt_executions
          (id, tenant_id, request_id, template_id, template_name, template_version,
           template_content_hash, call, streamed, user_id, unit_key, conversation_id,
           variables_used, rendered_prompt, model_name, model_config, execution_time_ms,
           time_to_first_token_ms, overhead_ms, token_count, prompt_tokens,
           cached_tokens, candidates_tokens, thoughts_tokens, tool_use_tokens,
           usage_partial, estimated_cost_usd, price_version, outcome, success,
           error_type, error_message, http_status, finish_reason, guardrails_evaluated,
           guardrail_violations, ab_test_group, ab_test_experiment_id,
           assignment_reason, enroll_bucket, variant_bucket, body_sha256,
           catalog_generation, catalog_source, created_at, cost_list_usd)
    values (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?,
           ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
        on conflict (id) do nothing";

pub(super) const EXECUTIONS: &str = "
    select json_object(
               'id', id, 'tenant_id', tenant_id, 'request_id', request_id,
               'template_id', template_id, 'template_name', template_name,
               'template_version', template_version,
               'template_content_hash', template_content_hash, 'call', call,
               'streamed', json(iif(streamed, 'true', 'false')), 'user_id', user_id,
               'unit_key', unit_key, 'conversation_id', conversation_id,
               'variables_used', json(variables_used), 'rendered_prompt', json(rendered_prompt),
               'model_name', model_name, 'model_config', json(model_config),
               'execution_time_ms', execution_time_ms,
               'time_to_first_token_ms', time_to_first_token_ms, 'overhead_ms', overhead_ms,
               'token_count', token_count, 'prompt_tokens', prompt_tokens,
               'cached_tokens', cached_tokens, 'candidates_tokens', candidates_tokens,
               'thoughts_tokens', thoughts_tokens, 'tool_use_tokens', tool_use_tokens,
               'usage_partial', json(iif(usage_partial, 'true', 'false')),
               'estimated_cost_usd', estimated_cost_usd, 'cost_list_usd', cost_list_usd, 'price_version', price_version,
               'outcome', outcome, 'success', json(iif(success, 'true', 'false')),
               'error_type', error_type, 'error_message', error_message,
               'http_status', http_status, 'finish_reason', finish_reason,
               'guardrails_evaluated', json(guardrails_evaluated),
               'guardrail_violations', json(guardrail_violations),
               'ab_test_group', ab_test_group, 'ab_test_experiment_id', ab_test_experiment_id,
               'assignment_reason', assignment_reason, 'enroll_bucket', enroll_bucket,
               'variant_bucket', variant_bucket, 'body_sha256', body_sha256,
               'catalog_generation', catalog_generation, 'catalog_source', catalog_source,
               'created_at', created_at,
               'feedback', json((select json_group_object(key, json(value)) from prompt_feedback f
                                  where f.tenant_id = one.tenant_id and f.execution_id = one.id)))
      from prompt_executions one
     where tenant_id = ?1
       and (?2 is null or (created_at, id) < (?2, ?3))
       and (?4 is null or template_name = ?4)
       and (?5 is null or user_id = ?5)
       and (?6 is null or outcome = ?6)
       and (?7 is null or id = ?7)
     order by created_at desc, id desc
     limit ?8";

pub(super) const MIGRATIONS_TABLE: &str = "
    create table if not exists chaperone_migrations (
        version integer primary key,
        name text not null,
        checksum text not null,
        applied_at text not null default (strftime('%Y-%m-%dT%H:%M:%fZ', 'now')))";

pub(super) const APPLIED: &str =
    "select version, applied_at from chaperone_migrations order by version";

pub(super) const CHECKSUM: &str = "select checksum from chaperone_migrations where version = ?1";

pub(super) const REMEMBER_MIGRATION: &str =
    "insert into chaperone_migrations (version, name, checksum) values (?1, ?2, ?3)";

pub(super) const FORGET_MIGRATION: &str = "delete from chaperone_migrations where version = ?1";

pub(super) const ROW_COUNTS: &str = "
    select (select count(*) from prompt_templates),
           (select count(*) from prompt_guardrails),
           (select count(*) from prompt_executions)";
