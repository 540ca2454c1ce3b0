//! `llama.*` keys from a config.json, and a config.json from the keys of any architecture that is read.

use crate::hf;
use crate::{ExportError, Result};
use candle_core::quantized::gguf_file::Value as Gguf;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::f64::consts::PI;
use uspx_model::config::{ModelConfig, Rope, RopeScaling};

/// Our own key: the parameters behind `rope_freqs.weight`, which holds only what comes of them. Others ignore it.
const SCALING: &str = "uspx.rope_scaling";

fn lacks(key: &str) -> ExportError {
    ExportError::Unsupported(format!("config.json has no `{key}`"))
}

fn number(config: &Value, key: &str) -> Result<u64> {
    config.get(key).and_then(Value::as_u64).ok_or_else(|| lacks(key))
}

fn small(config: &Value, key: &str) -> Result<Gguf> {
    Ok(Gguf::U32(u32::try_from(number(config, key)?).map_err(|_| lacks(key))?))
}

/// Query heads and KV heads.
///
/// # Errors
/// [`ExportError::Unsupported`] where the configuration lacks them.
pub fn head_counts(config: &Value) -> Result<(usize, usize)> {
    let heads = number(config, "num_attention_heads")?;
    let kv = config.get("num_key_value_heads").and_then(Value::as_u64).unwrap_or(heads);
    Ok((heads as usize, kv as usize))
}

/// The `general.*` and `llama.*` pairs. `file_type` is llama.cpp's number for the mix of block types.
///
/// # Errors
/// [`ExportError::Unsupported`] for a configuration that is no Llama, or lacks a number.
pub fn to_gguf(config: &Value, name: &str, file_type: u32) -> Result<BTreeMap<String, Gguf>> {
    if config.get("model_type").and_then(Value::as_str) != Some("llama") {
        return Err(ExportError::Unsupported("only the Llama layout is written as GGUF".into()));
    }
    let meant = hf::meant(config)?;
    let dim = Gguf::U32(meant.head_dim as u32);
    let mut pairs = BTreeMap::from([
        ("general.architecture", Gguf::String("llama".into())),
        ("general.name", Gguf::String(name.into())),
        ("general.file_type", Gguf::U32(file_type)),
        ("general.quantization_version", Gguf::U32(2)),
        ("general.alignment", Gguf::U32(32)),
        ("llama.block_count", small(config, "num_hidden_layers")?),
        ("llama.context_length", small(config, "max_position_embeddings")?),
        ("llama.embedding_length", small(config, "hidden_size")?),
        ("llama.feed_forward_length", small(config, "intermediate_size")?),
        ("llama.attention.head_count", small(config, "num_attention_heads")?),
        ("llama.attention.head_count_kv", Gguf::U32(meant.kv_heads as u32)),
        ("llama.attention.layer_norm_rms_epsilon", Gguf::F32(meant.norm_eps as f32)),
        ("llama.attention.key_length", dim.clone()),
        ("llama.attention.value_length", dim.clone()),
        ("llama.rope.dimension_count", dim),
        ("llama.rope.freq_base", Gguf::F32(meant.rope.theta as f32)),
        ("llama.vocab_size", small(config, "vocab_size")?),
    ]);
    if let Some(scaling) = hf::scaling(&meant.rope.scaling) {
        pairs.insert(SCALING, Gguf::String(Value::Object(scaling).to_string()));
    }
    Ok(pairs.into_iter().map(|(key, value)| (key.to_owned(), value)).collect())
}

/// Llama-3.1's frequency divisors, `[head_dim / 2]`, or `None` for a rotation that is not stretched.
///
/// # Errors
/// [`ExportError::Unsupported`] for another stretching.
pub fn rope_factors(config: &Value) -> Result<Option<Vec<f32>>> {
    let ModelConfig { rope, head_dim, .. } = hf::meant(config)?;
    divisors(&rope, head_dim)
}

fn divisors(rope: &Rope, head_dim: usize) -> Result<Option<Vec<f32>>> {
    let (factor, original, low, high) = match rope.scaling {
        RopeScaling::None => return Ok(None),
        RopeScaling::Llama3 { factor, original, low, high } => (factor, original, low, high),
        RopeScaling::Yarn { .. } => {
            return Err(ExportError::Unsupported("rope scaling `yarn` is not written as GGUF: llama3 is".into()));
        }
    };
    let divisor = |i: usize| {
        let turns = original * rope.theta.powf(-2.0 * i as f64 / head_dim as f64) / (2.0 * PI);
        let smooth = ((turns - low) / (high - low)).clamp(0.0, 1.0);
        (1.0 / ((1.0 - smooth) / factor + smooth)) as f32
    };
    Ok(Some((0..head_dim / 2).map(divisor).collect()))
}

/// The architectures that are read: each is `model_type` too.
pub const ARCHITECTURES: [&str; 3] = ["llama", "qwen2", "qwen3"];

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

/// What a file's tensors say that its pairs do not.
#[derive(Debug, Clone, Default)]
pub struct Found {
    /// Rows of the embedding.
    pub vocab: usize,
    /// There is no output head of its own.
    pub tied: bool,
    /// Queries have a bias.
    pub biased: bool,
    /// The divisors of `rope_freqs.weight`.
    pub factors: Option<Vec<f32>>,
}

/// The pairs of one architecture, by the rest of their names.
struct Pairs<'a> {
    all: &'a BTreeMap<String, Gguf>,
    architecture: &'a str,
}

impl Pairs<'_> {
    fn get(&self, key: &str) -> Option<&Gguf> {
        self.all.get(&format!("{}.{key}", self.architecture))
    }

    fn absent(&self, key: &str) -> ExportError {
        ExportError::Unsupported(format!("the GGUF file has no usable `{}.{key}`", self.architecture))
    }

    fn whole(&self, key: &str) -> Result<u64> {
        self.maybe_whole(key)?.ok_or_else(|| self.absent(key))
    }

    /// Absent, or a whole number.
    fn maybe_whole(&self, key: &str) -> Result<Option<u64>> {
        let Some(value) = self.get(key) else { return Ok(None) };
        let whole = value.to_u64().or_else(|_| value.to_u32().map(u64::from)).ok();
        whole.or_else(|| u64::try_from(value.to_i32().ok()?).ok()).map(Some).ok_or_else(|| self.absent(key))
    }

    fn maybe_real(&self, key: &str) -> Result<Option<f64>> {
        let Some(value) = self.get(key) else { return Ok(None) };
        value.to_f32().map(|v| Some(exact(v))).map_err(|_| self.absent(key))
    }

    /// Refuses keys that are not known and values that would have to change the mathematics.
    fn check(&self, head_dim: u64) -> Result<()> {
        let own = self.all.keys().filter_map(|k| k.strip_prefix(self.architecture)?.strip_prefix('.'));
        let refuse = |key: &str, why: &str| {
            Err(ExportError::Unsupported(format!("the GGUF file's `{}.{key}` {why}", self.architecture)))
        };
        for key in own {
            if !KNOWN.contains(&key) {
                return refuse(key, "is not known here and may change the mathematics");
            }
        }
        if self.maybe_whole("expert_count")?.is_some_and(|n| n > 0) {
            return refuse("expert_count", "says that it is a mixture of experts: only dense GGUF files are read");
        }
        for key in ["attention.key_length", "attention.value_length", "rope.dimension_count"] {
            if self.maybe_whole(key)?.is_some_and(|width| width != head_dim) {
                return refuse(
                    key,
                    &format!("is not the heads' width of {head_dim}: only heads rotated whole are known"),
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

    /// config.json's `rope_scaling`.
    fn scaling(&self, found: &Found, theta: f64, head_dim: u64) -> Result<Value> {
        if let Some(text) = self.all.get(SCALING).and_then(|v| v.to_string().ok()) {
            let parsed = serde_json::from_str::<Map<String, Value>>(text);
            return parsed.map(Value::Object).map_err(|_| self.absent(SCALING));
        }
        let kind = self.get("rope.scaling.type").and_then(|v| v.to_string().ok()).map_or("none", String::as_str);
        let factor = self.maybe_real("rope.scaling.factor")?.unwrap_or(1.0);
        match (&found.factors, kind) {
            (Some(factors), "none") => llama3_from(factors, theta, head_dim),
            (None, "none") => Ok(Value::Null),
            (None, "linear") if factor == 1.0 => Ok(Value::Null),
            (None, "yarn") => Ok(json!({
                "rope_type": "yarn",
                "factor": factor,
                "original_max_position_embeddings": self.whole("rope.scaling.original_context_length")?,
                "beta_fast": self.maybe_real("rope.scaling.yarn_beta_fast")?.unwrap_or(32.0),
                "beta_slow": self.maybe_real("rope.scaling.yarn_beta_slow")?.unwrap_or(1.0),
            })),
            (_, kind) => Err(ExportError::Unsupported(format!(
                "the GGUF file stretches its rotation by `{kind}` in a way that is not known here: none, yarn and Llama 3's \
                 frequencies are"
            ))),
        }
    }

    /// `sliding_window`, where it is narrower than the context.
    fn window(&self, context: u64) -> Result<Option<u64>> {
        let window = self.maybe_whole("attention.sliding_window")?.filter(|w| *w > 0 && *w < context);
        if window.is_some() && self.architecture != "llama" {
            let key = format!("{}.attention.sliding_window", self.architecture);
            return Err(ExportError::Unsupported(format!(
                "`{key}` does not say which layers slide: it is not known here"
            )));
        }
        Ok(window)
    }
}

/// A config.json from the pairs and from what the tensors say.
///
/// # Errors
/// [`ExportError::Unsupported`] for other architectures, missing keys, and keys that change the mathematics in a way not
/// known here.
pub fn to_config(all: &BTreeMap<String, Gguf>, found: &Found) -> Result<Value> {
    let stated = all.get("general.architecture").and_then(|v| v.to_string().ok()).map_or("(none)", String::as_str);
    let Some(architecture) = ARCHITECTURES.into_iter().find(|a| *a == stated) else {
        let known = ARCHITECTURES.join(", ");
        return Err(ExportError::Unsupported(format!("GGUF architecture `{stated}` is not read here: {known} are")));
    };
    let pairs = Pairs { all, architecture };
    let (heads, hidden) = (pairs.whole("attention.head_count")?, pairs.whole("embedding_length")?);
    let derived = || hidden.checked_div(heads).ok_or_else(|| pairs.absent("attention.head_count"));
    let dim = pairs.maybe_whole("attention.key_length")?.map_or_else(derived, Ok)?;
    pairs.check(dim)?;
    let context = pairs.whole("context_length")?;
    let window = pairs.window(context)?;
    let theta = pairs.maybe_real("rope.freq_base")?.unwrap_or(10_000.0);
    let eps = pairs.maybe_real("attention.layer_norm_rms_epsilon")?;
    // GGUF has one name for Llama and Mistral; only the window tells.
    let model_type = if window.is_some() { "mistral" } else { architecture };
    let id = |key: &str| all.get(key).and_then(|v| v.to_u64().ok());
    let base = json!({
        "architectures": [class(model_type)],
        "model_type": model_type,
        "hidden_act": "silu",
        "attention_bias": found.biased,
        "mlp_bias": false,
        "hidden_size": hidden,
        "intermediate_size": pairs.whole("feed_forward_length")?,
        "num_hidden_layers": pairs.whole("block_count")?,
        "num_attention_heads": heads,
        "num_key_value_heads": pairs.maybe_whole("attention.head_count_kv")?.unwrap_or(heads),
        "head_dim": dim,
        "max_position_embeddings": context,
        "rms_norm_eps": eps.ok_or_else(|| pairs.absent("attention.layer_norm_rms_epsilon"))?,
        "rope_theta": theta,
        "rope_scaling": pairs.scaling(found, theta, dim)?,
        "sliding_window": window,
        "tie_word_embeddings": found.tied,
        "vocab_size": found.vocab,
        "bos_token_id": id("tokenizer.ggml.bos_token_id"),
        "eos_token_id": id("tokenizer.ggml.eos_token_id"),
        "pad_token_id": id("tokenizer.ggml.padding_token_id"),
    });
    hf::student_config(&base, "float32", None)
}

/// transformers' name of a family's model.
fn class(model_type: &str) -> &'static str {
    match model_type {
        "mistral" => "MistralForCausalLM",
        "qwen2" => "Qwen2ForCausalLM",
        "qwen3" => "Qwen3ForCausalLM",
        _ => "LlamaForCausalLM",
    }
}

/// Llama 3's parameters behind the divisors of its rotation's frequencies, `[head_dim / 2]`.
///
/// With s = (turns − low) / (high − low) a divisor is 1 / ((1 − s) / factor + s), s between 0 and 1, and turns is the
/// frequency times the trained context / 2π. So s is linear in the frequency: two divisors that are neither 1 nor the
/// factor give all parameters (`low` may be chosen: only the products count). Where fewer are, the published values are
/// tried. What comes of the parameters must be the divisors.
fn llama3_from(factors: &[f32], theta: f64, head_dim: u64) -> Result<Value> {
    let factor = factors.iter().copied().map(exact).fold(1.0, f64::max);
    if factors.iter().all(|f| *f == 1.0) {
        return Ok(Value::Null);
    }
    let named = |low, high, original| RopeScaling::Llama3 { factor, original, low, high };
    let fits = |scaling: &RopeScaling| {
        let rope = Rope { theta, scaling: scaling.clone() };
        let made = divisors(&rope, head_dim as usize).ok().flatten().unwrap_or_default();
        made.len() == factors.len() && made.iter().zip(factors).all(|(a, b)| (a - b).abs() <= 1e-4 * b.abs())
    };
    let published = [8192.0, 4096.0, 2048.0].map(|original| named(1.0, 4.0, original));
    let between: Vec<(f64, f64)> = (0..factors.len())
        .zip(factors.iter().copied().map(exact))
        .filter(|(_, f)| *f > 1.0 + 1e-6 && *f < factor * (1.0 - 1e-6))
        .map(|(i, f)| {
            let frequency = theta.powf(-2.0 * i as f64 / head_dim as f64);
            (frequency, (1.0 / f - 1.0 / factor) / (1.0 - 1.0 / factor))
        })
        .collect();
    let solved = between.first().zip(between.last()).filter(|(a, b)| a.0 != b.0).map(|(a, b)| {
        let slope = (a.1 - b.1) / (a.0 - b.0);
        let width = 1.0 / (slope * a.0 - a.1);
        named(1.0, 1.0 + width, slope * 2.0 * PI * width)
    });
    let found = published.into_iter().chain(solved).find(|scaling| fits(scaling));
    found.and_then(|scaling| hf::scaling(&scaling)).map(Value::Object).ok_or_else(|| {
        ExportError::Unsupported(
            "the divisors in rope_freqs.weight are not of Llama 3's form: they are not known here".into(),
        )
    })
}

/// The shortest decimal of an f32, as f64: 1e-5 instead of 9.99999974e-6.
fn exact(value: f32) -> f64 {
    value.to_string().parse().unwrap_or(f64::from(value))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn llama31() -> Value {
        json!({"model_type": "llama", "hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32,
            "num_attention_heads": 32, "num_key_value_heads": 8, "max_position_embeddings": 131072, "rms_norm_eps": 1e-5,
            "vocab_size": 128256, "rope_theta": 500000.0, "rope_scaling": {"rope_type": "llama3", "factor": 8.0,
            "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 8192}})
    }

    #[test]
    fn config_goes_both_ways() {
        let config = llama31();
        let found = Found { vocab: 128_256, tied: true, biased: false, factors: rope_factors(&config).unwrap() };
        let pairs = to_gguf(&config, "x", 15).unwrap();
        let back = to_config(&pairs, &found).unwrap();
        for key in config.as_object().unwrap().keys() {
            assert_eq!(back[key], config[key], "{key}");
        }
        assert_eq!(back["head_dim"], json!(128));
        assert_eq!(back["tie_word_embeddings"], json!(true));
    }

    /// By hand: 8192·θ^(−i/64) / 2π turns fall below 4 after i = 28 and below 1 after i = 34.
    #[test]
    fn frequency_divisors_are_llama_cpps() {
        let factors = rope_factors(&llama31()).unwrap().unwrap();
        assert_eq!((factors.len(), factors[0], factors[28], factors[35], factors[63]), (64, 1.0, 1.0, 8.0, 8.0));
        assert!(factors[28..=35].is_sorted_by(|a, b| a < b));
        let mut yarn = llama31();
        yarn["rope_scaling"]["rope_type"] = json!("yarn");
        assert!(matches!(rope_factors(&yarn), Err(ExportError::Unsupported(_))));
    }

    /// Files of others have the divisors alone.
    #[test]
    fn llama_3s_parameters_are_found_in_its_divisors() {
        let mut other = llama31();
        for (original, factor, high) in [(8192.0, 8.0, 4.0), (8192.0, 32.0, 4.0), (3000.0, 5.0, 7.5)] {
            other["rope_scaling"]["original_max_position_embeddings"] = json!(original);
            other["rope_scaling"]["factor"] = json!(factor);
            other["rope_scaling"]["high_freq_factor"] = json!(high);
            let factors = rope_factors(&other).unwrap().unwrap();
            let mut found = other.clone();
            found["rope_scaling"] = llama3_from(&factors, 500_000.0, 128).unwrap();
            for (a, b) in rope_factors(&found).unwrap().unwrap().iter().zip(&factors) {
                assert!((a - b).abs() < 1e-4 * b, "{a} against {b}");
            }
        }
        assert_eq!(llama3_from(&[1.0; 64], 500_000.0, 128).unwrap(), Value::Null);
        let odd: Vec<f32> = (0..64).map(|i| 1.0 + i as f32).collect();
        assert!(llama3_from(&odd, 500_000.0, 128).is_err());
    }

    #[test]
    fn what_is_not_known_is_refused_by_name() {
        let pairs = to_gguf(&llama31(), "x", 15).unwrap();
        let found = Found { vocab: 128_256, tied: true, ..Found::default() };
        assert!(to_config(&pairs, &found).is_ok());
        for (key, value, words) in [
            ("general.architecture", Gguf::String("gemma3".into()), "gemma3"),
            ("llama.rope.scaling.type", Gguf::String("longrope".into()), "longrope"),
            ("llama.expert_count", Gguf::U32(8), "mixture of experts"),
            ("llama.attention.value_length", Gguf::U32(64), "value_length"),
            ("llama.logit_scale", Gguf::F32(0.5), "logit_scale"),
            ("llama.attention.head_count", Gguf::Array(vec![Gguf::U32(32)]), "head_count"),
        ] {
            let mut pairs = pairs.clone();
            // Our own key would speak for the rotation.
            pairs.remove(SCALING);
            pairs.insert(key.into(), value);
            let error = to_config(&pairs, &found).unwrap_err().to_string();
            assert!(error.contains(words), "{error}");
        }
    }

    #[test]
    fn a_window_makes_a_mistral() {
        let mut pairs = to_gguf(&llama31(), "x", 15).unwrap();
        pairs.insert("llama.attention.sliding_window".into(), Gguf::U32(4096));
        let config = to_config(&pairs, &Found { vocab: 128_256, ..Found::default() }).unwrap();
        assert_eq!((&config["model_type"], &config["sliding_window"]), (&json!("mistral"), &json!(4096)));
    }
}
