//! Rotary embedding as `config.json` states it, with the precedence of transformers 5:
//! `rope_scaling` where it is not empty, else `rope_parameters`; the `rope_theta` within before the
//! one at the top; `original_max_position_embeddings` at the top before the one within.

use super::families::Family;
use super::role::{Neutral, Role, check_neutral};
use super::values::Keys;
use super::{missing, refuse};
use crate::ModelError;

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

const ORIGINAL: &str = "original_max_position_embeddings";

/// Keys of `rope_scaling` and `rope_parameters`: the types that read them (none: all do), and what
/// becomes of them there.
const ROWS: [(&str, &[&str], Role); 15] = [
    ("rope_theta", &[], Role::Used),
    ("rope_type", &[], Role::Used),
    ("type", &[], Role::UsedUnless("rope_type stands beside it")),
    ("partial_rotary_factor", &[], Role::Only(&[Neutral::Number(1.0)])),
    ("mrope_section", &[], Role::Only(&[Neutral::Empty])),
    ("factor", &["yarn", "llama3"], Role::Used),
    (ORIGINAL, &["yarn", "llama3"], Role::UsedUnless("the top level has one")),
    ("attention_factor", &["yarn"], Role::Used),
    ("beta_fast", &["yarn"], Role::Used),
    ("beta_slow", &["yarn"], Role::Used),
    ("truncate", &["yarn"], Role::Used),
    ("mscale", &["yarn"], Role::UsedUnless("attention_factor is given, or mscale_all_dim is not")),
    ("mscale_all_dim", &["yarn"], Role::UsedUnless("attention_factor is given, or mscale is not")),
    ("low_freq_factor", &["llama3"], Role::Used),
    ("high_freq_factor", &["llama3"], Role::Used),
];

/// What becomes of a key of `rope_scaling` or `rope_parameters`.
pub(super) fn role(key: &str) -> Option<Role> {
    ROWS.iter().find(|(name, ..)| *name == key).map(|(.., role)| *role)
}

/// gpt-oss's stretching where its file has neither `rope_scaling` nor `rope_parameters`.
const OF_GPT_OSS: RopeScaling = RopeScaling::Yarn {
    factor: 32.0,
    original: 4096.0,
    beta_fast: 32.0,
    beta_slow: 1.0,
    truncate: false,
    // 0.1 · ln 32 + 1.
    attention_factor: 1.346_573_590_279_972_7,
};

/// The object that says how positions are rotated, where one does.
fn stated<'a>(top: &Keys<'a>) -> Result<Option<Keys<'a>>, ModelError> {
    let older = top.inner("rope_scaling")?.filter(|keys| !keys.is_empty());
    Ok(older.or(top.inner("rope_parameters")?))
}

fn kind<'a>(stated: &Keys<'a>) -> Result<&'a str, ModelError> {
    Ok(stated.text("rope_type")?.or(stated.text("type")?).unwrap_or("default"))
}

/// The rotary embedding of a `config.json`.
pub(super) fn read(top: &Keys<'_>, family: Family) -> Result<Rope, ModelError> {
    let above = top.positive("rope_theta")?.unwrap_or(family.defaults().theta);
    // A wrong type is refused wherever it stands.
    top.positive(ORIGINAL)?;
    let Some(stated) = stated(top)? else {
        let scaling = if family == Family::GptOss { OF_GPT_OSS } else { RopeScaling::None };
        return Ok(Rope { theta: above, scaling });
    };
    check(&stated)?;
    let theta = stated.positive("rope_theta")?.unwrap_or(above);
    Ok(Rope { theta, scaling: scaling(top, &stated, family)? })
}

fn scaling(top: &Keys<'_>, stated: &Keys<'_>, family: Family) -> Result<RopeScaling, ModelError> {
    Ok(match kind(stated)? {
        "default" => RopeScaling::None,
        "yarn" => yarn(top, stated, family)?,
        "llama3" => RopeScaling::Llama3 {
            factor: need(stated, "factor")?,
            original: original(top, stated, family)?,
            low: need(stated, "low_freq_factor")?,
            high: need(stated, "high_freq_factor")?,
        },
        other => {
            return refuse(format!(
                "rope type `{other}` is not known: default, yarn and llama3 are"
            ));
        }
    })
}

fn check(stated: &Keys<'_>) -> Result<(), ModelError> {
    for name in stated.names() {
        let Some(value) = stated.get(name) else { continue };
        if value.is_object() {
            return refuse(format!(
                "`{}` is an object: rotations that differ from layer to layer are not supported",
                stated.path(name)
            ));
        }
        if let Some(Role::Only(neutral)) = role(name) {
            check_neutral(&stated.path(name), value, neutral)?;
        }
    }
    Ok(())
}

fn need(stated: &Keys<'_>, key: &str) -> Result<f64, ModelError> {
    stated.positive(key)?.ok_or_else(|| missing(&stated.path(key)))
}

/// The context as it was trained, before it is stretched.
fn original(top: &Keys<'_>, stated: &Keys<'_>, family: Family) -> Result<f64, ModelError> {
    let said = top.positive(ORIGINAL)?.or(stated.positive(ORIGINAL)?);
    said.map_or_else(|| longest(top, family), Ok)
}

fn longest(top: &Keys<'_>, family: Family) -> Result<f64, ModelError> {
    Ok(top.positive("max_position_embeddings")?.unwrap_or(family.defaults().context as f64))
}

fn yarn(top: &Keys<'_>, stated: &Keys<'_>, family: Family) -> Result<RopeScaling, ModelError> {
    let original = original(top, stated, family)?;
    // `null` asks for the ratio of the two contexts; a missing factor is refused, as in
    // transformers.
    let factor = if stated.is_null("factor") {
        longest(top, family)? / original
    } else {
        need(stated, "factor")?
    };
    // Python's `or`: 0 is taken for absent.
    let beta = |key: &str, default: f64| -> Result<f64, ModelError> {
        Ok(stated.real(key)?.filter(|b| *b != 0.0).unwrap_or(default))
    };
    Ok(RopeScaling::Yarn {
        factor,
        original,
        beta_fast: beta("beta_fast", 32.0)?,
        beta_slow: beta("beta_slow", 1.0)?,
        // Python takes null for false; only a missing key is true.
        truncate: stated.flag("truncate")?.unwrap_or(!stated.is_null("truncate")),
        attention_factor: attention_factor(stated, factor)?,
    })
}

/// The factor on cosines and sines: stated, or made of the context factor and DeepSeek's two
/// weights.
fn attention_factor(stated: &Keys<'_>, factor: f64) -> Result<f64, ModelError> {
    let scale = |weight: f64| if factor <= 1.0 { 1.0 } else { 0.1 * weight * factor.ln() + 1.0 };
    let weight = |key: &str| Ok::<_, ModelError>(stated.real(key)?.filter(|w| *w != 0.0));
    let made = match weight("mscale")?.zip(weight("mscale_all_dim")?) {
        Some((mscale, all)) => scale(mscale) / scale(all),
        None => scale(1.0),
    };
    Ok(stated.real("attention_factor")?.unwrap_or(made))
}

impl RopeScaling {
    /// The longest sequence, where the file says `said`: YaRN's factor times the trained context
    /// where that is more, since those who switch YaRN on leave `max_position_embeddings` as it was
    /// trained. A number below that is meant as a limit.
    pub(super) fn context(&self, said: Option<usize>) -> Option<usize> {
        let stretched = match self {
            Self::Yarn { factor, original, .. }
                if said.is_none_or(|said| said as f64 >= *original) =>
            {
                Some((factor * original).round() as usize)
            }
            _ => None,
        };
        said.max(stretched)
    }
}

/// What is said of the rotation and not read: keys that the type does not have, and an object that
/// another one hides.
pub(super) fn passed_over(top: &Keys<'_>, family: Family) -> Result<Vec<String>, ModelError> {
    let Some(stated) = stated(top)? else { return Ok(Vec::new()) };
    let kind = kind(&stated)?;
    let reads = |types: &[&str]| types.is_empty() || types.contains(&kind);
    let read = |name: &str| ROWS.iter().any(|(row, types, _)| *row == name && reads(types));
    let mut found: Vec<String> =
        stated.names().filter(|name| !read(name)).map(|name| stated.path(name)).collect();
    if let Some(hidden) = hidden(top)?
        && scaling(top, &hidden, family).ok() != Some(scaling(top, &stated, family)?)
    {
        found.push("rope_parameters".to_owned());
    }
    Ok(found)
}

/// `rope_parameters` where `rope_scaling` is read instead.
fn hidden<'a>(top: &Keys<'a>) -> Result<Option<Keys<'a>>, ModelError> {
    let read = top.inner("rope_scaling")?.is_some_and(|keys| !keys.is_empty());
    Ok(top.inner("rope_parameters")?.filter(|keys| read && !keys.is_empty()))
}
