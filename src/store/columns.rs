//! The columns of the definitions. Both stores build their statements from these lists, so that a
//! column is named once.

/// A table of definitions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Table {
    /// `prompt_templates`.
    Templates,
    /// `prompt_guardrails`.
    Guardrails,
    /// `ab_test_experiments`.
    Experiments,
}

/// What a column holds; the stores keep some of these in types of their own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shape {
    Text,
    Json,
    Flag,
    Number,
    /// A decimal that JSON may hold as a number.
    Percentage,
    /// A decimal that JSON numbers would round: goes out as text.
    Money,
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Column {
    pub(super) name: &'static str,
    pub(super) shape: Shape,
    /// Written once, when the row is made.
    pub(super) fixed: bool,
    /// Not in the schema before the newest: without it the row reads as if it held null, so that a binary
    /// that is ahead of its schema serves on.
    pub(super) new: bool,
}

const fn fixed(name: &'static str, shape: Shape) -> Column {
    Column { name, shape, fixed: true, new: false }
}

const fn column(name: &'static str, shape: Shape) -> Column {
    Column { name, shape, fixed: false, new: false }
}

const fn new_column(name: &'static str, shape: Shape) -> Column {
    Column { name, shape, fixed: false, new: true }
}

const TEMPLATES: [Column; 26] = [
    fixed("id", Shape::Text),
    fixed("tenant_id", Shape::Text),
    fixed("name", Shape::Text),
    column("description", Shape::Text),
    fixed("category", Shape::Text),
    column("tags", Shape::Json),
    fixed("template_text", Shape::Text),
    fixed("template_syntax", Shape::Text),
    fixed("messages", Shape::Json),
    fixed("target", Shape::Text),
    fixed("variables", Shape::Json),
    fixed("model_config", Shape::Json),
    fixed("engine_version", Shape::Text),
    fixed("version", Shape::Number),
    fixed("parent_version_id", Shape::Text),
    column("is_active", Shape::Flag),
    column("ab_test_group", Shape::Text),
    column("traffic_percentage", Shape::Percentage),
    column("ab_test_start_date", Shape::Text),
    column("ab_test_end_date", Shape::Text),
    column("deactivated_at", Shape::Text),
    column("deactivated_by", Shape::Text),
    fixed("created_by", Shape::Text),
    fixed("created_at", Shape::Text),
    column("updated_by", Shape::Text),
    column("updated_at", Shape::Text),
];

const TEMPLATE_COUNTERS: [Column; 6] = [
    column("total_executions", Shape::Number),
    column("success_count", Shape::Number),
    column("failure_count", Shape::Number),
    column("avg_response_time_ms", Shape::Number),
    column("avg_token_count", Shape::Number),
    column("avg_cost_usd", Shape::Money),
];

const GUARDRAILS: [Column; 15] = [
    fixed("id", Shape::Text),
    fixed("tenant_id", Shape::Text),
    column("name", Shape::Text),
    column("description", Shape::Text),
    column("rule_type", Shape::Text),
    column("severity", Shape::Text),
    column("is_active", Shape::Flag),
    column("blocking", Shape::Flag),
    column("rule_config", Shape::Json),
    column("applies_to_templates", Shape::Json),
    column("applies_to_categories", Shape::Json),
    fixed("created_by", Shape::Text),
    fixed("created_at", Shape::Text),
    column("updated_by", Shape::Text),
    column("updated_at", Shape::Text),
];

const GUARDRAIL_COUNTERS: [Column; 2] =
    [column("total_evaluations", Shape::Number), column("total_violations", Shape::Number)];

const EXPERIMENTS: [Column; 26] = [
    fixed("id", Shape::Text),
    fixed("tenant_id", Shape::Text),
    fixed("name", Shape::Text),
    column("description", Shape::Text),
    fixed("template_name", Shape::Text),
    column("status", Shape::Text),
    column("control_template_id", Shape::Text),
    column("variant_template_ids", Shape::Json),
    column("traffic_split", Shape::Json),
    column("arms", Shape::Json),
    column("enrollment_percentage", Shape::Percentage),
    column("randomization_unit", Shape::Text),
    column("salt", Shape::Text),
    column("hash_version", Shape::Number),
    column("start_date", Shape::Text),
    column("end_date", Shape::Text),
    column("target_sample_size", Shape::Number),
    column("primary_metric", Shape::Json),
    column("secondary_metrics", Shape::Json),
    column("winner_template_id", Shape::Text),
    new_column("assignment", Shape::Json),
    new_column("design", Shape::Json),
    fixed("created_by", Shape::Text),
    fixed("created_at", Shape::Text),
    column("updated_by", Shape::Text),
    column("updated_at", Shape::Text),
];

const EXPERIMENT_COUNTERS: [Column; 2] =
    [column("results", Shape::Json), column("statistical_significance", Shape::Percentage)];

impl Table {
    /// All of them, in an order in which rows can be put in: experiments name versions.
    pub const ALL: [Self; 3] = [Self::Templates, Self::Guardrails, Self::Experiments];

    /// Its name in the database.
    pub fn name(self) -> &'static str {
        match self {
            Self::Templates => "prompt_templates",
            Self::Guardrails => "prompt_guardrails",
            Self::Experiments => "ab_test_experiments",
        }
    }

    /// What makes up a definition.
    pub(super) fn columns(self) -> &'static [Column] {
        match self {
            Self::Templates => &TEMPLATES,
            Self::Guardrails => &GUARDRAILS,
            Self::Experiments => &EXPERIMENTS,
        }
    }

    /// What the program counts; decides nothing and is never written by an admin.
    pub(super) fn counters(self) -> &'static [Column] {
        match self {
            Self::Templates => &TEMPLATE_COUNTERS,
            Self::Guardrails => &GUARDRAIL_COUNTERS,
            Self::Experiments => &EXPERIMENT_COUNTERS,
        }
    }

    /// The column that lists filter as `category`, `type` and `template`.
    pub(super) fn group(self) -> &'static str {
        match self {
            Self::Templates => "category",
            Self::Guardrails => "rule_type",
            Self::Experiments => "template_name",
        }
    }
}
