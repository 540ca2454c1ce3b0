//! Buffers that a thread keeps from one product to the next: clearing and faulting in fresh ones
//! would cost a small product a good part of its time.

use std::cell::Cell;

use super::pack::Line;

/// Buffers that a thread keeps.
const KEPT: usize = 3;

thread_local! {
    static FREE: Cell<Vec<Vec<Line>>> = const { Cell::new(Vec::new()) };
}

/// A buffer of lines with unspecified content; goes back to its thread when dropped.
pub(crate) struct Scratch {
    buffer: Vec<Line>,
    length: usize,
}

impl Scratch {
    /// The smallest kept buffer that suffices, or the largest, grown.
    pub(crate) fn take(length: usize) -> Self {
        let mut free = FREE.take();
        free.sort_by_key(Vec::len);
        let index = free
            .iter()
            .position(|buffer| buffer.len() >= length)
            .unwrap_or(free.len().saturating_sub(1));
        let mut buffer = if free.is_empty() { Vec::new() } else { free.remove(index) };
        FREE.set(free);
        if buffer.len() < length {
            buffer.resize(length, Line::ZERO);
        }
        Self { buffer, length }
    }

    /// The lines asked for.
    pub(crate) fn lines(&mut self) -> &mut [Line] {
        let length = self.length;
        self.buffer.get_mut(..length).unwrap_or_default()
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let mut free = FREE.take();
        free.push(std::mem::take(&mut self.buffer));
        free.sort_by_key(Vec::len);
        if free.len() > KEPT {
            free.remove(0);
        }
        FREE.set(free);
    }
}
