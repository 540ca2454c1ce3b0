//! The memory of the first GPU, as its driver tells it.

use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

/// How often it is asked for.
const EVERY: Duration = Duration::from_millis(200);

/// What `work` gives, and the most memory that was used on the device meanwhile, in bytes.
pub fn watched<T>(work: impl FnOnce() -> T) -> (T, u64) {
    let (peak, ended) = (AtomicU64::new(0), AtomicBool::new(false));
    let result = std::thread::scope(|scope| {
        scope.spawn(|| {
            while !ended.load(Ordering::Relaxed) {
                peak.fetch_max(used().unwrap_or(0), Ordering::Relaxed);
                std::thread::sleep(EVERY);
            }
        });
        let result = work();
        ended.store(true, Ordering::Relaxed);
        result
    });
    (result, peak.into_inner())
}

/// Memory in use on the device, in bytes; none where no GPU answers.
pub fn used() -> Option<u64> {
    let query = ["--query-gpu=memory.used", "--format=csv,noheader,nounits", "--id=0"];
    let output = Command::new("nvidia-smi").args(query).output().ok()?;
    let mebibytes: u64 = String::from_utf8(output.stdout).ok()?.trim().parse().ok()?;
    Some(mebibytes << 20)
}
