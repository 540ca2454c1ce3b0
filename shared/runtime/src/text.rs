//! Text files that a person wrote: UTF-8, with or without a byte order mark.

use std::io;
use std::path::Path;

/// The mark that some editors write at the start of UTF-8.
const MARK: &[u8] = b"\xef\xbb\xbf";

/// Reads a file as UTF-8 and drops a byte order mark.
///
/// # Errors
/// The file cannot be read; or [`io::ErrorKind::InvalidData`], with the remedy, where it is UTF-16
/// or not text.
pub fn read(path: &Path) -> io::Result<String> {
    decode(&std::fs::read(path)?)
        .map_err(|reason| io::Error::new(io::ErrorKind::InvalidData, reason))
}

fn decode(bytes: &[u8]) -> Result<String, String> {
    if is_utf16(bytes) {
        return Err(
            "this is UTF-16, and UTF-8 is read here: save it as UTF-8, or convert it with \
             `iconv -f UTF-16 -t UTF-8`"
                .to_owned(),
        );
    }
    let bytes = bytes.strip_prefix(MARK).unwrap_or(bytes);
    match std::str::from_utf8(bytes) {
        Ok(text) => Ok(text.to_owned()),
        Err(error) => {
            let before = bytes.get(..error.valid_up_to()).unwrap_or_default();
            let line = 1 + before.iter().filter(|b| **b == b'\n').count();
            Err(format!(
                "line {line} is not UTF-8 (byte {}): save the file as UTF-8",
                error.valid_up_to()
            ))
        }
    }
}

/// By its mark; without one, by the zero byte that half of an ASCII character is there.
fn is_utf16(bytes: &[u8]) -> bool {
    matches!(bytes, [0xff, 0xfe, ..] | [0xfe, 0xff, ..] | [0, 1..=255, ..] | [1..=255, 0, ..])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_byte_order_mark_is_dropped_and_no_other_byte() {
        assert_eq!(decode("\u{feff}{\"é\": 1}\n".as_bytes()).unwrap(), "{\"é\": 1}\n");
        assert_eq!(decode("{}".as_bytes()).unwrap(), "{}");
        assert_eq!(decode(b"").unwrap(), "");
        assert_eq!(decode("a\u{feff}".as_bytes()).unwrap(), "a\u{feff}");
    }

    #[test]
    fn utf_16_is_named_with_the_remedy_whatever_its_order_or_mark() {
        let text = "{\"id\": \"ü\"}";
        let little: Vec<u8> = text.encode_utf16().flat_map(u16::to_le_bytes).collect();
        let big: Vec<u8> = text.encode_utf16().flat_map(u16::to_be_bytes).collect();
        let marked = [[0xff, 0xfe].as_slice(), &little].concat();
        for bytes in [&little, &big, &marked, &[[0xfe, 0xff].as_slice(), &big].concat()] {
            let error = decode(bytes).unwrap_err();
            assert!(error.contains("UTF-16") && error.contains("iconv"), "{error}");
        }
    }

    #[test]
    fn other_bytes_are_named_by_line() {
        assert!(decode(b"good\nb\xe4d\n").unwrap_err().contains("line 2 is not UTF-8"));
    }
}
