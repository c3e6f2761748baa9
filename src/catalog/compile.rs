//! From definitions to a catalog, whole or not at all.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use jiff::Timestamp;
use serde_json::json;

use super::definitions::{
    Definitions, ExperimentDefinition, GuardrailDefinition, Target, TemplateDefinition,
};
use super::model_config::ModelConfig;
use super::{Catalog, Scope, Slot, Source, TemplateName, TenantCatalog, Tier, Version, split};
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

/// What a catalog is built from.
#[derive(Debug)]
pub struct Blueprint<'b> {
    /// What is defined.
    pub definitions: Arc<Definitions>,
    /// Where it came from.
    pub source: Source,
    /// Of the catalog to be.
    pub generation: u64,
    /// When.
    pub now: Timestamp,
    /// Lesser sources, best first.
    pub tiers: &'b [Tier],
    /// The catalog before: what did not change is taken over from it, compiled.
    pub previous: Option<&'b Catalog>,
}

impl Catalog {
    /// Compiles definitions from nothing, without lesser sources.
    pub fn compile(
        definitions: Definitions,
        source: Source,
        generation: u64,
        now: Timestamp,
    ) -> Result<Self, CatalogError> {
        let definitions = Arc::new(definitions);
        let (tiers, previous) = (&[], None);
        Self::build(Blueprint { definitions, source, generation, now, tiers, previous })
    }

    /// Compiles definitions. One that is in force and broken refuses the whole; a version that is
    /// not in force may be broken, and says so when it is asked for.
    pub fn build(blueprint: Blueprint<'_>) -> Result<Self, CatalogError> {
        let Blueprint { definitions, source, generation, now, tiers, previous } = blueprint;
        let default = Tenant::default();
        let mut tenants: HashMap<&Tenant, Parts<'_>> =
            HashMap::from([(&default, Parts::default())]);
        for one in &definitions.templates {
            tenants.entry(&one.tenant_id).or_default().templates.push((source, one));
        }
        for one in &definitions.guardrails {
            tenants.entry(&one.tenant_id).or_default().guardrails.push(one);
        }
        for one in &definitions.experiments {
            tenants.entry(&one.tenant_id).or_default().experiments.push(one);
        }
        for tier in tiers {
            for one in &tier.definitions.templates {
                tenants.entry(&one.tenant_id).or_default().lesser.push((tier.source, one));
            }
        }
        // Whoever names a tenant that has no guardrails must not get past those there are.
        let baseline =
            tenants.get(&default).map(|parts| parts.guardrails.clone()).unwrap_or_default();
        for parts in tenants.values_mut().filter(|parts| parts.guardrails.is_empty()) {
            parts.guardrails.clone_from(&baseline);
        }
        let tenants = tenants
            .into_iter()
            .map(|(tenant, parts)| {
                let previous = previous.and_then(|previous| previous.tenant(tenant));
                let compiled = parts.compile(tenant, previous.map(Arc::as_ref))?;
                Ok((tenant.clone(), Arc::new(compiled)))
            })
            .collect::<Result<_, _>>()?;
        Ok(Self { generation, source, compiled_at: now, definitions, tenants })
    }
}

/// The definitions of one tenant.
#[derive(Default)]
struct Parts<'d> {
    templates: Vec<(Source, &'d Arc<TemplateDefinition>)>,
    lesser: Vec<(Source, &'d Arc<TemplateDefinition>)>,
    guardrails: Vec<&'d Arc<GuardrailDefinition>>,
    experiments: Vec<&'d Arc<ExperimentDefinition>>,
}

impl Parts<'_> {
    fn compile(
        self,
        tenant: &Tenant,
        previous: Option<&TenantCatalog>,
    ) -> Result<TenantCatalog, CatalogError> {
        let refuse =
            |object: String, why: String| CatalogError { tenant: tenant.clone(), object, why };
        let rules: Vec<Rule> = self
            .guardrails
            .iter()
            .filter(|one| one.is_active)
            .map(|one| one.as_ref().into())
            .collect();
        let guardrails = match previous {
            Some(previous) if previous.guardrails.rules() == rules => previous.guardrails.clone(),
            _ => {
                let compiled = Guardrails::compile(rules).map_err(|error| {
                    let why = format!("{}: {}", error.place, error.what);
                    refuse(format!("guardrail {}", error.rule), why)
                })?;
                Arc::new(compiled)
            }
        };
        let mut scopes = Scopes::new(&guardrails);
        let running = split::running(self.experiments);
        // Names that more than their versions have a say in.
        let special: HashSet<&str> = running
            .clone()
            .map(|one| one.template_name.as_str())
            .chain(self.lesser.iter().map(|(_, one)| one.name.as_str()))
            .collect();
        let known = previous.filter(|previous| Arc::ptr_eq(&previous.guardrails, &guardrails));
        let mut kept = HashMap::new();
        let mut templates: HashMap<&str, TemplateName> = HashMap::new();
        for (name, versions) in by_name(&self.templates) {
            let same = known.and_then(|known| known.templates.get(name));
            match same.filter(|same| !special.contains(name) && same.is_made_of(&versions)) {
                Some(same) => drop(kept.insert(name.to_owned(), same.clone())),
                None => {
                    let compiled = TemplateName::compile(&versions, &mut scopes, previous);
                    templates.insert(name, compiled.map_err(|(object, why)| refuse(object, why))?);
                }
            }
        }
        for (source, definition) in self.lesser {
            let slot = Slot::new(source, definition, &mut scopes, previous);
            templates.entry(&definition.name).or_default().fall_back(slot);
        }
        for definition in running {
            split::attach(&mut templates, definition)
                .map_err(|why| refuse(format!("experiment {}", definition.name), why))?;
        }
        kept.extend(templates.into_iter().map(|(name, all)| (name.to_owned(), Arc::new(all))));
        let scope = scopes.without_template.clone();
        Ok(TenantCatalog { guardrails, scope, templates: kept })
    }
}

/// A version with where it comes from.
type Sourced<'d> = (Source, &'d Arc<TemplateDefinition>);

/// Versions by their template's name, in the order in which the names come.
fn by_name<'d>(templates: &[Sourced<'d>]) -> Vec<(&'d str, Vec<Sourced<'d>>)> {
    let mut places: HashMap<&str, usize> = HashMap::new();
    let mut all: Vec<(&str, Vec<Sourced<'_>>)> = Vec::new();
    for (source, one) in templates {
        // Most sources give the versions of a name one after the other.
        if let Some((name, versions)) = all.last_mut()
            && *name == one.name
        {
            versions.push((*source, one));
            continue;
        }
        let place = *places.entry(&one.name).or_insert(all.len());
        match all.get_mut(place) {
            Some((_, versions)) => versions.push((*source, one)),
            None => all.push((&one.name, vec![(*source, one)])),
        }
    }
    all
}

impl TemplateName {
    /// All versions of a name; or which of them keeps the catalog from being built, and why.
    fn compile(
        versions: &[Sourced<'_>],
        scopes: &mut Scopes<'_>,
        previous: Option<&TenantCatalog>,
    ) -> Result<Self, (String, String)> {
        let mut name = Self::default();
        for (source, definition) in versions {
            let refuse =
                |why| (format!("template {}@{}", definition.name, definition.version), why);
            let slot = Slot::new(*source, definition, scopes, previous);
            if definition.is_active && definition.ab_test_group.is_none() {
                let active = slot.serve().map_err(|why| refuse(why.to_owned()))?;
                if name.active.replace(active).is_some() {
                    return Err(refuse("a second active version of this name".to_owned()));
                }
            }
            name.versions.insert(definition.version, slot);
        }
        name.groups =
            split::groups(&name).map_err(|(version, why)| (format!("template {version}"), why))?;
        Ok(name)
    }

    /// Whether these versions, and nothing else, are what it was compiled from: then it is taken over whole.
    fn is_made_of(&self, versions: &[Sourced<'_>]) -> bool {
        let is_same = |(source, definition): &Sourced<'_>| {
            let is_active = self.active.as_ref().is_none_or(|active| active.source == *source);
            let slot = self.versions.get(&definition.version);
            is_active
                && slot.is_some_and(|slot| {
                    slot.source == *source && Arc::ptr_eq(&slot.definition, definition)
                })
        };
        self.experiment.is_none()
            && self.versions.len() == versions.len()
            && versions.iter().all(is_same)
    }

    /// Takes in a version of a lesser source: it serves where nothing better does, and only if it
    /// works. Numbers of better sources stay theirs.
    fn fall_back(&mut self, slot: Slot) {
        let is_active = slot.definition.is_active && slot.definition.ab_test_group.is_none();
        if self.active.is_none() && is_active {
            self.active = slot.serve().ok();
        }
        self.versions.entry(slot.definition.version).or_insert(slot);
    }
}

impl Slot {
    fn new(
        source: Source,
        definition: &Arc<TemplateDefinition>,
        scopes: &mut Scopes<'_>,
        previous: Option<&TenantCatalog>,
    ) -> Self {
        let compiled = previous
            .and_then(|previous| previous.templates.get(&definition.name))
            .and_then(|name| name.versions.get(&definition.version))
            .filter(|slot| Arc::ptr_eq(&slot.definition, definition))
            .map(|slot| slot.compiled.clone())
            .unwrap_or_default();
        let scope = scopes.of(&definition.name, definition.category.as_deref());
        Self { definition: definition.clone(), compiled, scope, source }
    }
}

/// Which guardrails look at the calls of which template. Most templates share one answer.
struct Scopes<'g> {
    guardrails: &'g Guardrails,
    without_template: Arc<Scope>,
    templates: HashSet<&'g str>,
    categories: HashSet<&'g str>,
    special: HashMap<(String, Option<String>), Arc<Scope>>,
}

impl<'g> Scopes<'g> {
    fn new(guardrails: &'g Guardrails) -> Self {
        let rules = guardrails.rules();
        Self {
            guardrails,
            without_template: Arc::new(scope(guardrails, None)),
            templates: rules.iter().flat_map(|one| &one.templates).map(String::as_str).collect(),
            categories: rules.iter().flat_map(|one| &one.categories).map(String::as_str).collect(),
            special: HashMap::new(),
        }
    }

    fn of(&mut self, name: &str, category: Option<&str>) -> Arc<Scope> {
        let is_special = self.templates.contains(name)
            || category.is_some_and(|category| self.categories.contains(category));
        if !is_special {
            return self.without_template.clone();
        }
        self.special
            .entry((name.to_owned(), category.map(str::to_owned)))
            .or_insert_with(|| Arc::new(scope(self.guardrails, Some((name, category)))))
            .clone()
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

impl Version {
    /// Compiles one version by itself, or says what is wrong and where.
    pub fn compile(definition: &TemplateDefinition) -> Result<Self, String> {
        let messages = messages(definition)?;
        let variables =
            declared(&definition.variables).map_err(|why| format!("variables: {why}"))?;
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
        Ok(Self {
            id: definition.id,
            name: definition.name.clone(),
            number: definition.version,
            target: definition.target,
            template,
            content_hash: digest::sha256_hex(digest::canonical(&content).to_string().as_bytes()),
            model_config,
        })
    }
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
