//! What can go wrong at the door of this crate; each message says what to do about it.

/// Why a matrix could not be made or multiplied.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KernelError {
    /// A weight buffer's length does not fit the matrix's shape.
    #[error(
        "{what} of a [{rows}, {columns}] matrix take {expected} bytes, but {found} were given: \
             compare the tensor's shape with config.json, or download the checkpoint again"
    )]
    Bytes {
        /// Which buffer.
        what: &'static str,
        /// Rows of the matrix.
        rows: usize,
        /// Columns of the matrix.
        columns: usize,
        /// Bytes that the shape asks for.
        expected: usize,
        /// Bytes that were given.
        found: usize,
    },
    /// MXFP4 groups 32 values along a row under one scale.
    #[error(
        "an MXFP4 matrix needs a multiple of 32 columns, not {columns}: store this tensor as bf16"
    )]
    Columns {
        /// Columns of the matrix.
        columns: usize,
    },
    /// A shape whose size does not fit the address space.
    #[error(
        "a [{rows}, {columns}] matrix is larger than the address space: the checkpoint's header is damaged"
    )]
    TooLarge {
        /// Rows of the matrix.
        rows: usize,
        /// Columns of the matrix.
        columns: usize,
    },
    /// A value that NF4 cannot scale by.
    #[error(
        "a [{rows}, {columns}] matrix to be held in NF4 has a value that is not a finite number: download \
             the checkpoint again"
    )]
    NotFinite {
        /// Rows of the matrix.
        rows: usize,
        /// Columns of the matrix.
        columns: usize,
    },
    /// An activation buffer's length does not fit `n` rows.
    #[error(
        "{what} must hold {n} rows of {width} values, {expected} in all, but holds {found}: \
             pass n and the buffers of one and the same batch"
    )]
    Length {
        /// Which buffer.
        what: &'static str,
        /// Rows (tokens) asked for.
        n: usize,
        /// Values in a row.
        width: usize,
        /// Values that the shape asks for.
        expected: usize,
        /// Values that were given.
        found: usize,
    },
    /// `USPX_KERNEL` names no kernel family.
    #[error(
        "USPX_KERNEL={value} is unknown: set it to one of amx, avx512, avx2, neon, portable, or unset it"
    )]
    UnknownIsa {
        /// What the variable holds.
        value: String,
    },
    /// The kernel family asked for cannot run here.
    #[error(
        "this processor (or its kernel) cannot run the {isa} kernels: choose one of {available}, \
             or unset USPX_KERNEL"
    )]
    UnsupportedIsa {
        /// What was asked for.
        isa: &'static str,
        /// What runs here, best first.
        available: String,
    },
}
