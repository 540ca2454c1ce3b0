//! AdamW (Loshchilov & Hutter 2019, arXiv 1711.05101, algorithm 2) without weight decay, its moments open:
//! a training that is kept on disk has to keep them too.
//!
//! On the CPU a step is one pass over memory a list; elsewhere it is made of the device's operations.

use crate::Result;
use candle_core::backprop::GradStore;
use candle_core::{
    CpuStorage, Device, InplaceOp2, InplaceOp3, Layout, Result as TensorResult, Tensor, Var,
};

/// How much of the mean of gradients stays at a step.
const BETA1: f64 = 0.9;
/// The same of the mean of their squares.
const BETA2: f64 = 0.999;
/// Keeps the division from growing without bound.
const EPSILON: f64 = 1e-8;

/// The optimiser, and what it moves.
pub struct AdamW {
    vars: Vec<Var>,
    first: Vec<Tensor>,
    second: Vec<Tensor>,
}

/// What is the same for every value in a step.
#[derive(Debug, Clone, Copy)]
struct Step {
    /// Gradients are multiplied by it first.
    shrink: f64,
    /// The learning rate, the first moment's bias taken out.
    rate: f64,
    /// The second moment's.
    unbias: f64,
}

impl Step {
    fn new(step: u32, rate: f64, shrink: f64) -> Self {
        let bias = |beta: f64| 1.0 - beta.powi(step.try_into().unwrap_or(i32::MAX));
        Self { shrink, rate: rate / bias(BETA1), unbias: 1.0 / bias(BETA2) }
    }
}

impl AdamW {
    /// Of variables that have not moved yet.
    ///
    /// # Errors
    /// Those of the tensor library.
    pub fn new(vars: Vec<Var>) -> Result<Self> {
        Ok(Self { first: zeros(&vars)?, second: zeros(&vars)?, vars })
    }

    /// What it moves.
    pub fn vars(&self) -> &[Var] {
        &self.vars
    }

    /// The means of gradients and of their squares, shaped as the variables.
    pub fn moments(&self) -> (&[Tensor], &[Tensor]) {
        (&self.first, &self.second)
    }

    /// Takes variables and moments back to where they once were.
    ///
    /// # Errors
    /// Shapes other than the variables'.
    pub fn restore(
        &mut self,
        values: &[Tensor],
        first: Vec<Tensor>,
        second: Vec<Tensor>,
    ) -> Result<()> {
        set(&self.vars, values)?;
        let beside = |all: Vec<Tensor>| -> Result<Vec<Tensor>> {
            let each =
                all.iter().zip(&self.vars).map(|(moment, var)| moment.to_device(var.device()));
            Ok(each.collect::<TensorResult<_>>()?)
        };
        (self.first, self.second) = (beside(first)?, beside(second)?);
        Ok(())
    }

    /// Moves every variable that has a gradient, which is first multiplied by `shrink`. Steps count
    /// from 1.
    ///
    /// # Errors
    /// Those of the tensor library.
    pub fn step(
        &mut self,
        gradients: &GradStore,
        (step, rate, shrink): (u32, f64, f64),
    ) -> Result<()> {
        let step = Step::new(step, rate, shrink);
        for (var, moments) in self.vars.iter().zip(self.first.iter_mut().zip(&mut self.second)) {
            let Some(gradient) = gradients.get(var) else { continue };
            let gradient = gradient.detach().contiguous()?;
            match gradient.device() {
                Device::Cpu => in_place(var, moments, &gradient, step)?,
                _ => by_tensors(var, moments, &gradient, step)?,
            }
        }
        Ok(())
    }
}

/// Moments of variables that have not moved yet.
///
/// # Errors
/// Those of the tensor library.
pub fn zeros(vars: &[Var]) -> Result<Vec<Tensor>> {
    Ok(vars.iter().map(|v| v.zeros_like()).collect::<TensorResult<_>>()?)
}

/// Gives variables these values.
///
/// # Errors
/// Shapes other than the variables'.
pub fn set(vars: &[Var], values: &[Tensor]) -> Result<()> {
    for (var, value) in vars.iter().zip(values) {
        var.set(&value.to_device(var.device())?)?;
    }
    Ok(())
}

/// One variable's step on the CPU.
fn in_place(
    var: &Var,
    (first, second): (&mut Tensor, &mut Tensor),
    gradient: &Tensor,
    step: Step,
) -> Result<()> {
    let shrink = step.shrink as f32;
    first.inplace_op2(gradient, &Mean::new(BETA1, |g| g, shrink))?;
    second.inplace_op2(gradient, &Mean::new(BETA2, |g| g * g, shrink))?;
    var.as_tensor().inplace_op3(first, second, &step)?;
    Ok(())
}

/// The same by any device's operations.
fn by_tensors(
    var: &Var,
    (first, second): (&mut Tensor, &mut Tensor),
    gradient: &Tensor,
    step: Step,
) -> Result<()> {
    let gradient = (gradient * step.shrink)?;
    *first = ((&*first * BETA1)? + (&gradient * (1.0 - BETA1))?)?;
    *second = ((&*second * BETA2)? + (gradient.sqr()? * (1.0 - BETA2))?)?;
    let size = ((&*second * step.unbias)?.sqrt()? + EPSILON)?;
    let change = ((&*first * step.rate)? / size)?;
    var.set(&(var.as_detached_tensor() - change)?)?;
    Ok(())
}

/// A running mean of something of the gradients.
struct Mean {
    stays: f32,
    comes: f32,
    of: fn(f32) -> f32,
    shrink: f32,
}

impl Mean {
    /// What comes is one less what stays, which single precision would not say well.
    fn new(beta: f64, of: fn(f32) -> f32, shrink: f32) -> Self {
        Self { stays: beta as f32, comes: (1.0 - beta) as f32, of, shrink }
    }
}

impl InplaceOp2 for Mean {
    fn name(&self) -> &'static str {
        "running-mean"
    }

    fn cpu_fwd(
        &self,
        mean: &mut CpuStorage,
        of: &Layout,
        gradient: &CpuStorage,
        at: &Layout,
    ) -> TensorResult<()> {
        let gradient = values(gradient, at)?;
        for (mean, gradient) in values_mut(mean, of)?.iter_mut().zip(gradient) {
            *mean = *mean * self.stays + (self.of)(*gradient * self.shrink) * self.comes;
        }
        Ok(())
    }
}

impl InplaceOp3 for Step {
    fn name(&self) -> &'static str {
        "adamw"
    }

    fn cpu_fwd(
        &self,
        var: &mut CpuStorage,
        of: &Layout,
        first: &CpuStorage,
        first_at: &Layout,
        second: &CpuStorage,
        second_at: &Layout,
    ) -> TensorResult<()> {
        let (rate, unbias, epsilon) = (self.rate as f32, self.unbias as f32, EPSILON as f32);
        let moments = values(first, first_at)?.iter().zip(values(second, second_at)?);
        for (value, (first, second)) in values_mut(var, of)?.iter_mut().zip(moments) {
            *value -= first * rate / ((second * unbias).sqrt() + epsilon);
        }
        Ok(())
    }
}

/// The values of a contiguous list.
fn values<'a>(storage: &'a CpuStorage, at: &Layout) -> TensorResult<&'a [f32]> {
    let all = storage.as_slice::<f32>()?;
    let range = at.contiguous_offsets().ok_or_else(scattered)?;
    all.get(range.0..range.1).ok_or_else(scattered)
}

fn values_mut<'a>(storage: &'a mut CpuStorage, at: &Layout) -> TensorResult<&'a mut [f32]> {
    let range = at.contiguous_offsets().ok_or_else(scattered)?;
    let CpuStorage::F32(all) = storage else {
        return Err(candle_core::Error::Msg("only variables of f32 are trained".into()));
    };
    all.get_mut(range.0..range.1).ok_or_else(scattered)
}

fn scattered() -> candle_core::Error {
    candle_core::Error::Msg("a variable does not lie in one piece: this is a bug".into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_nn::{AdamW as Peer, Optimizer, ParamsAdamW};

    fn start() -> (Var, Tensor) {
        let values: Vec<f32> = (0..12).map(|i| (i as f32 * 0.7).sin()).collect();
        let target: Vec<f32> = (0..12).map(|i| (i as f32 * 1.3).cos() * 2.0).collect();
        let tensor = |v| Tensor::from_vec(v, (3, 4), &Device::Cpu).unwrap();
        (Var::from_tensor(&tensor(values)).unwrap(), tensor(target))
    }

    fn gradients(var: &Var, target: &Tensor) -> GradStore {
        (var.as_tensor() - target).unwrap().sqr().unwrap().mean_all().unwrap().backward().unwrap()
    }

    fn all(tensor: &Tensor) -> Vec<f32> {
        tensor.flatten_all().unwrap().to_vec1().unwrap()
    }

    fn assert_close(ours: &Tensor, theirs: &Tensor) {
        for (a, b) in all(ours).into_iter().zip(all(theirs)) {
            assert!((a - b).abs() < 1e-6 * (1.0 + b.abs()), "{a} {b}");
        }
    }

    #[test]
    fn it_walks_as_candle_s_does() {
        let ((ours, target), (theirs, _)) = (start(), start());
        let mut optimiser = AdamW::new(vec![ours.clone()]).unwrap();
        let params = ParamsAdamW { weight_decay: 0.0, ..ParamsAdamW::default() };
        let mut peer = Peer::new(vec![theirs.clone()], params).unwrap();
        for step in 1..=40 {
            let rate = 0.1 / f64::from(step);
            peer.set_learning_rate(rate);
            peer.step(&gradients(&theirs, &target)).unwrap();
            optimiser.step(&gradients(&ours, &target), (step, rate, 1.0)).unwrap();
        }
        assert_close(&ours, &theirs);
        assert_ne!(all(&ours), all(&start().0));
    }

    #[test]
    fn every_device_s_operations_give_the_same() {
        let ((one, target), (other, _)) = (start(), start());
        let gradients = gradients(&one, &target);
        let gradient = gradients.get(&one).unwrap();
        let zeros = || one.zeros_like().unwrap();
        let (mut a, mut b) = ((zeros(), zeros()), (zeros(), zeros()));
        for step in 1..=5 {
            let step = Step::new(step, 0.05, 0.3);
            in_place(&one, (&mut a.0, &mut a.1), gradient, step).unwrap();
            by_tensors(&other, (&mut b.0, &mut b.1), gradient, step).unwrap();
        }
        assert_close(&one, &other);
        assert_close(&a.0, &b.0);
        assert_close(&a.1, &b.1);
    }

    #[test]
    fn taken_back_it_walks_the_same_way_again() {
        let (var, target) = start();
        let mut optimiser = AdamW::new(vec![var.clone()]).unwrap();
        optimiser.step(&gradients(&var, &target), (1, 0.1, 1.0)).unwrap();
        let copy = |t: &Tensor| t.copy().unwrap();
        let (first, second) = (copy(&optimiser.first[0]), copy(&optimiser.second[0]));
        let there = copy(&var);
        let mut once = Vec::new();
        for _ in 0..2 {
            optimiser.restore(&[copy(&there)], vec![copy(&first)], vec![copy(&second)]).unwrap();
            optimiser.step(&gradients(&var, &target), (2, 0.1, 0.5)).unwrap();
            once.push(all(&var));
        }
        assert_eq!(once[0], once[1]);
    }
}
