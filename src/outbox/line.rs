//! A record as one line: checksum, space, JSON. The journal and the rows of the outbox hold nothing else,
//! so that what a disk has spoilt is found, and only that.

use flate2::Crc;

use crate::execution::Execution;

/// Eight hexadecimal digits and a space.
const HEAD: usize = 9;

/// Writes a record, line break included.
pub(super) fn encode(execution: &Execution) -> Vec<u8> {
    let mut line = vec![b' '; HEAD];
    // Every field has a JSON form, and memory takes all that is written.
    drop(serde_json::to_writer(&mut line, execution));
    seal(line)
}

/// The same of a record that is JSON already, without line breaks.
pub(super) fn of_json(json: &str) -> Vec<u8> {
    seal([&[b' '; HEAD], json.as_bytes()].concat())
}

fn seal(mut line: Vec<u8>) -> Vec<u8> {
    let sum = format!("{:08x}", sum(line.get(HEAD..).unwrap_or_default()));
    for (place, digit) in line.iter_mut().zip(sum.bytes()) {
        *place = digit;
    }
    line.push(b'\n');
    line
}

/// The JSON of a line, if it is as it was written.
pub(super) fn decode(line: &[u8]) -> Option<&str> {
    let (head, json) = line.strip_suffix(b"\n")?.split_at_checked(HEAD)?;
    let said = std::str::from_utf8(head).ok()?.strip_suffix(' ')?;
    let said = u32::from_str_radix(said, 16).ok()?;
    (said == sum(json)).then(|| std::str::from_utf8(json).ok()).flatten()
}

/// The lines of some bytes with their breaks; empty ones are none.
pub(super) fn lines(bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    bytes.split_inclusive(|byte| *byte == b'\n').filter(|line| *line != b"\n")
}

/// CRC-32 as in gzip.
fn sum(bytes: &[u8]) -> u32 {
    let mut sum = Crc::new();
    sum.update(bytes);
    sum.sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_flipped_bit_is_found() {
        let execution = Execution { request_id: "r-1 \u{0} ü".to_owned(), ..Execution::default() };
        let line = encode(&execution);
        let json = decode(&line).unwrap();
        assert_eq!(serde_json::from_str::<Execution>(json).unwrap(), execution);
        for bit in 0..line.len() * 8 {
            let mut spoilt = line.clone();
            spoilt[bit / 8] ^= 1 << (bit % 8);
            // The checksum may be written in either case; nothing else has two spellings.
            if !spoilt.eq_ignore_ascii_case(&line) || bit >= 8 * 8 {
                assert_eq!(decode(&spoilt), None, "bit {bit}");
            }
        }
        for cut in 0..line.len() {
            assert_eq!(decode(&line[..cut]), None, "cut at {cut}");
        }
    }
}
