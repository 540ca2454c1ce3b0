//! How fast files are read from front to back when the system does not have them in memory.

use crate::error::{BenchError, Result};
use std::fs::File;
use std::io::Read;
use std::path::PathBuf;
use std::time::Instant;

/// A sequential read of files.
pub struct Reading {
    /// Their size.
    pub bytes: u64,
    /// All of them, one after another.
    pub bytes_per_second: f64,
    /// Which part came from the device, not from the system's memory; unknown without /proc.
    pub cold: Option<f64>,
}

/// Bytes of one read.
const BUFFER: usize = 8 << 20;

/// Reads the files once, after the system was asked to forget them.
pub fn read_rate(files: &[PathBuf]) -> Result<Reading> {
    forget(files)?;
    let (mut buffer, mut bytes) = (vec![0; BUFFER], 0);
    let (before, start) = (from_device(), Instant::now());
    for path in files {
        let mut file = File::open(path).map_err(BenchError::file(path))?;
        loop {
            match file.read(&mut buffer).map_err(BenchError::file(path))? {
                0 => break,
                n => bytes += n as u64,
            }
        }
    }
    let bytes_per_second = bytes as f64 / start.elapsed().as_secs_f64();
    let cold =
        before.zip(from_device()).map(|(before, after)| (after - before) as f64 / bytes as f64);
    Ok(Reading { bytes, bytes_per_second, cold })
}

/// Asks the system to drop these files, and no others, from its memory.
pub fn forget(files: &[PathBuf]) -> Result<()> {
    for path in files {
        let file = File::open(path).map_err(BenchError::file(path))?;
        // Advice: without it figures are those of a warm cache, and `cold` says so.
        #[cfg(target_os = "linux")]
        let _ = rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed);
        drop(file);
    }
    Ok(())
}

/// Bytes that this process caused to be read from devices.
fn from_device() -> Option<u64> {
    let io = std::fs::read_to_string("/proc/self/io").ok()?;
    io.lines().find_map(|line| line.strip_prefix("read_bytes:"))?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_bytes_are_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a");
        std::fs::write(&path, vec![1; BUFFER + 5]).unwrap();
        let reading = read_rate(&[path.clone(), path]).unwrap();
        assert_eq!(reading.bytes, 2 * (BUFFER as u64 + 5));
        assert!(reading.bytes_per_second > 0.0);
    }
}
