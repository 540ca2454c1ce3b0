//! Single bits in bytes, the lowest bit of a byte first; of numbers, too, the lowest bit first.

/// Appends bits to bytes.
pub(super) struct BitWriter<'a> {
    bytes: &'a mut Vec<u8>,
    held: u8,
    /// How many bits `held` has.
    used: u32,
}

impl<'a> BitWriter<'a> {
    pub fn new(bytes: &'a mut Vec<u8>) -> Self {
        Self { bytes, held: 0, used: 0 }
    }

    pub fn bit(&mut self, bit: bool) {
        self.held |= u8::from(bit) << self.used;
        self.used += 1;
        if self.used == 8 {
            self.bytes.push(self.held);
            (self.held, self.used) = (0, 0);
        }
    }

    /// The `bits` low bits of a number.
    pub fn number(&mut self, number: u32, bits: u32) {
        for at in 0..bits {
            self.bit(number >> at & 1 == 1);
        }
    }

    /// Fills the last byte with zeros.
    pub fn close(self) {
        if self.used > 0 {
            self.bytes.push(self.held);
        }
    }
}

/// Takes bits from bytes.
pub(super) struct BitReader<'a> {
    bytes: &'a [u8],
    /// What is left of the byte that was begun.
    held: u8,
    left: u32,
}

impl<'a> BitReader<'a> {
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, held: 0, left: 0 }
    }

    /// None at the end.
    pub fn bit(&mut self) -> Option<bool> {
        if self.left == 0 {
            let (&first, rest) = self.bytes.split_first()?;
            (self.bytes, self.held, self.left) = (rest, first, 8);
        }
        let bit = self.held & 1 == 1;
        self.held >>= 1;
        self.left -= 1;
        Some(bit)
    }

    /// A number of at most 32 bits.
    pub fn number(&mut self, bits: u32) -> Option<u32> {
        (0..bits).try_fold(0, |sum, at| Some(sum | u32::from(self.bit()?) << at))
    }

    /// The bytes that no bit was taken from; none where the last byte is not filled with zeros.
    pub fn close(self) -> Option<&'a [u8]> {
        (self.held == 0).then_some(self.bytes)
    }
}
