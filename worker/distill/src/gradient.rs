//! The gradient of a batch's loss with respect to the adapters, in one of two ways that give the same:
//! from the graph of all layers at once, or layer by layer with each layer run once more (Chen et al.
//! 2016, arXiv 1604.06174), which keeps one layer's activations at a time and costs a forward pass more.
//! Either is of a student without what is cut.

use crate::Result;
use candle_core::backprop::GradStore;
use candle_core::{Tensor, Var};
use uspx_model::batch::Batch;
use uspx_model::cuts::CutTaps;
use uspx_model::layers::frame::Frame;
use uspx_model::taps::Site;
use uspx_model::transformer::Transformer;
use uspx_model::{Holding, ModelError, Spool};

/// How much of the graph is there at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// All of it.
    Whole,
    /// One layer's.
    Layers,
}

impl Way {
    /// The way of a student: who holds it in 4 bits has no memory for the graph of all layers.
    pub fn of(student: &Transformer) -> Self {
        if student.holding() == Holding::Nf4 { Self::Layers } else { Self::Whole }
    }
}

/// The loss of a batch without what `cut` takes from the student, and its gradients with respect to `vars`,
/// the student's adapters. `loss` makes it
/// of the logits that predict the answers, `[rows, vocab]`; where it is not a finite number the gradients
/// are not, either.
///
/// # Errors
/// Those of the model and of the loss.
pub fn gradient(
    student: &Transformer,
    (batch, vars, way): (&Batch, &[Var], Way),
    cut: &CutTaps,
    loss: impl FnOnce(&Tensor) -> Result<Tensor>,
) -> Result<(f32, GradStore)> {
    let frame = student.frame(batch)?;
    let head = |x: &Tensor| loss(&student.logits(x, &batch.predicting)?);
    match way {
        Way::Whole => {
            let loss = head(&student.forward(batch, &frame, &mut cut.clone())?)?;
            Ok((loss.to_scalar()?, loss.backward()?))
        }
        Way::Layers => {
            let (x, boundaries) = forward(student, (batch, &frame), cut)?;
            let end = Var::from_tensor(&x)?;
            let loss = head(end.as_tensor())?;
            let value = loss.to_scalar()?;
            let gradient = loss.backward()?.remove(&end).ok_or_else(lost)?;
            drop(loss);
            Ok((value, backward(student, (gradient, &frame, &boundaries), cut, vars)?))
        }
    }
}

/// The residual stream after the last layer and before every one, nothing of which is differentiated.
fn forward(
    student: &Transformer,
    (batch, frame): (&Batch, &Frame),
    cut: &CutTaps,
) -> Result<(Tensor, Spool)> {
    let fixed = student.mapped(|linear| Ok(linear.detached()))?;
    let mut boundaries = student.spool();
    let mut keep = |site: Site<'_>, x: &Tensor| -> uspx_model::Result<Option<Tensor>> {
        if let Site::ResidPre { .. } = site {
            boundaries.push(x)?;
        }
        Ok(None)
    };
    let x = fixed.forward(batch, frame, &mut (&mut keep, &mut cut.clone()))?;
    Ok((x, boundaries))
}

/// The gradients of `vars`, collected from layer to layer.
fn backward(
    student: &Transformer,
    (gradient, frame, boundaries): (Tensor, &Frame, &Spool),
    cut: &CutTaps,
    vars: &[Var],
) -> Result<GradStore> {
    let mut all = GradStore::default();
    let found = |_: &CutTaps, gradients: &GradStore| {
        for var in vars {
            if let Some(gradient) = gradients.get(var) {
                all.insert(var, gradient.clone());
            }
        }
        Ok(())
    };
    student.backward_from(gradient, (frame, boundaries), |_| Ok(cut.clone()), found)?;
    Ok(all)
}

fn lost() -> ModelError {
    ModelError::Request("the loss has no gradient: this is a bug in it".into())
}
