//! The pairs that a GGUF file states about its architecture, and which of them are known.

use crate::{ExportError, Result};
use candle_core::quantized::gguf_file::Value as Gguf;
use std::collections::BTreeMap;

/// Keys of an architecture that are read, or that change nothing in the mathematics.
const KNOWN: [&str; 26] = [
    "attention.head_count",
    "attention.head_count_kv",
    "attention.key_length",
    "attention.layer_norm_rms_epsilon",
    "attention.sliding_window",
    "attention.value_length",
    "block_count",
    "context_length",
    "embedding_length",
    "expert_count",
    "expert_used_count",
    "feed_forward_length",
    "rope.dimension_count",
    "rope.freq_base",
    "rope.scaling.attn_factor",
    "rope.scaling.factor",
    "rope.scaling.finetuned",
    "rope.scaling.original_context_length",
    "rope.scaling.type",
    "rope.scaling.yarn_attn_factor",
    "rope.scaling.yarn_beta_fast",
    "rope.scaling.yarn_beta_slow",
    "rope.scaling.yarn_ext_factor",
    "rope.scale_linear",
    "tensor_data_layout",
    "vocab_size",
];

/// The pairs of one architecture, by the rest of their names.
pub(super) struct Pairs<'a> {
    pub all: &'a BTreeMap<String, Gguf>,
    pub architecture: &'a str,
}

impl Pairs<'_> {
    pub fn get(&self, key: &str) -> Option<&Gguf> {
        self.all.get(&format!("{}.{key}", self.architecture))
    }

    pub fn absent(&self, key: &str) -> ExportError {
        ExportError::Unsupported(format!(
            "the GGUF file has no usable `{}.{key}`",
            self.architecture
        ))
    }

    /// A whole number that must be there.
    pub fn whole(&self, key: &str) -> Result<u64> {
        self.maybe_whole(key)?.ok_or_else(|| self.absent(key))
    }

    /// Absent, or a whole number.
    pub fn maybe_whole(&self, key: &str) -> Result<Option<u64>> {
        let Some(value) = self.get(key) else { return Ok(None) };
        let whole = value.to_u64().or_else(|_| value.to_u32().map(u64::from)).ok();
        whole
            .or_else(|| u64::try_from(value.to_i32().ok()?).ok())
            .map(Some)
            .ok_or_else(|| self.absent(key))
    }

    /// Absent, or a number.
    pub fn maybe_real(&self, key: &str) -> Result<Option<f64>> {
        let Some(value) = self.get(key) else { return Ok(None) };
        value.to_f32().map(|v| Some(exact(v))).map_err(|_| self.absent(key))
    }

    /// Refuses keys that are not known and values that would have to change the mathematics.
    pub fn check(&self, head_dim: u64) -> Result<()> {
        let own =
            self.all.keys().filter_map(|k| k.strip_prefix(self.architecture)?.strip_prefix('.'));
        let refuse = |key: &str, why: &str| {
            Err(ExportError::Unsupported(format!(
                "the GGUF file's `{}.{key}` {why}",
                self.architecture
            )))
        };
        for key in own {
            if !KNOWN.contains(&key) {
                return refuse(key, "is not known here and may change the mathematics");
            }
        }
        if self.maybe_whole("expert_count")?.is_some_and(|n| n > 0) {
            return refuse(
                "expert_count",
                "says that it is a mixture of experts: only dense GGUF files are read",
            );
        }
        for key in ["attention.key_length", "attention.value_length", "rope.dimension_count"] {
            if self.maybe_whole(key)?.is_some_and(|width| width != head_dim) {
                return refuse(
                    key,
                    &format!(
                        "is not the heads' width of {head_dim}: only heads rotated whole are known"
                    ),
                );
            }
        }
        for key in [
            "rope.scaling.attn_factor",
            "rope.scaling.yarn_attn_factor",
            "rope.scaling.yarn_ext_factor",
            "rope.scale_linear",
        ] {
            if self.maybe_real(key)?.is_some_and(|factor| factor != 1.0) {
                return refuse(key, "is not 1, which is not known here");
            }
        }
        Ok(())
    }

    /// `sliding_window`, where it is narrower than the context.
    pub fn window(&self, context: u64) -> Result<Option<u64>> {
        let window =
            self.maybe_whole("attention.sliding_window")?.filter(|w| *w > 0 && *w < context);
        if window.is_some() && self.architecture != "llama" {
            let key = format!("{}.attention.sliding_window", self.architecture);
            return Err(ExportError::Unsupported(format!(
                "`{key}` does not say which layers slide: it is not known here"
            )));
        }
        Ok(window)
    }
}

/// The shortest decimal of an f32, as f64: 1e-5 instead of 9.99999974e-6.
pub(super) fn exact(value: f32) -> f64 {
    value.to_string().parse().unwrap_or(f64::from(value))
}
