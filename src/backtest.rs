//! What a guardrail would have done to calls that are recorded: their prompts are looked at once more.
//!
//! Executions are read page by page, newest first, and looked at on a thread of their own. However many
//! there are, a caller decides how long to wait, and goes on later from a cursor.

mod record;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Instant;

use jiff::{SignedDuration, Timestamp};
use serde::Serialize;
use serde_json::Value;
use uuid::Uuid;

use crate::guardrail::{Direction, Guardrails, Rule, RuleError, Verdict};
use crate::store::{Cursor, ExecutionQuery, RowQuery, Store, StoreError, Table};
use crate::words::clock;
use crate::words::ids::Tenant;
use record::{Hit, Record};

/// Executions that are looked at unless told otherwise.
pub const LIMIT_DEFAULT: u32 = 1_000;
/// Examples that are shown unless told otherwise.
pub const EXAMPLES_DEFAULT: usize = 5;
/// How far back it looks unless told otherwise.
const PERIOD_DEFAULT: SignedDuration = SignedDuration::from_hours(24 * 7);
/// Executions of a page: prompts are long, and a page is in memory as a whole.
const PAGE: u32 = 100;

/// Which executions, and what to tell of them.
#[derive(Debug, Clone)]
pub struct Asked {
    /// Whose.
    pub tenant: Tenant,
    /// When they were recorded.
    pub period: Period,
    /// Behind which one to begin.
    pub after: Option<Cursor>,
    /// How many are read at most.
    pub limit: u32,
    /// How many are shown at most.
    pub examples: usize,
    /// Whether an example shows what was matched.
    pub show_text: bool,
}

/// A half-open stretch of time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Period {
    /// Its first moment.
    pub from: Timestamp,
    /// Its end, exclusive.
    pub to: Timestamp,
}

/// What was found. Each execution counts once, under the strictest of what would have happened to it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Report {
    /// How many were read.
    pub executions: u32,
    /// Of these, how many hold nothing that could be looked at.
    pub unseen: u32,
    /// How many would have gone on with a warning.
    pub would_warn: u32,
    /// How many would have gone on with something replaced.
    pub would_redact: u32,
    /// How many would have been stopped.
    pub would_block: u32,
    /// Of these, how many were not.
    pub newly_blocked: u32,
    /// Violations by what was found.
    pub by_entity: BTreeMap<String, u64>,
    /// Executions in which something was found, newest first.
    pub examples: Vec<Example>,
    /// Whether as many were read as were asked for, or as there are.
    pub complete: bool,
    /// Where to go on; `None` where there are no more.
    pub next_cursor: Option<String>,
}

/// One execution in which something was found: the strictest of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Example {
    /// Which one.
    pub execution_id: Uuid,
    /// When it was recorded.
    pub created_at: String,
    /// Its template.
    pub template_name: Option<String>,
    /// What would have happened.
    pub verdict: Verdict,
    /// What was found.
    pub entity: String,
    /// In which variable or message.
    pub place: String,
    /// First byte in that text.
    pub start: usize,
    /// End in that text, exclusive.
    pub end: usize,
    /// What was matched, if it is to be shown.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
}

/// Why it could not go on.
#[derive(Debug, thiserror::Error)]
pub enum Failed {
    /// The executions could not be read.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The thread that looks at them is gone.
    #[error("looking at executions failed")]
    Looking,
}

/// A backtest on its way.
#[derive(Debug)]
pub struct Backtest {
    guardrails: Arc<Guardrails>,
    asked: Asked,
    /// Behind the last execution that was looked at.
    place: Cursor,
    report: Report,
    /// By version. As many as executions at most.
    categories: HashMap<Uuid, Option<String>>,
}

impl Period {
    /// Up to now and a week long, where nothing else is said.
    pub fn new(
        from: Option<Timestamp>,
        to: Option<Timestamp>,
        now: Timestamp,
    ) -> Result<Self, &'static str> {
        let to = to.unwrap_or(now);
        // Before the year -9999 begins nothing: the check below refuses what this makes of it.
        let week_before = || to.checked_sub(PERIOD_DEFAULT).unwrap_or(Timestamp::MIN);
        let from = from.unwrap_or_else(week_before);
        if from < Timestamp::UNIX_EPOCH || from >= to {
            return Err("from must be 1970 or later, and to be later than from");
        }
        Ok(Self { from, to })
    }
}

impl Backtest {
    /// Compiles the guardrail. It need not be active, nor be in force: in shadow mode too, what it would
    /// do is what counts.
    pub fn new(rule: Rule, asked: Asked) -> Result<Self, RuleError> {
        if !rule.looks_at(Direction::Request) {
            return Err(RuleError {
                rule: rule.name,
                place: "applies_to".to_owned(),
                what: "must allow request: prompts are recorded, answers are not".to_owned(),
            });
        }
        let guardrails = Arc::new(Guardrails::compile(vec![rule])?);
        let Period { to, .. } = asked.period;
        // No id is smaller: this place is before all executions of that moment.
        let end = Cursor { created_at: to, id: Uuid::nil() };
        let place = asked.after.filter(|after| after.created_at < to).unwrap_or(end);
        let (report, categories) = (Report::default(), HashMap::new());
        Ok(Self { guardrails, asked, place, report, categories })
    }

    /// What was found so far.
    pub fn report(&self) -> &Report {
        &self.report
    }

    /// Goes on until all is done or the time is over; by one execution at least, so that whoever comes
    /// back with the cursor gets to the end.
    pub async fn advance(&mut self, store: &dyn Store, until: Instant) -> Result<(), Failed> {
        while !self.report.complete {
            self.page(store, until).await?;
            if clock::monotonic() >= until {
                break;
            }
        }
        Ok(())
    }

    async fn page(&mut self, store: &dyn Store, until: Instant) -> Result<(), Failed> {
        let left = self.asked.limit.saturating_sub(self.report.executions);
        let wanted = left.min(PAGE);
        let query = ExecutionQuery {
            tenant: self.asked.tenant.clone(),
            // One more than wanted tells whether another page follows.
            limit: wanted + 1,
            after: Some(self.place),
            ..ExecutionQuery::default()
        };
        let rows = store.executions(&query).await?;
        let mut records = self.records(store, rows).await?;
        let has_more = records.len() > wanted as usize;
        records.truncate(wanted as usize);
        let unread = self.look(records, until).await?;
        self.report.complete =
            unread == 0 && (!has_more || self.report.executions >= self.asked.limit);
        self.report.next_cursor = (unread > 0 || has_more).then(|| self.place.encode());
        Ok(())
    }

    /// The rows of the period.
    async fn records(
        &mut self,
        store: &dyn Store,
        rows: Vec<Value>,
    ) -> Result<Vec<Record>, StoreError> {
        let mut records = Vec::with_capacity(rows.len());
        for row in rows {
            let Some(mut record) = Record::read(row) else { continue };
            if record.at.created_at < self.asked.period.from {
                break;
            }
            record.category = self.category(store, record.template_id).await?;
            records.push(record);
        }
        Ok(records)
    }

    /// The category of a version, where the guardrail is limited to some: executions do not hold it.
    async fn category(
        &mut self,
        store: &dyn Store,
        version: Option<Uuid>,
    ) -> Result<Option<String>, StoreError> {
        let is_asked = self.guardrails.rules().iter().any(|rule| !rule.categories.is_empty());
        let Some(id) = version.filter(|_| is_asked) else { return Ok(None) };
        if let Some(known) = self.categories.get(&id) {
            return Ok(known.clone());
        }
        let query = RowQuery { id: Some(id), ..RowQuery::of(Table::Templates, &self.asked.tenant) };
        let row = store.rows(&query).await?.into_iter().next();
        let category = row.and_then(|mut row| match row.columns.remove("category") {
            Some(Value::String(category)) => Some(category),
            _ => None,
        });
        self.categories.insert(id, category.clone());
        Ok(category)
    }

    /// Looks at records, off the threads that serve calls. Gives how many are left when time is over.
    async fn look(&mut self, records: Vec<Record>, until: Instant) -> Result<usize, Failed> {
        let (guardrails, asked) = (self.guardrails.clone(), self.asked.clone());
        let mut report = std::mem::take(&mut self.report);
        let looking = tokio::task::spawn_blocking(move || {
            let mut last = None;
            let mut unread = records.len();
            for record in &records {
                report.count(record, record.look(&guardrails), &asked);
                last = Some(record.at);
                unread -= 1;
                if clock::monotonic() >= until {
                    break;
                }
            }
            (report, last, unread)
        });
        let (report, last, unread) = looking.await.map_err(|_panicked| Failed::Looking)?;
        self.report = report;
        self.place = last.unwrap_or(self.place);
        Ok(unread)
    }
}

impl Report {
    /// Takes in one execution; `hits` is `None` where there was nothing to look at.
    fn count(&mut self, record: &Record, hits: Option<Vec<Hit>>, asked: &Asked) {
        self.executions += 1;
        let Some(hits) = hits else {
            self.unseen += 1;
            return;
        };
        for hit in &hits {
            *self.by_entity.entry(hit.entity.clone()).or_default() += 1;
        }
        // Of several that are as strict, the first.
        let Some(strictest) = hits.into_iter().rev().max_by_key(|hit| hit.verdict) else { return };
        match strictest.verdict {
            Verdict::Allow => {}
            Verdict::Warn => self.would_warn += 1,
            Verdict::Redact => self.would_redact += 1,
            Verdict::Block => {
                self.would_block += 1;
                self.newly_blocked += u32::from(!record.was_blocked);
            }
        }
        if self.examples.len() < asked.examples {
            self.examples.push(record.example(strictest, asked.show_text));
        }
    }
}
