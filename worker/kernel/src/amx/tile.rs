//! The tile unit itself: permission, configuration, and the two inner loops.
//!
//! Stable Rust has no AMX intrinsics; the assembler knows the mnemonics. Everything that touches
//! tiles happens between [`Tiles::configure`] and its drop, on one thread, and each inner loop is
//! one `asm!` block: no tile is live between blocks.

use std::arch::asm;

/// Bytes of a tile: 16 rows of 64 bytes.
pub(crate) const TILE: usize = 1024;
/// Values of depth (the summed index) in a tile of bf16.
pub(crate) const STEP: usize = 32;
/// bf16 pieces of an activation: x ≈ hi + mid.
pub(crate) const PIECES: usize = 2;

/// Whether the processor has AMX-BF16 and Linux lets this process use tiles. (The permission holds
/// for the process, so asking once is enough.)
pub(crate) fn permitted() -> bool {
    const LEAF: u32 = 7;
    const AMX_BF16: u32 = 1 << 22;
    const AMX_TILE: u32 = 1 << 24;
    const ARCH_REQ_XCOMP_PERM: libc::c_long = 0x1023;
    const XFEATURE_XTILEDATA: libc::c_long = 18;
    if std::arch::x86_64::__cpuid(0).eax < LEAF {
        return false;
    }
    let edx = std::arch::x86_64::__cpuid_count(LEAF, 0).edx;
    if edx & AMX_BF16 == 0 || edx & AMX_TILE == 0 {
        return false;
    }
    // SAFETY: arch_prctl with this code takes two integers and touches no memory of ours.
    unsafe { libc::syscall(libc::SYS_arch_prctl, ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA) == 0 }
}

/// This thread's tiles, configured; released when dropped, so that other code on the thread finds
/// them unused.
pub(crate) struct Tiles(());

/// What `ldtilecfg` reads: palette 1, eight tiles of 16 rows by 64 bytes.
#[repr(C, align(64))]
struct Configuration {
    palette: u8,
    start_row: u8,
    reserved: [u8; 14],
    row_bytes: [u16; 16],
    rows: [u8; 16],
}

impl Tiles {
    /// Configures all eight tiles of this thread.
    ///
    /// # Safety
    /// [`permitted`] must have answered yes.
    pub(crate) unsafe fn configure() -> Self {
        let mut configuration = Configuration {
            palette: 1,
            start_row: 0,
            reserved: [0; 14],
            row_bytes: [0; 16],
            rows: [0; 16],
        };
        for (bytes, rows) in configuration.row_bytes.iter_mut().zip(&mut configuration.rows).take(8)
        {
            (*bytes, *rows) = (64, 16);
        }
        // SAFETY: the processor has AMX (caller), and the operand is 64 readable bytes.
        unsafe {
            asm!("ldtilecfg [{}]", in(reg) &raw const configuration, options(nostack, readonly, preserves_flags),
                out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
                out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _);
        }
        Tiles(())
    }
}

impl Drop for Tiles {
    fn drop(&mut self) {
        // SAFETY: whoever has a `Tiles` has AMX.
        unsafe {
            asm!("tilerelease", options(nostack, nomem, preserves_flags),
                out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
                out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _);
        }
    }
}

/// One inner loop as an `asm!` block: loads (or clears) the four sums, runs `$body` once per step,
/// stores the sums.
macro_rules! inner_loop {
    ($body:expr, $w0:ident, $w1:ident, $x:ident, $x_step:expr, $sums:ident, $steps:ident, $add:ident) => {
        asm!(
            "test {add}, {add}",
            "jnz 3f",
            "tilezero tmm0", "tilezero tmm1", "tilezero tmm2", "tilezero tmm3",
            "jmp 2f",
            "3:",
            "tileloadd tmm0, [{c} + {s}]",
            "tileloadd tmm1, [{c} + {s} + 1024]",
            "tileloadd tmm2, [{c} + {s} + 2048]",
            "tileloadd tmm3, [{c} + {s} + 3072]",
            "2:",
            $body,
            "add {w0}, 2048",
            "add {w1}, 2048",
            concat!("add {x}, ", $x_step),
            "dec {n}",
            "jnz 2b",
            "tilestored [{c} + {s}], tmm0",
            "tilestored [{c} + {s} + 1024], tmm1",
            "tilestored [{c} + {s} + 2048], tmm2",
            "tilestored [{c} + {s} + 3072], tmm3",
            add = in(reg) usize::from($add),
            c = in(reg) $sums,
            s = in(reg) 64_usize,
            w0 = inout(reg) $w0 => _,
            w1 = inout(reg) $w1 => _,
            x = inout(reg) $x => _,
            n = inout(reg) $steps => _,
            out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
            out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
            options(nostack),
        )
    };
}

/// Sum number `$c` of weights in tile `$w` and activations in tile `$x`; the weights are the left
/// operand in the forward product and the right one in the backward product.
macro_rules! dot {
    (forward, $c:literal, $w:literal, $x:literal) => {
        concat!("tdpbf16ps tmm", $c, ", tmm", $w, ", tmm", $x, "\n")
    };
    (backward, $c:literal, $w:literal, $x:literal) => {
        concat!("tdpbf16ps tmm", $c, ", tmm", $x, ", tmm", $w, "\n")
    };
}

/// A step of two weight tiles by two activation tiles, both pieces.
macro_rules! square_step {
    ($direction:ident) => {
        concat!(
            "tileloadd tmm4, [{w0} + {s}]\n",
            "tileloadd tmm6, [{x} + {s}]\n",
            "tileloadd tmm7, [{x} + {s} + 1024]\n",
            "tileloadd tmm5, [{w0} + {s} + 1024]\n",
            dot!($direction, 0, 4, 6),
            dot!($direction, 1, 4, 7),
            dot!($direction, 2, 5, 6),
            dot!($direction, 3, 5, 7),
            "tileloadd tmm6, [{x} + {s} + 2048]\n",
            "tileloadd tmm7, [{x} + {s} + 3072]\n",
            dot!($direction, 0, 4, 6),
            dot!($direction, 1, 4, 7),
            dot!($direction, 2, 5, 6),
            dot!($direction, 3, 5, 7),
        )
    };
}

/// A step of four weight tiles by one activation tile, both pieces.
macro_rules! narrow_step {
    ($direction:ident) => {
        concat!(
            "tileloadd tmm6, [{x} + {s}]\n",
            "tileloadd tmm7, [{x} + {s} + 1024]\n",
            "tileloadd tmm4, [{w0} + {s}]\n",
            "tileloadd tmm5, [{w0} + {s} + 1024]\n",
            dot!($direction, 0, 4, 6),
            dot!($direction, 1, 5, 6),
            dot!($direction, 0, 4, 7),
            dot!($direction, 1, 5, 7),
            "tileloadd tmm4, [{w1} + {s}]\n",
            "tileloadd tmm5, [{w1} + {s} + 1024]\n",
            dot!($direction, 2, 4, 6),
            dot!($direction, 3, 5, 6),
            dot!($direction, 2, 4, 7),
            dot!($direction, 3, 5, 7),
        )
    };
}

/// Four tiles of f32 sums, one after another.
pub(crate) type Sums = [[f32; 256]; 4];

/// Two weight tiles × two activation tiles over `steps` steps: sums\[2·weight tile + activation
/// tile\], added to what is there if `add`. Sums are [outputs, tokens] forward and [tokens,
/// outputs] backward.
///
/// # Safety
/// `tiles` is configured; `w` points at 2 tiles per step, `x` at 2·[`PIECES`] tiles per step;
/// `steps` > 0; `sums` is writable.
pub(crate) unsafe fn square<const BACKWARD: bool>(
    _tiles: &Tiles,
    w: *const u8,
    x: *const u8,
    steps: usize,
    sums: *mut Sums,
    add: bool,
) {
    let w1 = w;
    // SAFETY: the caller promises the operands.
    unsafe {
        if BACKWARD {
            inner_loop!(square_step!(backward), w, w1, x, 4096, sums, steps, add);
        } else {
            inner_loop!(square_step!(forward), w, w1, x, 4096, sums, steps, add);
        }
    }
}

/// Four weight tiles (two at `w0`, two at `w1`) × one activation tile: sums\[weight tile\]. The
/// order of additions within a sum is that of [`square`], so a token's result does not depend on
/// how many others came with it.
///
/// # Safety
/// As [`square`], with [`PIECES`] tiles of activations per step.
pub(crate) unsafe fn narrow<const BACKWARD: bool>(
    _tiles: &Tiles,
    w0: *const u8,
    w1: *const u8,
    x: *const u8,
    steps: usize,
    sums: *mut Sums,
    add: bool,
) {
    // SAFETY: the caller promises the operands.
    unsafe {
        if BACKWARD {
            inner_loop!(narrow_step!(backward), w0, w1, x, 2048, sums, steps, add);
        } else {
            inner_loop!(narrow_step!(forward), w0, w1, x, 2048, sums, steps, add);
        }
    }
}
