//! Residual streams kept at layer boundaries: in memory as long as they fit under a limit, then in
//! a temporary file.

use crate::layers::slices::with_values;
use crate::{ModelError, Result};
use candle_core::{DType, Device, Tensor};
use std::fs::File;
use std::os::unix::fs::FileExt;

/// Kept values, in the order they came in.
#[derive(Debug)]
pub struct Spool {
    limit: usize,
    held: usize,
    kept: Vec<Kept>,
    file: Option<File>,
    written: u64,
}

#[derive(Debug)]
enum Kept {
    Held(Tensor),
    Written { offset: u64, shape: Vec<usize>, dtype: DType, device: Device },
    Taken,
}

impl Spool {
    /// A spool that holds at most `limit` bytes in memory.
    pub fn new(limit: usize) -> Self {
        Self { limit, held: 0, kept: Vec::new(), file: None, written: 0 }
    }

    /// Keeps `value`, detached.
    ///
    /// # Errors
    /// A temporary file that cannot be written (a full disk, say).
    pub fn push(&mut self, value: &Tensor) -> Result<()> {
        let bytes = value.elem_count() * value.dtype().size_in_bytes();
        if self.held + bytes <= self.limit {
            self.held += bytes;
            self.kept.push(Kept::Held(value.detach()));
            return Ok(());
        }
        let file = match self.file.take() {
            Some(file) => file,
            None => tempfile::tempfile().map_err(spooling)?,
        };
        let plain = value.detach().to_device(&Device::Cpu)?.to_dtype(DType::F32)?;
        let written =
            with_values(&plain, |values| file.write_all_at(as_bytes(values), self.written))?;
        self.file = Some(file);
        written.map_err(spooling)?;
        let kept = Kept::Written {
            offset: self.written,
            shape: value.dims().to_vec(),
            dtype: value.dtype(),
            device: value.device().clone(),
        };
        self.written += (plain.elem_count() * size_of::<f32>()) as u64;
        self.kept.push(kept);
        Ok(())
    }

    /// The value that came in as number `index`.
    ///
    /// # Errors
    /// None came in under this number; the file cannot be read.
    pub fn get(&self, index: usize) -> Result<Tensor> {
        let missing = || ModelError::Request("a layer boundary that was not kept".into());
        match (self.kept.get(index).ok_or_else(missing)?, &self.file) {
            (Kept::Held(value), _) => Ok(value.clone()),
            (Kept::Written { offset, shape, dtype, device }, Some(file)) => {
                let mut bytes = vec![0; shape.iter().product::<usize>() * size_of::<f32>()];
                file.read_exact_at(&mut bytes, *offset).map_err(spooling)?;
                Ok(Tensor::from_raw_buffer(&bytes, DType::F32, shape, device)?.to_dtype(*dtype)?)
            }
            _ => Err(missing()),
        }
    }

    /// The same, which is kept no longer; the space of one in the file is not used again.
    ///
    /// # Errors
    /// As [`Self::get`].
    pub fn take(&mut self, index: usize) -> Result<Tensor> {
        let value = self.get(index)?;
        if let Some(kept) = self.kept.get_mut(index) {
            if let Kept::Held(value) = kept {
                self.held -= value.elem_count() * value.dtype().size_in_bytes();
            }
            *kept = Kept::Taken;
        }
        Ok(value)
    }

    /// Bytes in the temporary file.
    pub fn written(&self) -> u64 {
        self.written
    }
}

fn spooling(source: std::io::Error) -> ModelError {
    ModelError::Read { path: std::env::temp_dir(), source }
}

/// The values' bytes in this machine's order; they are read back by the same process.
fn as_bytes(values: &[f32]) -> &[u8] {
    // SAFETY: every f32 is four initialised bytes, and u8 has no alignment.
    unsafe { std::slice::from_raw_parts(values.as_ptr().cast(), size_of_val(values)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_fit_comes_back_from_the_file() {
        let tensor = |n: usize| {
            Tensor::arange(0f32, 6.0 * n as f32, &Device::Cpu).unwrap().reshape((n, 6)).unwrap()
        };
        let mut spool = Spool::new(100);
        for n in [3, 4, 1, 5] {
            spool.push(&tensor(n)).unwrap();
        }
        assert_eq!(spool.written(), 4 * 6 * 9);
        for (index, n) in [3, 4, 1, 5].into_iter().enumerate() {
            let (found, wanted) = (spool.get(index).unwrap(), tensor(n));
            assert_eq!(found.to_vec2::<f32>().unwrap(), wanted.to_vec2::<f32>().unwrap());
        }
        assert!(spool.get(4).is_err());
        // What is taken makes room in memory.
        assert_eq!(spool.take(0).unwrap().dims(), [3, 6]);
        assert!(spool.get(0).is_err() && spool.take(0).is_err());
        spool.push(&tensor(3)).unwrap();
        assert_eq!((spool.written(), spool.get(4).unwrap().dims()), (4 * 6 * 9, &[3, 6][..]));
    }
}
