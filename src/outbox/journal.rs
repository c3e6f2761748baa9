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
/// Of what an earlier process left, read at once unless a single line is longer; a line that is longer than
/// the second is none.
const READ_BYTES: u64 = 4 * 1024 * 1024;
const LINE_BYTES_MAX: u64 = 256 * 1024 * 1024;
/// What a disk that does not give a part of a file may give of the rest.
const BLOCK_BYTES: usize = 4096;
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
    /// Records that were not read; of what an earlier process left nobody knows how many.
    records: Option<u64>,
    sealed: bool,
}

/// A part of a segment: whole lines, but for what an earlier process left.
#[derive(Debug)]
struct Part {
    file: Arc<File>,
    from: u64,
    span: u64,
    records: Option<u64>,
}

/// What the reader is given.
#[derive(Debug)]
pub(super) struct Taken {
    /// Whole lines but for what the disk has spoilt or cut.
    pub(super) bytes: Vec<u8>,
    /// How long it was when it was written.
    pub(super) span: u64,
    /// How many records it was; of what an earlier process left nobody knows.
    pub(super) records: Option<u64>,
}

impl Journal {
    /// Opens the directory and what an earlier process left in it.
    pub(super) fn open(dir: &Path, survives_power_cut: bool) -> io::Result<Self> {
        let mut left_over: Vec<(u64, PathBuf)> = Vec::new();
        for entry in fs::read_dir(dir)? {
            let path = entry?.path();
            if let Some(number) = number(&path).filter(|_| path.is_file()) {
                left_over.push((number, path));
            }
        }
        left_over.sort_unstable();
        let next_number = left_over.last().map_or(0, |(number, _)| number + 1);
        let all = left_over
            .into_iter()
            .map(|(_, path)| {
                let file = File::open(&path).map_err(|error| named(&path, &error))?;
                let bytes = file.metadata()?.len();
                let file = Arc::new(file);
                Ok(Segment { path, file, bytes, read: 0, records: None, sealed: true })
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

    /// Hands a line to the kernel; gives the position behind it.
    pub(super) fn append(&self, line: &[u8]) -> io::Result<u64> {
        let position = {
            let mut segments = self.lock();
            self.make_room(&mut segments)?;
            let Some(segment) = segments.all.back_mut() else { return Err(gone()) };
            segment.append(line)?;
            segments.position += line.len() as u64;
            segments.position
        };
        self.appended.notify_one();
        Ok(position)
    }

    /// Waits until the disk has what is before a position, where a power cut must not lose it. What it failed
    /// for is still in the journal.
    pub(super) fn settle(&self, position: u64) -> io::Result<()> {
        if self.survives_power_cut { beside_the_runtime(|| self.sync(position)) } else { Ok(()) }
    }

    /// Whether there is room again, after a line was not taken.
    pub(super) fn probe(&self) -> io::Result<()> {
        let mut segments = self.lock();
        self.make_room(&mut segments)?;
        let Some(segment) = segments.all.back_mut() else { return Err(gone()) };
        // Empty lines are no records.
        let mut written = segment.file.as_ref().write_all(&vec![b'\n'; PROBE_BYTES]);
        if self.survives_power_cut {
            written = written.and_then(|()| segment.file.sync_data());
        }
        segment.cut()?;
        written
    }

    /// Waits for something to read, for so long.
    pub(super) fn wait(&self, patience: Duration) {
        let segments = self.lock();
        let nothing = |segments: &mut Segments| segments.unread_mut().is_none() && !segments.closed;
        drop(self.appended.wait_timeout_while(segments, patience, nothing));
    }

    /// The oldest lines that were not read, if any. They stay until [`Journal::done`].
    pub(super) fn take(&self) -> Option<Taken> {
        let part = self.part(false)?;
        let taken = part.read();
        if taken.bytes.len() as u64 == part.span {
            return Some(taken);
        }
        // The file is shorter than what was written to it. Nothing is appended to it any more, and what is
        // there is taken for all of it.
        Some(self.part(true)?.read())
    }

    fn part(&self, is_last: bool) -> Option<Part> {
        let mut segments = self.lock();
        let segment = segments.unread_mut()?;
        segment.sealed |= is_last;
        Some(segment.part(is_last))
    }

    /// What was taken is in the outbox: the journal lets go of it.
    pub(super) fn done(&self, taken: &Taken) -> io::Result<()> {
        let mut segments = self.lock();
        let Some(segment) = segments.unread_mut() else { return Ok(()) };
        segment.read += taken.span;
        segment.records = segment.records.zip(taken.records).map(|(all, read)| all - read);
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
            if self.survives_power_cut {
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
            records: Some(0),
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
        if let Err(error) = self.file.as_ref().write_all(line) {
            drop(self.cut());
            return Err(error);
        }
        self.bytes += line.len() as u64;
        self.records = self.records.map(|records| records + 1);
        Ok(())
    }

    /// Removes what is behind the whole lines. Where it stays, nobody may write behind it.
    fn cut(&mut self) -> io::Result<()> {
        let cut = self.file.set_len(self.bytes);
        self.sealed |= cut.is_err();
        cut
    }

    /// What was not read, all of it if its records are known or asked for.
    fn part(&self, is_whole: bool) -> Part {
        let (file, from, rest) = (self.file.clone(), self.read, self.bytes - self.read);
        let is_whole = is_whole || self.records.is_some();
        let span = if is_whole { rest } else { whole_lines(&file, from, rest) };
        Part { file, from, span, records: self.records }
    }
}

impl Part {
    /// What is there of it: up to the end of the file, and zeros for what the disk does not give.
    fn read(&self) -> Taken {
        let behind = |all: u64| all.saturating_sub(self.from).min(self.span);
        let there = self.file.metadata().map_or(self.span, |file| behind(file.len()));
        let mut bytes = vec![0; usize::try_from(there).unwrap_or(usize::MAX)];
        if self.file.read_exact_at(&mut bytes, self.from).is_err() {
            let mut from = self.from;
            for block in bytes.chunks_mut(BLOCK_BYTES) {
                drop(self.file.read_exact_at(block, from));
                from += block.len() as u64;
            }
        }
        Taken { bytes, span: self.span, records: self.records }
    }
}

/// How long the first lines of what an earlier process left are, so that they are read in bounded memory.
fn whole_lines(file: &Arc<File>, from: u64, rest: u64) -> u64 {
    let mut span = READ_BYTES;
    while span < rest.min(LINE_BYTES_MAX) {
        let part = Part { file: file.clone(), from, span, records: None };
        let lines = part.read().bytes.iter().rposition(|byte| *byte == b'\n');
        if let Some(last) = lines {
            return last as u64 + 1;
        }
        span *= 2;
    }
    span.min(rest)
}

/// The number in a segment's name.
fn number(path: &Path) -> Option<u64> {
    path.file_name()?.to_str()?.strip_prefix(PREFIX)?.strip_suffix(SUFFIX)?.parse().ok()
}

/// An error with the file it is about.
fn named(path: &Path, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", path.display()))
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
        while let Some(taken) = journal.take() {
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
        let taken = journal.take().unwrap();
        assert_eq!((taken.bytes.as_slice(), taken.records), (b"two\n".as_slice(), None));
        journal.done(&taken).unwrap();
        let taken = journal.take().unwrap();
        assert_eq!((taken.bytes.as_slice(), taken.records), (b"three\n".as_slice(), Some(1)));
        assert_eq!(dir.files(), 1);
    }

    #[test]
    fn segments_follow_one_another_and_go_when_read() {
        let dir = Dir::new();
        let journal = Journal::open(&dir.0, true).unwrap();
        let line = [vec![b'x'; 700_000], vec![b'\n']].concat();
        for _ in 0..20 {
            let position = journal.append(&line).unwrap();
            journal.settle(position).unwrap();
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
    fn a_sync_that_fails_is_told_and_the_record_stays() {
        let dir = Dir::new();
        let journal = Journal::open(&dir.0, true).unwrap();
        let position = journal.append(b"one\n").unwrap();
        journal.settle(position).unwrap();
        // It takes all and syncs nothing.
        let null = Arc::new(OpenOptions::new().append(true).open("/dev/null").unwrap());
        let file = std::mem::replace(&mut journal.lock().all[0].file, null);
        let position = journal.append(b"two\n").unwrap();
        journal.settle(position).unwrap_err();
        journal.probe().unwrap_err();
        assert_eq!(journal.lock().all[0].records, Some(2));
        journal.lock().all[0].file = file;
        journal.settle(position).unwrap();
    }

    #[test]
    fn of_a_file_that_was_cut_the_rest_is_taken_and_what_follows_is_whole() {
        let dir = Dir::new();
        let journal = Journal::open(&dir.0, false).unwrap();
        for line in ["one\n", "two\n", "three\n"] {
            journal.append(line.as_bytes()).unwrap();
        }
        journal.lock().all[0].file.set_len(6).unwrap();
        journal.append(b"four\n").unwrap();
        let taken = journal.take().unwrap();
        let counts = (taken.bytes.as_slice(), taken.span, taken.records);
        assert_eq!(counts, (b"one\ntwfour\n".as_slice(), 19, Some(4)));
        journal.append(b"five\n").unwrap();
        journal.done(&taken).unwrap();
        assert_eq!(read(&journal), b"five\n");
        assert_eq!(dir.files(), 1);
    }

    #[test]
    fn a_disk_that_gives_nothing_is_not_asked_for_ever() {
        let dir = Dir::new();
        let journal = Journal::open(&dir.0, false).unwrap();
        journal.append(b"one\n").unwrap();
        let path = journal.lock().all[0].path.clone();
        let deaf = OpenOptions::new().append(true).open(path).unwrap();
        journal.lock().all[0].file = Arc::new(deaf);
        let taken = journal.take().unwrap();
        assert_eq!((taken.bytes.as_slice(), taken.records), ([0; 4].as_slice(), Some(1)));
        journal.done(&taken).unwrap();
        assert!(journal.take().is_none());
    }

    #[test]
    fn what_was_left_is_read_in_whole_lines_however_long_they_are() {
        let dir = Dir::new();
        let line = |byte: u8, length: usize| [vec![byte; length], vec![b'\n']].concat();
        let lines = [line(b'x', 3_000_000), line(b'y', 9_000_000), line(b'z', 10)];
        fs::write(dir.0.join("outbox-00000003.journal"), lines.concat()).unwrap();
        fs::create_dir(dir.0.join("outbox-00000004.journal")).unwrap();
        let journal = Journal::open(&dir.0, false).unwrap();
        let mut parts = Vec::new();
        while let Some(taken) = journal.take() {
            journal.done(&taken).unwrap();
            parts.push(taken.bytes.len());
        }
        assert_eq!(parts, [3_000_001, 9_000_012]);
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
