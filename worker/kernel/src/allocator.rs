//! Memory that was freed stays with the process for what is allocated next.

/// Has the C library keep freed memory from the start as it does in the end.
///
/// Every operation of a forward pass allocates some MB for a moment. glibc maps and unmaps such
/// blocks, and what it keeps otherwise it gives back at once: the system then clears the same pages
/// again and again, a third of the time of a small model's passes. It learns to keep up to 32 MiB a
/// block and 64 MiB in all, but only slowly; this sets it so.
pub fn keep_freed_memory() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    {
        // SAFETY: both calls only set a number; what they return says whether they did, and where
        // they did not everything works as well.
        unsafe {
            libc::mallopt(libc::M_MMAP_THRESHOLD, 32 << 20);
            libc::mallopt(libc::M_TRIM_THRESHOLD, 64 << 20);
        }
    }
}
