//! Which units one mask keeps that another does not.

use super::ranges;
use crate::error::Result;
use crate::output;
use serde::Serialize;
use uspx_domain::{LayerLists, Mask, UnitKind};

/// One kind of unit.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub struct KindChange {
    pub kind: UnitKind,
    /// Units kept by the first and the second; none: all of them.
    pub kept: (Option<usize>, Option<usize>),
    /// The layers in which they differ; none are told where one of the two keeps all.
    pub layers: Vec<LayerChange>,
}

/// One layer.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub struct LayerChange {
    pub layer: usize,
    /// Kept by the first alone.
    pub cut: Vec<u32>,
    /// Kept by the second alone.
    pub restored: Vec<u32>,
}

/// The changes by kind.
pub fn between(first: &Mask, second: &Mask) -> Vec<KindChange> {
    let kind = |kind: &UnitKind| {
        let lists = (first.lists(*kind), second.lists(*kind));
        let count = |lists: Option<&LayerLists>| lists.map(|l| l.iter().map(Vec::len).sum());
        (lists != (None, None)).then(|| KindChange {
            kind: *kind,
            kept: (count(lists.0), count(lists.1)),
            layers: lists.0.zip(lists.1).map(|(a, b)| layers(a, b)).unwrap_or_default(),
        })
    };
    UnitKind::ALL.iter().filter_map(kind).collect()
}

fn layers(first: &LayerLists, second: &LayerLists) -> Vec<LayerChange> {
    let alone = |these: &[u32], others: &[u32]| -> Vec<u32> {
        these.iter().copied().filter(|unit| others.binary_search(unit).is_err()).collect()
    };
    let of = |lists: &LayerLists, layer: usize| lists.get(layer).cloned().unwrap_or_default();
    let one = |layer: usize| {
        let (a, b) = (of(first, layer), of(second, layer));
        LayerChange { layer, cut: alone(&a, &b), restored: alone(&b, &a) }
    };
    let differs = |change: &LayerChange| !(change.cut.is_empty() && change.restored.is_empty());
    (0..first.len().max(second.len())).map(one).filter(differs).collect()
}

impl KindChange {
    /// For a person.
    pub fn show(&self) -> Result<()> {
        let count = |kept: Option<usize>| kept.map_or_else(|| "all".to_owned(), |n| n.to_string());
        let (first, second) = (count(self.kept.0), count(self.kept.1));
        let sum = |of: fn(&LayerChange) -> usize| self.layers.iter().map(of).sum::<usize>();
        let (cut, restored) = (sum(|l| l.cut.len()), sum(|l| l.restored.len()));
        output::paragraph(&format!(
            "mask: {first} {kind}s kept, then {second}: {cut} cut, {restored} kept again",
            kind = self.kind
        ))?;
        if self.layers.is_empty() { Ok(()) } else { output::line(&self.table().to_string()) }
    }

    fn table(&self) -> output::Table {
        let mut table = output::table(&["layer", "cut", "kept again"]);
        for LayerChange { layer, cut, restored } in &self.layers {
            table.add_row([layer.to_string(), ranges(cut), ranges(restored)]);
        }
        table
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use uspx_domain::{Digest, Fingerprint};

    fn mask(lists: &[(UnitKind, &[&[u32]])]) -> Mask {
        let mut mask = Mask::everything(Fingerprint(Digest::of(b"m")));
        let owned = |lists: &[&[u32]]| lists.iter().map(|list| list.to_vec()).collect();
        mask.keep.0 = lists.iter().map(|(kind, lists)| (*kind, owned(lists))).collect();
        mask
    }

    #[test]
    fn only_what_differs_is_told_by_kind_and_layer() {
        let (expert, head) = (UnitKind::Expert, UnitKind::Head);
        let first = mask(&[(expert, &[&[0, 1, 4], &[2, 3]])]);
        let second = mask(&[(expert, &[&[0, 2, 3], &[2, 3]]), (head, &[&[0], &[]])]);
        let layer = LayerChange { layer: 0, cut: vec![1, 4], restored: vec![2, 3] };
        let experts = KindChange { kind: expert, kept: (Some(5), Some(5)), layers: vec![layer] };
        let heads = KindChange { kind: head, kept: (None, Some(1)), layers: Vec::new() };
        assert_eq!(between(&first, &second), [experts, heads]);
        assert_eq!(between(&first, &first)[0].layers, []);
    }
}
