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

impl ConfigError {
    fn value(error: figment::Error) -> Self {
        Self::Value(Box::new(error))
    }
}

/// How the sources are called in metadata.
const FLAGS: &str = "command line";
const FILE: &str = "TOML file";

/// Where a value comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// The command line.
    Flag,
    /// The environment: the variable's name.
    Variable(String),
    /// The file.
    File(PathBuf),
}

/// What was given, wherever.
pub struct Sources {
    file: Option<TomlFile>,
    figment: Figment,
}

impl Sources {
    /// Reads file and environment. `flags` holds what was given on the command line: what is `None`
    /// or `false` there was not, and is passed over.
    ///
    /// # Errors
    /// The file is missing or cannot be read.
    pub fn read(path: Option<&Path>, flags: impl Serialize) -> Result<Self, ConfigError> {
        let file = path.map(TomlFile::read).transpose()?;
        let mut figment = Figment::new();
        if let Some(file) = &file {
            figment = figment.merge(file);
        }
        let environment = Env::prefixed(PREFIX).ignore(&["log"]).split("__");
        figment = figment.merge(environment).merge(Given(Serialized::defaults(flags)));
        Ok(Self { file, figment })
    }

    /// The values, as a structure.
    ///
    /// # Errors
    /// A value is missing or does not fit.
    pub fn settings<T: DeserializeOwned>(&self) -> Result<T, ConfigError> {
        self.figment.extract().map_err(ConfigError::value)
    }

    /// The same with values for what was not given.
    ///
    /// # Errors
    /// As [`Self::settings`].
    pub fn settings_with<T: DeserializeOwned>(
        &self,
        others: impl Serialize,
    ) -> Result<T, ConfigError> {
        let all = self.figment.clone().join(Serialized::defaults(others));
        all.extract().map_err(ConfigError::value)
    }

    /// A value by its key (`campaign.mask.keep`), and where it comes from.
    pub fn find<T: DeserializeOwned>(&self, key: &str) -> Option<(T, Origin)> {
        let value = self.figment.find_value(key).ok()?;
        let origin = match &*self.figment.get_metadata(value.tag())?.name {
            FLAGS => Origin::Flag,
            FILE => Origin::File(self.file.as_ref()?.path.clone()),
            _ => Origin::Variable(variable(key)),
        };
        Some((value.deserialize().ok()?, origin))
    }

    /// Whether a value was given for a key.
    pub fn has(&self, key: &str) -> bool {
        self.figment.contains(key)
    }

    /// Every key that the file gives a value, tables left out.
    ///
    /// # Errors
    /// The file is not TOML.
    pub fn keys_of_file(&self) -> Result<Vec<String>, ConfigError> {
        let Some(file) = &self.file else { return Ok(Vec::new()) };
        let data = file.data().map_err(ConfigError::value)?;
        let mut keys = Vec::new();
        data.values().for_each(|dict| gather(dict, "", &mut keys));
        Ok(keys)
    }
}

fn gather(dict: &Dict, above: &str, keys: &mut Vec<String>) {
    for (name, value) in dict {
        let key = format!("{above}{name}");
        match value {
            Value::Dict(_, inner) => gather(inner, &format!("{key}."), keys),
            _ => keys.push(key),
        }
    }
}

/// The environment variable of a key.
pub fn variable(key: &str) -> String {
    format!("{PREFIX}{}", key.to_uppercase().replace('.', "__"))
}

/// Flags, without those that were not given.
struct Given<T>(Serialized<T>);

impl<T: Serialize> Provider for Given<T> {
    fn metadata(&self) -> Metadata {
        Metadata::named(FLAGS)
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
        if !path.is_file() {
            return Err(ConfigError::NotFound(path));
        }
        match text::read(&path) {
            Ok(text) => Ok(Self { path, text }),
            Err(source) => Err(ConfigError::Unreadable { path, source }),
        }
    }
}

impl Provider for TomlFile {
    fn metadata(&self) -> Metadata {
        Metadata::from(FILE, self.path.as_path())
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

    fn load<T: DeserializeOwned>(file: Option<&Path>, flags: Flags) -> Result<T, ConfigError> {
        Sources::read(file, flags)?.settings()
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
    fn where_a_value_comes_from_is_known_and_so_is_what_the_file_names() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("uspx.toml");
        std::fs::write(&path, "store = 'a'\n[campaign.mask]\nkeep = 0.5\n[empty]\n").unwrap();
        let flags = Flags { store: None, loud: true };
        let sources = Sources::read(Some(&path), flags).unwrap();
        let of_file = Some(("a".to_owned(), Origin::File(path.clone())));
        assert_eq!(sources.find::<String>("store"), of_file);
        assert_eq!(sources.find::<bool>("loud"), Some((true, Origin::Flag)));
        assert_eq!(sources.find::<f64>("campaign.mask.keep").unwrap().0, 0.5);
        assert!(sources.find::<String>("workers").is_none() && !sources.has("workers"));
        assert_eq!(sources.keys_of_file().unwrap(), ["campaign.mask.keep", "store"]);
        let filled: Settings = sources
            .settings_with(
                [("workers", 4), ("store", 7)]
                    .into_iter()
                    .collect::<std::collections::BTreeMap<_, _>>(),
            )
            .unwrap();
        assert_eq!((filled.workers, filled.store.as_str()), (4, "a"));
        assert_eq!(variable("campaign.mask.keep"), "USPX_CAMPAIGN__MASK__KEEP");
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
