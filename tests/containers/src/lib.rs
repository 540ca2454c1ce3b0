//! Images of programs of this machine, made without any registry: each holds a program, the shared
//! libraries that it names, and a shell.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;
use testcontainers::GenericBuildableImage;
use testcontainers::core::error::TestcontainersError;
use testcontainers::runners::SyncBuilder;

/// What can go wrong, with the remedy.
#[derive(Debug)]
pub enum ImageError {
    /// A program that is not on the path of this machine.
    Absent(String),
    /// What a program needs cannot be listed.
    Libraries(PathBuf, std::io::Error),
    /// The engine refused it.
    Engine(TestcontainersError),
}

impl std::fmt::Display for ImageError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Absent(name) => write!(f, "{name} is not here: install it"),
            Self::Libraries(path, error) => write!(f, "ldd {}: {error}", path.display()),
            Self::Engine(error) => write!(f, "the container engine: {error}"),
        }
    }
}

impl std::error::Error for ImageError {}

/// A program, and where it stands in the image.
pub type Placed<'a> = (&'a Path, &'a str);

/// Builds the image `name:latest` of these files and `sh`, which starts `entry`. One of that name
/// is replaced.
///
/// # Errors
/// A library that is not found, or the engine's.
pub fn build(name: &str, files: &[Placed<'_>], entry: &str) -> Result<(), ImageError> {
    let (shell, sleep) = (on_path("sh")?, on_path("sleep")?);
    let mut all: Vec<(PathBuf, String)> =
        files.iter().map(|(from, to)| ((*from).to_owned(), (*to).to_owned())).collect();
    all.push((shell, "/bin/sh".into()));
    all.push((sleep, "/bin/sleep".into()));
    let mut libraries = BTreeSet::new();
    for (program, _) in &all {
        libraries.extend(libraries_of(program)?);
    }
    all.extend(libraries.into_iter().map(|path| (path.clone(), path.display().to_string())));
    let text = format!("FROM scratch\nCOPY root /\nENTRYPOINT [\"{entry}\"]\n");
    let mut image = GenericBuildableImage::new(name, "latest").with_dockerfile_string(text);
    for (from, to) in all {
        image = image.with_file(real(&from), format!("root{to}"));
    }
    image.build_image().map(drop).map_err(ImageError::Engine)
}

/// The file that a link leads to.
fn real(path: &Path) -> PathBuf {
    path.canonicalize().unwrap_or_else(|_| path.to_owned())
}

/// A program of this machine.
///
/// # Errors
/// It is not on the path.
pub fn on_path(name: &str) -> Result<PathBuf, ImageError> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut found = std::env::split_paths(&path).map(|folder| folder.join(name));
    found.find(|program| program.is_file()).ok_or_else(|| ImageError::Absent(name.to_owned()))
}

/// The shared libraries of a program and its loader; none of a script or a static program.
fn libraries_of(program: &Path) -> Result<Vec<PathBuf>, ImageError> {
    let output = Command::new("ldd").arg(program).output();
    let output = output.map_err(|error| ImageError::Libraries(program.to_owned(), error))?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let words = text.split_whitespace().filter(|word| word.starts_with('/'));
    Ok(words.filter(|word| !word.ends_with(':')).map(PathBuf::from).collect())
}
