//! From the keys of a `config.json` to a [`ModelConfig`]: where each family keeps what, and what it
//! takes where a key is missing.

use super::families::{Family, MAX_WINDOW_LAYERS, MOE_INNER, SWIGLU_ALPHA, SWIGLU_LIMIT};
use super::values::Keys;
use super::{
    AttentionBias, GatedUnit, Mixture, Mlp, ModelConfig, Quantisation, keys, refuse, rope,
};
use crate::ModelError;
use serde_json::Value;

/// The file's object, and its family.
pub(super) fn parse(value: &Value) -> Result<(Keys<'_>, Family), ModelError> {
    let keys = Keys::top(value)?;
    let named = keys.text("model_type")?;
    let Some(family) = named.and_then(Family::named) else { return unknown_architecture(named) };
    Ok((keys, family))
}

fn unknown_architecture<T>(found: Option<&str>) -> Result<T, ModelError> {
    let known = Family::ALL.map(Family::name).join(", ");
    let found = found.unwrap_or("(none)");
    refuse(format!("model_type `{found}` is not known: {known} are. Give a folder of one of these"))
}

/// The configuration, not yet checked for sense.
pub(super) fn read(value: &Value) -> Result<ModelConfig, ModelError> {
    let (keys, family) = parse(value)?;
    keys::check(family, &keys)?;
    Reader { keys, family, layers: keys.need_whole("num_hidden_layers")? }.read()
}

struct Reader<'a> {
    keys: Keys<'a>,
    family: Family,
    layers: usize,
}

impl Reader<'_> {
    fn read(&self) -> Result<ModelConfig, ModelError> {
        let (keys, defaults) = (&self.keys, self.family.defaults());
        let heads = keys.need_whole("num_attention_heads")?;
        let hidden = keys.need_whole("hidden_size")?;
        let derived = || defaults.head_dim.or(hidden.checked_div(heads)).unwrap_or(0);
        let rope = rope::read(keys, self.family)?;
        Ok(ModelConfig {
            quantisation: self.quantisation()?,
            windows: self.windows()?,
            mlps: self.mlps()?,
            bias: self.bias()?,
            architecture: self.family.name().to_owned(),
            hidden,
            heads,
            kv_heads: self.kv_heads(heads)?,
            head_dim: keys.whole("head_dim")?.unwrap_or_else(derived),
            vocab: keys.need_whole("vocab_size")?,
            context: rope.scaling.context(keys.whole("max_position_embeddings")?),
            rope,
            norm_eps: keys.positive("rms_norm_eps")?.unwrap_or(defaults.eps),
            qk_norm: matches!(self.family, Family::Qwen3 | Family::Qwen3Moe),
            sinks: self.family == Family::GptOss,
            tied: keys.flag("tie_word_embeddings")?.unwrap_or(false),
        })
    }

    /// Missing, it is the class's default; `null`, it is that of the query heads.
    fn kv_heads(&self, heads: usize) -> Result<usize, ModelError> {
        let key = "num_key_value_heads";
        let default = self.family.defaults().kv_heads.filter(|_| !self.keys.is_null(key));
        Ok(self.keys.whole(key)?.or(default).unwrap_or(heads))
    }

    fn bias(&self) -> Result<AttentionBias, ModelError> {
        Ok(match self.family {
            Family::Qwen2 => AttentionBias { qkv: true, o: false },
            Family::Mistral | Family::Mixtral => AttentionBias { qkv: false, o: false },
            _ => {
                let all =
                    self.keys.flag("attention_bias")?.unwrap_or(self.family == Family::GptOss);
                AttentionBias { qkv: all, o: all }
            }
        })
    }

    fn mlps(&self) -> Result<Vec<Mlp>, ModelError> {
        let dense = Mlp::Dense { inner: self.keys.need_whole("intermediate_size")? };
        let mixture = match self.family {
            Family::GptOss | Family::Mixtral | Family::Qwen3Moe => Mlp::Experts(self.mixture()?),
            _ => return Ok(vec![dense; self.layers]),
        };
        if self.family != Family::Qwen3Moe {
            return Ok(vec![mixture; self.layers]);
        }
        let step = self.keys.whole("decoder_sparse_step")?.unwrap_or(1);
        if step == 0 {
            return refuse(
                "`decoder_sparse_step` is 0: every how many layers have experts, 1 or more, is expected",
            );
        }
        let only = self.keys.wholes("mlp_only_layers")?.unwrap_or_default();
        let none = matches!(mixture, Mlp::Experts(Mixture { experts: 0, .. }));
        let sparse =
            |layer: usize| !none && (layer + 1).is_multiple_of(step) && !only.contains(&layer);
        Ok((0..self.layers).map(|layer| if sparse(layer) { mixture } else { dense }).collect())
    }

    fn mixture(&self) -> Result<Mixture, ModelError> {
        let (keys, defaults) = (&self.keys, self.family.defaults());
        let of_qwen = self.family == Family::Qwen3Moe;
        let inner = match of_qwen {
            true => keys.whole("moe_intermediate_size")?.unwrap_or(MOE_INNER),
            false => keys.need_whole("intermediate_size")?,
        };
        Ok(Mixture {
            experts: self.either("num_local_experts", "num_experts")?.unwrap_or(defaults.experts),
            top_k: self
                .either("num_experts_per_tok", "experts_per_token")?
                .unwrap_or(defaults.top_k),
            inner,
            renormalise: !of_qwen || keys.flag("norm_topk_prob")?.unwrap_or(false),
            unit: self.unit()?,
            bias: self.family == Family::GptOss,
        })
    }

    fn unit(&self) -> Result<GatedUnit, ModelError> {
        if self.family != Family::GptOss {
            return Ok(GatedUnit::Silu);
        }
        Ok(GatedUnit::Clamped {
            alpha: self.keys.positive("swiglu_alpha")?.unwrap_or(SWIGLU_ALPHA),
            limit: self.keys.positive("swiglu_limit")?.unwrap_or(SWIGLU_LIMIT),
        })
    }

    /// A number that has two names.
    fn either(&self, name: &str, other: &str) -> Result<Option<usize>, ModelError> {
        match (self.keys.whole(name)?, self.keys.whole(other)?) {
            (Some(a), Some(b)) if a != b => refuse(format!(
                "`{name}` is {a} and `{other}`, another name of it, {b}: take out the one that is not the model's"
            )),
            (a, b) => Ok(a.or(b)),
        }
    }

    /// The window of each layer.
    fn windows(&self) -> Result<Vec<Option<usize>>, ModelError> {
        let window = self.window()?;
        let usual = self.usual(window)?;
        let slides = match self.keys.texts("layer_types")? {
            Some(kinds) => self.layer_types(&kinds, &usual)?,
            None => usual,
        };
        if window.is_none() && slides.contains(&true) {
            return refuse(
                "layers slide, but `sliding_window` is null or `use_sliding_window` false: say how far they see",
            );
        }
        Ok(slides.into_iter().map(|slides| window.filter(|_| slides)).collect())
    }

    /// Which layers slide by each class's own rule.
    fn usual(&self, window: Option<usize>) -> Result<Vec<bool>, ModelError> {
        let first = match self.family {
            Family::Qwen2 | Family::Qwen3 => {
                self.keys.whole("max_window_layers")?.unwrap_or(MAX_WINDOW_LAYERS)
            }
            _ => 0,
        };
        let slides = |layer: usize| match self.family {
            // Its first release alternated, sliding first.
            Family::GptOss => layer.is_multiple_of(2),
            _ => window.is_some() && layer >= first,
        };
        Ok((0..self.layers).map(slides).collect())
    }

    /// The window of layers that slide.
    fn window(&self) -> Result<Option<usize>, ModelError> {
        let key = "sliding_window";
        let default = self.family.defaults().window.filter(|_| !self.keys.is_null(key));
        let window = self.keys.whole(key)?.or(default);
        let used = match self.family {
            Family::Qwen2 | Family::Qwen3 | Family::Qwen3Moe => {
                self.keys.flag("use_sliding_window")?.unwrap_or(false)
            }
            _ => true,
        };
        Ok(window.filter(|_| used))
    }

    /// Which layers slide by `layer_types`. Classes without the key slide as ever; there it must
    /// say the same.
    fn layer_types(&self, kinds: &[&str], usual: &[bool]) -> Result<Vec<bool>, ModelError> {
        if kinds.len() != self.layers {
            return refuse(format!(
                "`layer_types` names {} layers of {}",
                kinds.len(),
                self.layers
            ));
        }
        let each = |kind: &&str| match *kind {
            "full_attention" => Ok(false),
            "sliding_attention" => Ok(true),
            other => refuse(format!(
                "`layer_types` names `{other}`: full_attention and sliding_attention are known"
            )),
        };
        let slides: Vec<bool> = kinds.iter().map(each).collect::<Result<_, _>>()?;
        let decides = matches!(self.family, Family::GptOss | Family::Qwen2 | Family::Qwen3);
        if !decides && slides != usual {
            let name = self.family.name();
            return refuse(format!(
                "`layer_types` and `sliding_window` say different things of a {name} model's layers"
            ));
        }
        Ok(slides)
    }

    fn quantisation(&self) -> Result<Quantisation, ModelError> {
        let Some(stated) = self.keys.inner("quantization_config")? else {
            return Ok(Quantisation::None);
        };
        match stated.text("quant_method")? {
            Some("mxfp4") if self.family == Family::GptOss => Ok(Quantisation::Mxfp4),
            Some("gptq") => Ok(Quantisation::Gptq),
            Some("mxfp4") => refuse(
                "`quantization_config.quant_method` is mxfp4, which is read for gpt_oss only",
            ),
            other => refuse(format!(
                "`quantization_config.quant_method` is {}: mxfp4 and gptq are known",
                other.unwrap_or("missing")
            )),
        }
    }
}
