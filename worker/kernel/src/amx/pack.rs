//! Tiles from weights and activations, and results from tiles.
//!
//! A tile of the left operand is [16 rows, 32 depth] bf16. A tile of the right operand holds 16
//! columns with *pairs* of depth side by side: [16 pairs, 16 columns, 2]. Forward, weights
//! [outputs, depth] are left, as their rows lie, and activations right; backward, depth is the
//! weights' rows, so weights are right (two rows are interleaved) and activations left. So no
//! product needs its weights transposed.
//!
//! Activations are split into two bf16 pieces, hi = bf16(x) and mid = bf16(x − hi): together 16
//! bits of mantissa.
//!
//! Indexing: every slice's length is asserted at the top of the function that walks it; raw loads
//! and stores are masked to the matrix.
#![allow(clippy::indexing_slicing)]

use std::arch::x86_64::*;
use std::ops::Range;

use super::tile::{STEP, TILE};
use crate::storage::{GROUP, GROUP_BYTES, Storage, bf16_tables};

/// Outputs of a strip: two tiles.
pub(crate) const STRIP: usize = 32;

/// 64 bytes on their own cache line; buffers of tiles are made of these.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
pub(crate) struct Line(pub(crate) [u8; 64]);

impl Line {
    /// Zeros.
    pub(crate) const ZERO: Line = Line([0; 64]);
    /// Lines of a tile.
    pub(crate) const PER_TILE: usize = TILE / 64;
}

/// Bits for the first `count` of 16 lanes.
fn lanes(count: usize) -> u16 {
    if count >= 16 { u16::MAX } else { (1 << count) - 1 }
}

/// Fills `out` with the weights' tiles of outputs `first`, `first` + 32, … (a strip each, as many
/// as fit) over `steps`: [strip, step, 2 tiles]. What lies beyond the matrix is zero.
///
/// `shape` is the matrix's [rows, columns]. Needs AVX-512 F and BW.
#[target_feature(enable = "avx512f,avx512bw")]
pub(crate) fn weights<const BACKWARD: bool>(
    w: &Storage,
    shape: [usize; 2],
    first: usize,
    steps: Range<usize>,
    out: &mut [Line],
) {
    let strip_lines = steps.len() * 2 * Line::PER_TILE;
    match (w, BACKWARD) {
        (Storage::Mxfp4 { blocks, scales }, false) => {
            for (i, strip) in out.chunks_exact_mut(strip_lines).enumerate() {
                mxfp4_forward(blocks, scales, shape, first + i * STRIP, steps.clone(), strip);
            }
        }
        (Storage::Mxfp4 { blocks, scales }, true) => {
            mxfp4_backward(blocks, scales, shape, first, steps, out);
        }
        (Storage::Bf16(bytes), false) => {
            for (i, strip) in out.chunks_exact_mut(strip_lines).enumerate() {
                bf16_forward(bytes, shape, first + i * STRIP, steps.clone(), strip);
            }
        }
        (Storage::Bf16(bytes), true) => bf16_backward(bytes, shape, first, steps, out),
    }
}

/// 32 MXFP4 values as bf16, in order: each nibble looks up its value times the group's scale.
#[target_feature(enable = "avx512f,avx512bw")]
fn mxfp4_group(bytes: __m128i, scale: u8, tables: &[[u16; 16]; 256]) -> __m512i {
    let wide = _mm512_cvtepu8_epi32(bytes);
    // Word 2i takes byte i's low nibble, word 2i+1 its high one. The look-up reads five bits of an
    // index; the table stands there twice, so the fifth does not matter.
    let index = _mm512_or_si512(wide, _mm512_slli_epi32::<12>(wide));
    // SAFETY: a table is 32 bytes.
    let table = unsafe { _mm256_loadu_si256(tables[usize::from(scale)].as_ptr().cast()) };
    _mm512_permutexvar_epi16(index, _mm512_broadcast_i64x4(table))
}

/// One strip of [`weights`], MXFP4 forward: a tile row is one group.
#[target_feature(enable = "avx512f,avx512bw")]
fn mxfp4_forward(
    blocks: &[u8],
    scales: &[u8],
    [rows, columns]: [usize; 2],
    first: usize,
    steps: Range<usize>,
    strip: &mut [Line],
) {
    let tables = bf16_tables();
    let groups = columns / GROUP;
    assert!(
        strip.len() == steps.len() * STRIP
            && blocks.len() == rows * groups * GROUP_BYTES
            && steps.end <= groups
    );
    let valid = STRIP.min(rows.saturating_sub(first));
    // Four groups are a cache line of blocks.
    for (four, tiles) in strip.chunks_mut(4 * STRIP).enumerate() {
        for row in 0..valid {
            let start = (first + row) * groups + steps.start + four * 4;
            for step in 0..tiles.len() / STRIP {
                let group = start + step;
                // SAFETY: the group lies within the blocks (asserted above: row < rows, step <
                // groups).
                let bytes =
                    unsafe { _mm_loadu_si128(blocks.as_ptr().add(group * GROUP_BYTES).cast()) };
                let values = mxfp4_group(bytes, scales[group], tables);
                // SAFETY: a line is 64 aligned bytes.
                unsafe {
                    _mm512_store_si512(tiles[step * STRIP + row].0.as_mut_ptr().cast(), values)
                };
            }
        }
    }
    clear_rows(strip, valid);
}

/// Sets the rows beyond the matrix to zero in every step of a forward strip.
fn clear_rows(strip: &mut [Line], valid: usize) {
    if valid < STRIP {
        for step in strip.chunks_exact_mut(STRIP) {
            step[valid..].fill(Line::ZERO);
        }
    }
}

/// One strip of [`weights`], bf16 forward: rows are copied.
#[target_feature(enable = "avx512f,avx512bw")]
fn bf16_forward(
    bytes: &[u8],
    [rows, columns]: [usize; 2],
    first: usize,
    steps: Range<usize>,
    strip: &mut [Line],
) {
    assert!(strip.len() == steps.len() * STRIP && bytes.len() == rows * columns * 2);
    let valid = STRIP.min(rows.saturating_sub(first));
    for (four, tiles) in strip.chunks_mut(4 * STRIP).enumerate() {
        for row in 0..valid {
            for step in 0..tiles.len() / STRIP {
                let depth = (steps.start + four * 4 + step) * STEP;
                let values = bf16_words(bytes, (first + row) * columns + depth, columns - depth);
                // SAFETY: a line is 64 aligned bytes.
                unsafe {
                    _mm512_store_si512(tiles[step * STRIP + row].0.as_mut_ptr().cast(), values)
                };
            }
        }
    }
    clear_rows(strip, valid);
}

/// 32 bf16 values from value `start` on, of which only `left` belong to the row.
#[target_feature(enable = "avx512f,avx512bw")]
fn bf16_words(bytes: &[u8], start: usize, left: usize) -> __m512i {
    let mask = if left >= 32 { u32::MAX } else { (1 << left) - 1 };
    debug_assert!((start + left.min(32)) * 2 <= bytes.len());
    // SAFETY: the mask keeps the load within the row, and the row within the bytes.
    unsafe { _mm512_maskz_loadu_epi16(mask, bytes.as_ptr().add(start * 2).cast()) }
}

/// Stores two rows of 32 bf16 as one line each of two right-operand tiles. The rows' 64-bit
/// quarters must come in the order 0 4 1 5 2 6 3 7, so that interleaving within 128-bit lanes
/// leaves the columns in order.
#[target_feature(enable = "avx512f,avx512bw")]
fn store_pair(even: __m512i, odd: __m512i, step: &mut [Line], pair: usize) {
    // SAFETY: a line is 64 aligned bytes.
    unsafe {
        let low = _mm512_unpacklo_epi16(even, odd);
        _mm512_store_si512(step[pair].0.as_mut_ptr().cast(), low);
        let high = _mm512_unpackhi_epi16(even, odd);
        _mm512_store_si512(step[Line::PER_TILE + pair].0.as_mut_ptr().cast(), high);
    }
}

/// All strips of [`weights`], MXFP4 backward: `first` counts columns, steps count 32 rows.
#[target_feature(enable = "avx512f,avx512bw")]
fn mxfp4_backward(
    blocks: &[u8],
    scales: &[u8],
    [rows, columns]: [usize; 2],
    first: usize,
    steps: Range<usize>,
    out: &mut [Line],
) {
    let tables = bf16_tables();
    let groups = columns / GROUP;
    let strip_lines = steps.len() * 2 * Line::PER_TILE;
    assert!(blocks.len() == rows * groups * GROUP_BYTES && out.len().is_multiple_of(strip_lines));
    let order = _mm_setr_epi8(0, 1, 8, 9, 2, 3, 10, 11, 4, 5, 12, 13, 6, 7, 14, 15);
    let load = |row: usize, group: usize| {
        if row >= rows || group >= groups {
            return _mm512_setzero_si512();
        }
        let group = row * groups + group;
        // SAFETY: row and group are within the matrix.
        let bytes = unsafe { _mm_loadu_si128(blocks.as_ptr().add(group * GROUP_BYTES).cast()) };
        mxfp4_group(_mm_shuffle_epi8(bytes, order), scales[group], tables)
    };
    for step in 0..steps.len() {
        for pair in 0..16 {
            let row = (steps.start + step) * STEP + 2 * pair;
            for (i, strip) in out.chunks_exact_mut(strip_lines).enumerate() {
                let group = first / GROUP + i;
                let lines = &mut strip[step * 2 * Line::PER_TILE..][..2 * Line::PER_TILE];
                store_pair(load(row, group), load(row + 1, group), lines, pair);
            }
        }
    }
}

/// All strips of [`weights`], bf16 backward.
#[target_feature(enable = "avx512f,avx512bw")]
fn bf16_backward(
    bytes: &[u8],
    [rows, columns]: [usize; 2],
    first: usize,
    steps: Range<usize>,
    out: &mut [Line],
) {
    let strip_lines = steps.len() * 2 * Line::PER_TILE;
    assert!(bytes.len() == rows * columns * 2 && out.len().is_multiple_of(strip_lines));
    let order = _mm512_setr_epi64(0, 4, 1, 5, 2, 6, 3, 7);
    let load = |row: usize, column: usize| {
        if row >= rows || column >= columns {
            return _mm512_setzero_si512();
        }
        _mm512_permutexvar_epi64(order, bf16_words(bytes, row * columns + column, columns - column))
    };
    for step in 0..steps.len() {
        for pair in 0..16 {
            let row = (steps.start + step) * STEP + 2 * pair;
            for (i, strip) in out.chunks_exact_mut(strip_lines).enumerate() {
                let column = first + i * STRIP;
                let lines = &mut strip[step * 2 * Line::PER_TILE..][..2 * Line::PER_TILE];
                store_pair(load(row, column), load(row + 1, column), lines, pair);
            }
        }
    }
}

/// 32 activations as two pieces of bf16, hi and mid.
///
/// Values too large for bf16 are clamped in hi and the rest goes to mid, so that an infinity stays
/// one (in mid) and a large finite value stays finite; NaN passes the clamp (`min` and `max` return
/// their second operand then).
#[target_feature(enable = "avx512f,avx512bf16")]
fn split(low: __m512, high: __m512) -> [__m512i; 2] {
    let largest = _mm512_set1_ps(f32::from_bits(0x7f7f_0000));
    let smallest = _mm512_set1_ps(f32::from_bits(0xff7f_0000));
    let clamp = |x: __m512| _mm512_max_ps(smallest, _mm512_min_ps(largest, x));
    // SAFETY: both types are 512 bits without invalid patterns.
    let hi: __m512i = unsafe { std::mem::transmute(_mm512_cvtne2ps_pbh(clamp(high), clamp(low))) };
    let widen =
        |half: __m256i| _mm512_castsi512_ps(_mm512_slli_epi32::<16>(_mm512_cvtepu16_epi32(half)));
    let low = _mm512_sub_ps(low, widen(_mm512_castsi512_si256(hi)));
    let high = _mm512_sub_ps(high, widen(_mm512_extracti64x4_epi64::<1>(hi)));
    // SAFETY: as above.
    [hi, unsafe { std::mem::transmute::<__m512bh, __m512i>(_mm512_cvtne2ps_pbh(high, low)) }]
}

/// Packs up to 32 tokens `x` [tokens, depth]: [step, piece, tile], with two tiles for more than 16
/// tokens and else one.
#[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
pub(crate) fn activations<const BACKWARD: bool>(x: &[f32], depth: usize, out: &mut [Line]) {
    let tokens = x.len() / depth;
    let tiles = tokens.div_ceil(16);
    let steps = depth.div_ceil(STEP);
    assert!(
        tokens <= 32
            && x.len() == tokens * depth
            && out.len() == steps * 2 * tiles * Line::PER_TILE
    );
    for tile in 0..tiles {
        let first = tile * 16;
        let valid = 16.min(tokens - first);
        for step in 0..steps {
            let left = depth - step * STEP;
            let [mut his, mut mids] = [[_mm512_setzero_si512(); 16]; 2];
            for (token, (out_hi, out_mid)) in his.iter_mut().zip(&mut mids).enumerate().take(valid)
            {
                // SAFETY: the masks keep the loads within the token's row.
                let (low, high) = unsafe {
                    let row = x.as_ptr().add((first + token) * depth + step * STEP);
                    (
                        _mm512_maskz_loadu_ps(lanes(left), row),
                        _mm512_maskz_loadu_ps(lanes(left.saturating_sub(16)), row.wrapping_add(16)),
                    )
                };
                [*out_hi, *out_mid] = split(low, high);
            }
            for (piece, mut values) in [his, mids].into_iter().enumerate() {
                if !BACKWARD {
                    values = transpose(values);
                }
                let at = ((step * 2 + piece) * tiles + tile) * Line::PER_TILE;
                for (line, value) in out[at..at + Line::PER_TILE].iter_mut().zip(values) {
                    // SAFETY: a line is 64 aligned bytes.
                    unsafe { _mm512_store_si512(line.0.as_mut_ptr().cast(), value) };
                }
            }
        }
    }
}

/// Transposes 16 × 16 values of 32 bits.
#[target_feature(enable = "avx512f")]
fn transpose(mut v: [__m512i; 16]) -> [__m512i; 16] {
    // Pairs, then quads within 128-bit lanes, then the lanes themselves.
    for i in (0..16).step_by(2) {
        let (a, b) = (v[i], v[i + 1]);
        v[i] = _mm512_unpacklo_epi32(a, b);
        v[i + 1] = _mm512_unpackhi_epi32(a, b);
    }
    for i in (0..16).step_by(4) {
        let [a, b, c, d] = [v[i], v[i + 1], v[i + 2], v[i + 3]];
        v[i] = _mm512_unpacklo_epi64(a, c);
        v[i + 1] = _mm512_unpackhi_epi64(a, c);
        v[i + 2] = _mm512_unpacklo_epi64(b, d);
        v[i + 3] = _mm512_unpackhi_epi64(b, d);
    }
    // Now v[4q + r] holds column r of each lane's four, for rows 4q … 4q+3.
    let mut out = v;
    for r in 0..4 {
        let [a, b, c, d] = [v[r], v[4 + r], v[8 + r], v[12 + r]];
        let ab_even = _mm512_shuffle_i32x4::<0x88>(a, b);
        let ab_odd = _mm512_shuffle_i32x4::<0xdd>(a, b);
        let cd_even = _mm512_shuffle_i32x4::<0x88>(c, d);
        let cd_odd = _mm512_shuffle_i32x4::<0xdd>(c, d);
        out[r] = _mm512_shuffle_i32x4::<0x88>(ab_even, cd_even);
        out[8 + r] = _mm512_shuffle_i32x4::<0xdd>(ab_even, cd_even);
        out[4 + r] = _mm512_shuffle_i32x4::<0x88>(ab_odd, cd_odd);
        out[12 + r] = _mm512_shuffle_i32x4::<0xdd>(ab_odd, cd_odd);
    }
    out
}

/// Where results go: `pointer` is [tokens, width], of which this part has `tokens` tokens from the
/// pointer on and writes outputs up to `width`.
pub(crate) struct Target {
    /// First value of the first token.
    pub(crate) pointer: *mut f32,
    /// Tokens that exist (the rest of a tile is padding).
    pub(crate) tokens: usize,
    /// Values of a token's row.
    pub(crate) width: usize,
}

/// Writes one tile of sums to tokens `token`… and outputs `output`…
///
/// # Safety
/// `target.pointer` holds `target.tokens` rows of `target.width` values, and nobody else writes
/// these outputs.
#[target_feature(enable = "avx512f")]
pub(crate) unsafe fn store<const BACKWARD: bool>(
    tile: &[f32; 256],
    target: &Target,
    token: usize,
    output: usize,
) {
    if token >= target.tokens || output >= target.width {
        return;
    }
    let mut rows = [_mm512_setzero_si512(); 16];
    for (row, values) in rows.iter_mut().zip(tile.as_chunks::<16>().0) {
        // SAFETY: 16 values are 64 bytes.
        *row = unsafe { _mm512_loadu_si512(values.as_ptr().cast()) };
    }
    if !BACKWARD {
        rows = transpose(rows);
    }
    let mask = lanes(target.width - output);
    for (i, row) in rows.into_iter().enumerate().take(target.tokens - token) {
        // SAFETY: the token exists, and the mask keeps the store within its row.
        unsafe {
            let at = target.pointer.add((token + i) * target.width + output);
            _mm512_mask_storeu_epi32(at.cast(), mask, row);
        }
    }
}
