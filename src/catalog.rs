//! The compiled present: all templates, guardrails and experiments of all tenants as one immutable
//! snapshot that a request borrows from start to end.
//!
//! Definitions come from somewhere (a store, a file, the environment), are compiled whole and off to
//! the side, and are published whole. Knows nothing of where they came from but its name.

mod compile;
pub mod definitions;
pub mod files;
pub mod model_config;

use std::collections::HashMap;
use std::sync::Arc;

use arc_swap::ArcSwap;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::experiment::Experiment;
use crate::guardrail::{Guardrails, RuleSet};
use crate::template::Template;
use crate::words::ids::{TemplateId, Tenant};

pub use compile::CatalogError;
use definitions::{Definitions, Target};
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

/// What one tenant has in force.
#[derive(Debug)]
pub struct TenantCatalog {
    /// Its compiled guardrails.
    pub guardrails: Arc<Guardrails>,
    /// Which of them look at calls without a template.
    pub scope: Scope,
    templates: HashMap<String, TemplateName>,
}

/// All that goes by one template name.
#[derive(Debug)]
pub struct TemplateName {
    /// The version served when no experiment decides.
    pub active: Option<Arc<Version>>,
    /// The experiment running on this name.
    pub experiment: Option<Experiment>,
    /// Every version, or why it does not compile.
    versions: HashMap<u32, Result<Arc<Version>, String>>,
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
    /// Which guardrails look at its calls.
    pub scope: Scope,
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

impl TenantCatalog {
    /// All that goes by a template name.
    pub fn template(&self, name: &str) -> Option<&TemplateName> {
        self.templates.get(name)
    }
}

impl TemplateName {
    /// A version by number: `None` when there is none, `Err` with the reason when it is broken.
    pub fn version(&self, number: u32) -> Option<Result<&Arc<Version>, &str>> {
        self.versions.get(&number).map(|version| version.as_ref().map_err(String::as_str))
    }

    /// A version by id, if it compiled.
    pub fn version_by_id(&self, id: TemplateId) -> Option<&Arc<Version>> {
        self.versions.values().filter_map(|version| version.as_ref().ok()).find(|one| one.id == id)
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
