//! GGUF's numbers for block types.

use candle_core::quantized::GgmlDType;

/// Those that are read and written.
const NUMBERS: [(u32, GgmlDType); 13] = [
    (0, GgmlDType::F32),
    (1, GgmlDType::F16),
    (2, GgmlDType::Q4_0),
    (3, GgmlDType::Q4_1),
    (6, GgmlDType::Q5_0),
    (7, GgmlDType::Q5_1),
    (8, GgmlDType::Q8_0),
    (10, GgmlDType::Q2K),
    (11, GgmlDType::Q3K),
    (12, GgmlDType::Q4K),
    (13, GgmlDType::Q5K),
    (14, GgmlDType::Q6K),
    (30, GgmlDType::BF16),
];

/// The type that a number stands for.
pub(super) fn of(number: u32) -> Option<GgmlDType> {
    NUMBERS.into_iter().find(|(own, _)| *own == number).map(|(_, dtype)| dtype)
}

/// A type's number.
pub(super) fn number(dtype: GgmlDType) -> Option<u32> {
    NUMBERS.into_iter().find(|(_, own)| *own == dtype).map(|(number, _)| number)
}
