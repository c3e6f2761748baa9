//! From definitions to a catalog, whole or not at all.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use jiff::Timestamp;
use serde_json::json;

use super::definitions::{
    Definitions, ExperimentDefinition, GuardrailDefinition, Status, Target, TemplateDefinition,
};
use super::model_config::ModelConfig;
use super::{Catalog, Scope, Source, TemplateName, TenantCatalog, Version};
use crate::experiment::{self, Experiment, Unit};
use crate::guardrail::{Direction, Guardrails, Inspects, Rule};
use crate::template::variables::declared;
use crate::template::{Message, Role, Template};
use crate::words::digest;
use crate::words::ids::Tenant;

/// The definition that kept a catalog from being compiled, and why.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{object} of tenant {tenant}: {why}")]
pub struct CatalogError {
    /// Whose.
    pub tenant: Tenant,
    /// Which, such as `template greeting@3`.
    pub object: String,
    /// What is wrong and what is allowed.
    pub why: String,
}

impl Catalog {
    /// Compiles definitions. One that is in force and broken refuses the whole; a version that is
    /// not in force is kept with its reason.
    pub fn compile(
        definitions: Definitions,
        source: Source,
        generation: u64,
        now: Timestamp,
    ) -> Result<Self, CatalogError> {
        let mut owners: HashSet<&Tenant> = HashSet::new();
        owners.extend(definitions.templates.iter().map(|one| &one.tenant_id));
        owners.extend(definitions.guardrails.iter().map(|one| &one.tenant_id));
        let default = Tenant::default();
        owners.insert(&default);
        let mut tenants = HashMap::new();
        for tenant in owners {
            let compiled = compile_tenant(&definitions, tenant)?;
            tenants.insert(tenant.clone(), Arc::new(compiled));
        }
        let definitions = Arc::new(definitions);
        Ok(Self { generation, source, compiled_at: now, definitions, tenants })
    }
}

fn compile_tenant(
    definitions: &Definitions,
    tenant: &Tenant,
) -> Result<TenantCatalog, CatalogError> {
    let refuse = |object: String, why: String| CatalogError { tenant: tenant.clone(), object, why };
    let rules = definitions
        .guardrails
        .iter()
        .filter(|one| one.tenant_id == *tenant && one.is_active)
        .map(rule)
        .collect();
    let guardrails = Guardrails::compile(rules).map_err(|error| {
        refuse(format!("guardrail {}", error.rule), format!("{}: {}", error.place, error.what))
    })?;
    let mut templates: HashMap<String, TemplateName> = HashMap::new();
    for definition in definitions.templates.iter().filter(|one| one.tenant_id == *tenant) {
        let object = || format!("template {}@{}", definition.name, definition.version);
        let version = version(definition, &guardrails).map(Arc::new);
        let name = templates.entry(definition.name.clone()).or_insert_with(|| TemplateName {
            active: None,
            experiment: None,
            versions: HashMap::new(),
        });
        if definition.is_active && definition.ab_test_group.is_none() {
            let version = version.clone().map_err(|why| refuse(object(), why))?;
            if name.active.replace(version).is_some() {
                return Err(refuse(object(), "a second active version of this name".to_owned()));
            }
        }
        name.versions.insert(definition.version, version);
    }
    for definition in definitions.experiments.iter().filter(|one| one.tenant_id == *tenant) {
        if definition.status == Status::Active {
            let object = || format!("experiment {}", definition.name);
            let experiment = experiment(definition).map_err(|why| refuse(object(), why))?;
            attach(&mut templates, definition, experiment).map_err(|why| refuse(object(), why))?;
        }
    }
    let scope = scope(&guardrails, None);
    Ok(TenantCatalog { guardrails: Arc::new(guardrails), scope, templates })
}

fn attach(
    templates: &mut HashMap<String, TemplateName>,
    definition: &ExperimentDefinition,
    experiment: Experiment,
) -> Result<(), String> {
    let name = templates
        .get_mut(&definition.template_name)
        .ok_or_else(|| format!("there is no template {:?}", definition.template_name))?;
    for arm in &experiment.arms {
        if name.version_by_id(arm.template).is_none() {
            return Err(format!(
                "arm {} needs version {}, which is not a working version of {:?}",
                arm.key, arm.template, definition.template_name
            ));
        }
    }
    match name.experiment.replace(experiment) {
        Some(_) => Err("a second active experiment on this template".to_owned()),
        None => Ok(()),
    }
}

fn rule(definition: &GuardrailDefinition) -> Rule {
    Rule {
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

fn scope(guardrails: &Guardrails, template: Option<(&str, Option<&str>)>) -> Scope {
    let select = |direction, inspects| Arc::new(guardrails.select(direction, inspects, template));
    Scope {
        untrusted: select(Direction::Request, Inspects::Untrusted),
        rendered: select(Direction::Request, Inspects::Rendered),
        response: select(Direction::Response, Inspects::Untrusted),
    }
}

fn version(definition: &TemplateDefinition, guardrails: &Guardrails) -> Result<Version, String> {
    let messages = messages(definition)?;
    let variables = declared(&definition.variables).map_err(|why| format!("variables: {why}"))?;
    let template = Template::compile(definition.template_syntax, &messages, variables)
        .map_err(|error| error.to_string())?;
    let model_config = ModelConfig::read(&definition.model_config)
        .map_err(|why| format!("model_config: {why}"))?;
    let content = json!([
        definition.template_syntax,
        messages,
        definition.target,
        definition.variables,
        model_config.fingerprint(),
    ]);
    Ok(Version {
        id: definition.id,
        name: definition.name.clone(),
        number: definition.version,
        target: definition.target,
        template,
        content_hash: digest::sha256_hex(content.to_string().as_bytes()),
        model_config,
        scope: scope(guardrails, Some((&definition.name, definition.category.as_deref()))),
    })
}

/// `template_text` alone is one message, spoken by whom the target says.
fn messages(definition: &TemplateDefinition) -> Result<Vec<Message>, String> {
    match &definition.messages {
        Some(messages) if !definition.template_text.is_empty() && !messages.is_empty() => {
            Err("give template_text or messages, not both".to_owned())
        }
        Some(messages) if !messages.is_empty() => Ok(messages.clone()),
        Some(_) | None if definition.template_text.is_empty() => Ok(Vec::new()),
        Some(_) | None => {
            let role = match definition.target {
                Target::SystemInstruction => Role::System,
                Target::User => Role::User,
            };
            Ok(vec![Message { role, text: definition.template_text.clone() }])
        }
    }
}

fn experiment(definition: &ExperimentDefinition) -> Result<Experiment, String> {
    let mut versions = vec![definition.control_template_id];
    versions.extend(&definition.variant_template_ids);
    let split = definition
        .traffic_split
        .iter()
        .map(|(key, weight)| {
            Ok((key.clone(), weight.as_f64().ok_or("traffic_split must hold numbers")?))
        })
        .collect::<Result<Vec<_>, String>>()?;
    let unit = Unit::read(&definition.randomization_unit)
        .ok_or("randomization_unit must be user, conversation, request or header:NAME")?;
    let enrolled = experiment::millipercent(definition.enrollment_percentage)
        .ok_or("enrollment_percentage must be from 0 to 100 with at most 3 decimals")?;
    Ok(Experiment {
        id: definition.id,
        salt: definition.salt.clone().unwrap_or_else(|| definition.id.to_string()),
        unit,
        enrolled,
        arms: experiment::arms(&versions, &split).map_err(|error| error.to_string())?,
        start: definition.start_date,
        end: definition.end_date,
    })
}
