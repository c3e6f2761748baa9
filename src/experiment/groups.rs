//! The split that templates carry themselves: `ab_test_group`, `traffic_percentage` and two dates.
//!
//! Used only while no experiment decides on the name. Each group takes its percentage; whoever falls
//! into none, or into one whose dates say no, gets the active version.

use jiff::Timestamp;

use super::{Purpose, Reason, assign, bucket};
use crate::words::ids::TemplateId;

/// A version that belongs to a group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Group {
    /// `ab_test_group`.
    pub name: String,
    /// The version.
    pub template: TemplateId,
    /// `traffic_percentage` in thousandths of a percent.
    pub weight: u32,
    /// First instant, inclusive.
    pub start: Option<Timestamp>,
    /// Last instant, exclusive.
    pub end: Option<Timestamp>,
}

/// The groups of one template name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Groups {
    salt: String,
    groups: Vec<Group>,
}

/// Where a unit falls.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grouped<'g> {
    /// Its group, if it falls into one that runs.
    pub group: Option<&'g Group>,
    /// Why.
    pub reason: Reason,
    /// Its variant bucket, once it was computed.
    pub variant_bucket: Option<u32>,
}

impl Groups {
    /// In the order of their names, whatever order the rows came in: an order that changes would
    /// move units. `None` without any.
    pub fn new(salt: String, mut groups: Vec<Group>) -> Option<Self> {
        groups.sort_by(|one, other| (&one.name, one.template).cmp(&(&other.name, other.template)));
        (!groups.is_empty()).then_some(Self { salt, groups })
    }

    /// What is hashed with the unit.
    pub fn salt(&self) -> &str {
        &self.salt
    }

    /// Decides for one unit at one instant. A group keeps its buckets while its dates say no, so that
    /// one that ends moves nobody of another. Of percentages over 100 in all, the last get less.
    pub fn assign(&self, now: Timestamp, unit: Option<&str>) -> Grouped<'_> {
        let Some(unit) = assign::usable(unit) else {
            return Grouped { group: None, reason: Reason::NoUnit, variant_bucket: None };
        };
        let variant = bucket(Purpose::Variant, &self.salt, &unit);
        let mut upper = 0_u32;
        let group = self.groups.iter().find(|group| {
            upper = upper.saturating_add(group.weight);
            variant < upper
        });
        let group = group.filter(|group| group.runs(now));
        let reason = if group.is_some() { Reason::Group } else { Reason::NoGroup };
        Grouped { group, reason, variant_bucket: Some(variant) }
    }
}

impl Group {
    fn runs(&self, now: Timestamp) -> bool {
        self.start.is_none_or(|start| start <= now) && self.end.is_none_or(|end| now < end)
    }
}
