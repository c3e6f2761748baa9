//! What an experiment planned: its arms, its metrics, and by which rules it is read.
//!
//! The rules stand in the object form of `primary_metric`; a plain name takes the defaults.

use std::time::Duration;

use jiff::Timestamp;
use serde::Deserialize;
use serde_json::Value;
use uuid::Uuid;

use super::metric::Metric;
use crate::statistics::verdict::RUNTIME_MIN;
use crate::statistics::{Alpha, Better};
use crate::words::ids::ExperimentId;

/// Feedback that a custom metric reads unless it names another key.
const KEY_DEFAULT: &str = "score";
const KEY_CHARS_MAX: usize = 64;
const RUNTIME_HOURS_MAX: u32 = 24 * 365;

/// One arm as planned; control comes first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ArmPlan {
    /// `control`, `variant_a`, …
    pub key: String,
    /// Its version.
    pub template_id: Option<Uuid>,
    /// In thousandths of a percent.
    pub weight: u32,
}

/// A metric as an experiment reads it.
#[derive(Debug, Clone, PartialEq)]
pub struct Measured {
    /// The metric.
    pub metric: Metric,
    /// Where it should go.
    pub better: Better,
    /// The smallest difference that matters, in the unit of the metric.
    pub minimal_effect: Option<f64>,
}

/// By which rules the whole experiment is read.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Rules {
    /// The share of false alarms that is put up with.
    pub alpha: Alpha,
    /// Looked at once, at the end, instead of at any time.
    pub fixed: bool,
    /// Before it has run so long, no variant is called better.
    pub runtime_min: Duration,
    /// Whether a variant that does harm ends the experiment.
    pub harm_stop: bool,
    /// By how much a harm metric may be worse, as a fraction.
    pub harm_tolerated: f64,
}

impl Default for Rules {
    fn default() -> Self {
        Self {
            alpha: Alpha::FIVE_PERCENT,
            fixed: false,
            runtime_min: RUNTIME_MIN,
            harm_stop: true,
            harm_tolerated: 0.0,
        }
    }
}

/// A plan with the facts of its run.
#[derive(Debug, Clone, PartialEq)]
pub struct Design {
    /// Whose.
    pub id: ExperimentId,
    /// In their stored order, control first.
    pub arms: Vec<ArmPlan>,
    /// What decides.
    pub primary: Measured,
    /// What is looked at beside it.
    pub secondary: Vec<Measured>,
    /// The rules.
    pub rules: Rules,
    /// Whether each request is a unit.
    pub per_request: bool,
    /// Of the assignment.
    pub hash_version: u32,
    /// Units it wants.
    pub target_units: Option<u64>,
    /// First moment.
    pub start: Option<Timestamp>,
    /// Last moment, exclusive.
    pub end: Option<Timestamp>,
    /// Whether it was stopped.
    pub is_completed: bool,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Spelt {
    name: Name,
    direction: Option<Direction>,
    minimal_effect: Option<f64>,
    feedback_key: Option<String>,
    alpha: Option<f64>,
    analysis: Option<Looks>,
    runtime_min_hours: Option<u32>,
    harm_stop: Option<bool>,
    harm_tolerated: Option<f64>,
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Name {
    ResponseTime,
    SuccessRate,
    Cost,
    Custom,
    ResponseTimeMean,
    CostPerSuccess,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Direction {
    Higher,
    Lower,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Looks {
    Sequential,
    Fixed,
}

impl Measured {
    /// A metric with its own direction.
    pub fn plain(metric: Metric) -> Self {
        let better = metric.better();
        Self { metric, better, minimal_effect: None }
    }

    /// Reads a name, or an object with a `name`. Says what is wrong and what is allowed.
    pub fn read(value: &Value) -> Result<Self, String> {
        let spelt = Spelt::read(value)?;
        let key = spelt.feedback_key.unwrap_or_else(|| KEY_DEFAULT.to_owned());
        if !is_key(&key) {
            return Err(format!(
                "feedback_key must have 1 to {KEY_CHARS_MAX} letters, digits, _ - or ."
            ));
        }
        let metric = match spelt.name {
            Name::ResponseTime => Metric::ResponseTime,
            Name::SuccessRate => Metric::SuccessRate,
            Name::Cost => Metric::Cost,
            Name::Custom => Metric::Custom { key },
            Name::ResponseTimeMean => Metric::ResponseTimeMean,
            Name::CostPerSuccess => Metric::CostPerSuccess,
        };
        if spelt.minimal_effect.is_some_and(|effect| effect <= 0.0) {
            return Err("minimal_effect must be above 0".to_owned());
        }
        let better = match spelt.direction {
            Some(Direction::Higher) => Better::Higher,
            Some(Direction::Lower) => Better::Lower,
            None => metric.better(),
        };
        Ok(Self { metric, better, minimal_effect: spelt.minimal_effect })
    }
}

impl Rules {
    /// Reads the rules beside the name of the primary metric.
    pub fn read(value: &Value) -> Result<Self, String> {
        let spelt = Spelt::read(value)?;
        let usual = Self::default();
        let alpha = match spelt.alpha {
            Some(share) if (0.000_1..=0.2).contains(&share) => Alpha::new(share),
            Some(_) => None,
            None => Some(usual.alpha),
        };
        let alpha = alpha.ok_or("alpha must be from 0.0001 to 0.2")?;
        let hours = spelt.runtime_min_hours;
        if hours.is_some_and(|hours| hours > RUNTIME_HOURS_MAX) {
            return Err(format!("runtime_min_hours must be at most {RUNTIME_HOURS_MAX}"));
        }
        let harm_tolerated = spelt.harm_tolerated.unwrap_or(usual.harm_tolerated);
        if !(0.0..1.0).contains(&harm_tolerated) {
            return Err("harm_tolerated must be a fraction from 0 to below 1".to_owned());
        }
        Ok(Self {
            alpha,
            fixed: spelt.analysis == Some(Looks::Fixed),
            runtime_min: hours
                .map_or(usual.runtime_min, |hours| Duration::from_hours(hours.into())),
            harm_stop: spelt.harm_stop.unwrap_or(usual.harm_stop),
            harm_tolerated,
        })
    }
}

impl Spelt {
    fn read(value: &Value) -> Result<Self, String> {
        let object = match value {
            Value::String(name) => serde_json::json!({"name": name}),
            other => other.clone(),
        };
        serde_json::from_value(object).map_err(|error| error.to_string())
    }
}

/// Whether this may be the key of feedback: it stands in the names of metrics.
pub fn is_key(key: &str) -> bool {
    (1..=KEY_CHARS_MAX).contains(&key.len())
        && key.bytes().all(|one| one.is_ascii_alphanumeric() || b"_-.".contains(&one))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{Measured, Rules};
    use crate::results::Metric;
    use crate::statistics::Better;

    #[test]
    fn names_and_objects() {
        for (value, metric, better) in [
            (json!("success_rate"), Metric::SuccessRate, Better::Higher),
            (json!({"name": "response_time"}), Metric::ResponseTime, Better::Lower),
            (json!("custom"), Metric::Custom { key: "score".to_owned() }, Better::Higher),
            (json!("cost_per_success"), Metric::CostPerSuccess, Better::Lower),
            (
                json!({"name": "custom", "feedback_key": "bad", "direction": "lower"}),
                Metric::Custom { key: "bad".to_owned() },
                Better::Lower,
            ),
        ] {
            let measured = Measured::read(&value).unwrap();
            assert_eq!((measured.metric, measured.better), (metric, better), "{value}");
        }
        let rules =
            json!({"name": "cost", "alpha": 0.01, "analysis": "fixed", "runtime_min_hours": 0});
        let rules = Rules::read(&rules).unwrap();
        assert!(rules.fixed && rules.runtime_min.is_zero() && rules.harm_stop);
        assert!((rules.alpha.share() - 0.01).abs() < 1e-12);
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (value, what) in [
            (json!("speed"), "success_rate"),
            (json!({"name": "cost", "cap": 1}), "cap"),
            (json!({"name": "custom", "feedback_key": "a b"}), "feedback_key"),
            (json!({"name": "cost", "minimal_effect": 0}), "minimal_effect"),
            (json!({"name": "cost", "alpha": 0.5}), "alpha"),
            (json!({"name": "cost", "harm_tolerated": 1}), "harm_tolerated"),
            (json!({"name": "cost", "runtime_min_hours": 100_000}), "runtime_min_hours"),
        ] {
            let refused = Measured::read(&value).err().or(Rules::read(&value).err()).unwrap();
            assert!(refused.contains(what), "{value}: {refused}");
        }
    }
}
