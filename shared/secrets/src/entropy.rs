//! How various the letters of a text are.

/// Shannon's entropy of a text's bytes, in bits per byte.
pub(crate) fn shannon(text: &[u8]) -> f64 {
    let mut counts = [0u32; 256];
    for byte in text {
        if let Some(count) = counts.get_mut(usize::from(*byte)) {
            *count += 1;
        }
    }
    let all = text.len() as f64;
    let bits = |count: &u32| {
        let share = f64::from(*count) / all;
        -share * share.log2()
    };
    counts.iter().filter(|count| **count > 0).map(bits).sum()
}

#[cfg(test)]
mod tests {
    use super::shannon;

    #[test]
    fn it_is_the_logarithm_of_as_many_equal_shares() {
        assert_eq!(shannon(b""), 0.0);
        assert_eq!(shannon(b"aaaa"), 0.0);
        assert_eq!(shannon(b"abab"), 1.0);
        assert_eq!(shannon(b"abcdefgh"), 3.0);
        assert!((shannon(b"aab") - 0.918_295_834_054_489_6).abs() < 1e-12);
    }
}
