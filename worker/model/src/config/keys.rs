//! What becomes of every key of a `config.json`: it is used, it has no effect here (and why), or
//! only a neutral value is accepted. A key that no row names is unknown, and named in a warning.
//!
//! The rows are those of transformers 5's configuration classes, of what published files hold
//! besides, and of other families' keys that would change the mathematics. The first row that names
//! a key and a family counts.

use super::families::Family;
use super::role::{Neutral, Role, check_neutral};
use super::rope;
use super::values::Keys;
use crate::ModelError;

use Family::{GptOss, Llama, Mistral, Mixtral, Qwen2, Qwen3, Qwen3Moe};
use Neutral::{Empty, Flag, Null, Number, Text};
use Role::{NoEffect, Only, Used, UsedUnless};

struct Row {
    keys: &'static [&'static str],
    of: &'static [Family],
    role: Role,
}

const fn row(role: Role, of: &'static [Family], keys: &'static [&'static str]) -> Row {
    Row { keys, of, role }
}

const ALL: &[Family] = &Family::ALL;
const MIXTURES: &[Family] = &[GptOss, Mixtral, Qwen3Moe];
const DENSE: &[Family] = &[Llama, Mistral, Qwen2, Qwen3];
const QWENS: &[Family] = &[Qwen2, Qwen3, Qwen3Moe];

const TRAINING: &str = "only while a model is trained";
const GENERATION: &str = "about generation: generation_config.json says it";
const TOKEN: &str =
    "a token's number: the tokenizer's files and the list of end tokens decide, not the network";
const OUTPUTS: &str = "about what transformers returns, not about its values";
const CLASSES: &str = "about heads for classification, which are not used";
const ORIGIN: &str = "where the file comes from";

const ROWS: &[Row] = &[
    // What is used.
    row(
        Used,
        ALL,
        &[
            "model_type",
            "hidden_size",
            "num_hidden_layers",
            "num_attention_heads",
            "num_key_value_heads",
        ],
    ),
    row(
        Used,
        ALL,
        &["vocab_size", "rms_norm_eps", "tie_word_embeddings", "head_dim", "quantization_config"],
    ),
    row(UsedUnless("YaRN stretches the context further"), ALL, &["max_position_embeddings"]),
    row(
        UsedUnless("every layer has experts, which moe_intermediate_size sizes"),
        &[Qwen3Moe],
        &["intermediate_size"],
    ),
    row(Used, ALL, &["intermediate_size"]),
    row(UsedUnless("rope_scaling or rope_parameters hold one themselves"), ALL, &["rope_theta"]),
    row(Used, ALL, &["rope_scaling"]),
    row(UsedUnless("rope_scaling is not empty"), ALL, &["rope_parameters"]),
    row(
        UsedUnless("neither YaRN nor Llama 3's stretching is asked for"),
        ALL,
        &["original_max_position_embeddings"],
    ),
    row(Used, &[GptOss, Llama, Qwen3, Qwen3Moe], &["attention_bias"]),
    row(
        UsedUnless("no layer slides"),
        &[GptOss, Mistral, Mixtral, Qwen2, Qwen3, Qwen3Moe],
        &["sliding_window"],
    ),
    row(UsedUnless("sliding_window is null"), QWENS, &["use_sliding_window"]),
    row(
        UsedUnless("layer_types says it, or use_sliding_window is false"),
        &[Qwen2, Qwen3],
        &["max_window_layers"],
    ),
    row(UsedUnless("it says what the other keys do"), &[GptOss, Qwen2, Qwen3], &["layer_types"]),
    // The classes have no such key; a file that names it must mean what they do.
    row(
        UsedUnless("it says what sliding_window does"),
        &[Llama, Mistral, Mixtral, Qwen3Moe],
        &["layer_types"],
    ),
    row(Used, MIXTURES, &["num_local_experts", "num_experts"]),
    row(Used, MIXTURES, &["num_experts_per_tok", "experts_per_token"]),
    row(Used, &[GptOss], &["swiglu_alpha", "swiglu_limit"]),
    row(
        UsedUnless("no layer has experts"),
        &[Qwen3Moe],
        &["moe_intermediate_size", "norm_topk_prob"],
    ),
    row(Used, &[Qwen3Moe], &["decoder_sparse_step", "mlp_only_layers"]),
    // What has no effect here.
    row(
        NoEffect(TRAINING),
        ALL,
        &["attention_dropout", "initializer_range", "router_aux_loss_coef"],
    ),
    row(
        NoEffect(TRAINING),
        ALL,
        &["output_router_logits", "router_jitter_noise", "hidden_dropout", "resid_pdrop"],
    ),
    row(
        NoEffect("it splits sums that come out the same"),
        ALL,
        &["pretraining_tp", "chunk_size_feed_forward"],
    ),
    row(NoEffect("a cache makes decoding faster, not other"), ALL, &["use_cache"]),
    row(
        NoEffect("weights carry their own type; --dtype says what is computed in"),
        ALL,
        &["dtype", "torch_dtype"],
    ),
    row(
        NoEffect(TOKEN),
        ALL,
        &["bos_token_id", "eos_token_id", "pad_token_id", "sep_token_id", "tokenizer_class"],
    ),
    row(
        NoEffect(OUTPUTS),
        ALL,
        &["output_hidden_states", "output_attentions", "return_dict", "use_return_dict"],
    ),
    row(
        NoEffect(CLASSES),
        ALL,
        &["id2label", "label2id", "num_labels", "problem_type", "classifier_dropout"],
    ),
    row(NoEffect(CLASSES), ALL, &["finetuning_task", "task_specific_params", "prefix"]),
    row(
        NoEffect(ORIGIN),
        ALL,
        &["transformers_version", "_name_or_path", "name_or_path", "_commit_hash"],
    ),
    row(NoEffect(ORIGIN), ALL, &["unsloth_version", "unsloth_fixed", "transformers.js_config"]),
    row(NoEffect("model_type names the architecture"), ALL, &["architectures"]),
    row(
        NoEffect("code beside a model is never run: model_type names the architecture"),
        ALL,
        &["auto_map"],
    ),
    row(
        NoEffect("how transformers computes attention and experts, not what"),
        ALL,
        &[
            "attn_implementation",
            "experts_implementation",
            "_attn_implementation",
            "_attn_implementation_autoset",
            "_attn_implementation_internal",
            "_experts_implementation_internal",
        ],
    ),
    row(NoEffect("every model here is a decoder"), ALL, &["is_decoder"]),
    row(NoEffect("rope_scaling says the trained context"), &[GptOss], &["initial_context_length"]),
    row(
        NoEffect("queries, keys and values have a bias here, outputs never"),
        &[Qwen2],
        &["attention_bias"],
    ),
    row(
        NoEffect("the class has no such key: a window holds for every layer"),
        &[Qwen3Moe],
        &["max_window_layers"],
    ),
    row(
        NoEffect("TensorFlow's and old PyTorch's"),
        ALL,
        &["use_bfloat16", "torchscript", "tf_legacy_loss"],
    ),
    row(
        NoEffect(GENERATION),
        ALL,
        &[
            "max_length",
            "min_length",
            "max_new_tokens",
            "do_sample",
            "early_stopping",
            "num_beams",
            "num_beam_groups",
            "diversity_penalty",
            "temperature",
            "top_k",
            "top_p",
            "typical_p",
            "repetition_penalty",
            "length_penalty",
            "no_repeat_ngram_size",
            "encoder_no_repeat_ngram_size",
            "encoder_repetition_penalty",
            "bad_words_ids",
            "num_return_sequences",
            "output_scores",
            "return_dict_in_generate",
            "forced_bos_token_id",
            "forced_eos_token_id",
            "remove_invalid_values",
            "exponential_decay_length_penalty",
            "suppress_tokens",
            "begin_suppress_tokens",
            "epsilon_cutoff",
            "eta_cutoff",
            "num_assistant_tokens",
            "num_assistant_tokens_schedule",
            "assistant_confidence_threshold",
            "assistant_lookbehind",
            "target_lookbehind",
            "decoder_start_token_id",
        ],
    ),
    // What is accepted with a neutral value only.
    row(Only(&[Text("silu"), Text("swish")]), ALL, &["hidden_act", "hidden_activation"]),
    row(
        Only(&[Flag(false)]),
        ALL,
        &["attention_bias", "mlp_bias", "qk_layernorm", "use_qk_norm", "alibi", "use_mrope"],
    ),
    row(
        Only(&[Flag(false)]),
        ALL,
        &["is_encoder_decoder", "add_cross_attention", "tie_encoder_decoder"],
    ),
    row(
        Only(&[Flag(false)]),
        ALL,
        &["rope_interleaved", "rope_interleave", "use_bidirectional_attention"],
    ),
    row(Only(&[Flag(true)]), ALL, &["is_causal"]),
    row(Only(&[Flag(false)]), &[Llama], &["use_sliding_window"]),
    row(Only(&[Flag(true)]), &[GptOss, Mistral, Mixtral], &["use_sliding_window"]),
    row(Only(&[Flag(true)]), &[GptOss, Mixtral], &["norm_topk_prob"]),
    row(Only(&[Number(1.0)]), &[GptOss, Mixtral], &["decoder_sparse_step"]),
    row(Only(&[Empty]), &[GptOss, Mixtral], &["mlp_only_layers"]),
    row(Only(&[Number(0.0)]), DENSE, &["num_experts", "num_local_experts"]),
    row(Only(&[Number(0.0)]), ALL, &["n_routed_experts", "n_shared_experts", "num_shared_experts"]),
    row(
        Only(&[Number(0.0)]),
        ALL,
        &["shared_expert_intermediate_size", "shared_intermediate_size"],
    ),
    row(
        Only(&[Number(1.0)]),
        ALL,
        &["partial_rotary_factor", "embedding_multiplier", "residual_multiplier"],
    ),
    row(Only(&[Number(1.0)]), ALL, &["logit_scale", "logits_scaling"]),
    row(Only(&[Empty]), ALL, &["no_rope_layers", "pruned_heads", "per_layer_config"]),
    row(Only(&[Null]), ALL, &["sliding_window", "attention_multiplier", "attention_chunk_size"]),
    row(
        Only(&[Null]),
        ALL,
        &["attn_logit_softcapping", "final_logit_softcapping", "query_pre_attn_scalar"],
    ),
    row(
        Only(&[Null]),
        ALL,
        &["cross_attention_hidden_size", "compression_config", "rope_local_base_freq"],
    ),
    row(Only(&[Null]), ALL, &["swiglu_alpha", "swiglu_limit", "transformers_weights"]),
];

/// What becomes of a family's key; `None` for one that nobody knows. Keys of `rope_scaling` and
/// `rope_parameters` are named with a dot before them: `.factor`.
pub fn role(family: Family, key: &str) -> Option<Role> {
    if let Some(inner) = key.strip_prefix('.') {
        return rope::role(inner);
    }
    ROWS.iter().find(|row| row.of.contains(&family) && row.keys.contains(&key)).map(|row| row.role)
}

/// Refuses what only a neutral value is accepted of.
pub(super) fn check(family: Family, keys: &Keys<'_>) -> Result<(), ModelError> {
    for name in keys.names() {
        if let (Some(Only(neutral)), Some(value)) = (role(family, name), keys.get(name)) {
            check_neutral(&keys.path(name), value, neutral)?;
        }
    }
    Ok(())
}

/// The keys of a file that nobody here knows, sorted.
pub(super) fn unknown(family: Family, keys: &Keys<'_>) -> Vec<String> {
    keys.names().filter(|name| role(family, name).is_none()).map(|name| keys.path(name)).collect()
}
