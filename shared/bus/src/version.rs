//! Which nats-server is new enough, decided on the text that it gives of itself.

use std::cmp::Ordering;

/// The oldest nats-server that will do: before it, key-value buckets and `sync_interval: always`
/// are missing or broken.
pub const OLDEST_SERVER: &str = "2.10.27";

/// Whether a server of this version will do. A version that cannot be read will not.
pub fn is_new_enough(version: &str) -> bool {
    compare(version, OLDEST_SERVER).is_some_and(Ordering::is_ge)
}

/// The version in the output of `nats-server --version`.
pub fn of_program_output(output: &str) -> Option<&str> {
    output
        .split_whitespace()
        .map(|word| word.trim_start_matches('v'))
        .find(|word| numbers(word).is_some())
}

fn compare(left: &str, right: &str) -> Option<Ordering> {
    let (left, left_released) = numbers(left)?;
    let (right, right_released) = numbers(right)?;
    // `2.10.27-RC.1` comes before `2.10.27`.
    Some(left.cmp(&right).then(left_released.cmp(&right_released)))
}

/// Major, minor and patch, and whether it is a release rather than a preview of it.
fn numbers(version: &str) -> Option<([u64; 3], bool)> {
    let (core, preview) = match version.trim().trim_start_matches('v').split_once('-') {
        Some((core, preview)) => (core, Some(preview)),
        None => (version.trim().trim_start_matches('v'), None),
    };
    let mut parts = core.split('+').next()?.split('.').map(|part| part.parse().ok());
    let triple = [parts.next()??, parts.next()??, parts.next()??];
    if parts.next().is_some() { None } else { Some((triple, preview.is_none())) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn compares_numbers_not_text() {
        for good in
            ["2.10.27", "2.10.100", "2.11.0", "3.0.0", "v2.15.1", "2.11.0-RC.1", "2.10.27+build"]
        {
            assert!(is_new_enough(good), "{good}");
        }
        for bad in [
            "2.9.10",
            "2.10.3",
            "2.10.26",
            "2.10.27-RC.1",
            "1.99.99",
            "",
            "2.10",
            "x.y.z",
            "2.10.27.1",
        ] {
            assert!(!is_new_enough(bad), "{bad}");
        }
    }

    #[test]
    fn finds_the_version_in_what_the_program_says() {
        assert_eq!(of_program_output("nats-server: v2.9.10\n"), Some("2.9.10"));
        assert_eq!(of_program_output("no version here"), None);
    }
}
