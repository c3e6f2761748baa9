//! A local file that the disk cut short or made unreadable, so that it can be opened again.

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
const FREE_PAGES: u64 = 32;
/// The changes at which the number of pages was right.
const PAGES_AT: usize = 92;
/// Files beside the main one, by what their names end with.
const BESIDE: [&str; 3] = ["", "-wal", "-shm"];

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
        file.write_all_at(&[0; 8], FREE_PAGES)?;
    }
    Ok(whole.saturating_sub(bytes))
}

/// How long a file is by its own head.
fn length(head: &[u8; HEAD_BYTES]) -> Option<u64> {
    let number = |at: usize| {
        head.get(at..at + 4).and_then(|four| four.try_into().ok()).map(u32::from_be_bytes)
    };
    let page = head.get(PAGE_SIZE..PAGE_SIZE + 2)?.try_into().map(u16::from_be_bytes).ok()?;
    // The largest size does not fit and is written as 1.
    let page = if page == 1 { 65_536 } else { u64::from(page) };
    let knows = head.starts_with(MAGIC) && number(CHANGES) == number(PAGES_AT);
    knows.then(|| number(PAGES)).flatten().map(|pages| u64::from(pages) * page)
}

/// Moves a file that cannot be opened out of the way, and gives its new place.
pub(super) fn set_aside(path: &Path) -> io::Result<PathBuf> {
    let mark = format!(".damaged-{}", Uuid::now_v7().simple());
    let named = |end: &str, mark: &str| {
        let mut name = path.as_os_str().to_owned();
        name.push(end);
        name.push(mark);
        PathBuf::from(name)
    };
    for end in BESIDE {
        let from = named(end, "");
        if from.exists() {
            fs::rename(&from, named(end, &mark))?;
        }
    }
    Ok(named("", &mark))
}
