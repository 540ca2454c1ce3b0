//! PEFT's `adapter_config.json`, which lies in the header of an adapter's blob and beside the
//! tensors in a release.

use serde::{Deserialize, Serialize};
use uspx_domain::Fingerprint;
use uspx_model::taps::Projection;

/// What `peft` needs to know of an adapter, under PEFT's own keys. Keys left out have PEFT's
/// defaults.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PeftConfig {
    /// The kind of adapter: `LORA`.
    pub peft_type: String,
    /// What the model does: `CAUSAL_LM`.
    pub task_type: String,
    /// The base. Here its fingerprint: its folder's name means nothing on another machine.
    pub base_model_name_or_path: String,
    /// Rank of the matrices.
    pub r: u32,
    /// LoRA's alpha; the product is scaled by alpha / rank.
    pub lora_alpha: f32,
    /// Dropout in training: none.
    pub lora_dropout: f32,
    /// The linear maps that have an adapter, by the last part of their names.
    pub target_modules: Vec<String>,
    /// Biases that were trained: `none`.
    pub bias: String,
    /// Whether weights lie as `[in, out]`: they do not.
    pub fan_in_fan_out: bool,
    /// Loaded to be used, not to be trained on.
    pub inference_mode: bool,
}

impl PeftConfig {
    /// An adapter on every dense linear map of `base`.
    pub fn dense(base: Fingerprint, rank: u32, alpha: f32) -> Self {
        let last = |p: Projection| p.path(0).rsplit('.').next().unwrap_or_default().to_owned();
        Self {
            peft_type: "LORA".into(),
            task_type: "CAUSAL_LM".into(),
            base_model_name_or_path: base.to_string(),
            r: rank,
            lora_alpha: alpha,
            lora_dropout: 0.0,
            target_modules: Projection::DENSE.map(last).to_vec(),
            bias: "none".into(),
            fan_in_fan_out: false,
            inference_mode: true,
        }
    }
}
