//! What a changed configuration changes, in lines for a person: `mask.keep: 0.5 → 0.4`, and how
//! many prompts came and went.

use serde_json::Value;
use std::collections::BTreeSet;
use uspx_colony::{CampaignConfig, PromptEntry, Split};
use uspx_domain::Digest;

/// Longer values are not spelt out.
const LONGEST: usize = 40;

/// What `new` changes of `old`.
pub(crate) fn changes(old: &CampaignConfig, new: &CampaignConfig) -> Vec<String> {
    let settings = |config: &CampaignConfig| {
        let bare = CampaignConfig { prompts: Vec::new(), ..config.clone() };
        serde_json::to_value(bare).unwrap_or(Value::Null)
    };
    let mut lines = Vec::new();
    for (split, name) in
        [(Split::Train, "training"), (Split::Validation, "validation"), (Split::Gate, "gate")]
    {
        lines.extend(prompts(old, new, split, name));
    }
    compare("", &settings(old), &settings(new), &mut lines);
    lines
}

/// Prompts that came into a split and went out of it; an edited one does both.
fn prompts(old: &CampaignConfig, new: &CampaignConfig, split: Split, name: &str) -> Option<String> {
    let of = |config: &CampaignConfig| -> BTreeSet<(String, Digest)> {
        let key = |p: &PromptEntry| (p.id.clone(), p.digest);
        config.prompts.iter().filter(|p| p.split == split).map(key).collect()
    };
    let (old, new) = (of(old), of(new));
    let (more, fewer) = (new.difference(&old).count(), old.difference(&new).count());
    (more + fewer > 0).then(|| format!("{name} prompts: {more} new, {fewer} gone"))
}

fn compare(path: &str, old: &Value, new: &Value, lines: &mut Vec<String>) {
    let (Value::Object(a), Value::Object(b)) = (old, new) else {
        if old != new {
            lines.push(format!("{path}: {} → {}", shown(old), shown(new)));
        }
        return;
    };
    let keys: BTreeSet<&String> = a.keys().chain(b.keys()).collect();
    for key in keys {
        let inner = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
        let at = |map: &serde_json::Map<String, Value>| map.get(key).cloned().unwrap_or_default();
        compare(&inner, &at(a), &at(b), lines);
    }
}

fn shown(value: &Value) -> String {
    match value {
        Value::Null => "none".to_owned(),
        Value::String(text) => text.clone(),
        other => {
            let text = other.to_string();
            if text.chars().count() > LONGEST { "(long)".to_owned() } else { text }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use uspx_domain::{Fingerprint, LayerShape, MlpShape, ModelShape};

    #[test]
    fn settings_are_named_by_their_key_and_prompts_are_counted() {
        let shape = ModelShape::uniform(1, LayerShape::new(1, MlpShape::Dense { channels: 4 }));
        let model = Fingerprint(Digest::of(b"m"));
        let entry = |id: &str, text: &str, split| PromptEntry {
            id: id.into(),
            digest: Digest::of(text.as_bytes()),
            split,
            tags: vec![],
            generation: 0,
        };
        let prompts = vec![entry("a", "1", Split::Train), entry("b", "2", Split::Gate)];
        let old = CampaignConfig::new("c", (model, shape), model, prompts);
        assert!(changes(&old, &old).is_empty());
        let mut new = old.clone();
        new.prompts = vec![
            entry("a", "edited", Split::Train),
            entry("n", "3", Split::Train),
            entry("b", "2", Split::Gate),
        ];
        (new.probe.exact_pairs, new.student) = (9, None);
        let lines = changes(&old, &new);
        assert_eq!(lines[0], "training prompts: 2 new, 1 gone");
        assert_eq!(lines[1], format!("probe.exact_pairs: {} → 9", old.probe.exact_pairs));
        assert!(lines[2].starts_with("student: ") && lines[2].ends_with(" → none"), "{lines:?}");
        assert_eq!(lines.len(), 3);
        new.distil.recipes[0].epochs += 1;
        assert_eq!(changes(&old, &new)[1], "distil.recipes: (long) → (long)");
    }
}
