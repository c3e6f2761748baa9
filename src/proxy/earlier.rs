//! Answers that were made earlier and are read now: an interaction in the background, a batch. They are read as
//! often as somebody asks, and each is an execution once.

use std::collections::{HashSet, VecDeque};
use std::sync::{Mutex, PoisonError};

use uuid::Builder;

use crate::words::digest;
use crate::words::ids::ExecutionId;

/// Answers that are remembered: of those read after so many others the store remembers what it has.
const KNOWN_MAX: usize = 65_536;

/// The executions that are recorded already.
#[derive(Debug, Default)]
pub struct Accounted(Mutex<Known>);

#[derive(Debug, Default)]
struct Known {
    ids: HashSet<ExecutionId>,
    oldest_first: VecDeque<ExecutionId>,
}

impl Accounted {
    /// Whether this is the first time for an execution.
    pub(super) fn is_first(&self, id: ExecutionId) -> bool {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if !known.ids.insert(id) {
            return false;
        }
        known.oldest_first.push_back(id);
        if known.oldest_first.len() > KNOWN_MAX
            && let Some(oldest) = known.oldest_first.pop_front()
        {
            known.ids.remove(&oldest);
        }
        true
    }
}

/// The execution of an answer, by the upstream's name for it: whoever reads it again records it under the same
/// id, and the store ignores ids that it has.
pub(super) fn execution_id(name: &str) -> ExecutionId {
    let bytes = digest::sha256(name.as_bytes()).first_chunk().copied().unwrap_or_default();
    ExecutionId(Builder::from_custom_bytes(bytes).into_uuid())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_new_once_while_it_is_remembered() {
        let accounted = Accounted::default();
        let id = |number: usize| execution_id(&format!("batches/b#{number}"));
        assert_ne!(id(1), id(2));
        assert!(accounted.is_first(id(0)) && !accounted.is_first(id(0)));
        for number in 1..=KNOWN_MAX {
            assert!(accounted.is_first(id(number)));
        }
        assert!(accounted.is_first(id(0)) && !accounted.is_first(id(KNOWN_MAX)));
        let known = accounted.0.lock().unwrap();
        assert_eq!((known.ids.len(), known.oldest_first.len()), (KNOWN_MAX, KNOWN_MAX));
    }
}
