//! The archive of a moved ledger: a tar file with a list of its contents first, each with its length
//! and BLAKE3. It is verified whole before anything is taken from it; only the known names, plain
//! files and lengths that the file has room for are read.

use super::FILE_NAME;
use super::moving::{NAMES, Part};
use super::survey::survey_bytes;
use crate::ServiceError;
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::io::{self, BufReader, Read};
use std::path::Path;
use tar::{Archive, Builder, Entry, EntryType, Header};
use uspx_domain::Digest;

/// The list's name in the archive; it is the first entry.
const LIST: &str = "contents.json";
/// The longest list, in bytes.
const LONGEST_LIST: u64 = 64 << 10;
/// The list's version.
const VERSION: u32 = 1;

/// What an archive holds.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct List {
    version: u32,
    records: u64,
    files: Vec<Part>,
}

/// A file with its bytes.
#[derive(Debug)]
pub(super) struct Content {
    pub name: String,
    pub bytes: Vec<u8>,
}

impl Content {
    pub fn part(&self) -> Part {
        let (bytes, blake3) = (self.bytes.len() as u64, Digest::of(&self.bytes));
        Part { name: self.name.clone(), bytes, blake3 }
    }
}

/// The archive's bytes; the same contents give the same bytes.
pub(super) fn write(records: u64, contents: &[Content]) -> io::Result<Vec<u8>> {
    let files = contents.iter().map(Content::part).collect();
    let list = serde_json::to_vec_pretty(&List { version: VERSION, records, files })?;
    let mut archive = Builder::new(Vec::new());
    append(&mut archive, LIST, &list)?;
    for Content { name, bytes } in contents {
        append(&mut archive, name, bytes)?;
    }
    archive.into_inner()
}

fn append(archive: &mut Builder<Vec<u8>>, name: &str, bytes: &[u8]) -> io::Result<()> {
    let mut header = Header::new_ustar();
    header.set_path(name)?;
    header.set_size(bytes.len() as u64);
    header.set_mode(0o600);
    header.set_mtime(0);
    header.set_cksum();
    archive.append(&header, bytes)
}

/// The number of records and the verified contents, in the order of [`NAMES`].
///
/// # Errors
/// The first place where the file is not what an export writes.
pub(super) fn read(path: &Path) -> Result<(u64, Vec<Content>), ServiceError> {
    let file = File::open(path).map_err(ServiceError::file(path))?;
    let length = file.metadata().map_err(ServiceError::file(path))?.len();
    let mut reading = Reading { path, length, at: 0 };
    let mut archive = Archive::new(BufReader::new(file));
    // Raw: what tar has for long names, links and sparse files are entries like any other, and so
    // refused.
    let mut entries = archive.entries().map_err(|e| reading.fails(e))?.raw(true);
    let (_, first) = reading.next(&mut entries, LIST, LONGEST_LIST)?;
    let list = reading.list(&first)?;
    let mut contents = Vec::new();
    for part in &list.files {
        let (at, bytes) = reading.next(&mut entries, &part.name, part.bytes)?;
        let end = std::mem::replace(&mut reading.at, at);
        let content = Content { name: part.name.clone(), bytes };
        if content.part() != *part {
            return Err(reading.changed(&content, &contents));
        }
        contents.push(content);
        reading.at = end;
    }
    match entries.next() {
        None => Ok((list.records, contents)),
        Some(_) => Err(reading.fails("something follows that its list does not name")),
    }
}

/// Where in which file one reads.
struct Reading<'a> {
    path: &'a Path,
    length: u64,
    at: u64,
}

impl Reading<'_> {
    fn fails(&self, reason: impl ToString) -> ServiceError {
        let (path, reason) = (self.path.to_owned(), reason.to_string());
        ServiceError::Archive { path, at: self.at, reason }
    }

    /// The next entry's bytes, which must have that name and be no longer than `longest`, and where
    /// they begin.
    fn next<'e>(
        &mut self,
        entries: &mut impl Iterator<Item = io::Result<Entry<'e, BufReader<File>>>>,
        name: &str,
        longest: u64,
    ) -> Result<(u64, Vec<u8>), ServiceError> {
        let entry = entries.next().ok_or_else(|| self.fails(format!("it ends before `{name}`")))?;
        let mut entry = entry.map_err(|e| self.fails(e))?;
        self.at = entry.raw_header_position();
        let found = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
        if found != name || entry.header().entry_type() != EntryType::Regular {
            return Err(
                self.fails(format!("`{found}` stands where the plain file `{name}` belongs"))
            );
        }
        let (start, size) = (entry.raw_file_position(), entry.size());
        if size > longest || size > self.length.saturating_sub(start) {
            return Err(
                self.fails(format!("`{name}` announces {size} bytes, more than there can be"))
            );
        }
        let mut bytes = Vec::new();
        entry.read_to_end(&mut bytes).map_err(|e| self.fails(e))?;
        if bytes.len() as u64 != size {
            return Err(self.fails(format!("`{name}` has {} of {size} bytes", bytes.len())));
        }
        self.at = start.saturating_add(size).next_multiple_of(512);
        Ok((start, bytes))
    }

    /// The list, which names ledger and head, and nothing that is not known, in the known order.
    fn list(&self, bytes: &[u8]) -> Result<List, ServiceError> {
        let list: List =
            serde_json::from_slice(bytes).map_err(|e| self.fails(format!("`{LIST}`: {e}")))?;
        if list.version != VERSION {
            let found = list.version;
            return Err(self.fails(format!("its version is {found}, not {VERSION}: update uspx")));
        }
        let names: Vec<&str> = list.files.iter().map(|part| part.name.as_str()).collect();
        let known: Vec<&str> = NAMES.into_iter().filter(|name| names.contains(name)).collect();
        if names != known || !names.ends_with(&["ledger.head", FILE_NAME]) {
            return Err(self.fails(format!("its list names {names:?}, not a ledger and its head")));
        }
        Ok(list)
    }

    /// The error for bytes that do not have the hash listed: of a ledger, the place is its first
    /// damaged record's.
    fn changed(&self, content: &Content, before: &[Content]) -> ServiceError {
        let head = before.last().filter(|_| content.name == FILE_NAME).map(|c| c.bytes.as_slice());
        let looked = head.map(|head| survey_bytes(self.path, &content.bytes, Some(head), |_| {}));
        match looked {
            Some(Err(error @ ServiceError::Damaged { .. })) => damaged(self.path, self.at, error),
            _ => self
                .fails(format!("`{}` does not have the BLAKE3 that its list names", content.name)),
        }
    }
}

/// Damage of the ledger that begins at byte `start` of the archive.
pub(super) fn damaged(path: &Path, start: u64, error: ServiceError) -> ServiceError {
    match error {
        ServiceError::Damaged { damage, .. } => {
            let (path, at) = (path.to_owned(), start.saturating_add(damage.at));
            ServiceError::Archive { path, at, reason: format!("its ledger is {damage}") }
        }
        other => other,
    }
}
