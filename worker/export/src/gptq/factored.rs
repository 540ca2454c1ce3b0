//! A Hessian ready for GPTQ: damped, its inputs in the order in which they are rounded, and factored where it
//! lies. All linear maps that share an input are rounded by one.
#![allow(clippy::indexing_slicing)] // Bounds: groups are whole, and inputs run below the matrix's side.

use crate::hessian::Hessian;
use crate::matrix::{BLOCK, SquareMatrix, invert_triangle};
use crate::{ExportError, Result};
use std::ops::Range;

/// Damping is raised tenfold as long as the Hessian is not positive definite, this often.
const DAMPING_TRIES: u32 = 6;

/// The upper triangular R of H + damping = R·Rᵀ. Of a difference D between weights, rows in rounding order,
/// ‖D·R‖² is what the damped Hessian says of its outputs, and (D·R)ₖ depends on no column after k: so each
/// column's code is chosen by itself, those before it being known.
#[derive(Debug)]
pub struct Factored {
    matrix: SquareMatrix,
    group: usize,
    /// Which input of the file is rounded when.
    order: Vec<usize>,
    /// Of each input, in the file's order.
    energy: Vec<f64>,
    /// What damping added to the diagonal, in rounding order.
    added: Vec<f64>,
    damping: f64,
    /// R⁻¹ of each block on the diagonal.
    inverses: Vec<Vec<f64>>,
}

impl Factored {
    /// Factors `hessian` for weights in groups of `group`, with at least so much damping (a fraction of its
    /// mean diagonal), inputs in the order of falling energy or the file's.
    ///
    /// # Errors
    /// [`ExportError::Shape`] where the groups do not fit, [`ExportError::Indefinite`] where no damping helps.
    pub fn of(hessian: Hessian, group: usize, (damping, by_energy): (f64, bool)) -> Result<Self> {
        let inputs = hessian.inputs();
        if group == 0 || inputs == 0 || !inputs.is_multiple_of(group) {
            let want = format!("groups of {group}");
            return Err(ExportError::Shape { name: "Hessian".into(), got: vec![inputs], want });
        }
        if !BLOCK.is_multiple_of(group) && !group.is_multiple_of(BLOCK) && group < inputs {
            return Err(ExportError::Unsupported(format!(
                "groups of {group} do not divide blocks of {BLOCK}"
            )));
        }
        let energy = hessian.energy();
        let order = if by_energy { energy_order(&energy, group) } else { (0..inputs).collect() };
        let mut matrix = hessian.into_matrix();
        matrix.reorder(&order);
        let (added, damping) = damped(&mut matrix, damping)?;
        let mut this = Self { matrix, group, order, energy, added, damping, inverses: Vec::new() };
        let inverse = |block: Range<usize>| {
            invert_triangle(&this.matrix.triangle(block.clone()), block.len())
        };
        this.inverses = this.blocks().map(inverse).collect();
        Ok(this)
    }

    /// Inputs of the linear.
    pub fn inputs(&self) -> usize {
        self.matrix.side()
    }

    /// Inputs that share a scale.
    pub fn group(&self) -> usize {
        self.group
    }

    /// The damping that made it positive definite.
    pub fn damping(&self) -> f64 {
        self.damping
    }

    /// Inputs that never fired.
    pub fn dead_inputs(&self) -> usize {
        self.energy.iter().filter(|e| **e <= 0.0).count()
    }

    /// The diagonal of R.
    pub fn pivots(&self) -> Vec<f64> {
        self.matrix.diagonal()
    }

    pub(super) fn order(&self) -> &[usize] {
        &self.order
    }

    pub(super) fn energy(&self) -> &[f64] {
        &self.energy
    }

    pub(super) fn added(&self) -> &[f64] {
        &self.added
    }

    /// R row by row. What lies below its diagonal is not part of it.
    pub(super) fn values(&self) -> &[f64] {
        self.matrix.values()
    }

    /// Columns that are rounded before the rest is mended. A wider group is one block whatever its width:
    /// its steps are found from mended weights.
    pub(super) fn blocks(&self) -> impl Iterator<Item = Range<usize>> + use<> {
        let (inputs, block) = (self.inputs(), BLOCK.max(self.group));
        (0..inputs).step_by(block).map(move |start| start..(start + block).min(inputs))
    }

    /// R⁻¹ of each of them, `[block, block]`.
    pub(super) fn inverses(&self) -> &[Vec<f64>] {
        &self.inverses
    }
}

/// Groups by falling mean energy, inputs within a group by falling energy; ties by index.
fn energy_order(energy: &[f64], group: usize) -> Vec<usize> {
    let falling = |a: f64, b: f64| b.total_cmp(&a);
    let mut groups: Vec<usize> = (0..energy.len() / group).collect();
    let mass = |g: usize| energy[g * group..(g + 1) * group].iter().sum::<f64>();
    groups.sort_by(|a, b| falling(mass(*a), mass(*b)).then(a.cmp(b)));
    groups
        .iter()
        .flat_map(|g| {
            let mut inner: Vec<usize> = (g * group..(g + 1) * group).collect();
            inner.sort_by(|a, b| falling(energy[*a], energy[*b]).then(a.cmp(b)));
            inner
        })
        .collect()
}

/// Factors it damped; what was added to its diagonal, and the damping that it took.
fn damped(matrix: &mut SquareMatrix, damping: f64) -> Result<(Vec<f64>, f64)> {
    let diagonal = matrix.diagonal();
    let live: Vec<f64> = diagonal.iter().copied().filter(|d| *d > 0.0).collect();
    let mean = if live.is_empty() { 1.0 } else { live.iter().sum::<f64>() / live.len() as f64 };
    let mut fraction = damping;
    for _ in 0..DAMPING_TRIES {
        let floor = |d: &f64| if *d > 0.0 { fraction * mean } else { mean };
        let added: Vec<f64> = diagonal.iter().map(floor).collect();
        if matrix.factor(&added)? {
            return Ok((added, fraction));
        }
        fraction = (fraction * 10.0).max(1e-6);
    }
    Err(ExportError::Indefinite { width: diagonal.len(), damping: fraction / 10.0 })
}
