//! A local file that the disk cut short or made unreadable, so that it can be opened again.
//!
//! Everything in a file of SQLite is found from its first page. Of a file with nothing but the outbox this page
//! stays as it is, so that a copy of it, kept beside, brings the rest back.

use std::fs::{self, OpenOptions};
use std::io::{self, Read as _};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use uuid::Uuid;

/// The head of a file of SQLite: <https://www.sqlite.org/fileformat.html>, section 1.3.
const HEAD_BYTES: usize = 100;
const MAGIC: &[u8] = b"SQLite format 3\0";
const PAGE_SIZE: usize = 16;
const CHANGES: usize = 24;
const PAGES: usize = 28;
const FREE_PAGES: usize = 32;
/// The changes at which the number of pages was right.
const PAGES_AT: usize = 92;
/// Files beside the main one, by what their names end with.
const BESIDE: [&str; 3] = ["", "-wal", "-shm"];
/// What the name of the copy of the first page ends with, and of one that is being written.
const HEAD: &str = "-head";
const HEAD_FRESH: &str = "-head-new";
/// Behind the names of files that were set aside.
const MARK: &str = ".damaged-";

/// Makes a file that was cut as long as it says it is, since SQLite opens no shorter one. The pages that are
/// missing then read as damaged, each for itself. Gives the bytes that were missing.
pub(super) fn lengthen(path: &Path) -> io::Result<u64> {
    let mut file = match OpenOptions::new().read(true).write(true).open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(0),
        opened => opened?,
    };
    let mut head = [0; HEAD_BYTES];
    if file.read_exact(&mut head).is_err() {
        return Ok(0);
    }
    let (whole, bytes) = (length(&head).unwrap_or_default(), file.metadata()?.len());
    if bytes < whole {
        file.set_len(whole)?;
        // The list of free pages may lead to what is missing. Without it they are left unused.
        file.write_all_at(&[0; 8], FREE_PAGES as u64)?;
    }
    Ok(whole.saturating_sub(bytes))
}

/// How long a file is by its own head.
fn length(head: &[u8; HEAD_BYTES]) -> Option<u64> {
    let number = |at: usize| {
        head.get(at..at + 4).and_then(|four| four.try_into().ok()).map(u32::from_be_bytes)
    };
    let page = page_bytes(head)? as u64;
    let knows = head.starts_with(MAGIC) && number(CHANGES) == number(PAGES_AT);
    knows.then(|| number(PAGES)).flatten().map(|pages| u64::from(pages) * page)
}

fn page_bytes(head: &[u8]) -> Option<usize> {
    let page = head.get(PAGE_SIZE..PAGE_SIZE + 2)?.try_into().map(u16::from_be_bytes).ok()?;
    // The largest size does not fit and is written as 1.
    Some(if page == 1 { 65_536 } else { usize::from(page) })
}

/// Keeps a copy of the first page of a file that is open and right, unless it is there.
pub(super) fn keep_head(path: &Path) -> io::Result<()> {
    let mut page = vec![0; HEAD_BYTES];
    let mut file = fs::File::open(path)?;
    file.read_exact(&mut page)?;
    page.resize(page_bytes(&page).unwrap_or(HEAD_BYTES), 0);
    file.read_exact_at(&mut page, 0)?;
    let copy = beside(path, HEAD);
    if fs::read(&copy).is_ok_and(|kept| kept == page) {
        return Ok(());
    }
    let fresh = beside(path, HEAD_FRESH);
    fs::write(&fresh, page)?;
    fs::rename(fresh, copy)
}

/// Puts the copy of the first page where it was, with nothing in it that has changed since. Fails if there is
/// none.
pub(super) fn restore_head(path: &Path) -> io::Result<()> {
    let mut page = fs::read(beside(path, HEAD))?;
    let file = OpenOptions::new().read(true).write(true).open(path)?;
    let bytes = file.metadata()?.len();
    let pages = page_bytes(&page).map_or(0, |page| bytes / page as u64);
    let mut put = |at: usize, number: u32| {
        if let Some(place) = page.get_mut(at..at + 4) {
            place.copy_from_slice(&number.to_be_bytes());
        }
    };
    put(PAGES, u32::try_from(pages).unwrap_or_default());
    put(CHANGES, 1);
    put(PAGES_AT, 1);
    // Free pages are left unused.
    put(FREE_PAGES, 0);
    put(FREE_PAGES + 4, 0);
    file.write_all_at(&page, 0)
}

/// How many files were set aside and are still there.
pub(super) fn aside(path: &Path) -> u64 {
    let mark = format!("{}{MARK}", path.file_name().unwrap_or_default().to_string_lossy());
    let names = path.parent().and_then(|dir| fs::read_dir(dir).ok());
    let is_one = |name: &fs::DirEntry| name.file_name().to_string_lossy().starts_with(&mark);
    names.map_or(0, |names| names.flatten().filter(is_one).count() as u64)
}

/// Moves a file that cannot be opened out of the way, and gives its new place.
pub(super) fn set_aside(path: &Path) -> io::Result<PathBuf> {
    let mark = format!("{MARK}{}", Uuid::now_v7().simple());
    for end in BESIDE {
        let from = beside(path, end);
        if from.exists() {
            fs::rename(&from, beside(&from, &mark))?;
        }
    }
    Ok(beside(path, &mark))
}

/// A path with something behind its name.
fn beside(path: &Path, end: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(end);
    PathBuf::from(name)
}
