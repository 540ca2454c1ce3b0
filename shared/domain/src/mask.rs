//! A mask: the units kept at a budget.

use crate::{Fingerprint, ModelShape, Unit, UnitKind};
use serde::{Deserialize, Serialize, Serializer};
use std::collections::{BTreeMap, BTreeSet};

/// Kept indices per layer, for each kind that is cut; all of the other kinds stay. In JSON every
/// kind has its key, `null` where all of it stays.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Deserialize)]
#[serde(from = "BTreeMap<UnitKind, Option<LayerLists>>")]
pub struct KeepLists(pub BTreeMap<UnitKind, LayerLists>);

/// The kept indices of each layer, ascending.
pub type LayerLists = Vec<Vec<u32>>;

impl From<BTreeMap<UnitKind, Option<LayerLists>>> for KeepLists {
    fn from(lists: BTreeMap<UnitKind, Option<LayerLists>>) -> Self {
        Self(lists.into_iter().filter_map(|(kind, lists)| Some((kind, lists?))).collect())
    }
}

impl Serialize for KeepLists {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_map(UnitKind::ALL.iter().map(|kind| (kind, self.0.get(kind))))
    }
}

/// Which units of which model stay. Its JSON form is the file format of `uspx mask`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Mask {
    /// The file format's version: 1.
    pub version: u32,
    /// The model it was made for.
    pub model: Fingerprint,
    /// What stays.
    pub keep: KeepLists,
}

/// Why a mask does not fit a model.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MaskError {
    /// The file was written by a newer uspx.
    #[error("mask format version {0} is not known here (1 is)")]
    Version(u32),
    /// The lists cover another number of layers.
    #[error("the mask's {kind} lists cover {got} layers, the model has {want}")]
    Layers {
        /// Which kind.
        kind: UnitKind,
        /// Lists in the mask.
        got: usize,
        /// Layers in the model.
        want: u32,
    },
    /// A unit is named that the model has not, or one is named twice or out of order.
    #[error(
        "the mask's layer {layer} keeps {kind} {index}, which is out of range, repeated or out of order"
    )]
    Unit {
        /// Which kind.
        kind: UnitKind,
        /// The layer.
        layer: u32,
        /// The offending index.
        index: u32,
    },
    /// A layer keeps fewer units than the model can do without; of experts, than the router picks.
    #[error(
        "the mask keeps {got} {kind}s in layer {layer}, which needs {floor}: keep at least that many"
    )]
    BelowFloor {
        /// Which kind.
        kind: UnitKind,
        /// The layer.
        layer: u32,
        /// Units kept.
        got: usize,
        /// The least.
        floor: u32,
    },
}

impl Mask {
    /// The mask that keeps everything.
    pub fn everything(model: Fingerprint) -> Self {
        Self { version: 1, model, keep: KeepLists::default() }
    }

    /// The mask that keeps `kept` of one kind (any order; units of other kinds are passed over) and
    /// all of the others.
    pub fn keeping(
        model: Fingerprint,
        shape: &ModelShape,
        kind: UnitKind,
        kept: impl IntoIterator<Item = Unit>,
    ) -> Self {
        let mut lists = vec![Vec::new(); shape.layers.len()];
        for unit in kept.into_iter().filter(|u| u.kind == kind) {
            if let Some(list) = lists.get_mut(unit.layer as usize) {
                list.push(unit.index);
            }
        }
        for list in &mut lists {
            list.sort_unstable();
            list.dedup();
        }
        let mut mask = Self::everything(model);
        mask.keep.0.insert(kind, lists);
        mask
    }

    /// The mask that cuts some layers of a dense model whole, every head and channel of them, and keeps
    /// all of the others.
    pub fn without_layers(model: Fingerprint, shape: &ModelShape, gone: &BTreeSet<u32>) -> Self {
        let mut mask = Self::everything(model);
        for kind in Self::OF_A_LAYER {
            let kept = |(layer, width): (u32, u32)| {
                if gone.contains(&layer) { Vec::new() } else { (0..width).collect() }
            };
            let lists = (0..).zip(shape.widths(kind)).map(kept).collect();
            mask.keep.0.insert(kind, lists);
        }
        mask
    }

    /// What a dense layer is made of: without all of it the layer passes the stream on as it is.
    const OF_A_LAYER: [UnitKind; 2] = [UnitKind::Head, UnitKind::Channel];

    /// Whether every head and channel of a dense layer is cut.
    pub fn cuts_whole(&self, shape: &ModelShape, layer: u32) -> bool {
        let cut = |kind| {
            let width = shape.width(kind, layer);
            width > 0 && (0..width).all(|index| !self.keeps(Unit { kind, layer, index }))
        };
        Self::OF_A_LAYER.into_iter().all(cut)
    }

    /// The lists of one kind; none where all of it stays.
    pub fn lists(&self, kind: UnitKind) -> Option<&LayerLists> {
        self.keep.0.get(&kind)
    }

    /// Whether `unit` stays.
    pub fn keeps(&self, unit: Unit) -> bool {
        match self.lists(unit.kind) {
            None => true,
            Some(lists) => {
                lists.get(unit.layer as usize).is_some_and(|l| l.binary_search(&unit.index).is_ok())
            }
        }
    }

    /// The units of one kind that are cut.
    pub fn cut(&self, shape: &ModelShape, kind: UnitKind) -> Vec<Unit> {
        shape.units(kind).filter(|u| !self.keeps(*u)).collect()
    }

    /// Checks the mask against a model's dimensions.
    ///
    /// # Errors
    /// The first thing that does not fit.
    pub fn check(&self, shape: &ModelShape) -> Result<(), MaskError> {
        if self.version != 1 {
            return Err(MaskError::Version(self.version));
        }
        self.keep.0.iter().try_for_each(|(kind, lists)| check_lists(lists, *kind, shape))
    }
}

fn check_lists(lists: &[Vec<u32>], kind: UnitKind, shape: &ModelShape) -> Result<(), MaskError> {
    if lists.len() != shape.layers.len() {
        return Err(MaskError::Layers { kind, got: lists.len(), want: shape.depth() });
    }
    for (layer, list) in (0..).zip(lists) {
        let mut least = 0;
        for &index in list {
            if index < least || index >= shape.width(kind, layer) {
                return Err(MaskError::Unit { kind, layer, index });
            }
            least = index + 1;
        }
        let floor = shape.floor(kind, layer);
        if list.len() < floor as usize {
            return Err(MaskError::BelowFloor { kind, layer, got: list.len(), floor });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Digest, LayerShape, MlpShape};

    fn shape() -> ModelShape {
        let mlp = MlpShape::Experts { experts: 4, top_k: 2, channels: 6 };
        ModelShape::uniform(2, LayerShape::new(2, mlp))
    }

    fn model() -> Fingerprint {
        Fingerprint(Digest::of(b"m"))
    }

    fn expert(layer: u32, index: u32) -> Unit {
        Unit { kind: UnitKind::Expert, layer, index }
    }

    #[test]
    fn keeps_what_it_was_given() {
        let kept = [expert(0, 3), expert(0, 1), expert(1, 0), expert(1, 2)];
        let mask = Mask::keeping(model(), &shape(), UnitKind::Expert, kept);
        mask.check(&shape()).unwrap();
        assert!(kept.iter().all(|u| mask.keeps(*u)));
        assert_eq!(mask.cut(&shape(), UnitKind::Expert).len(), 4);
        assert!(mask.keeps(Unit { kind: UnitKind::Head, layer: 1, index: 1 }));
    }

    #[test]
    fn refuses_what_the_router_could_not_run() {
        let mask = Mask::keeping(
            model(),
            &shape(),
            UnitKind::Expert,
            [expert(0, 3), expert(1, 0), expert(1, 2)],
        );
        assert_eq!(
            mask.check(&shape()),
            Err(MaskError::BelowFloor { kind: UnitKind::Expert, layer: 0, got: 1, floor: 2 })
        );
        let far = Mask::keeping(model(), &shape(), UnitKind::Expert, [expert(0, 3), expert(0, 9)]);
        assert!(matches!(far.check(&shape()), Err(MaskError::Unit { index: 9, .. })));
    }

    #[test]
    fn a_layer_is_cut_whole_where_no_head_and_no_channel_stays() {
        let dense = LayerShape::new(2, MlpShape::Dense { channels: 3 });
        let shape = ModelShape::uniform(3, dense);
        let mut mask = Mask::without_layers(model(), &shape, &BTreeSet::from([0, 2]));
        mask.check(&shape).unwrap();
        let whole = |mask: &Mask| [0, 1, 2].map(|layer| mask.cuts_whole(&shape, layer));
        assert_eq!(whole(&mask), [true, false, true]);
        assert_eq!(mask.cut(&shape, UnitKind::Channel).len(), 6);
        mask.keep.0.remove(&UnitKind::Channel);
        assert_eq!(whole(&mask), [false; 3], "its channels stay");
        let experts = Mask::keeping(model(), &self::shape(), UnitKind::Head, []);
        assert!(!experts.cuts_whole(&self::shape(), 0), "its experts stay");
    }

    #[test]
    fn its_json_is_the_file_format() {
        let mask = Mask::keeping(
            model(),
            &shape(),
            UnitKind::Expert,
            [expert(0, 0), expert(0, 1), expert(1, 0), expert(1, 2)],
        );
        let json = serde_json::to_value(&mask).unwrap();
        assert_eq!(json["keep"]["expert"], serde_json::json!([[0, 1], [0, 2]]));
        assert_eq!(json["keep"]["head"], serde_json::Value::Null);
        assert_eq!(serde_json::from_value::<Mask>(json).unwrap(), mask);
    }
}
