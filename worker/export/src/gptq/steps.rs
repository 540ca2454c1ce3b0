//! What GPTQ rounds to, as far as it must know it.

use crate::Result;

/// Steps that are found group by group, from weights that were mended by then.
pub(crate) trait Steps {
    /// Finds the steps of a group from its weights, `[outputs, group]` in the file's order, and the energies of
    /// its inputs.
    ///
    /// # Errors
    /// Weights that have none.
    fn find(&mut self, group: usize, weights: &[f32], energy: &[f64]) -> Result<()>;

    /// The code of a weight of that output and input, whose group's steps were found, and what the
    /// code stands for.
    fn round(&self, output: usize, input: usize, weight: f32) -> (u8, f32);

    /// Takes up those of further outputs.
    fn append(&mut self, others: Self)
    where
        Self: Sized;
}
