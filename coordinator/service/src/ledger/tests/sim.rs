//! A disk in memory that may die at any step, and what it may hold afterwards.

use crate::ServiceError;
use crate::ledger::disk::{Disk, Which};
use crate::ledger::log::Log;
use std::io;
use std::path::{Path, PathBuf};

/// The files as somebody sees them.
pub type Files = [Option<Vec<u8>>; 2];

/// A write or a cut that may not be on the disk yet.
#[derive(Debug, Clone)]
enum Change {
    Write(usize, u64, Vec<u8>),
    Cut(u64),
}

impl Change {
    fn file(&self) -> usize {
        if let Self::Write(file, ..) = self { *file } else { 0 }
    }

    fn apply(&self, files: &mut Files) {
        match self {
            Self::Write(file, at, bytes) => {
                let content = files[*file].get_or_insert_default();
                let (at, end) = (*at as usize, *at as usize + bytes.len());
                content.resize(content.len().max(end), 0);
                content[at..end].copy_from_slice(bytes);
            }
            Self::Cut(length) => files[0].get_or_insert_default().truncate(*length as usize),
        }
    }

    /// What may be left of it: a beginning, a beginning followed by zeros, an end that follows
    /// zeros.
    fn torn(&self, stride: usize) -> Vec<Self> {
        let Self::Write(file, at, bytes) = self else { return Vec::new() };
        let part = |bytes: Vec<u8>| Self::Write(*file, *at, bytes);
        let tear = |t: usize| {
            let zeros = |n: usize| vec![0; n];
            let padded = [&bytes[..t], &zeros(bytes.len() - t)].concat();
            let late = [&zeros(t), &bytes[t..]].concat();
            [part(bytes[..t].to_vec()), part(padded), part(late)]
        };
        (0..bytes.len()).step_by(stride).flat_map(tear).collect()
    }
}

/// The disk.
#[derive(Debug, Clone)]
pub struct Sim {
    pub files: Files,
    /// What is certainly on the disk.
    safe: Files,
    pending: Vec<Change>,
    /// Whether each file's name is on the disk.
    named: [bool; 2],
    pub aside: Vec<(u64, Vec<u8>)>,
    /// Copies of both files, made before a repair.
    pub damaged: Vec<Files>,
    /// What is to take the ledger's place, and whether all of it is on the disk.
    pub next: Option<(Vec<u8>, bool)>,
    /// What a shortened ledger stands for.
    pub before: Option<Files>,
    /// The ledger whose place was taken, as long as the disk may come back with it.
    replaced: Option<Vec<u8>>,
    /// Whether it goes on after the step that fails.
    lives_on: bool,
    steps: usize,
}

impl Sim {
    /// A disk that holds these files.
    pub fn holding(files: Files) -> Self {
        let named = [files[0].is_some(), files[1].is_some()];
        Self {
            safe: files.clone(),
            files,
            pending: Vec::new(),
            named,
            aside: Vec::new(),
            damaged: Vec::new(),
            next: None,
            before: None,
            replaced: None,
            lives_on: false,
            steps: usize::MAX,
        }
    }

    /// An empty disk.
    pub fn empty() -> Self {
        Self::holding([None, None])
    }

    /// The same, to die after so many more steps.
    pub fn dying_after(mut self, steps: usize) -> Self {
        self.steps = steps;
        self
    }

    /// The same, but only the step after so many fails, as where a disk is full for a while.
    pub fn failing_after(self, steps: usize) -> Self {
        Self { lives_on: true, ..self.dying_after(steps) }
    }

    pub fn ledger(&self) -> &[u8] {
        self.files[0].as_deref().unwrap_or_default()
    }

    pub fn head(&self) -> &[u8] {
        self.files[1].as_deref().unwrap_or_default()
    }

    /// Opens the log on it and reads it out.
    pub fn open(&mut self) -> Result<Vec<Vec<u8>>, ServiceError> {
        let mut records = Vec::new();
        Log::open(self, |_, payload| {
            records.push(payload.to_vec());
            Ok(())
        })?;
        Ok(records)
    }

    /// Every disk that may be found after it has died: the process alone, or the machine with it.
    pub fn after_death(&self, stride: usize) -> Vec<Self> {
        let mut found = vec![Self { steps: usize::MAX, ..self.clone() }];
        for done in 0..=self.pending.len() {
            let mut files = self.safe.clone();
            self.pending[..done].iter().for_each(|change| change.apply(&mut files));
            for torn in self.pending.get(done).map_or_else(Vec::new, |change| change.torn(stride)) {
                let mut files = files.clone();
                torn.apply(&mut files);
                found.extend(self.without_names(files));
            }
            found.extend(self.without_names(files));
        }
        found.extend(self.replaced.iter().flat_map(|ledger| self.with_the_old(ledger)));
        found
    }

    /// The ledger's name is that of the file that was to be replaced, still.
    fn with_the_old(&self, ledger: &[u8]) -> Vec<Self> {
        let mut found = self.without_names([Some(ledger.to_vec()), self.safe[1].clone()]);
        found.iter_mut().for_each(|sim| sim.next = Some((self.ledger().to_vec(), true)));
        found
    }

    /// A file whose name was not synced may be there or not.
    fn without_names(&self, files: Files) -> Vec<Self> {
        let fates = [[true, true], [true, false], [false, true], [false, false]];
        let possible = fates.iter().filter(|there| (0..2).all(|f| there[f] || !self.named[f]));
        let with = |there: &[bool; 2]| {
            let mut files = files.clone();
            (0..2).filter(|f| !there[*f]).for_each(|f| files[f] = None);
            let (aside, damaged) = (self.aside.clone(), self.damaged.clone());
            let (next, before) = (self.next.clone(), self.before.clone());
            Self { aside, damaged, next, before, ..Self::holding(files) }
        };
        possible.map(with).collect()
    }

    fn step(&mut self) -> Result<(), ServiceError> {
        let left = self.steps.checked_sub(1);
        self.steps = left.unwrap_or(if self.lives_on { usize::MAX } else { 0 });
        let dead = || ServiceError::file("dead")(io::Error::other("the machine has died"));
        left.map(drop).ok_or_else(dead)
    }

    fn change(&mut self, change: Change) -> Result<(), ServiceError> {
        self.step()?;
        change.apply(&mut self.files);
        self.pending.push(change);
        Ok(())
    }
}

fn index(which: Which) -> usize {
    usize::from(which == Which::Head)
}

impl Disk for &mut Sim {
    fn path(&self) -> &Path {
        Path::new("ledger")
    }

    fn read(&mut self, which: Which) -> Result<Option<Vec<u8>>, ServiceError> {
        Ok(self.files[index(which)].clone())
    }

    fn write(&mut self, which: Which, at: u64, bytes: &[u8]) -> Result<(), ServiceError> {
        self.change(Change::Write(index(which), at, bytes.to_vec()))
    }

    fn cut(&mut self, length: u64) -> Result<(), ServiceError> {
        self.change(Change::Cut(length))
    }

    fn sync(&mut self, which: Which) -> Result<(), ServiceError> {
        self.step()?;
        self.safe[index(which)] = self.files[index(which)].clone();
        self.pending.retain(|change| change.file() != index(which));
        Ok(())
    }

    fn sync_names(&mut self) -> Result<(), ServiceError> {
        self.step()?;
        self.named = [self.files[0].is_some(), self.files[1].is_some()];
        self.replaced = None;
        Ok(())
    }

    fn write_next(&mut self, bytes: &[u8]) -> Result<(), ServiceError> {
        // The disk may be full in the middle of it.
        self.next = Some((bytes[..bytes.len() / 2].to_vec(), false));
        self.step()?;
        self.next = Some((bytes.to_vec(), false));
        Ok(())
    }

    fn sync_next(&mut self) -> Result<(), ServiceError> {
        self.step()?;
        self.next.as_mut().unwrap().1 = true;
        Ok(())
    }

    fn keep_before(&mut self) -> Result<(), ServiceError> {
        self.step()?;
        self.before = None;
        self.step()?;
        self.before = Some([self.files[0].clone(), None]);
        self.step()?;
        self.before = Some(self.files.clone());
        Ok(())
    }

    fn put_next(&mut self) -> Result<(), ServiceError> {
        self.step()?;
        let (next, synced) = self.next.take().unwrap();
        assert!(synced, "it could have the name without the bytes");
        self.replaced = self.files[0].replace(next.clone());
        self.safe[0] = Some(next);
        self.pending.retain(|change| change.file() != 0);
        Ok(())
    }

    fn drop_next(&mut self) -> Result<(), ServiceError> {
        if self.next.is_some() {
            self.step()?;
            self.next = None;
        }
        Ok(())
    }

    fn set_aside(&mut self, sequence: u64, bytes: &[u8]) -> Result<PathBuf, ServiceError> {
        self.step()?;
        self.aside.push((sequence, bytes.to_vec()));
        Ok(PathBuf::from("aside"))
    }

    fn set_all_aside(
        &mut self,
        ledger: &[u8],
        head: Option<&[u8]>,
    ) -> Result<PathBuf, ServiceError> {
        self.step()?;
        self.damaged.push([Some(ledger.to_vec()), head.map(<[u8]>::to_vec)]);
        Ok(PathBuf::from("damaged"))
    }
}
