//! Answers that were made earlier and are read now: an interaction in the background, a batch. They are read as
//! often as somebody asks, and each is an execution once.

use std::collections::{HashSet, VecDeque};
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use uuid::{Builder, Uuid};

use crate::telemetry::events;
use crate::words::digest;
use crate::words::ids::ExecutionId;

/// Answers that are remembered: of those read after so many others the store remembers what it has.
const KNOWN_MAX: usize = 65_536;
const FILE: &str = "accounted";
const OWNER_ONLY: u32 = 0o600;
const ID_BYTES: usize = 16;

/// The executions that are recorded already.
#[derive(Debug)]
pub struct Accounted(Mutex<Known>);

#[derive(Debug)]
struct Known {
    ids: HashSet<ExecutionId>,
    oldest_first: VecDeque<ExecutionId>,
    /// Of those that the store does not know by these ids, the ids one behind the other.
    path: PathBuf,
    file: File,
    /// In the file.
    kept: usize,
}

impl Accounted {
    /// Remembers what an earlier process kept in the directory.
    pub fn open(data_dir: &Path) -> io::Result<Self> {
        let path = data_dir.join(FILE);
        let file = appended(&path)?;
        let bytes = fs::read(&path)?;
        let (kept, _cut_off) = bytes.as_chunks::<ID_BYTES>();
        let known =
            Known { ids: HashSet::new(), oldest_first: VecDeque::new(), path, file, kept: 0 };
        let accounted = Self(Mutex::new(known));
        for id in kept {
            accounted.is_first(ExecutionId(Uuid::from_bytes(*id)));
        }
        accounted.lock().rewrite()?;
        Ok(accounted)
    }

    /// Whether this is the first time for an execution.
    pub(super) fn is_first(&self, id: ExecutionId) -> bool {
        let mut known = self.lock();
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

    /// An execution is recorded under another id: the store will not know this one, so it is kept.
    pub(super) fn keep(&self, id: ExecutionId) {
        if self.is_first(id)
            && let Err(error) = self.lock().keep(id)
        {
            events::not_kept(&error);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Known {
    fn keep(&mut self, id: ExecutionId) -> io::Result<()> {
        if self.kept >= 2 * KNOWN_MAX {
            return self.rewrite();
        }
        self.kept += 1;
        self.file.write_all(id.0.as_bytes())
    }

    /// Leaves in the file what is remembered, and nothing that a full disk cut off.
    fn rewrite(&mut self) -> io::Result<()> {
        let ids: Vec<u8> = self.oldest_first.iter().flat_map(|id| id.0.into_bytes()).collect();
        let new = self.path.with_extension("new");
        fs::write(&new, ids)?;
        fs::rename(&new, &self.path)?;
        self.file = appended(&self.path)?;
        self.kept = self.oldest_first.len();
        Ok(())
    }
}

fn appended(path: &Path) -> io::Result<File> {
    File::options().append(true).create(true).mode(OWNER_ONLY).open(path)
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

    fn dir() -> PathBuf {
        let dir = std::env::temp_dir().join(format!("accounted-{}", Uuid::new_v4()));
        fs::create_dir(&dir).unwrap();
        dir
    }

    #[test]
    fn an_answer_is_new_once_while_it_is_remembered() {
        let dir = dir();
        let accounted = Accounted::open(&dir).unwrap();
        let id = |number: usize| execution_id(&format!("batches/b#{number}"));
        assert_ne!(id(1), id(2));
        assert!(accounted.is_first(id(0)) && !accounted.is_first(id(0)));
        for number in 1..=KNOWN_MAX {
            assert!(accounted.is_first(id(number)));
        }
        assert!(accounted.is_first(id(0)) && !accounted.is_first(id(KNOWN_MAX)));
        let known = accounted.0.lock().unwrap();
        assert_eq!((known.ids.len(), known.oldest_first.len()), (KNOWN_MAX, KNOWN_MAX));
        fs::remove_dir_all(dir).unwrap();
    }

    #[test]
    fn what_is_kept_is_known_to_the_next_process_and_the_file_stays_small() {
        let dir = dir();
        let id = |number: usize| execution_id(&format!("interactions/i{number}"));
        let accounted = Accounted::open(&dir).unwrap();
        accounted.is_first(id(0));
        for number in 1..=2 * KNOWN_MAX + 1 {
            accounted.keep(id(number));
        }
        let path = dir.join(FILE);
        assert_eq!(fs::metadata(&path).unwrap().len(), (KNOWN_MAX * ID_BYTES) as u64);
        // A disk that filled up cut the last one off.
        File::options().append(true).open(&path).unwrap().write_all(b"cut").unwrap();
        let accounted = Accounted::open(&dir).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().len(), (KNOWN_MAX * ID_BYTES) as u64);
        assert!(!accounted.is_first(id(2 * KNOWN_MAX + 1)) && accounted.is_first(id(0)));
        fs::remove_dir_all(dir).unwrap();
    }
}
