//! GPTQ's packed layout, version 1: what AutoGPTQ introduced and vLLM, transformers and ExLlama
//! read.
//!
//! For a weight of N outputs and K inputs in G groups: `qweight` i32 `[K/8, N]`, nibble i (lowest
//! first) of row r being input 8r+i; `qzeros` i32 `[G, N/8]`, packed along N and storing the zero
//! point *minus one*; `scales` f16 `[G, N]`; `g_idx` i32 `[K]`, the group of each input. W[n, k] =
//! (q − (z + 1)) · s.
#![allow(clippy::indexing_slicing)] // Bounds: `Shape::check` ties every length to the dimensions before a kernel runs.

use crate::grid::ZERO;
use crate::quantised::QuantLinear;
use crate::{ExportError, Result};
use half::f16;

/// Codes in an i32.
const PER_WORD: usize = 8;

/// One linear as the file holds it.
#[derive(Debug, Clone, PartialEq)]
pub struct PackedWeights {
    /// Rows of the weight (N).
    pub outputs: usize,
    /// Columns of the weight (K).
    pub inputs: usize,
    /// `[K/8, N]`
    pub qweight: Vec<i32>,
    /// `[G, N/8]`
    pub qzeros: Vec<i32>,
    /// `[G, N]`
    pub scales: Vec<f16>,
    /// `[K]`
    pub g_idx: Vec<i32>,
}

/// Packs a linear.
///
/// # Errors
/// [`ExportError::Unsupported`] where inputs or outputs are not multiples of 8.
pub fn pack(linear: &QuantLinear) -> Result<PackedWeights> {
    let (outputs, inputs) = (linear.outputs(), linear.inputs());
    check_sides(outputs, inputs)?;
    let groups = inputs / linear.group();
    let mut qweight = vec![0i32; inputs / PER_WORD * outputs];
    for (n, row) in linear.codes().chunks_exact(inputs).enumerate() {
        for (r, word) in row.chunks_exact(PER_WORD).enumerate() {
            qweight[r * outputs + n] = pack_word(word);
        }
    }
    let zeros = vec![pack_word(&[ZERO - 1; PER_WORD]); groups * outputs / PER_WORD];
    let scales = (0..groups * outputs)
        .map(|i| linear.scales()[(i % outputs) * groups + i / outputs])
        .collect();
    let g_idx = (0..inputs).map(|k| (k / linear.group()) as i32).collect();
    Ok(PackedWeights { outputs, inputs, qweight, qzeros: zeros, scales, g_idx })
}

/// Refuses a weight that does not make whole words.
pub(crate) fn check_sides(outputs: usize, inputs: usize) -> Result<()> {
    if outputs.is_multiple_of(PER_WORD) && inputs.is_multiple_of(PER_WORD) {
        return Ok(());
    }
    let reason = format!(
        "GPTQ packs eight weights in a word: [{outputs}, {inputs}] has a side that is not a multiple of 8"
    );
    Err(ExportError::Unsupported(reason))
}

fn pack_word(codes: &[u8]) -> i32 {
    codes.iter().enumerate().fold(0u32, |word, (i, code)| word | u32::from(*code) << (4 * i)) as i32
}

fn nibble(word: i32, i: usize) -> u8 {
    (word as u32 >> (4 * i) & 15) as u8
}

impl PackedWeights {
    /// Groups of inputs (G).
    pub fn groups(&self) -> usize {
        self.scales.len().checked_div(self.outputs).unwrap_or(0)
    }

    fn check(&self) -> Result<()> {
        let (n, k, g) = (self.outputs, self.inputs, self.groups());
        let fits = n > 0
            && n.is_multiple_of(PER_WORD)
            && k.is_multiple_of(PER_WORD)
            && g > 0
            && Some(self.qweight.len()) == (k / PER_WORD).checked_mul(n)
            && self.qzeros.len() == g * (n / PER_WORD)
            && self.scales.len() == g * n
            && self.g_idx.len() == k
            && self.g_idx.iter().all(|i| (0..g as i64).contains(&i64::from(*i)));
        if fits {
            return Ok(());
        }
        let got = vec![self.qweight.len(), self.qzeros.len(), self.scales.len(), self.g_idx.len()];
        let want = format!("qweight, qzeros, scales and g_idx of a [{n}, {k}] weight");
        Err(ExportError::Shape { name: "packed linear".into(), got, want })
    }

    /// The weights, f32 `[outputs, inputs]`, by the layout's own formula: also of files with other
    /// zero points or with inputs in another order (desc_act).
    ///
    /// # Errors
    /// [`ExportError::Shape`] where the parts do not fit each other.
    pub fn dequantise(&self) -> Result<Vec<f32>> {
        self.check()?;
        let mut weight = vec![0f32; self.outputs * self.inputs];
        for (n, row) in weight.chunks_exact_mut(self.inputs).enumerate() {
            for (k, w) in row.iter_mut().enumerate() {
                let group = self.g_idx[k] as usize;
                let zero = nibble(
                    self.qzeros[group * (self.outputs / PER_WORD) + n / PER_WORD],
                    n % PER_WORD,
                ) + 1;
                let code = nibble(self.qweight[k / PER_WORD * self.outputs + n], k % PER_WORD);
                *w = (f32::from(code) - f32::from(zero))
                    * self.scales[group * self.outputs + n].to_f32();
            }
        }
        Ok(weight)
    }

    /// The codes and scales, where the file is symmetric and its groups are contiguous, as ours
    /// are.
    ///
    /// # Errors
    /// [`ExportError::Unsupported`] for other files, [`ExportError::Shape`] where the parts do not
    /// fit each other.
    pub fn unpack(&self) -> Result<QuantLinear> {
        self.check()?;
        let groups = self.groups();
        let group = self.inputs / groups;
        let plain = group > 0
            && self.inputs.is_multiple_of(groups)
            && self.g_idx.iter().enumerate().all(|(k, g)| *g as usize == k / group)
            && self.qzeros.iter().all(|z| *z == pack_word(&[ZERO - 1; PER_WORD]));
        if !plain {
            return Err(ExportError::Unsupported(
                "the GPTQ file is not symmetric or its groups are not contiguous".into(),
            ));
        }
        let (n, k) = (self.outputs, self.inputs);
        let codes = (0..n * k)
            .map(|i| nibble(self.qweight[(i % k) / PER_WORD * n + i / k], i % PER_WORD))
            .collect();
        let scales = (0..n * groups).map(|i| self.scales[(i % groups) * n + i / groups]).collect();
        QuantLinear::new(n, k, group, codes, scales)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn linears() -> impl Strategy<Value = QuantLinear> {
        (1usize..4, 1usize..5, prop::sample::select(vec![8usize, 16, 32])).prop_flat_map(
            |(n, g, group)| {
                let (outputs, inputs) = (n * 8, g * group);
                let codes = prop::collection::vec(0u8..16, outputs * inputs);
                let scales = prop::collection::vec(-2f32..2.0, outputs * g);
                (codes, scales).prop_map(move |(codes, scales)| {
                    let scales = scales.into_iter().map(f16::from_f32).collect();
                    QuantLinear::new(outputs, inputs, group, codes, scales).unwrap()
                })
            },
        )
    }

    proptest! {
        #[test]
        fn packing_round_trips(linear in linears()) {
            let packed = pack(&linear).unwrap();
            prop_assert_eq!(packed.unpack().unwrap(), linear.clone());
            prop_assert_eq!(packed.dequantise().unwrap(), linear.dequantise());
        }
    }

    /// By hand from the layout's description, not by the packer.
    #[test]
    fn the_layout_is_the_published_one() {
        let mut codes = vec![8u8; 8 * 8];
        codes[1] = 3; // output 0, input 1
        codes[8 * 7 + 7] = 15; // output 7, input 7
        let packed =
            pack(&QuantLinear::new(8, 8, 8, codes, vec![f16::from_f32(0.5); 8]).unwrap()).unwrap();
        assert_eq!(packed.qweight[0], 0x8888_8838u32 as i32);
        assert_eq!(packed.qweight[7], 0xf888_8888u32 as i32);
        assert_eq!(packed.qzeros, [0x7777_7777]);
        assert_eq!(packed.g_idx, [0; 8]);
        let w = packed.dequantise().unwrap();
        assert_eq!((w[1], w[63], w[0]), (-2.5, 3.5, 0.0));
    }

    #[test]
    fn foreign_parts_are_refused_not_indexed() {
        let linear = QuantLinear::new(8, 16, 8, vec![1; 128], vec![f16::ONE; 16]).unwrap();
        let good = pack(&linear).unwrap();
        let spoilt: [fn(&mut PackedWeights); 6] = [
            |p| p.qweight.truncate(1),
            |p| p.qzeros.truncate(1),
            |p| p.scales.truncate(1),
            |p| p.g_idx[3] = 2,
            |p| p.g_idx[3] = -1,
            |p| p.outputs = 0,
        ];
        for spoil in spoilt {
            let mut bad = good.clone();
            spoil(&mut bad);
            assert!(matches!(bad.dequantise(), Err(ExportError::Shape { .. })));
            assert!(bad.unpack().is_err());
        }
        let mut reordered = good;
        reordered.g_idx.reverse();
        assert!(matches!(reordered.unpack(), Err(ExportError::Unsupported(_))));
        assert!(reordered.dequantise().is_ok());
        assert!(pack(&QuantLinear::new(4, 8, 8, vec![0; 32], vec![f16::ONE; 4]).unwrap()).is_err());
    }
}
