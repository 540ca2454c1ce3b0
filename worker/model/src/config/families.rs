//! The families of models, and what each one's configuration class in transformers 5 takes for a
//! key that is missing.

/// A family, by `model_type`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    /// gpt-oss.
    GptOss,
    /// Llama 1 to 3.
    Llama,
    /// Mistral.
    Mistral,
    /// Mixtral.
    Mixtral,
    /// Qwen 2 and 2.5.
    Qwen2,
    /// Qwen 3.
    Qwen3,
    /// Qwen 3 with experts.
    Qwen3Moe,
}

/// What a class takes for keys that are missing. The five dimensions that no checkpoint can do
/// without (`hidden_size`, `intermediate_size`, `num_hidden_layers`, `num_attention_heads`,
/// `vocab_size`) have defaults in transformers too, those of the family's first model; here they
/// are demanded.
pub(super) struct Defaults {
    /// `num_key_value_heads`; `None`: as many as query heads.
    pub kv_heads: Option<usize>,
    /// `head_dim`; `None`: hidden_size / num_attention_heads.
    pub head_dim: Option<usize>,
    /// `max_position_embeddings`.
    pub context: usize,
    /// `rms_norm_eps`.
    pub eps: f64,
    /// `rope_theta`.
    pub theta: f64,
    /// `sliding_window`.
    pub window: Option<usize>,
    /// `num_local_experts` or `num_experts`; 0 in dense families.
    pub experts: usize,
    /// `num_experts_per_tok`.
    pub top_k: usize,
}

/// `max_window_layers` of Qwen 2 and 3.
pub(super) const MAX_WINDOW_LAYERS: usize = 28;
/// `moe_intermediate_size` of Qwen 3 with experts.
pub(super) const MOE_INNER: usize = 768;
/// gpt-oss's gated unit. transformers 5 has both numbers in its code; the files of some checkpoints
/// name them.
pub(super) const SWIGLU_ALPHA: f64 = 1.702;
/// Its clamp.
pub(super) const SWIGLU_LIMIT: f64 = 7.0;

const QWEN: Defaults = Defaults {
    kv_heads: Some(32),
    head_dim: None,
    context: 32_768,
    eps: 1e-6,
    theta: 10_000.0,
    window: Some(4096),
    experts: 0,
    top_k: 0,
};
const LLAMA: Defaults = Defaults { kv_heads: None, context: 2048, window: None, ..QWEN };
const MISTRAL: Defaults = Defaults { kv_heads: Some(8), context: 131_072, ..QWEN };
const MIXTRAL: Defaults =
    Defaults { eps: 1e-5, theta: 1_000_000.0, window: None, experts: 8, top_k: 2, ..MISTRAL };
const QWEN3: Defaults = Defaults { head_dim: Some(128), ..QWEN };
const QWEN3_MOE: Defaults = Defaults { kv_heads: Some(4), experts: 128, top_k: 8, ..QWEN };
const GPT_OSS: Defaults = Defaults {
    kv_heads: Some(8),
    head_dim: Some(64),
    context: 131_072,
    eps: 1e-5,
    theta: 150_000.0,
    window: Some(128),
    experts: 128,
    top_k: 4,
};

impl Family {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::GptOss,
        Self::Llama,
        Self::Mistral,
        Self::Mixtral,
        Self::Qwen2,
        Self::Qwen3,
        Self::Qwen3Moe,
    ];

    /// The family that `model_type` names.
    pub fn named(model_type: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|f| f.name() == model_type)
    }

    /// Its `model_type`.
    pub fn name(self) -> &'static str {
        match self {
            Self::GptOss => "gpt_oss",
            Self::Llama => "llama",
            Self::Mistral => "mistral",
            Self::Mixtral => "mixtral",
            Self::Qwen2 => "qwen2",
            Self::Qwen3 => "qwen3",
            Self::Qwen3Moe => "qwen3_moe",
        }
    }

    pub(super) fn defaults(self) -> &'static Defaults {
        match self {
            Self::GptOss => &GPT_OSS,
            Self::Llama => &LLAMA,
            Self::Mistral => &MISTRAL,
            Self::Mixtral => &MIXTRAL,
            Self::Qwen2 => &QWEN,
            Self::Qwen3 => &QWEN3,
            Self::Qwen3Moe => &QWEN3_MOE,
        }
    }
}
