//! Route rules: an operator's way to give calls a template without touching the application.

use serde::Deserialize;
use toml::Table;

/// One rule. All conditions given must hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RouteRule {
    /// The HTTP method.
    pub method: Option<String>,
    /// The model of the path.
    pub model: Option<String>,
    /// What the path begins with.
    pub path_prefix: Option<String>,
    /// A header and its value.
    pub header: Option<(String, String)>,
    /// The template to use.
    pub template: String,
    /// One version of it instead of the active one.
    pub version: Option<u32>,
    /// The tenant it belongs to.
    pub tenant: Option<String>,
    /// How variables are filled.
    pub variables: Vec<(String, VariableSource)>,
}

/// Where a rule takes a variable from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum VariableSource {
    /// A header of the call.
    Header(String),
    /// Fixed text.
    Value(String),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Raw {
    method: Option<String>,
    model: Option<String>,
    path_prefix: Option<String>,
    header: Option<RawHeader>,
    template: String,
    version: Option<u32>,
    tenant: Option<String>,
    #[serde(default)]
    variables: std::collections::BTreeMap<String, String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawHeader {
    name: String,
    value: String,
}

impl RouteRule {
    pub(super) fn read(table: Table) -> Result<Self, String> {
        let raw: Raw =
            table.try_into().map_err(|error: toml::de::Error| error.message().to_owned())?;
        if raw.method.is_none()
            && raw.model.is_none()
            && raw.path_prefix.is_none()
            && raw.header.is_none()
        {
            return Err("needs at least one of method, model, path_prefix, header".to_owned());
        }
        let variables = raw
            .variables
            .into_iter()
            .map(|(name, source)| match source.split_once(':') {
                Some(("header", header)) => {
                    Ok((name, VariableSource::Header(header.to_ascii_lowercase())))
                }
                Some(("value", text)) => Ok((name, VariableSource::Value(text.to_owned()))),
                _ => Err(format!("variables.{name} must be \"header:NAME\" or \"value:TEXT\"")),
            })
            .collect::<Result<_, _>>()?;
        Ok(Self {
            method: raw.method.map(|method| method.to_ascii_uppercase()),
            model: raw.model,
            path_prefix: raw.path_prefix,
            header: raw.header.map(|header| (header.name.to_ascii_lowercase(), header.value)),
            template: raw.template,
            version: raw.version,
            tenant: raw.tenant,
            variables,
        })
    }
}
