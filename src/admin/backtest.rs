//! What a guardrail would have done to the calls that are recorded.

use std::time::Duration;

use axum::Json;
use axum::extract::State;
use jiff::Timestamp;
use serde::Deserialize;
use utoipa::ToSchema;
use uuid::Uuid;

use super::Admin;
use super::call::{Call, Id, Params, Whose};
use super::door;
use super::problem::Problem;
use super::try_out::Candidate;
use super::write::row;
use crate::backtest::{Asked, Backtest, EXAMPLES_DEFAULT, Failed, LIMIT_DEFAULT, Period, Report};
use crate::catalog::definitions::GuardrailDefinition;
use crate::guardrail::Rule;
use crate::store::{Cursor, Table};
use crate::words::clock;
use crate::words::ids::Tenant;

/// How long executions are looked at for one answer: well within what every answer may take.
const BUDGET: Duration = Duration::from_millis(1_200);
const LIMIT_MAX: u32 = 10_000;
const EXAMPLES_MAX: usize = 20;

/// Which guardrail on which executions.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct BacktestOrder {
    /// With this `rule_config` instead of its own.
    guardrail: Option<Candidate>,
    /// Executions from this moment on; 7 days before `to` unless told otherwise.
    #[schema(value_type = Option<String>, format = DateTime)]
    from: Option<Timestamp>,
    /// Up to this one, exclusive; now unless told otherwise.
    #[schema(value_type = Option<String>, format = DateTime)]
    to: Option<Timestamp>,
    /// Behind which execution it begins, from `next_cursor` of the answer before.
    cursor: Option<String>,
    /// Executions that are read, newest first; 1,000 unless told otherwise.
    #[schema(minimum = 1, maximum = 10_000)]
    limit: Option<u32>,
    /// Executions that are shown; 5 unless told otherwise.
    #[schema(maximum = 20)]
    examples: Option<usize>,
    /// Whether examples show what was matched.
    #[serde(default)]
    show_text: bool,
}

/// What it would have done. Each execution counts once, under the strictest.
#[derive(ToSchema)]
#[expect(dead_code, reason = "describes what the backtest itself serialises")]
pub(super) struct BacktestReport {
    /// How many were read.
    executions: u32,
    /// Of these, how many hold nothing that could be looked at: calls without a template, calls that were
    /// stopped before their prompt was rendered, prompts kept as a hash or longer than 1 MiB.
    unseen: u32,
    /// How many would have gone on with a warning.
    would_warn: u32,
    /// How many would have gone on with something replaced.
    would_redact: u32,
    /// How many would have been stopped.
    would_block: u32,
    /// Of these, how many were not.
    newly_blocked: u32,
    /// Violations by what was found.
    #[schema(value_type = Object)]
    by_entity: u64,
    /// Executions in which something was found, newest first.
    examples: Vec<BacktestExample>,
    /// Whether as many were read as were asked for, or as there are; false: time was over, go on with
    /// `next_cursor`.
    complete: bool,
    /// Where to go on; null where there are no more.
    next_cursor: Option<String>,
}

/// One execution in which something was found: the strictest of it.
#[derive(ToSchema)]
#[expect(dead_code, reason = "describes what the backtest itself serialises")]
pub(super) struct BacktestExample {
    execution_id: Uuid,
    #[schema(format = DateTime)]
    created_at: String,
    template_name: Option<String>,
    /// `info`, `warn`, `redact` or `block`.
    verdict: String,
    entity: String,
    /// Where it was found: a variable or a message.
    place: String,
    /// Bytes of that text.
    start: usize,
    /// Exclusive.
    end: usize,
    /// What was matched, its first 200 characters; only with `show_text`.
    text: Option<String>,
}

#[utoipa::path(post, path = "/guardrails/{id}/backtest", params(("id" = Uuid, Path), Whose),
    request_body = BacktestOrder, responses((status = 200, body = BacktestReport)))]
pub(super) async fn backtest(
    State(admin): State<Admin>,
    Id(id): Id,
    Params(whose): Params<Whose>,
    call: Call,
) -> Result<Json<Report>, Problem> {
    let until = clock::monotonic() + BUDGET;
    let tenant = whose.tenant()?;
    let order: BacktestOrder = call.body()?;
    let asked = order.asked(&tenant)?;
    let row = row(&admin, Table::Guardrails, &tenant, id).await?;
    let definition: GuardrailDefinition = row.definition(Table::Guardrails)?;
    let rule = match order.guardrail {
        // What a change of this guardrail would do: what it is limited to stays.
        Some(Candidate { blocking, rule_config }) => {
            Rule { blocking, config: rule_config, ..Rule::from(&definition) }
        }
        None => Rule::from(&definition),
    };
    let compiling = tokio::task::spawn_blocking(move || Backtest::new(rule, asked));
    let compiled = compiling.await.map_err(|_panicked| Failed::Looking)?;
    let mut backtest = compiled.map_err(door::refused)?;
    backtest.advance(admin.store.as_ref(), until).await?;
    Ok(Json(backtest.report().clone()))
}

impl BacktestOrder {
    fn asked(&self, tenant: &Tenant) -> Result<Asked, Problem> {
        let limit = self.limit.unwrap_or(LIMIT_DEFAULT);
        if !(1..=LIMIT_MAX).contains(&limit) {
            return Err(Problem::unprocessable(format!("limit must be from 1 to {LIMIT_MAX}")));
        }
        let examples = self.examples.unwrap_or(EXAMPLES_DEFAULT);
        if examples > EXAMPLES_MAX {
            return Err(Problem::unprocessable(format!("examples: at most {EXAMPLES_MAX}")));
        }
        let after = self.cursor.as_deref().map(Cursor::decode).transpose();
        Ok(Asked {
            tenant: tenant.clone(),
            period: Period::new(self.from, self.to, clock::now())
                .map_err(Problem::unprocessable)?,
            after: after.map_err(|error| Problem::unprocessable(error.to_string()))?,
            limit,
            examples,
            show_text: self.show_text,
        })
    }
}

#[cfg(test)]
mod tests {
    use utoipa::PartialSchema;

    use super::{BacktestExample, BacktestReport};
    use crate::backtest::{Example, Report};
    use crate::guardrail::Verdict;

    fn names(value: &serde_json::Value) -> Vec<&String> {
        let mut names: Vec<_> = value.as_object().unwrap().keys().collect();
        names.sort();
        names
    }

    #[test]
    fn the_description_has_the_fields_of_the_answer() {
        let example = Example {
            execution_id: uuid::Uuid::nil(),
            created_at: String::new(),
            template_name: None,
            verdict: Verdict::Warn,
            entity: String::new(),
            place: String::new(),
            start: 0,
            end: 0,
            text: Some(String::new()),
        };
        let report = serde_json::to_value(Report::default()).unwrap();
        let described = serde_json::to_value(BacktestReport::schema()).unwrap();
        assert_eq!(names(&described["properties"]), names(&report));
        let example = serde_json::to_value(example).unwrap();
        let described = serde_json::to_value(BacktestExample::schema()).unwrap();
        assert_eq!(names(&described["properties"]), names(&example));
    }
}
