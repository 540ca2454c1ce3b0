//! The order of q and k rows. Hugging Face rotates the halves of a head against each other (rows i
//! and i + d/2); llama.cpp's `llama` rotates neighbours (2i and 2i + 1), so the rows of q and k are
//! interleaved on the way.

use crate::{ExportError, Result};

/// For each row of a GGUF q or k with `heads` heads: its row in the Hugging Face tensor.
///
/// # Errors
/// [`ExportError::Shape`] where `rows` are not `heads` heads of even width.
pub fn interleaved(rows: usize, heads: usize) -> Result<Vec<usize>> {
    let width = rows.checked_div(heads).filter(|w| w * heads == rows && w.is_multiple_of(2));
    let width = width.ok_or_else(|| ExportError::Shape {
        name: "query or key projection".into(),
        got: vec![rows],
        want: format!("{heads} heads of even width"),
    })?;
    let within = |i: usize| i / 2 + i % 2 * (width / 2);
    Ok((0..rows).map(|r| r / width.max(1) * width + within(r % width.max(1))).collect())
}

/// For each Hugging Face row: its row in the GGUF tensor.
///
/// # Errors
/// As [`interleaved`].
pub fn halves(rows: usize, heads: usize) -> Result<Vec<usize>> {
    let mut pairs: Vec<(usize, usize)> = interleaved(rows, heads)?.into_iter().zip(0..).collect();
    pairs.sort_unstable();
    Ok(pairs.into_iter().map(|(_, gguf)| gguf).collect())
}

/// Heads that a tensor's rows are ordered by: of q and k projections, weights and biases; `None`
/// for all others.
pub fn heads_of(hf_name: &str, heads: usize, kv_heads: usize) -> Option<usize> {
    match () {
        () if hf_name.contains(".self_attn.q_proj") => Some(heads),
        () if hf_name.contains(".self_attn.k_proj") => Some(kv_heads),
        () => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbours_in_one_order_are_halves_in_the_other() {
        assert_eq!(interleaved(8, 1).unwrap(), [0, 4, 1, 5, 2, 6, 3, 7]);
        assert_eq!(interleaved(8, 2).unwrap(), [0, 2, 1, 3, 4, 6, 5, 7]);
        let (there, back) = (interleaved(48, 3).unwrap(), halves(48, 3).unwrap());
        assert!((0..48).all(|r| there[back[r]] == r));
        assert!(
            interleaved(9, 2).is_err() && interleaved(6, 2).is_err() && interleaved(8, 0).is_err()
        );
    }
}
