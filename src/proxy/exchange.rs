//! The record of one call while it happens.
//!
//! It is written exactly once, whatever happens: by whoever ends the call, or by being dropped, which
//! means that the client left.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::StatusCode;
use jiff::Timestamp;

use super::relay::{failed, outcome};
use super::{Accounted, Proxy, earlier, kept};
use crate::catalog::Catalog;
use crate::config::StorePrompts;
use crate::execution::{Evaluation, Execution, Outcome, Violation};
use crate::gemini::answer::Answer;
use crate::gemini::route::Call;
use crate::guardrail::{Direction, Finding, Guardrails, RuleSet};
use crate::outbox::Recorder;
use crate::price::Prices;
use crate::telemetry;
use crate::upstream::UpstreamError;
use crate::words::clock;
use crate::words::ids::ExecutionId;
use crate::words::tokens::ServiceTier;

/// Guardrails listed one by one in an execution, whatever they found; of more, only those that found
/// something are.
const EVALUATIONS_MAX: usize = 100;
/// Stands for the guardrails that are not listed one by one. No guardrail can be called so.
const OTHERS: &str = "*";
/// Violations kept with their place; the reasons count all of them.
const VIOLATIONS_MAX: usize = 100;

/// What the effects of guardrails that only watch begin with.
pub(super) const SHADOW: &str = "shadow_";

/// How often a rule found what, with which effect.
type Found<'f> = BTreeMap<(&'f str, &'f str), usize>;

/// One call under way.
#[derive(Debug)]
pub(super) struct Exchange(Option<Box<Open>>);

#[derive(Debug)]
struct Open {
    recorder: Recorder,
    prices: Arc<Prices>,
    accounted: Arc<Accounted>,
    /// Whether the answer was made earlier, for another call.
    reads_earlier: bool,
    started: Instant,
    /// Time spent by Chaperone itself.
    own: Duration,
    /// Since when it works, while it does.
    working: Option<Instant>,
    /// Whether this call is an execution at all.
    recorded: bool,
    store_prompts: StorePrompts,
    store_prompts_of: Arc<BTreeMap<String, StorePrompts>>,
    /// What must not be kept of the prompt.
    found: kept::Found,
    /// The tier the upstream said it bills.
    tier_billed: Option<ServiceTier>,
    /// The tier the request asked for.
    tier_asked: Option<ServiceTier>,
    execution: Execution,
}

impl Exchange {
    pub(super) fn begin(proxy: &Proxy, catalog: &Catalog, now: Timestamp) -> Self {
        let id = ExecutionId::new();
        let started = clock::monotonic();
        let execution = Execution {
            id: Some(id),
            request_id: id.to_string(),
            call: "other".to_owned(),
            catalog_generation: catalog.generation,
            catalog_source: catalog.source.name().to_owned(),
            created_at: now,
            ..Execution::default()
        };
        Self(Some(Box::new(Open {
            recorder: proxy.recorder.clone(),
            prices: proxy.prices.clone(),
            accounted: proxy.accounted.clone(),
            reads_earlier: false,
            started,
            own: Duration::ZERO,
            working: Some(started),
            recorded: false,
            store_prompts: proxy.rules.store_prompts,
            store_prompts_of: proxy.rules.store_prompts_of.clone(),
            found: kept::Found::default(),
            tier_billed: None,
            tier_asked: None,
            execution,
        })))
    }

    /// Moves the record on, to where the call ends; what stays behind records nothing.
    pub(super) fn take(&mut self) -> Self {
        Self(self.0.take())
    }

    /// Notes facts.
    pub(super) fn note(&mut self, note: impl FnOnce(&mut Execution)) {
        if let Some(open) = &mut self.0 {
            note(&mut open.execution);
        }
    }

    /// The tier a request asks for: what it pays unless the answer says otherwise.
    pub(super) fn asks_for_tier(&mut self, tier: Option<ServiceTier>) {
        if let Some(open) = &mut self.0 {
            open.tier_asked = tier;
        }
    }

    /// The tier in the head of the answer, which is what is billed.
    pub(super) fn is_billed_at(&mut self, tier: Option<ServiceTier>) {
        if let Some(open) = &mut self.0 {
            open.tier_billed = tier;
        }
    }

    /// Reads a fact.
    pub(super) fn fact<T>(&self, read: impl FnOnce(&Execution) -> T) -> Option<T> {
        self.0.as_ref().map(|open| read(&open.execution))
    }

    /// From here on the call will be recorded.
    pub(super) fn is_model_call(&mut self) {
        if let Some(open) = &mut self.0 {
            open.recorded = true;
        }
    }

    /// The call makes nothing; it will be recorded if what it reads is not yet.
    pub(super) fn reads_earlier(&mut self) {
        if let Some(open) = &mut self.0 {
            open.reads_earlier = true;
        }
    }

    /// Chaperone waits for somebody else: its own time stands still.
    pub(super) fn rest(&mut self) {
        if let Some(open) = &mut self.0
            && let Some(since) = open.working.take()
        {
            open.own += clock::monotonic().duration_since(since);
        }
    }

    /// Chaperone works again.
    pub(super) fn work(&mut self) {
        if let Some(open) = &mut self.0 {
            open.working.get_or_insert_with(clock::monotonic);
        }
    }

    /// Chaperone's own time so far.
    pub(super) fn own(&self) -> Duration {
        self.0.as_ref().map_or(Duration::ZERO, |open| {
            let running = open
                .working
                .map_or(Duration::ZERO, |since| clock::monotonic().duration_since(since));
            open.own + running
        })
    }

    /// The first piece of the answer is here.
    pub(super) fn first_token(&mut self) {
        if let Some(open) = &mut self.0 {
            let since = clock::monotonic().duration_since(open.started);
            open.execution.time_to_first_token_ms.get_or_insert(clock::millis(since));
        }
    }

    /// Notes what guardrails said about a text: every rule that looked, every finding.
    pub(super) fn inspected(
        &mut self,
        guardrails: &Guardrails,
        rules: &RuleSet,
        (findings, places): (&[Finding], &[Option<String>]),
        direction: Direction,
    ) {
        let Some(open) = &mut self.0 else { return };
        let direction = match direction {
            Direction::Request => "request",
            Direction::Response => "response",
        };
        let mut found: BTreeMap<usize, Found<'_>> = BTreeMap::new();
        for finding in findings {
            let entities = found.entry(finding.rule).or_default();
            let what = (guardrails.entity(finding), guardrails.effect(finding));
            *entities.entry(what).or_default() += 1;
        }
        for (index, entities) in &found {
            let Some(rule) = guardrails.rules().get(*index) else { continue };
            for (entity, effect) in entities.keys() {
                let what = [rule.name.as_str(), entity, direction, effect];
                telemetry::events::violation(&open.execution.request_id, what);
            }
            open.execution.evaluated(&rule.name, direction, entities);
        }
        if rules.len() > EVALUATIONS_MAX {
            open.execution.others_passed(rules.len() - found.len());
        } else {
            let passed = rules.iter().filter(|index| !found.contains_key(index));
            for rule in passed.filter_map(|index| guardrails.rules().get(index)) {
                open.execution.evaluated(&rule.name, direction, &BTreeMap::new());
            }
        }
        let room = VIOLATIONS_MAX.saturating_sub(open.execution.guardrail_violations.len());
        let places = places.iter().map(Clone::clone).chain(std::iter::repeat(None));
        for (finding, place) in findings.iter().zip(places).take(room) {
            let Some(rule) = guardrails.rules().get(finding.rule) else { continue };
            let action = guardrails.effect(finding);
            open.execution.guardrail_violations.push(Violation {
                rule_name: rule.name.clone(),
                entity: guardrails.entity(finding).to_owned(),
                direction: direction.to_owned(),
                action: action.to_owned(),
                place,
                start: finding.start,
                end: finding.end,
            });
        }
    }

    /// Notes what was found in those parts of a prompt that may be kept, if it must not be kept with them.
    pub(super) fn found(&mut self, note: impl FnOnce(&mut kept::Found)) {
        if let Some(open) = self.0.as_mut()
            && open.store_prompts() == StorePrompts::Redacted
        {
            note(&mut open.found);
        }
    }

    /// Notes what the answer said about itself, tokens and cost included. `partial`: it was cut.
    pub(super) fn answered(&mut self, answer: &Answer, partial: bool) {
        let Some(open) = &mut self.0 else { return };
        if answer.batches.is_empty() {
            open.identify_earlier(answer);
            let tier = open.tier_billed.or(answer.service_tier).or(open.tier_asked);
            let (prices, tier) = (&open.prices, tier.unwrap_or_default());
            open.execution.answered(answer, partial, prices, tier);
        }
        for batch in &answer.batches {
            let of = (batch.created_at, batch.model.as_deref());
            for (number, answer) in batch.answers.iter().enumerate() {
                open.answered_by_batch((&batch.name, number), of, answer);
            }
        }
    }

    /// Notes an answer of a batch that is a line of a file.
    pub(super) fn answered_in_file(&self, place: (&str, usize), answer: &Answer) {
        if let Some(open) = &self.0 {
            open.answered_by_batch(place, (None, None), answer);
        }
    }

    /// Records a try that another one follows, as a call of its own. No experiment counts it, and the prompt and
    /// what guardrails said stay with the last one. `status`: of the answer, if there was one.
    pub(super) fn tried(&self, at: Timestamp, took: Duration, status: Option<StatusCode>) {
        let Some(open) = self.0.as_ref().filter(|open| open.recorded) else { return };
        let error_type = status.map_or(UpstreamError::Unreachable.name(), failed);
        open.recorder.record(&Execution {
            id: Some(ExecutionId::new()),
            created_at: at,
            execution_time_ms: clock::millis(took),
            outcome: Outcome::Failed,
            error_type: Some(error_type.to_owned()),
            http_status: status.map(|status| status.as_u16()),
            variables_used: None,
            rendered_prompt: None,
            guardrails_evaluated: Vec::new(),
            guardrail_violations: Vec::new(),
            ab_test_experiment_id: None,
            ab_test_group: None,
            assignment_reason: None,
            enroll_bucket: None,
            variant_bucket: None,
            ..open.execution.clone()
        });
    }

    /// Ends the call without a record.
    pub(super) fn forget(mut self) {
        self.0 = None;
    }

    /// Ends the call.
    pub(super) fn finish(mut self, outcome: Outcome, error_type: Option<&str>) {
        self.close(outcome, error_type);
    }

    fn close(&mut self, outcome: Outcome, error_type: Option<&str>) {
        self.rest();
        let Some(open) = self.0.take() else { return };
        if !open.recorded {
            return;
        }
        let choice = open.store_prompts();
        let mut execution = open.execution;
        open.found.keep(choice, &mut execution);
        execution.outcome = outcome;
        execution.success = outcome == Outcome::Success;
        execution.error_type = error_type.map(str::to_owned);
        execution.execution_time_ms =
            clock::millis(clock::monotonic().duration_since(open.started));
        execution.overhead_ms = Some(clock::millis(open.own));
        open.recorder.record(&execution);
    }
}

impl Open {
    /// An interaction has one execution, by its id: of the call that it answered, or of the first one that reads
    /// what came of it in the background.
    fn identify_earlier(&mut self, answer: &Answer) {
        let is_over = !matches!(answer.finish_reason.as_deref(), Some("in_progress" | "queued"));
        let (true, Some(_), Some(name)) = (is_over, &answer.usage, &answer.response_id) else {
            return;
        };
        if !self.reads_earlier && self.execution.call != Call::Interact.name() {
            return;
        }
        let id = earlier::execution_id(&format!("interactions/{name}"));
        if !self.reads_earlier {
            // Its own id was told in the head of the answer, for feedback to name it.
            self.accounted.keep(id);
        } else if self.accounted.is_first(id) {
            self.recorded = true;
            self.execution.id = Some(id);
            self.execution.created_at = answer.created_at.unwrap_or(self.execution.created_at);
        }
    }

    /// Each answer of a batch is an execution at the price of batches, however often it is read: by the name of
    /// the batch, or of the file that holds it, and its number there.
    fn answered_by_batch(
        &self,
        (name, number): (&str, usize),
        of: (Option<Timestamp>, Option<&str>),
        answer: &Answer,
    ) {
        let id = earlier::execution_id(&format!("{name}#{number}"));
        if !self.accounted.is_first(id) {
            return;
        }
        let (created_at, model) = of;
        let mut execution = Execution {
            id: Some(id),
            created_at: created_at.unwrap_or(self.execution.created_at),
            model_name: model.map(str::to_owned),
            execution_time_ms: clock::millis(clock::monotonic().duration_since(self.started)),
            http_status: Some(StatusCode::OK.as_u16()),
            guardrails_evaluated: Vec::new(),
            guardrail_violations: Vec::new(),
            ..self.execution.clone()
        };
        execution.answered(answer, false, &self.prices, ServiceTier::Batch);
        let (outcome, error_type) = outcome(StatusCode::OK, answer);
        execution.outcome = outcome;
        execution.success = outcome == Outcome::Success;
        execution.error_type = error_type.map(str::to_owned);
        self.recorder.record(&execution);
    }

    /// The operator's choice for the template of the call.
    fn store_prompts(&self) -> StorePrompts {
        let name = self.execution.template_name.as_ref();
        let own_choice = name.and_then(|name| self.store_prompts_of.get(name));
        *own_choice.unwrap_or(&self.store_prompts)
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        self.close(Outcome::ClientLeft, Some("client_left"));
    }
}

impl Execution {
    /// Notes what an answer said about itself.
    fn answered(&mut self, answer: &Answer, partial: bool, prices: &Prices, tier: ServiceTier) {
        let asked_model = self.model_name.clone();
        if let Some(model) = &answer.model_version {
            self.model_name = Some(model.clone());
        }
        self.finish_reason = answer.finish_reason.clone().or_else(|| answer.block_reason.clone());
        if let Some(status) = &answer.error {
            self.error_message = Some(status.clone());
        }
        self.usage_partial = partial;
        let Some(usage) = answer.used() else { return };
        self.token_count = Some(usage.total);
        self.prompt_tokens = Some(usage.prompt);
        self.cached_tokens = Some(usage.cached);
        self.candidates_tokens = Some(usage.candidates);
        self.thoughts_tokens = Some(usage.thoughts);
        self.tool_use_tokens = Some(usage.tool_use);
        self.price_version = Some(prices.version().to_owned());
        if usage.is_total_only() {
            return;
        }
        if !partial && !usage.adds_up() {
            telemetry::metrics::usage_mismatch();
        }
        // An alias is resolved in the answer; a name that only the request has may be the one in the table.
        let at = self.created_at;
        let cost = [&self.model_name, &asked_model]
            .into_iter()
            .flatten()
            .find_map(|model| prices.cost(model, &usage, tier, at));
        self.estimated_cost_usd = cost.map(|cost| cost.usd);
        self.cost_list_usd = cost.map(|cost| cost.list_usd);
    }

    /// Thousands of guardrails that found nothing are one entry, the first time they look.
    fn others_passed(&mut self, count: usize) {
        if self.guardrails_evaluated.iter().all(|one| one.rule_name != OTHERS) {
            self.guardrails_evaluated.push(Evaluation {
                rule_name: OTHERS.to_owned(),
                passed: true,
                reason: Some(format!("{count} more guardrails found nothing")),
            });
        }
    }

    fn evaluated(&mut self, rule: &str, direction: &str, found: &Found<'_>) {
        let count = |((entity, effect), count): (&(&str, &str), &usize)| {
            // What only would have been done is told apart from what was.
            let shadow =
                if effect.starts_with(SHADOW) { format!(" ({effect})") } else { String::new() };
            format!("{entity} ×{count}{shadow}")
        };
        let counts: Vec<String> = found.iter().map(count).collect();
        let reason = (!found.is_empty()).then(|| format!("{direction}: {}", counts.join(", ")));
        let known = self.guardrails_evaluated.iter_mut().find(|one| one.rule_name == rule);
        match known {
            Some(known) => {
                known.passed &= found.is_empty();
                known.reason = match (known.reason.take(), reason) {
                    (Some(before), Some(now)) => Some(format!("{before}; {now}")),
                    (before, now) => before.or(now),
                };
            }
            None => self.guardrails_evaluated.push(Evaluation {
                rule_name: rule.to_owned(),
                passed: found.is_empty(),
                reason,
            }),
        }
    }
}
