//! Undoing the one content coding that is ever asked for, under a cap.

use std::borrow::Cow;
use std::io::Read;

use flate2::read::MultiGzDecoder;

/// The plain bytes. Refused: other codings, broken ones, and more than `bytes_max`.
pub(in crate::proxy) fn decode<'b>(
    coding: Option<&str>,
    bytes: &'b [u8],
    bytes_max: usize,
) -> Result<Cow<'b, [u8]>, String> {
    match coding {
        None => Ok(Cow::Borrowed(bytes)),
        Some(coding) if coding.eq_ignore_ascii_case("gzip") => {
            let mut plain = Vec::new();
            let cap = bytes_max as u64 + 1;
            MultiGzDecoder::new(bytes)
                .take(cap)
                .read_to_end(&mut plain)
                .map_err(|_broken| "it is not the gzip it says it is".to_owned())?;
            if plain.len() > bytes_max {
                return Err(format!("it inflates to more than {bytes_max} bytes"));
            }
            Ok(Cow::Owned(plain))
        }
        Some(_) => Err("it is coded in another way than gzip".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::decode;

    #[test]
    fn gzip_under_a_cap_and_nothing_else() {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
        encoder.write_all(&[b'a'; 10_000]).unwrap();
        let coded = encoder.finish().unwrap();
        assert_eq!(decode(Some("gzip"), &coded, 10_000).unwrap().len(), 10_000);
        assert!(decode(Some("gzip"), &coded, 9_999).is_err());
        assert!(decode(Some("gzip"), b"plain", 100).is_err());
        assert!(decode(Some("br"), &coded, 100_000).is_err());
        assert_eq!(decode(None, b"plain", 1).unwrap().as_ref(), b"plain");
    }
}
