//! The split that versions carry themselves, as an admin writes it: a group, its share of the users, two dates.

use serde::{Deserialize, Deserializer, Serialize};

use super::Admin;
use super::activation::in_force;
use super::names::Check;
use super::problem::Problem;
use crate::catalog::definitions::TemplateDefinition;
use crate::experiment::{BUCKETS, millipercent};

/// A member of a change that may be left out, and taken away with null.
#[derive(Debug, Clone, Default, Serialize)]
#[serde(untagged)]
pub(super) enum Given<T> {
    #[default]
    LeftOut,
    Is(Option<T>),
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Given<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Option::deserialize(deserializer).map(Self::Is)
    }
}

impl<T> Given<T> {
    /// Whether it is taken away.
    pub(super) fn is_null(&self) -> bool {
        matches!(self, Self::Is(None))
    }

    /// Writes what was given over a column.
    pub(super) fn write(self, column: &mut Option<T>) {
        if let Self::Is(value) = self {
            *column = value;
        }
    }
}

/// That what a version says of its group makes sense.
pub(super) fn check(version: &TemplateDefinition) -> Result<(), Problem> {
    let mut check = Check::default();
    let (start, end) = (version.ab_test_start_date, version.ab_test_end_date);
    let percent = version.traffic_percentage;
    match &version.ab_test_group {
        Some(group) => check.name("ab_test_group", group),
        None if percent.is_some() || start.or(end).is_some() => check.refuse(
            "ab_test_group",
            "is missing: traffic_percentage, ab_test_start_date and ab_test_end_date are of a group",
        ),
        None => {}
    }
    if percent.is_some_and(|percent| millipercent(percent).is_none()) {
        check.refuse("traffic_percentage", "must be from 0 to 100 with at most 3 decimals");
    }
    if start.zip(end).is_some_and(|(start, end)| end <= start) {
        check.refuse("ab_test_end_date", "must be later than ab_test_start_date");
    }
    check.done()
}

/// That a version may change what it says of its group. One that is active keeps its group, because another
/// version would have to take its place; its share and its dates may change while it serves.
pub(super) async fn may_change(
    admin: &Admin,
    old: &TemplateDefinition,
    new: &TemplateDefinition,
) -> Result<(), Problem> {
    let says = |one: &TemplateDefinition| {
        let dates = (one.ab_test_start_date, one.ab_test_end_date);
        (one.ab_test_group.clone(), one.traffic_percentage.map(f64::to_bits), dates)
    };
    if says(old) == says(new) {
        return Ok(());
    }
    check(new)?;
    if !new.is_active {
        return Ok(());
    }
    if old.ab_test_group != new.ab_test_group {
        return Err(Problem::conflict(format!(
            "ab_test_group: {}@{} is active; deactivate it before it changes its group",
            new.name, new.version
        )));
    }
    fits(admin, new).await
}

/// That an active version of a group takes some of the users, and all groups of its name no more than all.
pub(super) async fn fits(admin: &Admin, version: &TemplateDefinition) -> Result<(), Problem> {
    let share = |one: &TemplateDefinition| one.traffic_percentage.and_then(millipercent);
    let Some(own) = share(version) else {
        return Err(Problem::unprocessable(format!(
            "traffic_percentage: is missing; say how many of the users get {}@{}, from 0 to 100",
            version.name, version.version
        )));
    };
    let active = in_force(admin, &version.tenant_id, &version.name).await?;
    let others = active
        .iter()
        .filter(|one| one.ab_test_group.is_some() && one.ab_test_group != version.ab_test_group);
    let all = own + others.filter_map(share).sum::<u32>();
    if all > BUCKETS {
        return Err(Problem::conflict(format!(
            "traffic_percentage: the active groups of {:?} would take {} % of the users in all, and there \
             are only 100",
            version.name,
            f64::from(all) / 1000.0
        )));
    }
    Ok(())
}
