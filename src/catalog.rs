//! The compiled present: all templates, guardrails and experiments of all tenants as one immutable
//! snapshot that a request borrows from start to end.
//!
//! Definitions come from somewhere (a store, a file, the environment), are compiled whole and off to
//! the side, and are published whole. Knows nothing of where they came from but its name.

pub mod check;
mod compile;
pub mod definitions;
pub mod files;
pub mod model_config;
pub mod response_format;
mod split;
pub mod trial;

use std::collections::HashMap;
use std::sync::{Arc, OnceLock};

use arc_swap::ArcSwap;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::experiment::{Experiment, Groups};
use crate::guardrail::{Guardrails, RuleSet};
use crate::template::Template;
use crate::words::ids::{TemplateId, Tenant};

pub use compile::{Blueprint, CatalogError};
use definitions::{Definitions, Target, TemplateDefinition};
use model_config::ModelConfig;

/// Where the catalog in force came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Source {
    /// The store that is the authority.
    Database,
    /// The last known good catalog, kept on the local disk.
    Snapshot,
    /// `AI_PROMPT_TEMPLATES_JSON`.
    Environment,
    /// Files under the configuration directory.
    File,
}

impl Source {
    /// All sources in the order they are tried.
    pub const ALL: [Self; 4] = [Self::Database, Self::Snapshot, Self::Environment, Self::File];

    /// The word in headers, metrics and records.
    pub fn name(self) -> &'static str {
        match self {
            Self::Database => "database",
            Self::Snapshot => "snapshot",
            Self::Environment => "environment",
            Self::File => "file",
        }
    }
}

/// Everything in force at one moment.
#[derive(Debug)]
pub struct Catalog {
    /// Counts the catalogs published by this process.
    pub generation: u64,
    /// Where it came from.
    pub source: Source,
    /// When it was compiled.
    pub compiled_at: Timestamp,
    /// What it was compiled from.
    pub definitions: Arc<Definitions>,
    tenants: HashMap<Tenant, Arc<TenantCatalog>>,
}

/// Definitions of a lesser source: they serve the names that the better ones leave unserved.
#[derive(Debug, Clone)]
pub struct Tier {
    /// Where they came from.
    pub source: Source,
    /// Only their templates count.
    pub definitions: Arc<Definitions>,
}

/// What one tenant has in force.
#[derive(Debug)]
pub struct TenantCatalog {
    /// Its compiled guardrails.
    pub guardrails: Arc<Guardrails>,
    /// Which of them look at calls without a template.
    pub scope: Arc<Scope>,
    templates: HashMap<String, Arc<TemplateName>>,
}

/// All that goes by one template name.
#[derive(Debug, Default)]
pub struct TemplateName {
    /// The version served when no experiment decides.
    pub active: Option<Served>,
    /// The experiment that runs on this name, or is paused.
    pub experiment: Option<Running>,
    /// The split its versions carry themselves: used while no experiment decides.
    pub groups: Option<ByGroup>,
    versions: HashMap<u32, Slot>,
}

/// An experiment with the versions of its arms.
#[derive(Debug)]
pub struct Running {
    /// Decides the arm.
    pub experiment: Experiment,
    arms: HashMap<TemplateId, Served>,
}

/// Groups with their versions.
#[derive(Debug)]
pub struct ByGroup {
    /// Decides the group.
    pub groups: Groups,
    arms: HashMap<TemplateId, Served>,
}

/// A version ready to serve, and what looks at its calls.
#[derive(Debug, Clone)]
pub struct Served {
    /// The version.
    pub version: Arc<Version>,
    /// Its guardrails.
    pub scope: Arc<Scope>,
    /// Where it came from.
    pub source: Source,
}

/// A version that may be asked for. One that is not in force is compiled when it first is.
#[derive(Debug)]
struct Slot {
    definition: Arc<TemplateDefinition>,
    /// Shared with the catalogs before and after, as long as the definition is the same.
    compiled: Arc<OnceLock<Result<Arc<Version>, String>>>,
    scope: Arc<Scope>,
    source: Source,
}

/// One immutable version, compiled.
#[derive(Debug)]
pub struct Version {
    /// Its id.
    pub id: TemplateId,
    /// The template's name.
    pub name: String,
    /// Counted from 1.
    pub number: u32,
    /// Where its text goes.
    pub target: Target,
    /// The text.
    pub template: Template,
    /// Model and generation settings.
    pub model_config: ModelConfig,
    /// SHA-256 over everything that decides what is sent.
    pub content_hash: String,
}

/// Which guardrails look at which texts of a call, decided when the catalog is compiled.
#[derive(Debug, Clone, Default)]
pub struct Scope {
    /// What the application sent.
    pub untrusted: Arc<RuleSet>,
    /// The whole rendered prompt.
    pub rendered: Arc<RuleSet>,
    /// The answer.
    pub response: Arc<RuleSet>,
}

impl Catalog {
    /// A tenant's part; `None` for a tenant nobody has defined anything for.
    pub fn tenant(&self, tenant: &Tenant) -> Option<&Arc<TenantCatalog>> {
        self.tenants.get(tenant)
    }
}

impl Catalog {
    /// Does now what calls would otherwise wait for when they first need it.
    pub fn warm(&self) {
        self.tenants.values().for_each(|tenant| tenant.guardrails.warm());
    }
}

impl TenantCatalog {
    /// Every template name with all that goes by it, in no order.
    pub fn templates(&self) -> impl Iterator<Item = (&String, &TemplateName)> {
        self.templates.iter().map(|(name, all)| (name, all.as_ref()))
    }

    /// All that goes by a template name.
    pub fn template(&self, name: &str) -> Option<&TemplateName> {
        self.templates.get(name).map(Arc::as_ref)
    }
}

/// What `name` or `name@version` names; `None`: what is behind the @ is no number.
pub fn named(text: &str) -> Option<(&str, Option<u32>)> {
    match text.rsplit_once('@') {
        None => Some((text, None)),
        Some((name, version)) => Some((name, Some(version.parse().ok()?))),
    }
}

impl TemplateName {
    /// A version by number: `None` when there is none, `Err` with the reason when it is broken.
    pub fn version(&self, number: u32) -> Option<Result<Served, &str>> {
        self.versions.get(&number).map(Slot::serve)
    }
}

impl Running {
    /// The version of an arm.
    pub fn arm(&self, version: TemplateId) -> Option<&Served> {
        self.arms.get(&version)
    }
}

impl ByGroup {
    /// The version of a group.
    pub fn arm(&self, version: TemplateId) -> Option<&Served> {
        self.arms.get(&version)
    }
}

impl Slot {
    fn serve(&self) -> Result<Served, &str> {
        let compiled =
            self.compiled.get_or_init(|| Version::compile(&self.definition).map(Arc::new));
        let version = compiled.as_ref().map_err(String::as_str)?;
        Ok(Served { version: version.clone(), scope: self.scope.clone(), source: self.source })
    }
}

/// The published catalog. Readers never wait for a reload.
#[derive(Debug)]
pub struct Current(ArcSwap<Catalog>);

impl Current {
    /// Starts with a first catalog.
    pub fn new(catalog: Catalog) -> Self {
        Self(ArcSwap::from_pointee(catalog))
    }

    /// The catalog in force; stays the same for whoever holds it.
    pub fn load(&self) -> Arc<Catalog> {
        self.0.load_full()
    }

    /// Puts another catalog in force, whole.
    pub fn publish(&self, catalog: Catalog) {
        self.0.store(Arc::new(catalog));
    }
}

#[cfg(test)]
mod tests;
