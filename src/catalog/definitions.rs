//! Templates, guardrails and experiments as their authors define them: the rows of the tables, the
//! contents of the files, the body of the snapshot.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use uuid::Uuid;

use crate::guardrail::{Kind, Rule, RuleConfig, Severity};
use crate::template::{Message, Syntax};
use crate::words::ids::{ExperimentId, GuardrailId, TemplateId, Tenant};
use crate::words::telling::without_values;

/// Everything a catalog is compiled from. Shared, because most of it outlives a reload.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Definitions {
    /// Every version of every template.
    pub templates: Vec<Arc<TemplateDefinition>>,
    /// Every guardrail, active or not.
    pub guardrails: Vec<Arc<GuardrailDefinition>>,
    /// Every experiment, running or not.
    pub experiments: Vec<Arc<ExperimentDefinition>>,
}

/// Where a rendered template goes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Target {
    /// Replaces the system instruction.
    SystemInstruction,
    /// Becomes turns before what the application sent.
    #[default]
    User,
}

/// One version of a template.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "the columns of prompt_templates, documented in PRODUCT.md 5")]
pub struct TemplateDefinition {
    pub id: TemplateId,
    #[serde(default)]
    pub tenant_id: Tenant,
    pub name: String,
    pub description: Option<String>,
    pub category: Option<String>,
    #[serde(default)]
    pub tags: Vec<String>,
    #[serde(default)]
    pub template_text: String,
    #[serde(default)]
    pub template_syntax: Syntax,
    pub messages: Option<Vec<Message>>,
    #[serde(default)]
    pub target: Target,
    #[serde(default = "nothing")]
    pub variables: Value,
    #[serde(default)]
    pub model_config: Map<String, Value>,
    pub engine_version: Option<String>,
    pub version: u32,
    pub parent_version_id: Option<TemplateId>,
    #[serde(default)]
    pub is_active: bool,
    pub ab_test_group: Option<String>,
    pub traffic_percentage: Option<f64>,
    pub ab_test_start_date: Option<Timestamp>,
    pub ab_test_end_date: Option<Timestamp>,
    pub deactivated_at: Option<Timestamp>,
    pub deactivated_by: Option<String>,
    pub created_by: Option<String>,
    pub created_at: Option<Timestamp>,
    pub updated_by: Option<String>,
    pub updated_at: Option<Timestamp>,
}

/// One guardrail.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "the columns of prompt_guardrails, documented in PRODUCT.md 5")]
pub struct GuardrailDefinition {
    pub id: GuardrailId,
    #[serde(default)]
    pub tenant_id: Tenant,
    pub name: String,
    pub description: Option<String>,
    pub rule_type: Kind,
    pub severity: Severity,
    #[serde(default = "yes")]
    pub is_active: bool,
    #[serde(default)]
    pub blocking: bool,
    #[serde(default)]
    pub rule_config: RuleConfig,
    #[serde(default)]
    pub applies_to_templates: Vec<String>,
    #[serde(default)]
    pub applies_to_categories: Vec<String>,
    pub created_by: Option<String>,
    pub created_at: Option<Timestamp>,
    pub updated_by: Option<String>,
    pub updated_at: Option<Timestamp>,
}

impl From<&GuardrailDefinition> for Rule {
    fn from(definition: &GuardrailDefinition) -> Self {
        Self {
            id: definition.id,
            name: definition.name.clone(),
            kind: definition.rule_type,
            severity: definition.severity,
            blocking: definition.blocking,
            config: definition.rule_config.clone(),
            templates: definition.applies_to_templates.clone(),
            categories: definition.applies_to_categories.clone(),
        }
    }
}

fn yes() -> bool {
    true
}

/// Where an experiment stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// Not started.
    Draft,
    /// Deciding arms.
    Active,
    /// Everyone sees control.
    Paused,
    /// Over.
    Completed,
}

/// One experiment.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "the columns of ab_test_experiments, documented in PRODUCT.md 5")]
pub struct ExperimentDefinition {
    pub id: ExperimentId,
    #[serde(default)]
    pub tenant_id: Tenant,
    pub name: String,
    pub description: Option<String>,
    pub template_name: String,
    pub status: Status,
    pub control_template_id: TemplateId,
    #[serde(default)]
    pub variant_template_ids: Vec<TemplateId>,
    #[serde(default)]
    pub traffic_split: Map<String, Value>,
    pub arms: Option<Value>,
    #[serde(default = "everyone")]
    pub enrollment_percentage: f64,
    #[serde(default = "by_user")]
    pub randomization_unit: String,
    pub salt: Option<String>,
    #[serde(default = "first")]
    pub hash_version: u32,
    pub start_date: Option<Timestamp>,
    pub end_date: Option<Timestamp>,
    pub target_sample_size: Option<u32>,
    pub primary_metric: Option<Value>,
    #[serde(default = "nothing")]
    pub secondary_metrics: Value,
    pub winner_template_id: Option<TemplateId>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub assignment: Option<Exceptions>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub design: Option<Design>,
    pub created_by: Option<String>,
    pub created_at: Option<Timestamp>,
    pub updated_by: Option<String>,
    pub updated_at: Option<Timestamp>,
}

/// What decides beside the hash, and where the split stands.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Exceptions {
    /// Of the split in force, as in `ab_test_phases`; 0 before the start.
    pub phase: u32,
    /// The most that was ever enrolled, in percent: who is above `enrollment_percentage` has left.
    pub enrolled_most: f64,
    /// Units with an arm chosen by hand.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub forced_units: BTreeMap<String, String>,
    /// Units that never take part.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub excluded_units: BTreeSet<String>,
    /// Units that keep the arm they were served before a sticky reallocation.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub pinned_units: BTreeMap<String, String>,
}

/// By what an experiment is analysed: what its author chose, completed and frozen by its start.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Design {
    /// False positives that are put up with; 0.05 unless told otherwise.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub alpha: Option<f64>,
    /// The success rate expected of control, for planning.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub baseline: Option<f64>,
    /// N* of the sequential analysis.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target_sample_size: Option<u32>,
    /// By which units are hashed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hash_version: Option<u32>,
    /// From here on nothing of this changes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub frozen_at: Option<Timestamp>,
}

impl Exceptions {
    /// What an author chose, without what happened since.
    #[must_use]
    pub fn by_hand(&self) -> Self {
        let Self { forced_units, excluded_units, .. } = self.clone();
        Self { forced_units, excluded_units, ..Self::default() }
    }
}

impl Design {
    /// What an author chose, without what a start froze.
    #[must_use]
    pub fn chosen(&self) -> Self {
        let Self { alpha, baseline, .. } = self.clone();
        Self { alpha, baseline, ..Self::default() }
    }
}

fn nothing() -> Value {
    Value::Array(Vec::new())
}

fn first() -> u32 {
    1
}

fn everyone() -> f64 {
    100.0
}

fn by_user() -> String {
    "user".to_owned()
}

impl Definitions {
    /// Reads JSON: the whole object, or a bare list of templates. Says where it does not fit.
    pub fn from_json(json: &str) -> Result<Self, String> {
        let refuse = |error: serde_json::Error| without_values(&error.to_string());
        if json.trim_start().starts_with('[') {
            let templates = serde_json::from_str(json).map_err(refuse)?;
            return Ok(Self { templates, ..Self::default() });
        }
        serde_json::from_str(json).map_err(refuse)
    }

    /// These with `changes` in place of the rows of the same id; `whole`: without the rows that
    /// `changes` lacks. What did not change stays the same object, and so stays compiled.
    #[must_use]
    pub fn updated(&self, changes: Self, whole: bool) -> Self {
        Self {
            templates: updated(&self.templates, changes.templates, whole),
            guardrails: updated(&self.guardrails, changes.guardrails, whole),
            experiments: updated(&self.experiments, changes.experiments, whole),
        }
    }

    /// How many there are of each kind.
    pub fn counts(&self) -> [usize; 3] {
        [self.templates.len(), self.guardrails.len(), self.experiments.len()]
    }
}

/// What all definitions have: an id, and a place in the order of their kind.
pub trait Definition: PartialEq {
    /// Its id.
    fn id(&self) -> Uuid;
    /// Tenant, name and version.
    fn place(&self) -> (&Tenant, &str, u32);
}

impl Definition for TemplateDefinition {
    fn id(&self) -> Uuid {
        self.id.0
    }

    fn place(&self) -> (&Tenant, &str, u32) {
        (&self.tenant_id, &self.name, self.version)
    }
}

impl Definition for GuardrailDefinition {
    fn id(&self) -> Uuid {
        self.id.0
    }

    fn place(&self) -> (&Tenant, &str, u32) {
        (&self.tenant_id, &self.name, 0)
    }
}

impl Definition for ExperimentDefinition {
    fn id(&self) -> Uuid {
        self.id.0
    }

    fn place(&self) -> (&Tenant, &str, u32) {
        (&self.tenant_id, &self.name, 0)
    }
}

/// Up to so many changes are put in their places one by one: sorting looks at every row there is.
const FEW: usize = 32;

fn updated<T: Definition>(old: &[Arc<T>], changes: Vec<Arc<T>>, whole: bool) -> Vec<Arc<T>> {
    if changes.is_empty() && !whole {
        return old.to_vec();
    }
    if changes.len() <= FEW && !whole {
        return with_few(old, changes);
    }
    let mut changed: HashMap<Uuid, Arc<T>> =
        changes.into_iter().map(|one| (one.id(), one)).collect();
    let mut all: Vec<Arc<T>> = Vec::with_capacity(old.len() + changed.len());
    all.extend(old.iter().filter_map(|one| match changed.remove(&one.id()) {
        Some(same) if same == *one => Some(one.clone()),
        None if whole => None,
        None => Some(one.clone()),
        change => change,
    }));
    all.extend(changed.into_values());
    all.sort_by(|one, other| one.place().cmp(&other.place()));
    all
}

fn with_few<T: Definition>(old: &[Arc<T>], mut changes: Vec<Arc<T>>) -> Vec<Arc<T>> {
    let mut all: Vec<Arc<T>> = Vec::with_capacity(old.len() + changes.len());
    for one in old {
        match changes.iter_mut().find(|change| change.id() == one.id()) {
            Some(same) if *same == *one => *same = one.clone(),
            Some(_other) => {}
            None => all.push(one.clone()),
        }
    }
    for change in changes {
        let place = all.partition_point(|one| one.place() <= change.place());
        all.insert(place, change);
    }
    all
}
