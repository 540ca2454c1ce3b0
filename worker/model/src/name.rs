//! What a model is called by people: never a path of this machine.

use serde_json::Value;
use std::path::Path;

/// The name of the model in a folder: what its config.json says that it was loaded from
/// (`_name_or_path`), else the folder's own name. Of a path only the last part is taken.
pub fn model_name(folder: &Path) -> String {
    let text = std::fs::read_to_string(folder.join("config.json")).unwrap_or_default();
    let config: Value = serde_json::from_str(&text).unwrap_or_default();
    let stated = config.get("_name_or_path").and_then(Value::as_str).and_then(published);
    stated.unwrap_or_else(|| last(&full(folder)).unwrap_or_else(|| "model".to_owned()))
}

/// A name as it is published (`Qwen/Qwen3-0.6B`, `gpt2`); of any other path its last part.
fn published(stated: &str) -> Option<String> {
    let parts: Vec<&str> = stated.split('/').collect();
    let plain = |part: &&str| {
        let letters = |c: char| c.is_alphanumeric() || matches!(c, '-' | '_' | '.');
        !part.is_empty() && part.chars().all(letters) && !part.starts_with('.')
    };
    let is_name = parts.len() <= 2 && parts.iter().all(plain);
    if is_name { Some(stated.to_owned()) } else { last(Path::new(&stated.replace('\\', "/"))) }
}

fn last(path: &Path) -> Option<String> {
    path.file_name().map(|name| name.to_string_lossy().into_owned()).filter(|n| !n.is_empty())
}

/// `.` and what ends in `..` have a name only in full.
fn full(folder: &Path) -> std::path::PathBuf {
    folder.canonicalize().unwrap_or_else(|_| folder.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(config: &str) -> String {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path().join("my-model");
        std::fs::create_dir(&folder).unwrap();
        std::fs::write(folder.join("config.json"), config).unwrap();
        model_name(&folder)
    }

    #[test]
    fn a_name_is_no_path_of_this_machine() {
        for (stated, name) in [
            ("Qwen/Qwen3-0.6B", "Qwen/Qwen3-0.6B"),
            ("gpt2", "gpt2"),
            ("/home/me/models/tiny", "tiny"),
            ("/home/me/models/tiny/", "tiny"),
            ("~/models/tiny", "tiny"),
            ("./tiny", "tiny"),
            ("a/b/tiny", "tiny"),
            ("C:\\\\models\\\\tiny", "tiny"),
            ("", "my-model"),
            ("/", "my-model"),
        ] {
            assert_eq!(named(&format!("{{\"_name_or_path\": \"{stated}\"}}")), name, "{stated}");
        }
        for config in ["{}", "not JSON", "{\"_name_or_path\": 3}"] {
            assert_eq!(named(config), "my-model");
        }
        assert_eq!(model_name(Path::new("/no/such/place")), "place");
    }
}
