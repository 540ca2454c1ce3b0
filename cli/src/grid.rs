//! Tables of units for JSON and screen: a row a layer, each as long as the layer has units.

use serde::Serialize;
use std::ops::Range;
use uspx_domain::{Deposit, ModelShape, Statistic, Unit, UnitKind};

/// `[layer][unit]`; a layer without such units has an empty row.
pub type Grid = Vec<Vec<f64>>;

/// A number that all layers share, or one for each layer where they differ.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum PerLayer {
    /// All alike.
    Alike(u32),
    /// By layer.
    Each(Vec<u32>),
}

impl From<Vec<u32>> for PerLayer {
    fn from(each: Vec<u32>) -> Self {
        match each.split_first() {
            None => Self::Alike(0),
            Some((first, rest)) if rest.iter().all(|n| n == first) => Self::Alike(*first),
            Some(_) => Self::Each(each),
        }
    }
}

/// What a deposit says of a unit: Σx, Σx² and Σxt over its prompts.
pub struct Totals {
    /// The unit.
    pub unit: Unit,
    /// Σx.
    pub x: f64,
    /// Σx².
    pub xx: f64,
    /// Σxt, t the prompt's response tokens.
    pub xt: f64,
}

/// The totals of every unit of a kind.
pub fn totals<'a>(
    deposit: &'a Deposit,
    kind: UnitKind,
    statistic: Statistic,
) -> impl Iterator<Item = Totals> + 'a {
    let tokens: Vec<f64> = deposit.prompts.iter().map(|p| f64::from(p.tokens)).collect();
    let wanted = move |k: UnitKind, s: Statistic| k == kind && s == statistic;
    let columns = deposit.columns.iter().filter(move |c| wanted(c.unit.kind, c.statistic));
    let columns = columns.map(move |column| {
        let values = || column.values.iter().copied().map(f64::from);
        let xt = values().zip(&tokens).map(|(x, t)| x * t).sum();
        let (x, xx) = (values().sum(), values().map(|x| x * x).sum());
        Totals { unit: column.unit, x, xx, xt }
    });
    let moments = deposit.moments.iter().filter(move |m| wanted(m.kind, m.statistic));
    let moments = moments.flat_map(|m| {
        m.units().map(|(unit, sums)| {
            let [x, xx, xt] = sums.map(f64::from);
            Totals { unit, x, xx, xt }
        })
    });
    columns.chain(moments)
}

/// A grid of zeros; layers that are not asked for are empty.
pub fn zeros(shape: &ModelShape, kind: UnitKind, layers: &Range<u32>) -> Grid {
    let row = |layer| if layers.contains(&layer) { shape.width(kind, layer) } else { 0 };
    (0..shape.depth()).map(|layer| vec![0.0; row(layer) as usize]).collect()
}

/// The place of a unit.
pub fn place(grid: &mut Grid, unit: Unit) -> Option<&mut f64> {
    grid.get_mut(unit.layer as usize)?.get_mut(unit.index as usize)
}

/// Sums of a statistic over the prompts.
pub fn sums(deposit: &Deposit, shape: &ModelShape, kind: UnitKind, statistic: Statistic) -> Grid {
    let mut grid = zeros(shape, kind, &(0..shape.depth()));
    for total in totals(deposit, kind, statistic) {
        if let Some(place) = place(&mut grid, total.unit) {
            *place += total.x;
        }
    }
    grid
}

/// Each value of `a` divided by its twin in `b`; 0 where that is 0.
pub fn divided(a: &Grid, b: &Grid) -> Grid {
    let quotient = |(a, b): (&f64, &f64)| if *b == 0.0 { 0.0 } else { a / b };
    a.iter().zip(b).map(|(a, b)| a.iter().zip(b).map(quotient).collect()).collect()
}

/// Effects per response token and their standard errors over prompts (of a ratio of sums).
pub fn per_token(
    deposit: &Deposit,
    shape: &ModelShape,
    kind: UnitKind,
    statistic: Statistic,
    layers: &Range<u32>,
) -> (Grid, Grid) {
    let mut effects = zeros(shape, kind, layers);
    let mut errors = effects.clone();
    let tokens: Vec<f64> = deposit.prompts.iter().map(|p| f64::from(p.tokens)).collect();
    let (n, all) = (tokens.len() as f64, tokens.iter().sum::<f64>());
    let squares: f64 = tokens.iter().map(|t| t * t).sum();
    for Totals { unit, x, xx, xt } in totals(deposit, kind, statistic) {
        let mean = x / all;
        let spread = (xx - 2.0 * mean * xt + mean * mean * squares).max(0.0);
        let error = if n < 2.0 { f64::NAN } else { (spread * n / (n - 1.0)).sqrt() / all };
        for (grid, value) in [(&mut effects, mean), (&mut errors, error)] {
            if let Some(place) = place(grid, unit) {
                *place = value;
            }
        }
    }
    (effects, errors)
}

#[cfg(test)]
mod tests {
    use super::*;
    use uspx_domain::{Column, LayerShape, MlpShape, Moments, PromptTokens};

    fn shape() -> ModelShape {
        let dense = LayerShape::new(2, MlpShape::Dense { channels: 1 });
        let experts = MlpShape::Experts { experts: 2, top_k: 1, channels: 4 };
        ModelShape { layers: vec![dense, LayerShape::new(2, experts)] }
    }

    #[test]
    fn tables_are_numbers_where_layers_agree_and_lists_where_they_differ() {
        let json = |widths: Vec<u32>| serde_json::to_value(PerLayer::from(widths)).unwrap();
        assert_eq!(json(shape().widths(UnitKind::Head)), 2);
        assert_eq!(json(shape().widths(UnitKind::Expert)), serde_json::json!([0, 2]));
        let grid = zeros(&shape(), UnitKind::Expert, &(0..2));
        assert_eq!(grid, [vec![], vec![0.0, 0.0]], "a dense layer has no experts");
    }

    /// Both forms of a deposit, against the sums written out.
    #[test]
    fn effects_and_errors_are_those_of_the_ratio() {
        let (values, tokens) = ([2.0f64, -1.0, 4.0], [4u32, 2, 5]);
        let prompts: Vec<PromptTokens> =
            tokens.iter().map(|t| PromptTokens { id: t.to_string(), tokens: *t }).collect();
        let mean = 5.0 / 11.0;
        let squares: f64 =
            values.iter().zip(tokens).map(|(v, t)| (v - mean * f64::from(t)).powi(2)).sum();
        let error = (squares * 3.0 / 2.0).sqrt() / 11.0;
        let unit = Unit { kind: UnitKind::Expert, layer: 1, index: 1 };
        let f32s = values.iter().map(|v| *v as f32).collect();
        let column = Column { unit, statistic: Statistic::EXACT, values: f32s };
        let of = (UnitKind::Channel, 0, Statistic::EXACT);
        let moments = vec![Moments::of(of, [&values[..]].into_iter(), &tokens)];
        let deposit = Deposit { prompts, columns: vec![column], moments };
        for (kind, layer, index) in [(UnitKind::Expert, 1, 1), (UnitKind::Channel, 0, 0)] {
            let (effects, errors) = per_token(&deposit, &shape(), kind, Statistic::EXACT, &(0..2));
            assert!((effects[layer][index] - mean).abs() < 1e-12);
            assert!((errors[layer][index] - error).abs() < 1e-12);
        }
    }
}
