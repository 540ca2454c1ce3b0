//! MXFP4: blocks of 32 four-bit floats under one power-of-two scale (OCP Microscaling Formats, 2023).

/// The sixteen values of a nibble (E2M1).
const VALUES: [f32; 16] = [0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0, -0.0, -0.5, -1.0, -1.5, -2.0, -3.0, -4.0, -6.0];

/// Expands packed blocks: two values a byte, low nibble first; each 16 bytes share a scale of 2^(byte − 127).
///
/// `blocks` has 16 bytes for each of `scales`; returns 32 values for each, or `None` where the lengths disagree.
pub(crate) fn expand(blocks: &[u8], scales: &[u8]) -> Option<Vec<f32>> {
    if blocks.len() != scales.len() * 16 {
        return None;
    }
    let mut out = Vec::with_capacity(blocks.len() * 2);
    for (block, &scale) in blocks.chunks_exact(16).zip(scales) {
        let factor = 2f32.powi(i32::from(scale) - 127);
        for &byte in block {
            out.push(value(byte & 15) * factor);
            out.push(value(byte >> 4) * factor);
        }
    }
    Some(out)
}

fn value(nibble: u8) -> f32 {
    VALUES.get(usize::from(nibble)).copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn low_nibble_comes_first_and_scales_are_powers_of_two() {
        let mut block = [0u8; 16];
        block[0] = 0x72; // 1.0 then 6.0
        block[15] = 0xF1; // 0.5 then -6.0
        let out = expand(&block, &[129]).unwrap();
        assert_eq!((out[0], out[1], out[30], out[31]), (4.0, 24.0, 2.0, -24.0));
        assert!(out[2..30].iter().all(|v| *v == 0.0));
    }

    #[test]
    fn lengths_that_disagree_are_refused() {
        assert!(expand(&[0; 15], &[127]).is_none());
    }
}
