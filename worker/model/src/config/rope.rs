//! Rotary embedding as `config.json` states it: `rope_theta` and `rope_scaling` at the top, or transformers 5's
//! `rope_parameters`, which holds both.

use super::{missing, refuse};
use crate::ModelError;
use serde_json::Value;

/// Rotary embedding: its base and how it is stretched.
#[derive(Debug, Clone, PartialEq)]
pub struct Rope {
    /// The base θ.
    pub theta: f64,
    /// How frequencies are stretched beyond the trained context.
    pub scaling: RopeScaling,
}

/// Known stretchings.
#[derive(Debug, Clone, PartialEq)]
pub enum RopeScaling {
    /// None.
    None,
    /// YaRN (Peng et al. 2023).
    Yarn {
        /// Context factor.
        factor: f64,
        /// Trained context.
        original: f64,
        /// Rotations above which a frequency is kept.
        beta_fast: f64,
        /// Rotations below which it is interpolated.
        beta_slow: f64,
        /// Whether the bounds are rounded to whole dimensions.
        truncate: bool,
        /// Factor on cosines and sines.
        attention_factor: f64,
    },
    /// Llama 3.1.
    Llama3 {
        /// Context factor.
        factor: f64,
        /// Trained context.
        original: f64,
        /// Wavelength bound of interpolated frequencies.
        low: f64,
        /// Wavelength bound of kept frequencies.
        high: f64,
    },
}

/// The keys that say how positions are rotated.
pub(super) struct RopeKeys<'a> {
    pub theta: Option<f64>,
    pub scaling: Option<&'a Value>,
    pub parameters: Option<&'a Value>,
    pub max_position: Option<f64>,
    /// The base of a family whose first files left it unsaid.
    pub unsaid: Option<f64>,
}

impl RopeKeys<'_> {
    /// The embedding that the keys describe.
    pub fn read(&self) -> Result<Rope, ModelError> {
        let newer = self.parameters.filter(|v| !v.is_null());
        let scaling = self.scaling.filter(|v| !v.is_null()).or(newer);
        if let Some(v) = scaling {
            if v.as_object().is_some_and(|o| o.values().any(Value::is_object)) {
                return refuse("rope_parameters that differ from layer to layer are not supported");
            }
            if v.get("partial_rotary_factor").and_then(Value::as_f64).is_some_and(|f| f != 1.0) {
                return refuse("partial_rotary_factor is not supported: only heads rotated whole are");
            }
        }
        let inside = |v: &Value| v.get("rope_theta").and_then(Value::as_f64);
        let theta = self.theta.or_else(|| newer.and_then(inside)).or_else(|| scaling.and_then(inside)).or(self.unsaid);
        let theta = theta.ok_or_else(|| missing("rope_theta"))?;
        let scaling = scaling.map_or(Ok(RopeScaling::None), |v| self.scaling(v))?;
        Ok(Rope { theta, scaling })
    }

    fn scaling(&self, v: &Value) -> Result<RopeScaling, ModelError> {
        let number = |key: &str| v.get(key).and_then(Value::as_f64);
        let need = |key: &str| number(key).ok_or_else(|| missing(&format!("rope_scaling.{key}")));
        let original = || {
            number("original_max_position_embeddings")
                .or(self.max_position)
                .ok_or_else(|| missing("rope_scaling.original_max_position_embeddings"))
        };
        match v.get("rope_type").or_else(|| v.get("type")).and_then(Value::as_str) {
            None | Some("default") => Ok(RopeScaling::None),
            Some("yarn") => {
                if number("mscale").is_some() || number("mscale_all_dim").is_some() {
                    return refuse("YaRN's mscale keys are not supported");
                }
                let factor = need("factor")?;
                Ok(RopeScaling::Yarn {
                    factor,
                    original: original()?,
                    beta_fast: number("beta_fast").unwrap_or(32.0),
                    beta_slow: number("beta_slow").unwrap_or(1.0),
                    truncate: v.get("truncate").and_then(Value::as_bool).unwrap_or(true),
                    attention_factor: number("attention_factor").unwrap_or(if factor > 1.0 {
                        0.1 * factor.ln() + 1.0
                    } else {
                        1.0
                    }),
                })
            }
            Some("llama3") => Ok(RopeScaling::Llama3 {
                factor: need("factor")?,
                original: original()?,
                low: need("low_freq_factor")?,
                high: need("high_freq_factor")?,
            }),
            Some(other) => refuse(format!("rope type `{other}` is not known: default, yarn and llama3 are")),
        }
    }
}
