//! How the calls of a template name are split: by the experiment on it, or by the groups that its
//! versions say they belong to.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use serde_json::{Value, json};

use super::definitions::{ExperimentDefinition, Status, TemplateDefinition};
use super::{ByGroup, Running, Served, TemplateName};
use crate::experiment::{self, Allocation, Arm, BUCKETS, Experiment, Group, Groups, Range, Unit};
use crate::words::digest;
use crate::words::ids::TemplateId;

/// Hex digits of a digest in the salt of groups.
const SALT_DIGITS: usize = 40;

/// The experiments that have a say, the active ones last: they go over paused ones.
pub(super) fn running(
    all: Vec<&Arc<ExperimentDefinition>>,
) -> impl Iterator<Item = &Arc<ExperimentDefinition>> + Clone {
    let of = |status: Status| move |one: &&Arc<ExperimentDefinition>| one.status == status;
    let paused: Vec<_> = all.iter().copied().filter(of(Status::Paused)).collect();
    let active: Vec<_> = all.into_iter().filter(of(Status::Active)).collect();
    paused.into_iter().chain(active)
}

/// Puts an experiment on its name. A paused one serves no arm, and so may name what does not work.
pub(super) fn attach(
    templates: &mut HashMap<&str, TemplateName>,
    definition: &ExperimentDefinition,
) -> Result<(), String> {
    let is_paused = definition.status == Status::Paused;
    let Some(name) = templates.get_mut(definition.template_name.as_str()) else {
        let missing = format!("there is no template {:?}", definition.template_name);
        return if is_paused { Ok(()) } else { Err(missing) };
    };
    let experiment = match experiment(definition) {
        Err(_broken) if is_paused => return Ok(()),
        experiment => experiment?,
    };
    let arms = if is_paused { HashMap::new() } else { served(name, &experiment)? };
    let is_second = |other: &Running| !is_paused && !other.experiment.is_paused;
    match name.experiment.replace(Running { experiment, arms }) {
        Some(other) if is_second(&other) => {
            Err("a second active experiment on this template".to_owned())
        }
        Some(_) | None => Ok(()),
    }
}

fn served(
    name: &TemplateName,
    experiment: &Experiment,
) -> Result<HashMap<TemplateId, Served>, String> {
    let version = |arm: &Arm| {
        let slot = name.versions.values().find(|slot| slot.definition.id == arm.template);
        let served = slot.and_then(|slot| slot.serve().ok()).ok_or_else(|| {
            format!(
                "arm {} needs version {}, which is not a working version of this template",
                arm.key, arm.template
            )
        })?;
        Ok((arm.template, served))
    };
    experiment.arms.iter().map(version).collect()
}

/// What decides the arms of a definition.
pub(super) fn experiment(definition: &ExperimentDefinition) -> Result<Experiment, String> {
    let arms = arms(definition)?;
    let unit = Unit::read(&definition.randomization_unit)
        .ok_or("randomization_unit must be user, conversation, request or header:NAME, and no header that holds a key or token")?;
    let enrolled = experiment::millipercent(definition.enrollment_percentage)
        .ok_or("enrollment_percentage must be from 0 to 100 with at most 3 decimals")?;
    if definition.hash_version != experiment::HASH_VERSION {
        return Err(format!("hash_version must be {}", experiment::HASH_VERSION));
    }
    let beside = definition.assignment.clone().unwrap_or_default();
    let most = experiment::millipercent(beside.enrolled_most).unwrap_or(BUCKETS);
    let ordinals = |units: BTreeMap<String, String>| -> Result<HashMap<String, usize>, String> {
        units.into_iter().map(|(unit, key)| Ok((canonical(&unit), ordinal(&arms, &key)?))).collect()
    };
    Ok(Experiment {
        id: definition.id,
        salt: definition.salt.clone().unwrap_or_else(|| definition.id.to_string()),
        unit,
        enrolled,
        enrolled_most: most.max(enrolled),
        allocation: allocation(definition, &arms)?,
        forced: ordinals(beside.forced_units)?,
        pinned: ordinals(beside.pinned_units)?,
        excluded: beside.excluded_units.iter().map(|unit| canonical(unit)).collect(),
        is_paused: definition.status == Status::Paused,
        start: definition.start_date,
        end: definition.end_date,
        arms,
    })
}

fn arms(definition: &ExperimentDefinition) -> Result<Vec<Arm>, String> {
    let mut versions = vec![definition.control_template_id];
    versions.extend(&definition.variant_template_ids);
    let split = definition
        .traffic_split
        .iter()
        .map(|(key, weight)| {
            Ok((key.clone(), weight.as_f64().ok_or("traffic_split must hold numbers")?))
        })
        .collect::<Result<Vec<_>, String>>()?;
    experiment::arms(&versions, &split).map_err(|error| error.to_string())
}

fn canonical(unit: &str) -> String {
    experiment::canonical(unit).into_owned()
}

fn ordinal(arms: &[Arm], key: &str) -> Result<usize, String> {
    arms.iter().position(|arm| arm.key == key).ok_or_else(|| {
        let keys: Vec<&str> = arms.iter().map(|arm| arm.key.as_str()).collect();
        format!("there is no arm {key:?}; the arms are {}", keys.join(", "))
    })
}

/// The ranges that stand with the arms; without any, one after the other.
fn allocation(definition: &ExperimentDefinition, arms: &[Arm]) -> Result<Allocation, String> {
    let stored = definition.arms.as_ref().and_then(Value::as_array);
    let ranges: Vec<Option<&Value>> =
        stored.into_iter().flatten().map(|arm| arm.get("ranges")).collect();
    if ranges.iter().all(Option::is_none) {
        let weights: Vec<u32> = arms.iter().map(|arm| arm.weight).collect();
        return Ok(Allocation::new(&weights));
    }
    let read = |one: Option<&Value>| {
        let ranges: Result<Vec<Range>, _> =
            serde_json::from_value(one.cloned().unwrap_or_default());
        ranges.map_err(|_other_shape| {
            "arms: ranges must be a list of {\"enroll\": [from, to], \"variant\": [from, to]}"
                .to_owned()
        })
    };
    let ranges = ranges.into_iter().map(read).collect::<Result<Vec<_>, _>>()?;
    if ranges.len() != arms.len() {
        return Err("arms: there must be one entry for each version".to_owned());
    }
    Allocation::from_ranges(&ranges).map_err(|error| format!("arms: {error}"))
}

/// The arms as rows and answers show them: with their order, because the keys of a JSON object have none,
/// and with their buckets.
pub(super) fn described(experiment: &Experiment) -> Value {
    let ranges = experiment.allocation.ranges(experiment.arms.len());
    let arms = experiment.arms.iter().zip(experiment.shares()).zip(ranges).enumerate();
    arms.map(|(ordinal, ((arm, share), ranges))| {
        json!({
            "ordinal": ordinal,
            "key": arm.key,
            "template_id": arm.template,
            "weight_millipercent": share,
            "ranges": ranges,
        })
    })
    .collect()
}

/// The groups of a name's active versions; or which of these versions does not work, and why.
pub(super) fn groups(name: &TemplateName) -> Result<Option<ByGroup>, (String, String)> {
    let mut groups = Vec::new();
    let mut arms = HashMap::new();
    let mut salt = String::new();
    for slot in name.versions.values().filter(|slot| slot.definition.is_active) {
        let Some(group) = group(&slot.definition) else { continue };
        let shown = format!("{}@{}", slot.definition.name, slot.definition.version);
        let served = slot.serve().map_err(|why| (shown, why.to_owned()))?;
        salt = group_salt(&slot.definition);
        arms.insert(group.template, served);
        groups.push(group);
    }
    Ok(Groups::new(salt, groups).map(|groups| ByGroup { groups, arms }))
}

fn group(definition: &TemplateDefinition) -> Option<Group> {
    Some(Group {
        name: definition.ab_test_group.clone()?,
        template: definition.id,
        weight: definition.traffic_percentage.and_then(experiment::millipercent).unwrap_or(0),
        start: definition.ab_test_start_date,
        end: definition.ab_test_end_date,
    })
}

/// Of the name, which may hold what a salt may not.
fn group_salt(definition: &TemplateDefinition) -> String {
    let name = format!("{}/{}", definition.tenant_id, definition.name);
    let digits: String = digest::sha256_hex(name.as_bytes()).chars().take(SALT_DIGITS).collect();
    format!("groups-{digits}")
}
