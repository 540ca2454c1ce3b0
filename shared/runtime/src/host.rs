//! This machine, as people call it.

/// The machine's name.
pub fn name() -> String {
    sysinfo::System::host_name().unwrap_or_else(|| "unknown".to_owned())
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_machine_has_a_name() {
        assert!(!super::name().is_empty());
    }
}
