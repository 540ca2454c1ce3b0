//! Which layers of a dense model stay. One whose every head and channel a mask cuts passes the stream on as
//! it is: it goes whole, and those behind it are numbered anew.

use super::refuse;
use crate::Result;
use serde_json::{Value, json};
use uspx_domain::Mask;
use uspx_model::config::{Family, ModelConfig};
use uspx_model::taps::Projection;
use uspx_model::{StoredModel, in_layer, of_layer};

/// The layers of the written model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Depth {
    /// Those of the source, in its order.
    stay: Vec<u32>,
    /// How many the source has.
    before: usize,
}

impl Depth {
    /// What a mask leaves.
    pub fn of(source: &StoredModel, mask: &Mask) -> Result<Self> {
        let shape = source.config.shape();
        let stays = |layer: &u32| !mask.cuts_whole(&shape, *layer);
        let stay: Vec<u32> = (0..shape.depth()).filter(stays).collect();
        if stay.is_empty() {
            return refuse(
                "the mask cuts every head and channel of every layer, and no model is left: build one that keeps at least \
                 one layer (uspx mask build --units head,channel --spread layers)"
                    .to_owned(),
            );
        }
        let depth = Self { stay, before: shape.layers.len() };
        depth.nothing_else_is_added(source)?;
        Ok(depth)
    }

    /// Refuses a layer that adds something even without its heads and channels: under the mask the bias
    /// of attention's output is still there.
    fn nothing_else_is_added(&self, source: &StoredModel) -> Result<()> {
        let bias = |layer: usize| format!("{}.bias", Projection::O.path(layer));
        let adds = |name: &String| {
            source.config.bias.o && source.checkpoint.has(name) && !source.checkpoint.is_zero(name)
        };
        let gone = (0..self.before).filter(|layer| self.number(*layer).is_none());
        let Some(name) = gone.map(bias).find(adds) else { return Ok(()) };
        refuse(format!(
            "the mask cuts a whole layer, but its `{name}` would still be added to the stream: without the layer it would \
             be another model than under the mask. Keep that layer, or cut heads and channels of all layers alike \
             (uspx mask build --units head,channel --spread uniform)"
        ))
    }

    /// Those that stay, in the source's order.
    pub fn stay(&self) -> &[u32] {
        &self.stay
    }

    /// The number of a source's layer in the written model; none where it goes.
    fn number(&self, layer: usize) -> Option<usize> {
        self.stay.iter().position(|stays| *stays as usize == layer)
    }

    /// What a source's tensor is called in the written model; none where its layer goes.
    pub fn renamed(&self, name: &str) -> Option<String> {
        match in_layer(name).filter(|(layer, _)| *layer < self.before) {
            Some((layer, within)) => Some(of_layer(self.number(layer)?, within)),
            None => Some(name.to_owned()),
        }
    }

    /// The keys of config.json that change with the number of layers.
    pub fn keys(&self, source: &ModelConfig, config: &Value) -> Vec<(&'static str, Value)> {
        if self.stay.len() == self.before {
            return Vec::new();
        }
        let mut keys = vec![("num_hidden_layers", json!(self.stay.len()))];
        let types = config.get("layer_types").and_then(Value::as_array);
        if let Some(types) = types {
            let kept = self.stay.iter().filter_map(|layer| types.get(*layer as usize));
            keys.push(("layer_types", kept.cloned().collect()));
        }
        let first = full(source, config, types.is_some());
        if let Some(first) = first.filter(|first| *first <= self.before) {
            let before = self.stay.iter().filter(|layer| (**layer as usize) < first).count();
            keys.push(("max_window_layers", json!(before)));
        }
        keys
    }

    /// Leaves out of each layer's own settings those of layers that go.
    pub fn apply(&self, config: &mut ModelConfig) {
        config.windows = self.kept(&config.windows);
        config.mlps = self.kept(&config.mlps);
    }

    fn kept<T: Clone>(&self, all: &[T]) -> Vec<T> {
        self.stay.iter().filter_map(|layer| all.get(*layer as usize)).cloned().collect()
    }
}

/// How many layers come before those that slide, where one number says it (Qwen 2 and 3): the file's, or
/// where it has none and its layers slide the class's own, which fewer layers would make another.
fn full(source: &ModelConfig, config: &Value, listed: bool) -> Option<usize> {
    let family = Family::named(&source.architecture);
    if !matches!(family, Some(Family::Qwen2 | Family::Qwen3)) {
        return None;
    }
    let said = config.get("max_window_layers").and_then(Value::as_u64);
    let slides = source.windows.iter().any(Option::is_some) && !listed;
    let meant = || slides.then(|| source.windows.iter().take_while(|w| w.is_none()).count());
    said.map(|number| number as usize).or_else(meant)
}
