//! How much memory this process has used, and how much is free.

use sysinfo::{MemoryRefreshKind, RefreshKind, System};

/// The largest resident size of this process so far, in bytes; `None` where the system does not
/// tell.
pub fn peak_rss() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|l| l.strip_prefix("VmHWM:"))?;
    let kilobytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kilobytes * 1024)
}

/// The machine's memory, in bytes: (all, available).
pub fn of_machine() -> (u64, u64) {
    let kinds = RefreshKind::nothing().with_memory(MemoryRefreshKind::everything());
    let system = System::new_with_specifics(kinds);
    (system.total_memory(), system.available_memory())
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_peak_grows_with_what_is_touched() {
        let before = super::peak_rss().unwrap();
        let block = vec![7u8; 64 << 20];
        assert!(super::peak_rss().unwrap() >= before + block.len() as u64 / 2);
        let (all, available) = super::of_machine();
        assert!(all >= available && available > 0);
    }
}
