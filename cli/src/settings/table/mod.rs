//! The table of keys: every setting of coordinator and worker, with who reads it, its unit, its default
//! and a line for people. Flags and fields stand elsewhere; tests hold them against this.

mod campaign;
mod roles;

use std::fmt;

/// Who reads a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reader {
    /// Coordinator and worker.
    Both,
    /// The coordinator.
    Coordinator,
    /// The worker.
    Worker,
    /// `uspx up` alone; it reads what both roles and the coordinator read, too, and needs none of it.
    Up,
}

/// A role with settings of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Role {
    /// `uspx coordinator`.
    Coordinator,
    /// `uspx worker`.
    Worker,
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Coordinator => "coordinator",
            Self::Worker => "worker",
        })
    }
}

impl Reader {
    /// Whether a role reads it.
    pub fn is(self, role: Role) -> bool {
        match self {
            Self::Both => true,
            Self::Coordinator => role == Role::Coordinator,
            Self::Worker => role == Role::Worker,
            Self::Up => false,
        }
    }
}

/// What a key is without a value. Values are TOML.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Usual {
    /// There is none: it must be given. An example.
    Needed(&'static str),
    /// This value.
    Is(&'static str),
    /// No value: what then holds, and an example.
    Open {
        /// What holds without it.
        then: &'static str,
        /// A value that could be given.
        example: &'static str,
    },
}

impl Usual {
    /// The value to show: the default, or an example.
    pub fn shown(self) -> &'static str {
        match self {
            Self::Needed(value) | Self::Is(value) | Self::Open { example: value, .. } => value,
        }
    }
}

/// One key.
#[derive(Debug, Clone, Copy)]
pub struct Key {
    /// Its place in the file: `campaign.mask.keep`.
    pub path: &'static str,
    /// Who reads it.
    pub reader: Reader,
    /// What it is counted in; empty for what is not counted.
    pub unit: &'static str,
    /// What it is without a value.
    pub usual: Usual,
    /// The flag that sets it, without dashes; empty where there is none.
    pub flag: &'static str,
    /// What it is, for people.
    pub says: &'static str,
}

impl Key {
    /// The table that it stands in, and its name there.
    pub fn place(&self) -> (&'static str, &'static str) {
        self.path.rsplit_once('.').unwrap_or(("", self.path))
    }

    /// The ways to set it, for people: `--nats, USPX_NATS or nats in the file`.
    pub fn ways(&self) -> String {
        let variable = uspx_runtime::config::variable(self.path);
        match self.flag {
            "" => format!("{variable} or {} in the file", self.path),
            flag => format!("--{flag}, {variable} or {} in the file", self.path),
        }
    }
}

/// Every key, in the order of the file.
pub fn keys() -> impl Iterator<Item = &'static Key> {
    roles::KEYS.iter().chain(campaign::KEYS)
}

/// The keys that a role reads.
pub fn keys_of(role: Role) -> impl Iterator<Item = &'static Key> {
    keys().filter(move |key| key.reader.is(role))
}

/// Rows as they are read: path, reader, unit, flag, what it is without a value, what it is.
macro_rules! rows {
    ($($path:literal $reader:ident [$unit:literal] --$flag:literal $usual:expr; $says:literal)*) => {
        pub(super) const KEYS: &[super::Key] = &[$(super::Key {
            path: $path,
            reader: super::Reader::$reader,
            unit: $unit,
            usual: $usual,
            flag: $flag,
            says: $says,
        }),*];
    };
}
use rows;
