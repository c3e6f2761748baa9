//! Whether a definition may be put in force: what the control plane asks before it does.

use serde_json::{Map, Value, json};

use super::definitions::{ExperimentDefinition, TemplateDefinition};
use super::{Version, model_config};
use crate::experiment::Experiment;
use crate::template::RenderError;
use crate::template::variables::{Type, Variable};

/// Why a version cannot be activated: it must work, use what it declares, and have settings that the API
/// takes. Says where: message, line and column, or the field.
pub fn template(definition: &TemplateDefinition) -> Result<Version, String> {
    let version = works(definition)?;
    // An optional one may be there for callers who send it all the same, as with an arm that does without.
    let is_needed = |name: &&String| {
        version.template.variables().iter().any(|one| one.name == **name && one.required)
    };
    if let Some(name) = version.template.unused().iter().find(is_needed) {
        return Err(format!(
            "variables: {name} is declared, and no text uses it; remove it, or give it \"required\": \
             false if callers send it all the same"
        ));
    }
    model_config::check(&definition.model_config)?;
    Ok(version)
}

/// Why a version cannot serve: it must compile, declare what it uses, and render with sample values.
///
/// All that is asked of one that has been in force before: rules that came later must not stand in the way
/// of a rollback.
pub fn works(definition: &TemplateDefinition) -> Result<Version, String> {
    let version = Version::compile(definition)?;
    match version.template.render(&samples(version.template.variables())) {
        Ok(_) => Ok(version),
        Err(RenderError::Variables(problems)) => {
            let problems: Vec<String> = problems
                .iter()
                .map(|problem| format!("{} {}", problem.name, problem.what))
                .collect();
            Err(format!("rendering with sample values: {}", problems.join("; ")))
        }
        Err(RenderError::Engine { what }) => Err(format!("rendering with sample values: {what}")),
    }
}

/// What would decide the arms of an experiment, or why nothing can.
pub fn experiment(definition: &ExperimentDefinition) -> Result<Experiment, String> {
    super::split::experiment(definition)
}

/// The arms of an experiment: `ordinal`, `key`, `template_id`, `weight_millipercent` (the share among
/// those enrolled) and `ranges` of buckets.
pub fn arms(experiment: &Experiment) -> Value {
    super::split::described(experiment)
}

/// A value for each variable that fits its declaration.
pub fn samples(variables: &[Variable]) -> Map<String, Value> {
    variables.iter().map(|variable| (variable.name.clone(), sample(variable))).collect()
}

fn sample(variable: &Variable) -> Value {
    if let Some(default) = &variable.default {
        return default.clone();
    }
    match variable.kind {
        Type::String => {
            let text: String = "sample".chars().take(variable.max_length).collect();
            Value::from(text)
        }
        Type::Integer => json!(1),
        Type::Number => json!(1.5),
        Type::Boolean => json!(true),
        Type::Enum => variable.values.first().map_or(Value::Null, |one| Value::from(one.as_str())),
        Type::List => json!(["sample"]),
        Type::Object => json!({"sample": "sample"}),
    }
}
