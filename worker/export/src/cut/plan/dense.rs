//! Which query heads and channels of a dense model stay, and which masks cannot be carried out so:
//! config.json has one number for all layers, and query heads share KV heads in groups of one size.

use super::{Along, Fate, Filler, Kept, Pick, Slots, refuse};
use crate::Result;
use serde::Serialize;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use uspx_domain::{Mask, Unit, UnitKind};
use uspx_model::config::{Family, Mlp, ModelConfig};
use uspx_model::taps::Projection;

/// What each layer of a dense model has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Sizes {
    /// Query heads.
    pub heads: usize,
    /// Key and value heads.
    pub kv_heads: usize,
    /// Channels of the MLP.
    pub channels: usize,
}

/// The heads and channels of the written model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dense {
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
    fn of(config: &ModelConfig) -> Self {
        let inner = |mlp: &Mlp| if let Mlp::Dense { inner } = mlp { *inner } else { 0 };
        let channels = config.mlps.first().map_or(0, inner);
        Self { heads: config.heads, kv_heads: config.kv_heads, channels }
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
    pub fn of(config: &ModelConfig, mask: &Mask) -> Result<Self> {
        let before = Sizes::of(config);
        let layers: Vec<Layer> =
            (0..config.mlps.len() as u32).map(|at| Layer::of(mask, at, before)).collect();
        let now = Sizes {
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
        groups_are_alike(&layers, before, now)?;
        transformers_takes(config, now)?;
        Ok(Self { layers, before, now, head_dim: config.head_dim })
    }

    /// What becomes of the layers' maps.
    pub fn fates(&self) -> BTreeMap<String, Fate<'_>> {
        let mut fates = BTreeMap::new();
        for (at, layer) in self.layers.iter().enumerate() {
            for map in Projection::DENSE {
                let pick = self.pick(map, layer);
                fates.insert(format!("{}.weight", map.path(at)), Fate::Picked(pick));
                // What is added to a map's output lies as its rows do.
                if pick.along == Along::Rows {
                    fates.insert(format!("{}.bias", map.path(at)), Fate::Picked(pick));
                }
            }
        }
        fates
    }

    fn pick<'a>(&self, map: Projection, layer: &'a Layer) -> Pick<'a> {
        let Sizes { heads, kv_heads, channels } = self.before;
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

    /// The numbers that change. Beside fewer heads stands a head's width, which a reader would make
    /// of their number.
    pub fn numbers(&self) -> Vec<(&'static str, usize)> {
        let (now, mut numbers) = (self.now, Vec::new());
        if now.heads != self.before.heads {
            numbers.extend([
                ("num_attention_heads", now.heads),
                ("num_key_value_heads", now.kv_heads),
                ("head_dim", self.head_dim),
            ]);
        }
        if now.channels != self.before.channels {
            numbers.push(("intermediate_size", now.channels));
        }
        numbers
    }

    /// See [`super::Plan::apply`].
    pub fn apply(&self, config: &mut ModelConfig) {
        (config.heads, config.kv_heads) = (self.now.heads, self.now.kv_heads);
        config.mlps.fill(Mlp::Dense { inner: self.now.channels });
    }

    /// See [`super::Plan::note`].
    pub fn note(&self) -> (Value, Value) {
        let lists = |of: fn(&Layer) -> &Slots| self.layers.iter().map(of).collect::<Vec<_>>();
        // For each one here which one of the source's it is.
        let here = json!({
            "sizes": self.now,
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
        "the mask keeps from {fewest} to {most} {kind}s in a layer, and config.json has one number, above 0, for all layers: \
         build a mask that keeps as many in every layer (uspx mask build --units {kind} --spread uniform), or apply this one \
         while the model runs (--mask)"
    ))
}

/// Refuses heads that share KV heads in groups of different sizes.
fn groups_are_alike(layers: &[Layer], before: Sizes, now: Sizes) -> Result<()> {
    let size = now.heads.checked_div(now.kv_heads).unwrap_or(0);
    let whole = |layer: &Layer| {
        layer.kv_heads.len() == now.kv_heads && layer.groups(before).iter().all(|n| *n == size)
    };
    let Some((at, layer)) = layers.iter().enumerate().find(|(_, layer)| !whole(layer)) else {
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

/// transformers refuses a Llama whose width its heads do not divide, whatever the width of a head.
fn transformers_takes(config: &ModelConfig, now: Sizes) -> Result<()> {
    let hidden = config.hidden;
    let divides = |heads: &usize| hidden.is_multiple_of(*heads);
    if Family::named(&config.architecture) != Some(Family::Llama) || divides(&now.heads) {
        return Ok(());
    }
    let groups = if config.kv_heads == config.heads { 1 } else { config.kv_heads };
    let fits = (1..config.heads).filter(divides).filter(|n| n.is_multiple_of(groups));
    let fits: Vec<String> = fits.map(|n| n.to_string()).collect();
    refuse(format!(
        "the mask keeps {} heads in each layer, and transformers takes a Llama only where they divide its width, {hidden}: \
         keep {} of {}",
        now.heads,
        if fits.is_empty() { "all".to_owned() } else { fits.join(" or ") },
        config.heads
    ))
}
