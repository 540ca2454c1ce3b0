//! The integer products on AVX-512 VNNI: 64 codes a register.
//!
//! A `vpdpbusd` sums four products of a byte code with a byte of the activation's integer into a
//! 32-bit lane; the high bytes' sums are shifted and the low bytes' added. A 128-bit quarter then
//! holds one group of 16 codes, and adding four registers crosswise gives all 16 groups' sums in
//! the order of [`super::format::lane`].
#![allow(clippy::indexing_slicing)]

use std::arch::x86_64::*;
use std::ops::Range;

use super::activations::{Activations, Integers};
use super::format::{BlockFormat, GROUPS, lane, six_bits};
use super::{BlockMatrix, TILE};

/// 256 weights in registers.
struct Super {
    codes: [__m512i; 4],
    scales: __m512,
    minima: __m512,
}

/// Products of some rows of the weights with some tokens (at most [`TILE`]); `put` takes token, row
/// and result.
///
/// # Safety
/// The processor must have these features.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
pub(super) unsafe fn multiply(
    weights: &BlockMatrix,
    activations: &Activations,
    rows: Range<usize>,
    tokens: Range<usize>,
    put: impl Fn(usize, usize, f32),
) {
    let x: [&[Integers]; TILE] =
        std::array::from_fn(|i| activations.row((tokens.start + i).min(tokens.end - 1)));
    match (weights.format, tokens.len()) {
        (f, 1) => by_format::<1>(f, weights, [x[0]], rows, tokens, put),
        (f, 2) => by_format::<2>(f, weights, [x[0], x[1]], rows, tokens, put),
        (f, _) => by_format::<TILE>(f, weights, x, rows, tokens, put),
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
fn by_format<const T: usize>(
    format: BlockFormat,
    weights: &BlockMatrix,
    x: [&[Integers]; T],
    rows: Range<usize>,
    tokens: Range<usize>,
    put: impl Fn(usize, usize, f32),
) {
    for row in rows {
        let bytes = weights.row(row);
        // One loop per format, so that none asks in the middle which it is.
        let results = match format {
            BlockFormat::Q4_0 => dot::<{ Q4_0 }, T>(bytes, x),
            BlockFormat::Q8_0 => dot::<{ Q8_0 }, T>(bytes, x),
            BlockFormat::Q4K => dot::<{ Q4_K }, T>(bytes, x),
            BlockFormat::Q5K => dot::<{ Q5_K }, T>(bytes, x),
            BlockFormat::Q6K => dot::<{ Q6_K }, T>(bytes, x),
        };
        for (result, token) in results.into_iter().zip(tokens.clone()) {
            put(token, row, result);
        }
    }
}

// The formats as numbers, for constant parameters.
const Q4_0: usize = 0;
const Q8_0: usize = 1;
const Q4_K: usize = 2;
const Q5_K: usize = 3;
const Q6_K: usize = 4;
const FORMATS: [BlockFormat; 5] =
    [BlockFormat::Q4_0, BlockFormat::Q8_0, BlockFormat::Q4K, BlockFormat::Q5K, BlockFormat::Q6K];

/// How far ahead of their use weights are asked for, in bytes: a row's end is where the processor's
/// own guesses end.
const AHEAD: usize = 4096;

/// The products of one row with `T` tokens.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
#[inline]
fn dot<const F: usize, const T: usize>(row: &[u8], x: [&[Integers]; T]) -> [f32; T] {
    let format = const { FORMATS[F] };
    let mut lanes = [_mm512_setzero_ps(); T];
    // (Written out, for a closure would not have the target's features.)
    let size = const { FORMATS[F].super_bytes() };
    let whole = row.chunks_exact(size);
    let (count, rest) = (whole.len(), whole.remainder());
    assert!(x.iter().all(|x| x.len() == count + usize::from(!rest.is_empty())));
    for (at, bytes) in whole.enumerate() {
        for line in (0..size).step_by(64) {
            // (A hint: the address need not be valid.)
            _mm_prefetch::<_MM_HINT_T0>(bytes.as_ptr().wrapping_add(AHEAD + line).cast());
        }
        add::<F, T>(&unpack::<F>(bytes), x, at, &mut lanes);
    }
    if !rest.is_empty() {
        let mut padded = [0; 272];
        padded[..rest.len()].copy_from_slice(rest);
        add::<F, T>(&unpack::<F>(&padded[..format.super_bytes()]), x, count, &mut lanes);
    }
    let mut out = [0.0; T];
    for (out, lanes) in out.iter_mut().zip(lanes) {
        *out = sum(lanes);
    }
    out
}

/// The lanes' sum, in the order of [`super::portable::sum`].
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
#[inline]
fn sum(lanes: __m512) -> f32 {
    let upper = _mm256_castpd_ps(_mm512_extractf64x4_pd::<1>(_mm512_castps_pd(lanes)));
    let eight = _mm256_add_ps(_mm512_castps512_ps256(lanes), upper);
    let four = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps::<1>(eight));
    let two = _mm_add_ps(four, _mm_movehl_ps(four, four));
    _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)))
}

/// Adds the products of 256 weights with the activations at the same place.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
#[inline]
fn add<const F: usize, const T: usize>(
    w: &Super,
    x: [&[Integers]; T],
    at: usize,
    lanes: &mut [__m512; T],
) {
    for t in 0..T {
        // SAFETY: `at` is below the length, as `dot` has checked; all arrays are as long as what is
        // read of them.
        let x = unsafe { x[t].get_unchecked(at) };
        let mut sums = [_mm512_setzero_si512(); 4];
        for (c, sum) in sums.iter_mut().enumerate() {
            // SAFETY: 64 bytes from 64·c of 256.
            let (high, low) = unsafe {
                (
                    _mm512_load_si512(x.high.as_ptr().add(64 * c).cast()),
                    _mm512_load_si512(x.low.as_ptr().add(64 * c).cast()),
                )
            };
            let high = _mm512_dpbusd_epi32(_mm512_setzero_si512(), w.codes[c], high);
            *sum = _mm512_dpbusd_epi32(_mm512_slli_epi32::<8>(high), w.codes[c], low);
        }
        // SAFETY: 16 values of 32 bits each.
        let (own, scales, values) = unsafe {
            (
                _mm512_load_si512(x.sums.as_ptr().cast()),
                _mm512_load_ps(x.scales.as_ptr()),
                _mm512_load_ps(x.values.as_ptr()),
            )
        };
        let total = match F {
            Q4_0 => _mm512_sub_epi32(crosswise(sums), _mm512_slli_epi32::<3>(own)),
            Q8_0 => _mm512_sub_epi32(crosswise(sums), _mm512_slli_epi32::<7>(own)),
            Q6_K => _mm512_sub_epi32(crosswise(sums), _mm512_slli_epi32::<5>(own)),
            _ => crosswise(sums),
        };
        let product = _mm512_mul_ps(_mm512_cvtepi32_ps(total), _mm512_mul_ps(w.scales, scales));
        let product = match F {
            Q4_K | Q5_K => _mm512_sub_ps(product, _mm512_mul_ps(w.minima, values)),
            _ => product,
        };
        lanes[t] = _mm512_add_ps(lanes[t], product);
    }
}

/// Per 128-bit quarter the sums of the four registers' quarters, one after another.
#[target_feature(enable = "avx512f")]
#[inline]
fn crosswise(v: [__m512i; 4]) -> __m512i {
    let a = _mm512_add_epi32(_mm512_unpacklo_epi32(v[0], v[1]), _mm512_unpackhi_epi32(v[0], v[1]));
    let b = _mm512_add_epi32(_mm512_unpacklo_epi32(v[2], v[3]), _mm512_unpackhi_epi32(v[2], v[3]));
    _mm512_add_epi32(_mm512_unpacklo_epi64(a, b), _mm512_unpackhi_epi64(a, b))
}

/// For every lane, its group of 32 (a byte of the eight).
const OF_32: [u8; GROUPS] = {
    let mut order = [0; GROUPS];
    let mut group = 0;
    while group < GROUPS {
        order[lane(group)] = (group / 2) as u8;
        group += 1;
    }
    order
};

/// For every lane, its group of 16.
const OF_16: [u8; GROUPS] = {
    let mut order = [0; GROUPS];
    let mut group = 0;
    while group < GROUPS {
        order[lane(group)] = group as u8;
        group += 1;
    }
    order
};

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
#[inline]
fn unpack<const F: usize>(bytes: &[u8]) -> Super {
    match F {
        Q4_0 => q4_0(bytes),
        Q8_0 => q8_0(bytes),
        Q4_K => q4_k(bytes),
        Q5_K => q5_k(bytes),
        _ => q6_k(bytes),
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
#[inline]
fn bytes_of(order: &[u8; 16]) -> __m128i {
    // SAFETY: 16 bytes.
    unsafe { _mm_loadu_si128(order.as_ptr().cast()) }
}

/// 32 bytes twice.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
#[inline]
fn twice(bytes: &[u8]) -> __m512i {
    assert!(bytes.len() >= 32);
    // SAFETY: 32 bytes (above).
    _mm512_broadcast_i64x4(unsafe { _mm256_loadu_si256(bytes.as_ptr().cast()) })
}

/// The low nibbles of 32 bytes, then the high ones.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
#[inline]
fn nibbles(bytes: &[u8]) -> __m512i {
    let shift = _mm512_setr_epi64(0, 0, 0, 0, 4, 4, 4, 4);
    _mm512_and_si512(_mm512_srlv_epi64(twice(bytes), shift), _mm512_set1_epi8(15))
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
#[inline]
fn by_32(factor: __m128, bytes: u64) -> __m512 {
    let spread = _mm_shuffle_epi8(_mm_cvtsi64_si128(bytes as i64), bytes_of(&OF_32));
    _mm512_mul_ps(_mm512_broadcastss_ps(factor), _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(spread)))
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
#[inline]
fn factors(bytes: &[u8]) -> (__m512, __m512) {
    let word =
        |at: usize| u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
    let (scales, minima) = six_bits([word(4), word(8), word(12)]);
    let both = _mm_cvtph_ps(_mm_cvtsi32_si128(word(0) as i32));
    (by_32(both, scales), by_32(_mm_movehdup_ps(both), minima))
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
#[inline]
fn q4_k(bytes: &[u8]) -> Super {
    assert!(bytes.len() == 144);
    let (scales, minima) = factors(bytes);
    let part = |c: usize| nibbles(&bytes[16 + 32 * c..][..32]);
    Super { codes: [part(0), part(1), part(2), part(3)], scales, minima }
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
#[inline]
fn q5_k(bytes: &[u8]) -> Super {
    assert!(bytes.len() == 176);
    let (scales, minima) = factors(bytes);
    let fifth = twice(&bytes[16..48]);
    let part = |c: usize| {
        // Bit 2c for the low nibbles, bit 2c + 1 for the high ones.
        let (first, second) = (1_i8 << (2 * c), (2_u8 << (2 * c)) as i8);
        let bit = _mm512_mask_blend_epi64(0xf0, _mm512_set1_epi8(first), _mm512_set1_epi8(second));
        let codes = nibbles(&bytes[48 + 32 * c..][..32]);
        let set = _mm512_maskz_mov_epi8(_mm512_test_epi8_mask(fifth, bit), _mm512_set1_epi8(16));
        _mm512_or_si512(codes, set)
    };
    Super { codes: [part(0), part(1), part(2), part(3)], scales, minima }
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
#[inline]
fn q6_k(bytes: &[u8]) -> Super {
    assert!(bytes.len() == 210);
    let four = |half: usize, high_nibbles: bool| {
        // SAFETY: 64 bytes from 64·half of the first 128.
        let low = unsafe { _mm512_loadu_si512(bytes.as_ptr().add(64 * half).cast()) };
        let low = if high_nibbles { _mm512_srli_epi16::<4>(low) } else { low };
        let high = twice(&bytes[128 + 32 * half..][..32]);
        // Two bits for each: 0 and 2 beside the low nibbles, 4 and 6 beside the high ones.
        let shift = match high_nibbles {
            false => _mm512_setr_epi64(0, 0, 0, 0, 2, 2, 2, 2),
            true => _mm512_setr_epi64(4, 4, 4, 4, 6, 6, 6, 6),
        };
        let high = _mm512_and_si512(_mm512_srlv_epi64(high, shift), _mm512_set1_epi8(3));
        _mm512_or_si512(_mm512_and_si512(low, _mm512_set1_epi8(15)), _mm512_slli_epi16::<4>(high))
    };
    // SAFETY: 16 bytes from 192 of 210.
    let scales = unsafe { _mm_loadu_si128(bytes.as_ptr().add(192).cast()) };
    let scales =
        _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_shuffle_epi8(scales, bytes_of(&OF_16))));
    let d = _mm_cvtph_ps(_mm_cvtsi32_si128(i32::from(bytes[208]) | i32::from(bytes[209]) << 8));
    Super {
        codes: [four(0, false), four(0, true), four(1, false), four(1, true)],
        scales: _mm512_mul_ps(_mm512_broadcastss_ps(d), scales),
        minima: _mm512_setzero_ps(),
    }
}

/// The f16 scales of eight blocks, `stride` bytes apart.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
#[inline]
fn eight_scales(bytes: &[u8], stride: usize) -> __m512 {
    let scales: [u16; 8] =
        std::array::from_fn(|b| u16::from_le_bytes([bytes[stride * b], bytes[stride * b + 1]]));
    // SAFETY: 16 bytes.
    let scales = _mm256_cvtph_ps(unsafe { _mm_loadu_si128(scales.as_ptr().cast()) });
    let order = _mm512_cvtepu8_epi32(bytes_of(&OF_32));
    _mm512_permutexvar_ps(order, _mm512_castps256_ps512(scales))
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
#[inline]
fn q8_0(bytes: &[u8]) -> Super {
    assert!(bytes.len() == 272);
    let part = |c: usize| {
        // SAFETY: two blocks of 34 bytes each from 68·c of 272.
        let [a, b] = [0, 1]
            .map(|i| unsafe { _mm256_loadu_si256(bytes.as_ptr().add(68 * c + 34 * i + 2).cast()) });
        let both = _mm512_inserti64x4::<1>(_mm512_castsi256_si512(a), b);
        _mm512_xor_si512(both, _mm512_set1_epi8(-128))
    };
    let codes = [part(0), part(1), part(2), part(3)];
    Super { codes, scales: eight_scales(bytes, 34), minima: _mm512_setzero_ps() }
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
#[inline]
fn q4_0(bytes: &[u8]) -> Super {
    assert!(bytes.len() == 144);
    let block = |b: usize| {
        // SAFETY: 16 bytes after the scale of block b of 8.
        let both = _mm256_broadcastsi128_si256(unsafe {
            _mm_loadu_si128(bytes.as_ptr().add(18 * b + 2).cast())
        });
        _mm256_and_si256(
            _mm256_srlv_epi64(both, _mm256_setr_epi64x(0, 0, 4, 4)),
            _mm256_set1_epi8(15),
        )
    };
    let part =
        |c: usize| _mm512_inserti64x4::<1>(_mm512_castsi256_si512(block(2 * c)), block(2 * c + 1));
    let codes = [part(0), part(1), part(2), part(3)];
    Super { codes, scales: eight_scales(bytes, 18), minima: _mm512_setzero_ps() }
}
