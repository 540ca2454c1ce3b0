//! A linear map with a frozen weight and, while training, a low-rank adapter.

use crate::Result;
use crate::layers::adapter::Adapter;
use crate::layers::weight::Weight;
use candle_core::Tensor;

/// y = x·Wᵀ + b.
#[derive(Debug, Clone)]
pub struct Linear {
    weight: Weight,
    bias: Option<Tensor>,
    /// The adapter being trained.
    pub adapter: Option<Adapter>,
}

impl Linear {
    /// From `weight` `[out, in]` and `bias` `[out]`, both frozen.
    pub fn new(weight: Weight, bias: Option<Tensor>) -> Self {
        Self { weight, bias, adapter: None }
    }

    /// (out, in).
    ///
    /// # Errors
    /// A weight that is not a matrix.
    pub fn dims(&self) -> Result<(usize, usize)> {
        self.weight.dims()
    }

    /// The weight as floats, `[out, in]`, without the adapter.
    ///
    /// # Errors
    /// Those of the tensor library.
    pub fn weight(&self) -> Result<Tensor> {
        self.weight.float()
    }

    /// The bias, `[out]`, if it has one.
    pub fn bias(&self) -> Option<&Tensor> {
        self.bias.as_ref()
    }

    /// The weight with the adapter merged in, as floats.
    ///
    /// # Errors
    /// Those of the tensor library.
    pub fn merged(&self) -> Result<Tensor> {
        match &self.adapter {
            Some(adapter) => Ok((self.weight()? + adapter.delta()?)?),
            None => self.weight(),
        }
    }

    /// The same with nothing to differentiate, for passes that keep no intermediate values: an adapter
    /// is merged into floats, and stays beside a weight that is stored otherwise.
    ///
    /// # Errors
    /// Those of the tensor library.
    pub fn frozen(&self) -> Result<Self> {
        let merged = matches!((&self.weight, &self.adapter), (Weight::Float(_), Some(_)));
        if merged {
            return Ok(Self::new(Weight::Float(self.merged()?.detach()), self.bias.clone()));
        }
        Ok(self.detached())
    }

    /// The same, its adapter not learning.
    #[must_use]
    pub fn detached(&self) -> Self {
        let adapter = self.adapter.as_ref().map(Adapter::detached);
        Self { weight: self.weight.clone(), bias: self.bias.clone(), adapter }
    }

    /// Puts another weight in place: frozen, unless it was computed from variables.
    pub fn set_weight(&mut self, weight: Tensor) {
        self.weight = Weight::Float(weight);
    }

    /// Puts another frozen weight in place, however it is held, without an adapter.
    pub fn replace(&mut self, weight: Weight) {
        self.weight = weight;
        self.adapter = None;
    }

    /// Maps the rows of x, `[N, in]` to `[N, out]`.
    ///
    /// # Errors
    /// Those of the tensor library.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        self.run(x, self.bias.as_ref())
    }

    /// The same without the bias.
    ///
    /// # Errors
    /// Those of the tensor library.
    pub fn product(&self, x: &Tensor) -> Result<Tensor> {
        self.run(x, None)
    }

    fn run(&self, x: &Tensor, bias: Option<&Tensor>) -> Result<Tensor> {
        match &self.adapter {
            Some(adapter) => adapter.forward(x, &self.weight, bias),
            None => self.weight.forward(x, bias),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::{Device, Var};

    fn values(count: usize, seed: u32) -> Vec<f64> {
        (0..count)
            .map(|i| f64::from((i as u32 * 7919 + seed * 104_729) % 211) / 105.0 - 1.0)
            .collect()
    }

    /// Σ y², by the plain formula on plain numbers.
    fn plain(
        parts: &[Vec<f64>; 3],
        weight: &[f64],
        (n, into, out, rank): (usize, usize, usize, usize),
    ) -> f64 {
        let [x, a, b] = parts;
        let mut total = 0.0;
        for row in 0..n {
            for o in 0..out {
                let mut y = 0.0;
                for i in 0..into {
                    let delta: f64 = (0..rank).map(|r| b[o * rank + r] * a[r * into + i]).sum();
                    y += x[row * into + i] * (weight[o * into + i] + 0.5 * delta);
                }
                total += y * y;
            }
        }
        total
    }

    #[test]
    fn adapters_agree_with_the_plain_formula_and_finite_differences() {
        let (into, out) = (4, 6);
        // Apart, and merged with either way of computing the gradients.
        for (n, rank) in [(1, 1), (5, 1), (5, 3)] {
            let sizes = (n, into, out, rank);
            let parts = [values(n * into, 1), values(rank * into, 2), values(out * rank, 3)];
            let weight = values(out * into, 4);
            let shapes = [(n, into), (rank, into), (out, rank)];
            let vars: Vec<Var> = parts
                .iter()
                .zip(shapes)
                .map(|(v, s)| Var::from_slice(v, s, &Device::Cpu).unwrap())
                .collect();
            let mut linear = Linear::new(
                Weight::Float(Tensor::from_slice(&weight, (out, into), &Device::Cpu).unwrap()),
                None,
            );
            let (a, b) = (vars[1].as_tensor().clone(), vars[2].as_tensor().clone());
            linear.adapter = Some(Adapter { a, b, scale: 0.5 });
            let loss = linear.forward(&vars[0]).unwrap().sqr().unwrap().sum_all().unwrap();
            assert!(
                (loss.to_scalar::<f64>().unwrap() - plain(&parts, &weight, sizes)).abs() < 1e-9
            );
            let gradients = loss.backward().unwrap();
            for (which, var) in vars.iter().enumerate() {
                let got: Vec<f64> =
                    gradients.get(var).unwrap().flatten_all().unwrap().to_vec1().unwrap();
                for (i, got) in got.iter().enumerate() {
                    let moved = |by: f64| {
                        let mut parts = parts.clone();
                        parts[which][i] += by;
                        plain(&parts, &weight, sizes)
                    };
                    let want = (moved(1e-5) - moved(-1e-5)) / 2e-5;
                    assert!(
                        (got - want).abs() < 1e-6,
                        "{n} rows, rank {rank}, input {which}, {i}: {got} against {want}"
                    );
                }
            }
        }
    }
}
