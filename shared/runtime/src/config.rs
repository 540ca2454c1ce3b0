//! Configuration: a TOML file, then the environment (`USPX_…`), then flags; later ones win.

use crate::text;
use figment::providers::{Env, Format, Serialized, Toml};
use figment::value::{Dict, Map, Value};
use figment::{Figment, Metadata, Profile, Provider};
use serde::{Serialize, de::DeserializeOwned};
use std::path::{Path, PathBuf};

/// The prefix of environment variables. `USPX_STORE=…` sets `store`, `USPX_NATS__URL=…` sets
/// `nats.url`.
pub const PREFIX: &str = "USPX_";

/// What is wrong with a configuration.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file that was named is not there.
    #[error("there is no configuration file {0}")]
    NotFound(PathBuf),
    /// The file cannot be read, or is not UTF-8.
    #[error("{path}: {source}")]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why, and what to do.
        source: std::io::Error,
    },
    /// A value is missing, unknown or of the wrong kind.
    #[error("configuration: {0}")]
    Value(Box<figment::Error>),
}

/// Reads a configuration. `flags` holds what was given on the command line: what is `None` or `false`
/// there was not, and is passed over.
///
/// # Errors
/// The file is missing, or a value does not fit.
pub fn load<T: DeserializeOwned>(
    file: Option<&Path>,
    flags: impl Serialize,
) -> Result<T, ConfigError> {
    let mut figment = Figment::new();
    if let Some(path) = file {
        if !path.is_file() {
            return Err(ConfigError::NotFound(path.to_owned()));
        }
        figment = figment.merge(TomlFile::read(path)?);
    }
    figment = figment.merge(Env::prefixed(PREFIX).ignore(&["log"]).split("__"));
    figment
        .merge(Given(Serialized::defaults(flags)))
        .extract()
        .map_err(|e| ConfigError::Value(Box::new(e)))
}

/// Flags, without those that were not given.
struct Given<T>(Serialized<T>);

impl<T: Serialize> Provider for Given<T> {
    fn metadata(&self) -> Metadata {
        Metadata::named("command line")
    }

    fn data(&self) -> Result<Map<Profile, Dict>, figment::Error> {
        let mut data = self.0.data()?;
        let given = |value: &Value| !matches!(value, Value::Empty(..) | Value::Bool(_, false));
        data.values_mut().for_each(|flags| flags.retain(|_, value| given(value)));
        Ok(data)
    }
}

/// A TOML file as a person saved it: [`Toml`]'s own reader stumbles over a byte order mark.
struct TomlFile {
    path: PathBuf,
    text: String,
}

impl TomlFile {
    fn read(path: &Path) -> Result<Self, ConfigError> {
        let path = path.to_owned();
        match text::read(&path) {
            Ok(text) => Ok(Self { path, text }),
            Err(source) => Err(ConfigError::Unreadable { path, source }),
        }
    }
}

impl Provider for TomlFile {
    fn metadata(&self) -> Metadata {
        Metadata::from("TOML file", self.path.as_path())
    }

    fn data(&self) -> Result<Map<Profile, Dict>, figment::Error> {
        Toml::string(&self.text).data()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde::Deserialize;

    #[derive(Serialize)]
    struct Flags {
        store: Option<String>,
        loud: bool,
    }

    const NONE: Flags = Flags { store: None, loud: false };

    #[derive(Deserialize, Debug)]
    struct Settings {
        store: String,
        workers: u32,
        #[serde(default)]
        loud: bool,
    }

    #[test]
    fn flags_win_over_the_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("uspx.toml");
        std::fs::write(&path, "store = 'a'\nworkers = 3\n").unwrap();
        let of_file: Settings = load(Some(&path), NONE).unwrap();
        assert_eq!((of_file.store.as_str(), of_file.workers), ("a", 3));
        let of_flag: Settings =
            load(Some(&path), Flags { store: Some("b".into()), loud: true }).unwrap();
        assert_eq!((of_flag.store.as_str(), of_flag.loud), ("b", true));
        std::fs::write(&path, "store = 'a'\nworkers = 3\nloud = true\n").unwrap();
        let not_said: Settings = load(Some(&path), NONE).unwrap();
        assert!(not_said.loud, "a flag that is not given says nothing");
    }

    #[test]
    fn a_missing_file_and_a_wrong_value_are_named() {
        let missing = load::<Settings>(Some(Path::new("/nowhere.toml")), NONE).unwrap_err();
        assert!(missing.to_string().contains("/nowhere.toml"));
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("uspx.toml");
        std::fs::write(&path, "store = 'a'\nworkers = 'many'\n").unwrap();
        let wrong = load::<Settings>(Some(&path), NONE).unwrap_err().to_string();
        assert!(wrong.contains("workers") && wrong.contains("uspx.toml"), "{wrong}");
        std::fs::write(&path, "store = \n").unwrap();
        let broken = load::<Settings>(Some(&path), NONE).unwrap_err().to_string();
        assert!(broken.contains("uspx.toml"), "{broken}");
    }

    #[test]
    fn a_byte_order_mark_is_skipped_and_utf_16_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("uspx.toml");
        std::fs::write(&path, "\u{feff}store = 'a'\nworkers = 3\n").unwrap();
        let read: Settings = load(Some(&path), NONE).unwrap();
        assert_eq!((read.store.as_str(), read.workers), ("a", 3));
        std::fs::write(
            &path,
            "store = 'a'".encode_utf16().flat_map(u16::to_le_bytes).collect::<Vec<u8>>(),
        )
        .unwrap();
        let wrong = load::<Settings>(Some(&path), NONE).unwrap_err().to_string();
        assert!(wrong.contains("uspx.toml") && wrong.contains("UTF-16"), "{wrong}");
    }
}
