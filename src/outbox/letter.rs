//! An execution that will not be stored.

use uuid::Uuid;

use crate::execution::Execution;
use crate::store::erasure::Erasure;

/// The shortest line that holds a record: checksum, space, `{}`, line break.
const LINE_BYTES_MIN: usize = 12;

/// What is kept aside of it, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct DeadLetter {
    pub(super) id: String,
    pub(super) reason: String,
    /// Its JSON, or what is left of it.
    pub(super) execution: String,
}

impl DeadLetter {
    /// Of a record that the store refused.
    pub(super) fn refused(record: &str, reason: String) -> Self {
        let id = serde_json::from_str::<Execution>(record).ok().and_then(|one| one.id);
        let id = id.map_or_else(|| Uuid::new_v4().to_string(), |id| id.to_string());
        Self { id, reason, execution: record.to_owned() }
    }
}

/// As many letters as records are missing, of what is left in their place.
pub(super) fn spoilt(place: &str, missing: u64, rest: &[&[u8]]) -> Vec<DeadLetter> {
    let last = missing.saturating_sub(1);
    (0..missing)
        .map(|index| {
            let at = usize::try_from(index).unwrap_or(usize::MAX);
            let upto = if index == last { rest.len().max(at) } else { at + 1 };
            let left = rest.get(at..upto).unwrap_or_default().concat();
            DeadLetter {
                id: format!("{place}-{index}"),
                reason: "it was spoilt on the disk".to_owned(),
                execution: String::from_utf8_lossy(&left).replace('\0', "").trim_end().to_owned(),
            }
        })
        .collect()
}

/// How many records are in what is left of lines, by what was said of them: one at least, since a byte may have
/// become a line break, and no more than fit.
pub(super) fn spoilt_count(said: u64, rest: &[&[u8]]) -> u64 {
    let bytes: usize = rest.iter().map(|line| line.len()).sum();
    let fewest = u64::from(!rest.is_empty());
    said.clamp(fewest, fewest.max((bytes / LINE_BYTES_MIN) as u64))
}

/// Whether a dead letter goes by an order. What is left of a spoilt one may name the user anywhere.
pub(super) fn concerns(json: &str, erasure: &Erasure) -> bool {
    match serde_json::from_str::<Execution>(json) {
        Ok(execution) => {
            execution.user_id.as_ref() == Some(&erasure.user)
                && execution.tenant_id == erasure.tenant
                && execution.created_at < erasure.requested_at
        }
        Err(_) => json.contains(&serde_json::Value::from(erasure.user.as_str()).to_string()),
    }
}
