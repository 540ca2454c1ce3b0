//! The block formats of GGUF (ggml's `block_q4_K` and so on; the layouts are those of its
//! `ggml-common.h`).
//!
//! All are brought to one form, a [`Super`] of 256 weights. Formats with blocks of 32 take eight at
//! a time; where a row ends earlier the rest has codes and scales of 0.
#![allow(clippy::indexing_slicing)]

/// Weights unpacked together.
pub(super) const SUPER: usize = 256;
/// Groups of 16 weights in them: the finest that has a scale of its own.
pub(super) const GROUPS: usize = 16;

/// How weights are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum BlockFormat {
    /// 32 codes of 4 bits, an f16 scale: w = d·(code − 8).
    Q4_0,
    /// 32 codes of 8 bits, an f16 scale: w = d·code.
    Q8_0,
    /// 256 codes of 4 bits; per 32 a scale and a minimum of 6 bits: w = d·s·code − e·m.
    Q4K,
    /// The same with codes of 5 bits.
    Q5K,
    /// 256 codes of 6 bits; per 16 a scale of 8 bits: w = d·s·(code − 32).
    Q6K,
}

/// 256 weights: w = scale·(code − offset) − minimum, the offset being [`BlockFormat::offset`].
#[repr(C, align(64))]
pub(super) struct Super {
    pub codes: [u8; SUPER],
    /// Per group of 16, in the order of [`lane`].
    pub scales: [f32; GROUPS],
    /// Likewise.
    pub minima: [f32; GROUPS],
}

impl Super {
    pub const ZERO: Self = Self { codes: [0; SUPER], scales: [0.0; GROUPS], minima: [0.0; GROUPS] };
}

/// Where a group of 16 stands among the 16 lanes of a register: sums over the four 128-bit quarters
/// of four registers of codes come out in this order.
pub(super) const fn lane(group: usize) -> usize {
    group % 4 * 4 + group / 4
}

/// An f16 as f32; infinities and NaN, which the reader refuses, come out finite.
pub(super) fn half(bits: u16) -> f32 {
    // The exponent's bias is 112 lower.
    let magnitude =
        f32::from_bits(u32::from(bits & 0x7fff) << 13) * f32::from_bits((127 + 112) << 23);
    if bits & 0x8000 == 0 { magnitude } else { -magnitude }
}

fn half_at(bytes: &[u8], at: usize) -> f32 {
    half(u16::from_le_bytes([bytes[at], bytes[at + 1]]))
}

/// The eight 6-bit scales and eight 6-bit minima in 12 bytes (little-endian words), each a byte of
/// what comes out.
#[inline(always)]
pub(super) fn six_bits([a, b, c]: [u32; 3]) -> (u64, u64) {
    let (low, top) = (0x3f3f_3f3f, 0x0303_0303);
    let joined = |first: u32, nibbles: u32| {
        u64::from(first & low) | u64::from(nibbles & 0x0f0f_0f0f | (first >> 6 & top) << 4) << 32
    };
    (joined(a, c), joined(b, c >> 4))
}

impl BlockFormat {
    /// ggml's name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Q4_0 => "Q4_0 blocks",
            Self::Q8_0 => "Q8_0 blocks",
            Self::Q4K => "Q4_K blocks",
            Self::Q5K => "Q5_K blocks",
            Self::Q6K => "Q6_K blocks",
        }
    }

    /// Weights of a block.
    #[must_use]
    pub const fn block(self) -> usize {
        match self {
            Self::Q4_0 | Self::Q8_0 => 32,
            Self::Q4K | Self::Q5K | Self::Q6K => SUPER,
        }
    }

    /// Bytes of a block.
    #[must_use]
    pub const fn block_bytes(self) -> usize {
        match self {
            Self::Q4_0 => 18,
            Self::Q8_0 => 34,
            Self::Q4K => 144,
            Self::Q5K => 176,
            Self::Q6K => 210,
        }
    }

    /// Bytes of a row of `columns` weights; `None` where that is not a whole number of blocks.
    pub(super) fn row_bytes(self, columns: usize) -> Option<usize> {
        columns.is_multiple_of(self.block()).then(|| columns / self.block() * self.block_bytes())
    }

    /// Bytes of 256 weights.
    pub(super) const fn super_bytes(self) -> usize {
        SUPER / self.block() * self.block_bytes()
    }

    /// What a code of 0 stands for, negated.
    pub(super) const fn offset(self) -> i32 {
        match self {
            Self::Q4_0 => 8,
            Self::Q8_0 => 128,
            Self::Q4K | Self::Q5K => 0,
            Self::Q6K => 32,
        }
    }

    /// The bits of a block's f16 factors.
    pub(super) fn factors(self, block: &[u8]) -> impl Iterator<Item = u16> {
        let places = match self {
            Self::Q4_0 | Self::Q8_0 => [0, 0],
            Self::Q4K | Self::Q5K => [0, 2],
            Self::Q6K => [208, 208],
        };
        places.map(|at| u16::from_le_bytes([block[at], block[at + 1]])).into_iter()
    }

    /// Unpacks 256 weights from [`Self::super_bytes`] bytes.
    #[inline(always)]
    pub(super) fn unpack(self, bytes: &[u8], out: &mut Super) {
        match self {
            Self::Q4_0 => q4_0(bytes, out),
            Self::Q8_0 => q8_0(bytes, out),
            Self::Q4K => q4_k(bytes, out),
            Self::Q5K => q5_k(bytes, out),
            Self::Q6K => q6_k(bytes, out),
        }
    }

    /// Calls `f` with the bytes of every 256 weights of a row; what the last ones lack is 0.
    #[inline(always)]
    pub(super) fn each(self, row: &[u8], mut f: impl FnMut(usize, &[u8])) {
        let size = self.super_bytes();
        let whole = row.chunks_exact(size);
        let (count, rest) = (whole.len(), whole.remainder());
        for (at, bytes) in whole.enumerate() {
            f(at, bytes);
        }
        if !rest.is_empty() {
            let mut padded = [0; SUPER / 32 * 34];
            padded[..rest.len()].copy_from_slice(rest);
            f(count, &padded[..size]);
        }
    }

    /// A row's weights as f32.
    pub(super) fn expand(self, row: &[u8], out: &mut [f32]) {
        let mut weights = Super::ZERO;
        let offset = self.offset();
        self.each(row, |at, bytes| {
            self.unpack(bytes, &mut weights);
            let groups = out[at * SUPER..].chunks_mut(16).zip(weights.codes.chunks_exact(16));
            for (group, (out, codes)) in groups.enumerate() {
                let (scale, minimum) = (weights.scales[lane(group)], weights.minima[lane(group)]);
                for (out, code) in out.iter_mut().zip(codes) {
                    *out = scale * (i32::from(*code) - offset) as f32 - minimum;
                }
            }
        });
    }
}

#[inline(always)]
fn q4_0(bytes: &[u8], out: &mut Super) {
    for (at, block) in bytes.chunks_exact(18).enumerate() {
        let codes = &mut out.codes[32 * at..32 * at + 32];
        for i in 0..16 {
            codes[i] = block[2 + i] & 15;
            codes[16 + i] = block[2 + i] >> 4;
        }
        of_both(&mut out.scales, at, half_at(block, 0));
    }
}

#[inline(always)]
fn q8_0(bytes: &[u8], out: &mut Super) {
    for (at, block) in bytes.chunks_exact(34).enumerate() {
        let codes = &mut out.codes[32 * at..32 * at + 32];
        for i in 0..32 {
            codes[i] = block[2 + i] ^ 0x80;
        }
        of_both(&mut out.scales, at, half_at(block, 0));
    }
}

/// Sets both groups of 16 of a group of 32.
#[inline(always)]
fn of_both(factors: &mut [f32; GROUPS], group: usize, factor: f32) {
    factors[lane(2 * group)] = factor;
    factors[lane(2 * group + 1)] = factor;
}

#[inline(always)]
fn scales_and_minima(bytes: &[u8], out: &mut Super) {
    let word =
        |at: usize| u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
    let (scales, minima) = six_bits([word(4), word(8), word(12)]);
    let (d, e) = (half_at(bytes, 0), half_at(bytes, 2));
    for (group, (scale, minimum)) in
        scales.to_le_bytes().into_iter().zip(minima.to_le_bytes()).enumerate()
    {
        of_both(&mut out.scales, group, d * f32::from(scale));
        of_both(&mut out.minima, group, e * f32::from(minimum));
    }
}

/// 32 bytes hold 64 codes: the low nibbles, then the high ones.
#[inline(always)]
fn nibbles(bytes: &[u8], codes: &mut [u8; SUPER]) {
    for (bytes, codes) in bytes.chunks_exact(32).zip(codes.chunks_exact_mut(64)) {
        for i in 0..32 {
            codes[i] = bytes[i] & 15;
            codes[32 + i] = bytes[i] >> 4;
        }
    }
}

#[inline(always)]
fn q4_k(bytes: &[u8], out: &mut Super) {
    scales_and_minima(bytes, out);
    nibbles(&bytes[16..144], &mut out.codes);
}

#[inline(always)]
fn q5_k(bytes: &[u8], out: &mut Super) {
    scales_and_minima(bytes, out);
    nibbles(&bytes[48..176], &mut out.codes);
    // Bit g of byte i is the fifth bit of code i of group g.
    for (group, codes) in out.codes.chunks_exact_mut(32).enumerate() {
        for i in 0..32 {
            codes[i] |= (bytes[16 + i] >> group & 1) << 4;
        }
    }
}

#[inline(always)]
fn q6_k(bytes: &[u8], out: &mut Super) {
    let (low, rest) = bytes.split_at(128);
    let (high, rest) = rest.split_at(64);
    for part in 0..2 {
        let (low, high) = (&low[64 * part..64 * part + 64], &high[32 * part..32 * part + 32]);
        let codes = &mut out.codes[128 * part..128 * part + 128];
        for i in 0..32 {
            codes[i] = low[i] & 15 | (high[i] & 3) << 4;
            codes[32 + i] = low[32 + i] & 15 | (high[i] >> 2 & 3) << 4;
            codes[64 + i] = low[i] >> 4 | (high[i] >> 4 & 3) << 4;
            codes[96 + i] = low[32 + i] >> 4 | high[i] >> 6 << 4;
        }
    }
    let d = half_at(rest, 16);
    for (group, scale) in rest[..GROUPS].iter().enumerate() {
        out.scales[lane(group)] = d * f32::from(*scale as i8);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn halves_are_exact() {
        for (bits, value) in [
            (0x3c00, 1.0),
            (0xc000, -2.0),
            (0x3555, 0.333_251_95),
            (0x0001, 5.960_464_5e-8),
            (0, 0.0),
        ] {
            assert_eq!(half(bits), value);
        }
    }

    #[test]
    fn six_bit_factors_come_apart() {
        // Scale j and minimum j of the first four are six bits of bytes j and j + 4; of the last
        // four, the upper two bits of those bytes over a nibble of byte j + 8.
        let (scales, minima) = six_bits([0x04c3_8241, 0x08c7_8645, 0x8765_4321]);
        assert_eq!(scales.to_le_bytes(), [1, 2, 3, 4, 0x11, 0x23, 0x35, 0x07]);
        assert_eq!(minima.to_le_bytes(), [5, 6, 7, 8, 0x12, 0x24, 0x36, 0x08]);
    }
}
