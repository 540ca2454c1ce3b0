//! Which query heads and channels of a dense model's layers stay, and which masks cannot be carried out so:
//! config.json has one number for all layers, and query heads share KV heads in groups of one size.

use super::{Along, Depth, Fate, Filler, Kept, Pick, Slots, refuse};
use crate::Result;
use serde::Serialize;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use uspx_domain::{Mask, Unit, UnitKind};
use uspx_model::StoredModel;
use uspx_model::config::{Family, Mlp, ModelConfig};
use uspx_model::taps::Projection;

/// What a dense model has: layers, and in each of them the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Sizes {
    /// Layers.
    pub layers: usize,
    /// Query heads.
    pub heads: usize,
    /// Key and value heads.
    pub kv_heads: usize,
    /// Channels of the MLP.
    pub channels: usize,
}

/// The layers, heads and channels of the written model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dense {
    depth: Depth,
    /// Those of `depth` that stay.
    layers: Vec<Layer>,
    before: Sizes,
    now: Sizes,
    head_dim: usize,
}

/// What stays of a layer, in the source's order.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Layer {
    heads: Slots,
    /// Those that a head that stays asks.
    kv_heads: Slots,
    channels: Slots,
}

impl Layer {
    fn of(mask: &Mask, layer: u32, before: Sizes) -> Self {
        let kept = |kind, count: usize| -> Vec<u32> {
            let stays = |index: &u32| mask.keeps(Unit { kind, layer, index: *index });
            (0..count as u32).filter(stays).collect()
        };
        let heads = kept(UnitKind::Head, before.heads);
        let mut kv_heads: Vec<u32> = heads.iter().map(|head| before.group(*head)).collect();
        kv_heads.dedup();
        let slots = |kept: Vec<u32>| kept.into_iter().map(Some).collect();
        let channels = slots(kept(UnitKind::Channel, before.channels));
        Self { heads: slots(heads), kv_heads: slots(kv_heads), channels }
    }

    /// The heads that ask one KV head, for each that is asked.
    fn groups(&self, before: Sizes) -> Vec<usize> {
        let alike = |a: &u32, b: &u32| before.group(*a) == before.group(*b);
        let heads: Vec<u32> = self.heads.iter().flatten().copied().collect();
        heads.chunk_by(alike).map(<[u32]>::len).collect()
    }
}

impl Sizes {
    /// Those of a dense model.
    pub fn of(config: &ModelConfig) -> Self {
        let inner = |mlp: &Mlp| if let Mlp::Dense { inner } = mlp { *inner } else { 0 };
        let channels = config.mlps.first().map_or(0, inner);
        let (layers, heads, kv_heads) = (config.mlps.len(), config.heads, config.kv_heads);
        Self { layers, heads, kv_heads, channels }
    }

    /// The keys of config.json that are others than `before` said. Beside fewer heads stands a head's
    /// width, which a reader would make of their number.
    pub fn keys(self, before: Self, head_dim: usize) -> Vec<(&'static str, Value)> {
        let mut keys = Vec::new();
        if self.heads != before.heads {
            keys.extend([
                ("num_attention_heads", json!(self.heads)),
                ("num_key_value_heads", json!(self.kv_heads)),
                ("head_dim", json!(head_dim)),
            ]);
        }
        if self.channels != before.channels {
            keys.push(("intermediate_size", json!(self.channels)));
        }
        keys
    }

    /// Query heads that ask one KV head.
    fn group_size(self) -> usize {
        self.heads.checked_div(self.kv_heads).unwrap_or(0)
    }

    /// The KV head that a query head asks.
    fn group(self, head: u32) -> u32 {
        (head as usize).checked_div(self.group_size()).unwrap_or(0) as u32
    }
}

impl Dense {
    /// What stays, in its order.
    pub fn of(source: &StoredModel, mask: &Mask) -> Result<Self> {
        let (config, before) = (&source.config, Sizes::of(&source.config));
        let depth = Depth::of(source, mask)?;
        let layers: Vec<Layer> =
            depth.stay().iter().map(|at| Layer::of(mask, *at, before)).collect();
        let now = Sizes {
            layers: layers.len(),
            channels: alike(UnitKind::Channel, layers.iter().map(|l| l.channels.len()))?,
            heads: alike(UnitKind::Head, layers.iter().map(|l| l.heads.len()))?,
            kv_heads: layers.first().map_or(0, |layer| layer.kv_heads.len()),
        };
        if now == before {
            return refuse(
                "the mask keeps every head and channel: there is nothing to remove, the model is the one that there is"
                    .to_owned(),
            );
        }
        groups_are_alike((&depth, &layers), before, now)?;
        transformers_takes(config, now)?;
        Ok(Self { depth, layers, before, now, head_dim: config.head_dim })
    }

    /// What a source's tensor is called; none where its layer goes.
    pub fn renamed(&self, name: &str) -> Option<String> {
        self.depth.renamed(name)
    }

    /// What becomes of the layers' maps.
    pub fn fates(&self) -> BTreeMap<String, Fate<'_>> {
        let mut fates = BTreeMap::new();
        for (at, layer) in self.depth.stay().iter().zip(&self.layers) {
            for map in Projection::DENSE {
                let (pick, path) = (self.pick(map, layer), map.path(*at as usize));
                fates.insert(format!("{path}.weight"), Fate::Picked(pick));
                // What is added to a map's output lies as its rows do.
                if pick.along == Along::Rows {
                    fates.insert(format!("{path}.bias"), Fate::Picked(pick));
                }
            }
        }
        fates
    }

    fn pick<'a>(&self, map: Projection, layer: &'a Layer) -> Pick<'a> {
        let Sizes { heads, kv_heads, channels, .. } = self.before;
        let (along, of, each, slots) = match map {
            Projection::Q => (Along::Rows, heads, self.head_dim, &layer.heads),
            Projection::K | Projection::V => {
                (Along::Rows, kv_heads, self.head_dim, &layer.kv_heads)
            }
            Projection::O => (Along::Columns, heads, self.head_dim, &layer.heads),
            Projection::Gate | Projection::Up => (Along::Rows, channels, 1, &layer.channels),
            Projection::Down => (Along::Columns, channels, 1, &layer.channels),
        };
        Pick { along, of, each, slots, dead: Filler::Zeros }
    }

    /// The keys that change.
    pub fn keys(&self, source: &ModelConfig, config: &Value) -> Vec<(&'static str, Value)> {
        let mut keys = self.depth.keys(source, config);
        keys.extend(self.now.keys(self.before, self.head_dim));
        keys
    }

    /// See [`super::Plan::apply`].
    pub fn apply(&self, config: &mut ModelConfig) {
        self.depth.apply(config);
        (config.heads, config.kv_heads) = (self.now.heads, self.now.kv_heads);
        config.mlps.fill(Mlp::Dense { inner: self.now.channels });
    }

    /// See [`super::Plan::note`].
    pub fn note(&self) -> (Value, Value) {
        let lists = |of: fn(&Layer) -> &Slots| self.layers.iter().map(of).collect::<Vec<_>>();
        // For each one here which one of the source's it is.
        let here = json!({
            "sizes": self.now,
            "layer_of_source": self.depth.stay(),
            "head_of_source": lists(|layer| &layer.heads),
            "kv_head_of_source": lists(|layer| &layer.kv_heads),
            "channel_of_source": lists(|layer| &layer.channels),
        });
        (json!({ "sizes": self.before }), here)
    }

    /// See [`super::Plan::kept`].
    pub fn kept(&self) -> Kept {
        Kept::Dense { before: self.before, now: self.now }
    }
}

/// The number that every layer keeps.
fn alike(kind: UnitKind, counts: impl Iterator<Item = usize> + Clone) -> Result<usize> {
    let (fewest, most) = (counts.clone().min().unwrap_or(0), counts.max().unwrap_or(0));
    if fewest == most && most > 0 {
        return Ok(most);
    }
    refuse(format!(
        "the mask keeps from {fewest} to {most} {kind}s in a layer, and config.json has one number, above 0, for all layers \
         (a layer goes whole only where no head and no channel of it is kept): build a mask that keeps as many in every layer (uspx mask build --units {kind} --spread uniform), or apply this one \
         while the model runs (--mask)"
    ))
}

/// Refuses heads that share KV heads in groups of different sizes.
fn groups_are_alike((depth, layers): (&Depth, &[Layer]), before: Sizes, now: Sizes) -> Result<()> {
    let size = now.heads.checked_div(now.kv_heads).unwrap_or(0);
    let whole = |layer: &Layer| {
        layer.kv_heads.len() == now.kv_heads && layer.groups(before).iter().all(|n| *n == size)
    };
    let mut numbered = depth.stay().iter().zip(layers);
    let Some((at, layer)) = numbered.find(|(_, layer)| !whole(layer)) else {
        return Ok(());
    };
    let groups: Vec<String> = layer.groups(before).iter().map(usize::to_string).collect();
    refuse(format!(
        "of layer {at} the mask keeps {} query heads on {} KV heads, and every KV head of a model serves as many: build a \
         mask that keeps a multiple of {} heads in each layer (uspx mask build --units head --spread uniform then keeps as \
         many of each KV head), or apply this one while the model runs (--mask)",
        groups.join(" + "),
        groups.len(),
        before.kv_heads
    ))
}

/// How many heads may stay in every layer, ascending: as many of each KV head where heads share them, and
/// in a Llama a divisor of its width, whatever the width of a head, because transformers refuses others.
pub fn counts_of_heads(config: &ModelConfig) -> Vec<usize> {
    let groups = if config.kv_heads == config.heads { 1 } else { config.kv_heads };
    let llama = Family::named(&config.architecture) == Some(Family::Llama);
    let fits = |n: &usize| {
        *n == config.heads
            || n.is_multiple_of(groups) && (!llama || config.hidden.is_multiple_of(*n))
    };
    (1..=config.heads).filter(fits).collect()
}

/// Refuses a Llama that transformers does not take.
fn transformers_takes(config: &ModelConfig, now: Sizes) -> Result<()> {
    let hidden = config.hidden;
    let fits = now.heads == config.heads || hidden.is_multiple_of(now.heads);
    if fits || Family::named(&config.architecture) != Some(Family::Llama) {
        return Ok(());
    }
    let fewer = counts_of_heads(config).into_iter().filter(|n| *n < config.heads);
    let fewer: Vec<String> = fewer.map(|n| n.to_string()).collect();
    refuse(format!(
        "the mask keeps {} heads in each layer, and transformers takes a Llama only where they divide its width, {hidden}: \
         keep {} of {}",
        now.heads,
        if fewer.is_empty() { "all".to_owned() } else { fewer.join(" or ") },
        config.heads
    ))
}
