//! Which models of the campaign a worker lacks, and what to do about it.

use crate::registry::Registry;
use uspx_colony::State;
use uspx_domain::{Fingerprint, WorkerId};

/// A model of the campaign that a worker lacks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lacking {
    /// Which of the two it is: `teacher` or `student`.
    pub part: &'static str,
    /// Which model.
    pub model: Fingerprint,
    /// What kind it is, where another worker holds it.
    pub architecture: Option<String>,
}

impl Lacking {
    /// What to do about it.
    pub fn remedy(&self) -> String {
        let kind = self.architecture.as_ref().map_or(String::new(), |kind| format!(", {kind}"));
        let Self { part, model, .. } = self;
        format!(
            "it gets no work on the {part}: start it with the {part}'s folder in --models (model {model}{kind})"
        )
    }
}

/// The live workers that lack a model of the campaign, by name, each with what it lacks; none
/// before a campaign has begun.
pub fn lacking(state: &State, registry: &Registry) -> Vec<(WorkerId, Vec<Lacking>)> {
    let Some(campaign) = state.campaign() else { return Vec::new() };
    let known = registry.models();
    let of = |part: &'static str, model: Fingerprint| Lacking {
        part,
        model,
        architecture: known.get(&model).map(|(kind, _)| kind.clone()),
    };
    let mut needed = vec![of("teacher", campaign.teacher)];
    needed.extend(campaign.student.map(|student| of("student", student)));
    let lacks = |(worker, live): (WorkerId, crate::registry::Live)| {
        let holds =
            |model: Fingerprint| live.heartbeat.models.iter().any(|m| m.fingerprint == model);
        let lacks: Vec<Lacking> = needed.iter().filter(|n| !holds(n.model)).cloned().collect();
        (!lacks.is_empty()).then_some((worker, lacks))
    };
    registry.all().into_iter().filter_map(lacks).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use uspx_colony::{CampaignConfig, Colony, PromptEntry, Split};
    use uspx_domain::{Digest, LayerShape, MlpShape, ModelShape, Prompt, Speaks};
    use uspx_wire::{HeartbeatMessage, HeldModel};

    fn model(name: &str) -> Fingerprint {
        Fingerprint(Digest::of(name.as_bytes()))
    }

    fn shape() -> ModelShape {
        let mlp = MlpShape::Experts { experts: 4, top_k: 1, channels: 8 };
        ModelShape::uniform(1, LayerShape::new(1, mlp))
    }

    fn heartbeat(worker: &str, models: &[&str]) -> HeartbeatMessage {
        let held = |name: &&str| HeldModel {
            fingerprint: model(name),
            architecture: "Test".into(),
            name: None,
            shape: shape(),
        };
        HeartbeatMessage {
            worker: worker.parse().unwrap(),
            uspx_version: "0".into(),
            speaks: Speaks::here(),
            reads: HeartbeatMessage::read_here(),
            models: models.iter().map(held).collect(),
            threads: 1,
            memory_bytes: 1,
            device: "cpu".into(),
            current: None,
            beats: None,
            speed: None,
        }
    }

    fn begun() -> Colony {
        let entry = |(id, split)| {
            let (id, prompt) = (String::from(id), "x".into());
            let (reference, system, earlier, tags) = (None, None, vec![], vec![]);
            let prompt = Prompt { id, prompt, reference, system, earlier, tags };
            PromptEntry::of(&prompt, split)
        };
        let prompts = [("t", Split::Train), ("v", Split::Validation), ("g", Split::Gate)];
        let prompts = prompts.into_iter().map(entry).collect();
        let config =
            CampaignConfig::new("c", (model("teacher"), shape()), model("student"), prompts);
        let mut colony = Colony::default();
        colony.want(config, [0; 16]).unwrap();
        colony
    }

    #[test]
    fn each_worker_is_named_with_the_models_that_it_lacks() {
        let registry = Registry::default();
        registry.hear(heartbeat("both", &["teacher", "student"]));
        registry.hear(heartbeat("one", &["student", "another"]));
        registry.hear(heartbeat("none", &[]));
        assert!(lacking(&State::default(), &registry).is_empty(), "there is no campaign yet");
        let colony = begun();
        let found = lacking(colony.state(), &registry);
        let parts: Vec<(&str, Vec<&str>)> = found
            .iter()
            .map(|(worker, lacks)| (worker.as_str(), lacks.iter().map(|l| l.part).collect()))
            .collect();
        assert_eq!(parts, [("none", vec!["teacher", "student"]), ("one", vec!["teacher"])]);
        let remedy = found[1].1[0].remedy();
        assert!(remedy.contains("--models") && remedy.contains("Test"), "{remedy}");
    }
}
