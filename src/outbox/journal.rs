//! The bounded queue between the request path and the outbox: a file that records are appended to and that
//! one thread reads behind them.
//!
//! A record is with the kernel before its call ends, so that killing the process loses none. Segments are
//! removed once read; what an earlier process left is read first, in the same way.

use std::collections::VecDeque;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// From here on a segment is followed by another.
const SEGMENT_BYTES: u64 = 4 * 1024 * 1024;
/// Read at once, unless a single record is longer.
const READ_BYTES: u64 = 1024 * 1024;
/// What must fit before a disk that was full counts as writable.
const PROBE_BYTES: usize = 64 * 1024;
const PREFIX: &str = "outbox-";
const SUFFIX: &str = ".journal";

/// The segments and who waits for them.
#[derive(Debug)]
pub(super) struct Journal {
    dir: PathBuf,
    survives_power_cut: bool,
    segments: Mutex<Segments>,
    appended: Condvar,
    /// Up to which position the disk has everything. Held while syncing, so that those who come meanwhile
    /// find their record synced.
    synced: Mutex<u64>,
}

#[derive(Debug)]
struct Segments {
    /// Oldest first. Only the last one grows.
    all: VecDeque<Segment>,
    /// Bytes appended by this process.
    position: u64,
    next_number: u64,
    closed: bool,
}

#[derive(Debug)]
struct Segment {
    path: PathBuf,
    file: Arc<File>,
    /// Of whole lines, but for what an earlier process left.
    bytes: u64,
    read: u64,
    left_over: bool,
    sealed: bool,
}

/// What the reader is given: whole lines, but for the end of what an earlier process left.
#[derive(Debug)]
pub(super) struct Taken {
    pub(super) bytes: Vec<u8>,
    /// Written by a process before this one.
    pub(super) left_over: bool,
}

impl Journal {
    /// Opens the directory and what an earlier process left in it.
    pub(super) fn open(dir: &Path, survives_power_cut: bool) -> io::Result<Self> {
        let mut left_over: Vec<(u64, PathBuf)> = Vec::new();
        for entry in fs::read_dir(dir)? {
            let path = entry?.path();
            if let Some(number) = number(&path) {
                left_over.push((number, path));
            }
        }
        left_over.sort_unstable();
        let next_number = left_over.last().map_or(0, |(number, _)| number + 1);
        let all = left_over
            .into_iter()
            .map(|(_, path)| {
                let file = File::open(&path)?;
                let bytes = file.metadata()?.len();
                let file = Arc::new(file);
                Ok(Segment { path, file, bytes, read: 0, left_over: true, sealed: true })
            })
            .collect::<io::Result<_>>()?;
        let segments = Segments { all, position: 0, next_number, closed: false };
        Ok(Self {
            dir: dir.to_owned(),
            survives_power_cut,
            segments: Mutex::new(segments),
            appended: Condvar::new(),
            synced: Mutex::new(0),
        })
    }

    /// Hands a line to the kernel, and where a power cut must not lose it, to the disk.
    pub(super) fn append(&self, line: &[u8]) -> io::Result<()> {
        let position = {
            let mut segments = self.lock();
            self.make_room(&mut segments)?;
            let Some(segment) = segments.all.back_mut() else { return Err(gone()) };
            segment.append(line)?;
            segments.position += line.len() as u64;
            segments.position
        };
        self.appended.notify_one();
        if self.survives_power_cut { beside_the_runtime(|| self.sync(position)) } else { Ok(()) }
    }

    /// Whether there is room again, after a line was not taken.
    pub(super) fn probe(&self) -> io::Result<()> {
        let mut segments = self.lock();
        self.make_room(&mut segments)?;
        let Some(segment) = segments.all.back_mut() else { return Err(gone()) };
        // Empty lines are no records.
        let written = segment.file.as_ref().write_all(&vec![b'\n'; PROBE_BYTES]);
        segment.file.set_len(segment.bytes)?;
        written
    }

    /// Waits for something to read, for so long.
    pub(super) fn wait(&self, patience: Duration) {
        let segments = self.lock();
        let nothing = |segments: &mut Segments| segments.unread().is_none() && !segments.closed;
        drop(self.appended.wait_timeout_while(segments, patience, nothing));
    }

    /// The oldest lines that were not read, if any. They stay until [`Journal::done`].
    pub(super) fn take(&self) -> io::Result<Option<Taken>> {
        let (file, from, upto, left_over) = {
            let segments = self.lock();
            let Some(segment) = segments.unread() else { return Ok(None) };
            (segment.file.clone(), segment.read, segment.bytes, segment.left_over)
        };
        let mut most = READ_BYTES;
        loop {
            let length = most.min(upto - from);
            let mut bytes = vec![0; usize::try_from(length).unwrap_or(usize::MAX)];
            file.read_exact_at(&mut bytes, from)?;
            let whole = bytes.iter().rposition(|byte| *byte == b'\n').map(|at| at + 1);
            match whole {
                _ if length == upto - from => return Ok(Some(Taken { bytes, left_over })),
                Some(whole) => {
                    bytes.truncate(whole);
                    return Ok(Some(Taken { bytes, left_over }));
                }
                None => most *= 2,
            }
        }
    }

    /// What was taken is in the outbox: the journal lets go of it.
    pub(super) fn done(&self, taken: &Taken) -> io::Result<()> {
        let mut segments = self.lock();
        let Some(segment) = segments.unread_mut() else { return Ok(()) };
        segment.read += taken.bytes.len() as u64;
        if segment.read == segment.bytes && !segment.sealed {
            segment.file.set_len(0)?;
            (segment.bytes, segment.read) = (0, 0);
        }
        segments.remove_read()
    }

    /// Nothing more will be appended.
    pub(super) fn close(&self) {
        self.lock().closed = true;
        self.appended.notify_all();
    }

    pub(super) fn is_closed(&self) -> bool {
        self.lock().closed
    }

    /// Gives the last segment room for another line.
    fn make_room(&self, segments: &mut Segments) -> io::Result<()> {
        if segments.all.back().is_some_and(|last| !last.sealed && last.bytes < SEGMENT_BYTES) {
            return Ok(());
        }
        if let Some(last) = segments.all.back_mut() {
            if self.survives_power_cut && !last.sealed {
                last.file.sync_data()?;
            }
            last.sealed = true;
            segments.remove_read()?;
        }
        let path = self.dir.join(format!("{PREFIX}{:08}{SUFFIX}", segments.next_number));
        let file =
            OpenOptions::new().read(true).append(true).create(true).mode(0o600).open(&path)?;
        if self.survives_power_cut {
            File::open(&self.dir)?.sync_all()?;
        }
        segments.next_number += 1;
        let file = Arc::new(file);
        segments.all.push_back(Segment {
            path,
            file,
            bytes: 0,
            read: 0,
            left_over: false,
            sealed: false,
        });
        Ok(())
    }

    /// One sync for all that waited for it.
    fn sync(&self, position: u64) -> io::Result<()> {
        let mut synced = self.synced.lock().unwrap_or_else(PoisonError::into_inner);
        if *synced >= position {
            return Ok(());
        }
        let (file, upto) = {
            let segments = self.lock();
            let Some(last) = segments.all.back() else { return Ok(()) };
            (last.file.clone(), segments.position)
        };
        file.sync_data()?;
        *synced = upto;
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, Segments> {
        // Nothing that is done while holding it can panic.
        self.segments.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Segments {
    fn unread(&self) -> Option<&Segment> {
        self.all.iter().find(|segment| segment.read < segment.bytes)
    }

    /// Removes the segments that nobody will append to or read.
    fn remove_read(&mut self) -> io::Result<()> {
        while let Some(first) = self.all.front().filter(|one| one.sealed && one.read == one.bytes) {
            fs::remove_file(&first.path)?;
            self.all.pop_front();
        }
        Ok(())
    }

    fn unread_mut(&mut self) -> Option<&mut Segment> {
        self.all.iter_mut().find(|segment| segment.read < segment.bytes)
    }
}

impl Segment {
    /// All of the line, or nothing of it.
    fn append(&mut self, line: &[u8]) -> io::Result<()> {
        match self.file.as_ref().write_all(line) {
            Ok(()) => {
                self.bytes += line.len() as u64;
                Ok(())
            }
            Err(error) => {
                // Behind the end of whole lines nobody reads; nobody may write there either.
                self.sealed = self.file.set_len(self.bytes).is_err();
                Err(error)
            }
        }
    }
}

/// The number in a segment's name.
fn number(path: &Path) -> Option<u64> {
    path.file_name()?.to_str()?.strip_prefix(PREFIX)?.strip_suffix(SUFFIX)?.parse().ok()
}

fn gone() -> io::Error {
    io::Error::other("the journal has no segment")
}

/// Lets the runtime's other tasks go on while this one waits for the disk.
fn beside_the_runtime<T>(work: impl FnOnce() -> T) -> T {
    use tokio::runtime::{Handle, RuntimeFlavor};
    match Handle::try_current().map(|handle| handle.runtime_flavor()) {
        Ok(RuntimeFlavor::MultiThread) => tokio::task::block_in_place(work),
        _ => work(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A directory that goes with the test.
    struct Dir(PathBuf);

    impl Dir {
        fn new() -> Self {
            let path = std::env::temp_dir().join(format!("journal-{}", uuid::Uuid::new_v4()));
            fs::create_dir(&path).unwrap();
            Self(path)
        }

        fn files(&self) -> usize {
            fs::read_dir(&self.0).unwrap().count()
        }

        fn bytes(&self) -> u64 {
            fs::read_dir(&self.0).unwrap().map(|one| one.unwrap().metadata().unwrap().len()).sum()
        }
    }

    impl Drop for Dir {
        fn drop(&mut self) {
            drop(fs::remove_dir_all(&self.0));
        }
    }

    fn read(journal: &Journal) -> Vec<u8> {
        let mut all = Vec::new();
        while let Some(taken) = journal.take().unwrap() {
            all.extend_from_slice(&taken.bytes);
            journal.done(&taken).unwrap();
        }
        all
    }

    #[test]
    fn what_was_read_is_gone_and_what_was_not_is_there_after_a_restart() {
        let dir = Dir::new();
        let journal = Journal::open(&dir.0, false).unwrap();
        journal.append(b"one\n").unwrap();
        assert_eq!(read(&journal), b"one\n");
        assert_eq!(dir.bytes(), 0, "nothing that is filed stays in the journal");
        journal.append(b"two\n").unwrap();
        drop(journal);
        let journal = Journal::open(&dir.0, false).unwrap();
        journal.append(b"three\n").unwrap();
        let taken = journal.take().unwrap().unwrap();
        assert_eq!((taken.bytes.as_slice(), taken.left_over), (b"two\n".as_slice(), true));
        journal.done(&taken).unwrap();
        let taken = journal.take().unwrap().unwrap();
        assert_eq!((taken.bytes.as_slice(), taken.left_over), (b"three\n".as_slice(), false));
        assert_eq!(dir.files(), 1);
    }

    #[test]
    fn segments_follow_one_another_and_go_when_read() {
        let dir = Dir::new();
        let journal = Journal::open(&dir.0, true).unwrap();
        let line = [vec![b'x'; 700_000], vec![b'\n']].concat();
        for _ in 0..20 {
            journal.append(&line).unwrap();
        }
        assert_eq!(dir.files(), 4);
        // Longer than what is read at once.
        let long = [vec![b'y'; 3_000_000], vec![b'\n']].concat();
        journal.append(&long).unwrap();
        let all = read(&journal);
        assert_eq!(all.len(), 20 * line.len() + long.len());
        assert_eq!((dir.files(), dir.bytes()), (1, 0));
    }

    #[test]
    fn a_full_disk_takes_nothing_of_a_line_and_the_next_one_whole() {
        let dir = Dir::new();
        let journal = Journal::open(&dir.0, false).unwrap();
        journal.append(b"one\n").unwrap();
        let full = Arc::new(OpenOptions::new().write(true).open("/dev/full").unwrap());
        let file = std::mem::replace(&mut journal.lock().all[0].file, full);
        let error = journal.append(b"two\n").unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::StorageFull);
        assert!(journal.lock().all[0].sealed, "what cannot be shortened is not written behind");
        journal.lock().all[0].file = file;
        journal.append(b"three\n").unwrap();
        assert_eq!(read(&journal), b"one\nthree\n");
        assert_eq!(dir.files(), 1);
        journal.probe().unwrap();
        assert_eq!(dir.bytes(), 0, "a probe leaves nothing");
    }

    #[test]
    fn lines_of_many_threads_do_not_mix_while_they_are_read() {
        let dir = Dir::new();
        let journal = Journal::open(&dir.0, false).unwrap();
        let mut seen = std::collections::BTreeSet::new();
        std::thread::scope(|scope| {
            for writer in 0..4 {
                let journal = &journal;
                scope.spawn(move || {
                    for number in 0..2_000 {
                        journal.append(format!("{writer}-{number}\n").as_bytes()).unwrap();
                    }
                });
            }
            while seen.len() < 8_000 {
                for line in read(&journal).split_inclusive(|byte| *byte == b'\n') {
                    assert!(seen.insert(String::from_utf8(line.to_vec()).unwrap()));
                }
            }
        });
        assert!(seen.contains("3-1999\n"));
    }
}
