//! What models are called, for people, as far as workers say it. Hashes decide; a name only stands
//! beside one.

use std::collections::BTreeMap;
use uspx_domain::Fingerprint;
use uspx_wire::HeldModel;

/// The longest name that is repeated.
const LONGEST: usize = 96;

/// Names by model.
#[derive(Debug, Clone, Default)]
pub(crate) struct Names(BTreeMap<Fingerprint, String>);

impl Names {
    /// Takes what a worker says of a model; the first that names one counts. Workers are not
    /// believed: what could be anything but a name is passed over.
    pub(crate) fn hear(&mut self, held: &HeldModel) {
        if let Some(name) = held.name.as_ref().filter(|name| is_plain(name)) {
            self.0.entry(held.fingerprint).or_insert_with(|| name.clone());
        }
    }

    /// What a model is called, where that is known.
    pub(crate) fn of(&self, model: Fingerprint) -> Option<&str> {
        self.0.get(&model).map(String::as_str)
    }
}

/// Letters, digits and a few signs; no path from the root, no markup.
fn is_plain(name: &str) -> bool {
    let fits = |c: char| c.is_alphanumeric() || matches!(c, '-' | '_' | '.' | '/' | ' ');
    let begins = name.chars().next().is_some_and(char::is_alphanumeric);
    begins && name.len() <= LONGEST && name.chars().all(fits)
}

/// How a release is fetched from a store. A folder's path means nothing elsewhere, and is nobody's
/// business: it is left for the reader to fill in.
pub(crate) fn pull_command(store: &str) -> String {
    let elsewhere = store.contains("://") && !store.starts_with("file:");
    format!("uspx pull {}", if elsewhere { store } else { "STORE" })
}

#[cfg(test)]
mod tests {
    use super::*;
    use uspx_domain::{Digest, ModelShape};

    fn held(name: Option<&str>) -> HeldModel {
        HeldModel {
            fingerprint: Fingerprint(Digest::of(b"model")),
            architecture: "Test".into(),
            name: name.map(str::to_owned),
            shape: ModelShape { layers: vec![] },
        }
    }

    #[test]
    fn the_first_name_counts_and_is_no_more_than_a_name() {
        let heard = |names: &[Option<&str>]| {
            let mut all = Names::default();
            names.iter().for_each(|name| all.hear(&held(*name)));
            all.of(held(None).fingerprint).map(str::to_owned)
        };
        assert_eq!(heard(&[None]), None);
        assert_eq!(heard(&[Some("Qwen/Qwen3-0.6B"), Some("other")]).unwrap(), "Qwen/Qwen3-0.6B");
        let long = "x".repeat(97);
        for bad in ["", "/home/me/model", "[x](http://y)", "a\nb", "`", long.as_str()] {
            assert_eq!(heard(&[Some(bad)]), None, "{bad:?}");
        }
    }

    #[test]
    fn a_folder_is_not_told() {
        assert_eq!(pull_command("s3://bucket/uspx"), "uspx pull s3://bucket/uspx");
        assert_eq!(pull_command("/home/me/store"), "uspx pull STORE");
        assert_eq!(pull_command("file:///home/me/store"), "uspx pull STORE");
    }
}
