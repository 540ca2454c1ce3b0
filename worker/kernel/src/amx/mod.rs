//! Products on Intel's tile unit: weights exact in bf16, activations in two bf16 pieces, sums in
//! f32.
//!
//! MXFP4 values times their power of two have two significant bits, so both formats are exact in
//! bf16. Blocking, from the outside in:
//!
//! 1. *chunks* of tokens, packed once, at most [`CHUNK`] bytes;
//! 2. *panels* of outputs, spread over the threads;
//! 3. *slices* of depth: a panel's slice is expanded to tiles and stays in the second-level cache;
//! 4. blocks of 32 tokens, 5. strips of 32 outputs, 6. the inner loop over the slice (see
//!    [`tile`]).
//!
//! Between slices the sums wait in memory as f32, which changes no bit. So a result depends on its
//! token and its weights alone: not on n, not on threads, not on any blocking.
//!
//! The unit takes subnormal numbers for zero: weights and activation pieces below 2^−126 count as
//! nothing.
#![allow(clippy::indexing_slicing)]

pub(crate) mod pack;
mod scratch;
pub(crate) mod tile;

use crate::raw::{Shared, for_each};
use crate::storage::Storage;
use pack::{Line, STRIP, Target};
use scratch::Scratch;
use tile::{PIECES, STEP, Sums, Tiles};

/// Bytes of packed activations at a time.
const CHUNK: usize = 8 << 20;
/// Most steps of depth in a slice.
const SLICE: usize = 32;
/// Most bytes of a panel's slice.
const PANEL: usize = 512 << 10;
/// Tokens of a block.
const BLOCK: usize = 32;

/// One product: forward (out = x·Wᵀ, outputs are rows, depth is columns) or backward (out = x·W,
/// the other way round).
pub(crate) struct Product<'a> {
    /// The weights.
    pub(crate) weights: &'a Storage,
    /// [rows, columns] of the weights.
    pub(crate) shape: [usize; 2],
}

impl Product<'_> {
    /// x [n, depth], out [n, outputs].
    ///
    /// # Safety
    /// [`crate::Isa::Amx`] is supported; `x` and `out` have these lengths, none of them zero.
    pub(crate) unsafe fn run<const BACKWARD: bool>(&self, x: &[f32], n: usize, out: &mut [f32]) {
        let [rows, columns] = self.shape;
        let (outputs, depth) = if BACKWARD { (columns, rows) } else { (rows, columns) };
        let steps = depth.div_ceil(STEP);
        let token_bytes = steps * STEP * 2 * PIECES;
        let chunk = (CHUNK / token_bytes / BLOCK).max(1) * BLOCK;
        let mut packed =
            Scratch::take(steps * 2 * Line::PER_TILE * PIECES * n.min(chunk).div_ceil(BLOCK));
        for (x, out) in x.chunks(chunk * depth).zip(out.chunks_mut(chunk * outputs)) {
            let tokens = x.len() / depth;
            // SAFETY: AMX is supported (caller), and with it the AVX-512 features that packing
            // needs.
            unsafe {
                pack_chunk::<BACKWARD>(x, depth, packed.lines());
                self.chunk::<BACKWARD>(packed.lines(), tokens, outputs, steps, out);
            }
        }
    }

    /// All outputs for the packed tokens.
    unsafe fn chunk<const BACKWARD: bool>(
        &self,
        packed: &[Line],
        tokens: usize,
        outputs: usize,
        steps: usize,
        out: &mut [f32],
    ) {
        let slices = steps.div_ceil(SLICE);
        let slice = steps.div_ceil(slices);
        let strips = outputs.div_ceil(STRIP);
        let threads = rayon::current_num_threads();
        let most = PANEL / (slice * 2 * tile::TILE);
        // An even number of strips, for a single tile of tokens takes two strips at a time.
        let panel = most.min(strips.div_ceil(threads)).next_multiple_of(2);
        let pointer = Shared(out.as_mut_ptr());
        let work = |index: usize| {
            let first = index * panel;
            let count = panel.min(strips - first);
            let target = Target { pointer: pointer.get(), tokens, width: outputs };
            let panel = Panel { first, count, steps, slice };
            // SAFETY: AMX is supported (caller); panels write disjoint outputs of `out`.
            unsafe { self.panel::<BACKWARD>(&panel, packed, &target) }
        };
        for_each(strips.div_ceil(panel), work);
    }

    /// One panel's outputs for the packed tokens.
    unsafe fn panel<const BACKWARD: bool>(&self, panel: &Panel, packed: &[Line], target: &Target) {
        let blocks = target.tokens.div_ceil(BLOCK);
        let even = panel.count.next_multiple_of(2);
        let mut weights = Scratch::take(even * panel.slice * 2 * Line::PER_TILE);
        let sliced = panel.slice < panel.steps;
        // Sums of every block and strip where slices follow one another, else two in turn.
        let mut sums = Scratch::take(SUMS_LINES * if sliced { blocks * even } else { 2 });
        let sums = sums.lines().as_mut_ptr().cast::<Sums>();
        // SAFETY: AMX is supported (caller).
        let tiles = unsafe { Tiles::configure() };
        let mut pending: Option<Finished> = None;
        let mut turn = 0;
        for from in (0..panel.steps).step_by(panel.slice) {
            let steps = from..panel.steps.min(from + panel.slice);
            let (add, last, count) = (from > 0, steps.end == panel.steps, steps.len());
            let strip_lines = count * 2 * Line::PER_TILE;
            let weights = &mut weights.lines()[..panel.count * strip_lines];
            // SAFETY: AVX-512 comes with AMX.
            unsafe {
                pack::weights::<BACKWARD>(
                    self.weights,
                    self.shape,
                    panel.first * STRIP,
                    steps,
                    weights,
                )
            };
            for block in 0..blocks {
                let token = block * BLOCK;
                let x_tiles = (target.tokens - token).min(BLOCK).div_ceil(16);
                let x = block * panel.steps * 2 * PIECES + from * x_tiles * PIECES;
                let x = packed[x * Line::PER_TILE..].as_ptr().cast::<u8>();
                // One tile of tokens takes two strips at a time.
                for strip in (0..panel.count).step_by(3 - x_tiles) {
                    turn ^= 1;
                    // SAFETY: within the buffer: block < blocks and strip < even, or turn < 2.
                    let sums =
                        unsafe { sums.add(if sliced { block * even + strip } else { turn }) };
                    let w0 = weights[strip * strip_lines..].as_ptr().cast::<u8>();
                    // SAFETY: `weights` and `packed` hold `count` steps of tiles from these places
                    // on; the sums of the pending block are others.
                    unsafe {
                        if x_tiles == 2 {
                            tile::square::<BACKWARD>(&tiles, w0, x, count, sums, add);
                        } else {
                            // The last of an odd number of strips goes twice; the second result is
                            // dropped.
                            let other = if strip + 1 < panel.count { strip + 1 } else { strip };
                            let w1 = weights[other * strip_lines..].as_ptr().cast::<u8>();
                            tile::narrow::<BACKWARD>(&tiles, w0, w1, x, count, sums, add);
                        }
                        if last {
                            let done = Finished { sums, x_tiles, token, strip };
                            if let Some(done) = pending.replace(done) {
                                panel.store::<BACKWARD>(&done, target);
                            }
                        }
                    }
                }
            }
        }
        if let Some(done) = pending {
            // SAFETY: as above.
            unsafe { panel.store::<BACKWARD>(&done, target) };
        }
    }
}

/// Sums that are complete. They are written one block late, so that the tile unit works on the next
/// block meanwhile.
struct Finished {
    sums: *const Sums,
    x_tiles: usize,
    token: usize,
    strip: usize,
}

impl Panel {
    /// Writes a block's results.
    ///
    /// # Safety
    /// `done.sums` is valid, and `target` is as [`pack::store`] wants it.
    unsafe fn store<const BACKWARD: bool>(&self, done: &Finished, target: &Target) {
        // SAFETY: valid (caller).
        let sums = unsafe { &*done.sums };
        for (i, tile) in sums.iter().enumerate() {
            let (w, x) = if done.x_tiles == 2 { (i / 2, i % 2) } else { (i, 0) };
            if done.strip + w / 2 < self.count {
                let output = (self.first + done.strip) * STRIP + w * 16;
                // SAFETY: AVX-512 comes with AMX; the rest as promised by the caller.
                unsafe { pack::store::<BACKWARD>(tile, target, done.token + x * 16, output) };
            }
        }
    }
}

/// Lines of four tiles of sums.
const SUMS_LINES: usize = size_of::<Sums>() / size_of::<Line>();

/// A panel of outputs.
struct Panel {
    /// First strip.
    first: usize,
    /// Strips.
    count: usize,
    /// Steps of depth in all.
    steps: usize,
    /// Steps of a slice.
    slice: usize,
}

/// Packs a chunk of tokens, block by block.
///
/// # Safety
/// AMX is supported, and `packed` holds 2·[`PIECES`] tiles a step for every [`BLOCK`] tokens begun.
unsafe fn pack_chunk<const BACKWARD: bool>(x: &[f32], depth: usize, packed: &mut [Line]) {
    let steps = depth.div_ceil(STEP);
    let block_lines = steps * 2 * PIECES * Line::PER_TILE;
    let packed = Shared(packed.as_mut_ptr());
    for_each(x.len().div_ceil(BLOCK * depth), |block| {
        let x = &x[block * BLOCK * depth..x.len().min((block + 1) * BLOCK * depth)];
        let lines = steps * (x.len() / depth).div_ceil(16) * PIECES * Line::PER_TILE;
        // SAFETY: blocks are disjoint parts of `packed`, which holds them all (caller); AVX-512
        // comes with AMX.
        unsafe {
            let out = std::slice::from_raw_parts_mut(packed.get().add(block * block_lines), lines);
            pack::activations::<BACKWARD>(x, depth, out);
        }
    });
}
