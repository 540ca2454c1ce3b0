//! Tensors of a checkpoint: names, types, shapes, and the random values that fill them.

use half::bf16;
use rand::{Rng, RngCore, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::ops::RangeInclusive;

/// What a tensor holds.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Values {
    /// bf16, normal with deviation 0.02.
    Normal,
    /// bf16, all the same.
    Same(bf16),
    /// Any bytes: two 4-bit codes each.
    Codes,
    /// Exponents of MXFP4's blocks.
    Scales,
}

/// A tensor to write.
#[derive(Debug, Clone, PartialEq)]
pub struct Tensor {
    /// As on the hub.
    pub name: String,
    /// Slowest dimension first.
    pub shape: Vec<usize>,
    /// What fills it.
    pub values: Values,
}

impl Tensor {
    /// How safetensors calls its type.
    pub fn dtype(&self) -> &'static str {
        if self.width() == 2 { "BF16" } else { "U8" }
    }

    /// Its size.
    pub fn bytes(&self) -> u64 {
        self.shape.iter().map(|n| *n as u64).product::<u64>() * self.width()
    }

    fn width(&self) -> u64 {
        if matches!(self.values, Values::Normal | Values::Same(_)) { 2 } else { 1 }
    }
}

/// Random codes have a deviation of 2.93, so weights have one of 0.011 to 0.046 under these:
/// activations of 24 layers neither vanish nor overflow.
pub const SCALES: RangeInclusive<u8> = 119..=121;

/// The deviation of bf16 weights.
const DEVIATION: f32 = 0.02;

/// Tensors grouped into shards of at most `limit` bytes.
pub fn sharded(tensors: Vec<Tensor>, limit: u64) -> Vec<Vec<Tensor>> {
    let (mut shards, mut filled) = (Vec::new(), limit);
    for tensor in tensors {
        if filled + tensor.bytes() > limit {
            shards.push(Vec::new());
            filled = 0;
        }
        filled += tensor.bytes();
        if let Some(shard) = shards.last_mut() {
            shard.push(tensor);
        }
    }
    shards
}

/// A tensor of that name.
pub fn named(name: String, shape: &[usize], values: Values) -> Tensor {
    Tensor { name, shape: shape.to_vec(), values }
}

/// What a norm's gain begins with.
pub fn one() -> Values {
    Values::Same(bf16::ONE)
}

/// Values of a period. Odd, so that it falls on no row of a matrix: rows are shifted against each
/// other, never equal.
const PERIOD: usize = (4 << 20) + 1;

/// One stretch of random bytes per kind, which tensors repeat: writing is then as fast as the disk.
pub struct Noise {
    normal: Vec<u8>,
    codes: Vec<u8>,
    scales: Vec<u8>,
}

impl Noise {
    /// Draws it.
    pub fn new(seed: u64) -> Self {
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        let mut codes = vec![0; PERIOD];
        random.fill_bytes(&mut codes);
        let scales = (0..PERIOD).map(|_| random.random_range(SCALES)).collect();
        let normal = (0..PERIOD)
            .flat_map(|_| bf16::from_f32(DEVIATION * normal(&mut random)).to_le_bytes())
            .collect();
        Self { normal, codes, scales }
    }

    /// The bytes that a tensor repeats, and where in them it begins: each tensor somewhere else.
    pub fn of(&self, tensor: &Tensor) -> (Vec<u8>, usize) {
        let start = tensor
            .name
            .bytes()
            .fold(0usize, |hash, b| hash.wrapping_mul(31).wrapping_add(b.into()))
            % PERIOD;
        match tensor.values {
            Values::Normal => (self.normal.clone(), 2 * start),
            Values::Codes => (self.codes.clone(), start),
            Values::Scales => (self.scales.clone(), start),
            Values::Same(value) => (value.to_le_bytes().repeat(4096), 0),
        }
    }
}

/// Box and Muller's method.
fn normal(random: &mut ChaCha8Rng) -> f32 {
    let (u, v): (f32, f32) = (random.random_range(f32::MIN_POSITIVE..1.0), random.random());
    (-2.0 * u.ln()).sqrt() * (std::f32::consts::TAU * v).cos()
}
