//! The names of tensors, where files and families differ.

use crate::checkpoint::Checkpoint;

/// The embedding's tensor.
pub(crate) const EMBEDDING: &str = "model.embed_tokens.weight";
/// The output head's, where it is one of its own.
pub(crate) const HEAD: &str = "lm_head.weight";

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
}
