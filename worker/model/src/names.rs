//! The names of tensors, where files and families differ.

use crate::checkpoint::Checkpoint;
use crate::config::Mixture;

/// The embedding's tensor.
pub(crate) const EMBEDDING: &str = "model.embed_tokens.weight";
/// The output head's, where it is one of its own.
pub(crate) const HEAD: &str = "lm_head.weight";

/// What stands before a layer's number.
const LAYERS: &str = "model.layers.";

/// A tensor's layer, and what it is called within it; none for one that is of no layer.
pub fn in_layer(name: &str) -> Option<(usize, &str)> {
    let (number, within) = name.strip_prefix(LAYERS)?.split_once('.')?;
    Some((number.parse().ok()?, within))
}

/// The name of a layer's tensor.
pub fn of_layer(layer: usize, within: &str) -> String {
    format!("{LAYERS}{layer}.{within}")
}

/// How a layer's experts are called.
#[derive(Debug)]
pub(crate) struct ExpertNames {
    /// The router's path.
    pub router: String,
    /// The path before an expert's number, or of the stacked tensors.
    pub experts: String,
    /// All experts in one tensor.
    pub stacked: bool,
    /// gate, up and down of an expert with tensors of its own.
    pub parts: [&'static str; 3],
}

impl ExpertNames {
    pub fn find(checkpoint: &Checkpoint, layer: usize) -> Self {
        let at = |rest: &str| format!("model.layers.{layer}.{rest}");
        let mixtral = checkpoint.has(&at("block_sparse_moe.gate.weight"));
        let block = at(if mixtral { "block_sparse_moe" } else { "mlp" });
        let router = ["router", "gate"].map(|name| format!("{block}.{name}"));
        let [router, gate] = router;
        let router = if checkpoint.has(&format!("{router}.weight")) { router } else { gate };
        let experts = format!("{block}.experts");
        let stacked = ["", "_blocks"]
            .iter()
            .any(|end| checkpoint.has(&format!("{experts}.gate_up_proj{end}")));
        let parts =
            if mixtral { ["w1", "w3", "w2"] } else { ["gate_proj", "up_proj", "down_proj"] };
        Self { router, experts, stacked, parts }
    }

    /// The tensors of a layer's router and experts that the model may have, by name: in a file are
    /// some of them.
    pub fn tensors(&self, mixture: &Mixture) -> Vec<(String, ExpertPart)> {
        let router = &self.router;
        let mut found = vec![(format!("{router}.weight"), ExpertPart::Entries)];
        if mixture.bias {
            found.push((format!("{router}.bias"), ExpertPart::RouterBias));
        }
        if self.stacked {
            let stacks = self.stacks(mixture).into_iter();
            found.extend(stacks.map(|name| (name, ExpertPart::Entries)));
        } else {
            let all = (0..mixture.experts).flat_map(|expert| self.own(expert, mixture));
            found.extend(all.map(|own| (own.name(), ExpertPart::Own(own))));
        }
        found
    }

    /// The names of the tensors that hold all experts of the layer.
    fn stacks(&self, mixture: &Mixture) -> Vec<String> {
        let ends: &[&str] = match mixture.bias {
            true => &["", "_blocks", "_scales", "_bias"],
            false => &["", "_blocks", "_scales"],
        };
        let parts = ["gate_up_proj", "down_proj"].into_iter();
        parts
            .flat_map(|part| ends.iter().map(move |end| format!("{}.{part}{end}", self.experts)))
            .collect()
    }

    /// An expert's tensors, each of which is its alone.
    fn own(&self, expert: usize, mixture: &Mixture) -> Vec<OwnTensor> {
        let ends: &[&str] = if mixture.bias { &["weight", "bias"] } else { &["weight"] };
        let mut tensors = Vec::new();
        for part in self.parts {
            for end in ends {
                let rest = format!("{part}.{end}");
                tensors.push(OwnTensor { expert, stem: self.experts.clone(), rest });
            }
        }
        tensors
    }
}

/// A tensor of a layer's router or experts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExpertTensor {
    /// The layer.
    pub layer: usize,
    /// What it holds of it.
    pub part: ExpertPart,
}

/// What a tensor holds of a layer's router and experts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ExpertPart {
    /// `[experts, ..]`: each entry of the first dimension is an expert's.
    Entries,
    /// `[experts]`: what the router adds to each expert's logit; -∞ says that it is never chosen.
    RouterBias,
    /// One expert's alone.
    Own(OwnTensor),
}

/// The tensor of one expert, which has the expert's number in its name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OwnTensor {
    /// The number.
    pub expert: usize,
    /// What stands before it.
    stem: String,
    /// What follows it.
    rest: String,
}

impl OwnTensor {
    /// Its name.
    pub fn name(&self) -> String {
        self.renumbered(self.expert)
    }

    /// Its name, had the expert another number.
    pub fn renumbered(&self, expert: usize) -> String {
        format!("{}.{expert}.{}", self.stem, self.rest)
    }
}
