//! The `tojson` filter with Python's spelling: `json.dumps` with `ensure_ascii`, `indent`,
//! `separators`, `sort_keys`.

use minijinja::value::{Kwargs, Rest};
use minijinja::{Error, ErrorKind, Value};
use serde::Serialize;
use serde_json::ser::{CharEscape, Formatter, Serializer};
use std::io::{self, Write};

/// The deepest indent of one level: the library formats no width beyond 16 bits.
const MAX_INDENT: usize = 256;

/// How `json.dumps` is asked to write.
struct Style {
    item: String,
    key: String,
    indent: Option<usize>,
    ascii: bool,
    depth: usize,
    empty: bool,
}

/// The filter; its defaults are those of transformers (no escaping of HTML, non-ASCII letters as
/// they are).
pub(super) fn tojson(
    value: Value,
    arguments: Rest<Value>,
    options: Kwargs,
) -> Result<Value, Error> {
    let option = |at: usize, name: &str| -> Result<Option<Value>, Error> {
        let named: Option<Value> = options.get(name)?;
        Ok(named
            .or_else(|| arguments.get(at).cloned())
            .filter(|v| !v.is_none() && !v.is_undefined()))
    };
    let truth =
        |at, name| -> Result<bool, Error> { Ok(option(at, name)?.is_some_and(|v| v.is_true())) };
    let indent = option(1, "indent")?.map(usize::try_from).transpose()?;
    if indent.is_some_and(|indent| indent > MAX_INDENT) {
        let reason = format!("tojson's indent is more than {MAX_INDENT}");
        return Err(Error::new(ErrorKind::InvalidOperation, reason));
    }
    let separators =
        option(2, "separators")?.map(|v| -> Result<_, Error> { Ok((text(&v, 0)?, text(&v, 1)?)) });
    let default = || (if indent.is_some() { "," } else { ", " }.to_owned(), ": ".to_owned());
    let (item, key) = separators.transpose()?.unwrap_or_else(default);
    let (ascii, sorted) = (truth(0, "ensure_ascii")?, truth(3, "sort_keys")?);
    options.assert_all_used()?;
    let broken = |e: serde_json::Error| Error::new(ErrorKind::BadSerialization, e.to_string());
    let mut json = serde_json::to_value(&value).map_err(broken)?;
    let mut out = Vec::new();
    let style = Style { item, key, indent, ascii, depth: 0, empty: false };
    let mut to = Serializer::with_formatter(&mut out, style);
    if sorted {
        json.sort_all_objects();
        json.serialize(&mut to).map_err(broken)?;
    } else {
        value.serialize(&mut to).map_err(broken)?;
    }
    Ok(Value::from_safe_string(String::from_utf8_lossy(&out).into_owned()))
}

fn text(pair: &Value, at: usize) -> Result<String, Error> {
    let part = pair.get_item_by_index(at)?;
    part.as_str()
        .map(str::to_owned)
        .ok_or_else(|| Error::new(ErrorKind::InvalidOperation, "separators are two strings"))
}

impl Style {
    fn line<W: ?Sized + Write>(&self, out: &mut W) -> io::Result<()> {
        let Some(indent) = self.indent else { return Ok(()) };
        write!(out, "\n{:width$}", "", width = indent * self.depth)
    }

    fn open<W: ?Sized + Write>(&mut self, out: &mut W, bracket: &[u8]) -> io::Result<()> {
        (self.depth, self.empty) = (self.depth + 1, true);
        out.write_all(bracket)
    }

    fn close<W: ?Sized + Write>(&mut self, out: &mut W, bracket: &[u8]) -> io::Result<()> {
        self.depth -= 1;
        if !self.empty {
            self.line(out)?;
        }
        self.empty = false;
        out.write_all(bracket)
    }

    fn next<W: ?Sized + Write>(&mut self, out: &mut W, first: bool) -> io::Result<()> {
        if !first {
            out.write_all(self.item.as_bytes())?;
        }
        self.empty = false;
        self.line(out)
    }
}

impl Formatter for Style {
    fn begin_array<W: ?Sized + Write>(&mut self, out: &mut W) -> io::Result<()> {
        self.open(out, b"[")
    }

    fn end_array<W: ?Sized + Write>(&mut self, out: &mut W) -> io::Result<()> {
        self.close(out, b"]")
    }

    fn begin_array_value<W: ?Sized + Write>(&mut self, out: &mut W, first: bool) -> io::Result<()> {
        self.next(out, first)
    }

    fn begin_object<W: ?Sized + Write>(&mut self, out: &mut W) -> io::Result<()> {
        self.open(out, b"{")
    }

    fn end_object<W: ?Sized + Write>(&mut self, out: &mut W) -> io::Result<()> {
        self.close(out, b"}")
    }

    fn begin_object_key<W: ?Sized + Write>(&mut self, out: &mut W, first: bool) -> io::Result<()> {
        self.next(out, first)
    }

    fn begin_object_value<W: ?Sized + Write>(&mut self, out: &mut W) -> io::Result<()> {
        out.write_all(self.key.as_bytes())
    }

    fn write_string_fragment<W: ?Sized + Write>(
        &mut self,
        out: &mut W,
        fragment: &str,
    ) -> io::Result<()> {
        if !self.ascii {
            return out.write_all(fragment.as_bytes());
        }
        for c in fragment.chars() {
            if c.is_ascii() {
                write!(out, "{c}")?;
            } else {
                c.encode_utf16(&mut [0; 2])
                    .iter()
                    .try_for_each(|unit| write!(out, "\\u{unit:04x}"))?;
            }
        }
        Ok(())
    }

    fn write_char_escape<W: ?Sized + Write>(
        &mut self,
        out: &mut W,
        escape: CharEscape,
    ) -> io::Result<()> {
        let two = |c: u8| [b'\\', c];
        match escape {
            CharEscape::Quote => out.write_all(&two(b'"')),
            CharEscape::ReverseSolidus => out.write_all(&two(b'\\')),
            CharEscape::Solidus => out.write_all(b"/"),
            CharEscape::Backspace => out.write_all(&two(b'b')),
            CharEscape::FormFeed => out.write_all(&two(b'f')),
            CharEscape::LineFeed => out.write_all(&two(b'n')),
            CharEscape::CarriageReturn => out.write_all(&two(b'r')),
            CharEscape::Tab => out.write_all(&two(b't')),
            CharEscape::AsciiControl(byte) => write!(out, "\\u{byte:04x}"),
        }
    }
}
