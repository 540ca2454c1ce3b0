//! Draws against the distribution that they are drawn from.

use super::*;
use uspx_domain::Prompt;

const DRAWS: u32 = 50;
/// Half precision holds ln(1/50) within half of a 512th.
const ROUNDING: f64 = 1e-3;

/// Log-probabilities of a wide distribution, one token of which is impossible.
fn row() -> Vec<f32> {
    let logit = |i: u32| f64::from(i * 37 % 41) / 8.0;
    let total: f64 = (0..40).map(|i| logit(i).exp()).sum();
    let log_probs = (0..40).map(|i| (logit(i) - total.ln()) as f32);
    log_probs.chain([f32::NEG_INFINITY]).collect()
}

fn answer(id: &str, answer: &str) -> PromptLabels {
    PromptLabels::text(Prompt { id: id.into(), ..Prompt::default() }, answer.into())
}

fn keep(seed: u64, answer: &PromptLabels) -> Kept {
    Keeping::Sampled { draws: DRAWS, seed }.of(answer).keep(&row(), 3)
}

#[test]
fn drawn_shares_are_the_distribution_in_the_mean() {
    let (row, seeds) = (row(), 4000u32);
    let mut sums = vec![0.0; row.len()];
    for seed in 0..seeds {
        for (id, log_prob) in keep(seed.into(), &answer("p", "ls")).top {
            sums[id as usize] += f64::from(log_prob).exp();
        }
    }
    for (sum, log_prob) in sums.iter().zip(&row) {
        let (mean, p) = (sum / f64::from(seeds), f64::from(*log_prob).exp());
        let deviation = (p * (1.0 - p) / f64::from(DRAWS * seeds)).sqrt();
        let bound = 4.5 * deviation + ROUNDING * p;
        assert!((mean - p).abs() <= bound, "{mean} of {p}, at most {bound} apart");
    }
    // Of the likeliest alone as much as they miss is missing.
    let likeliest = Keeping::Likeliest(8).of(&answer("p", "ls")).keep(&row, 3);
    assert!(likeliest.tail > 0.2, "{}", likeliest.tail);
}

#[test]
fn a_label_holds_shares_of_its_draws_and_no_tail() {
    for seed in 0..50 {
        let kept = keep(seed, &answer("p", "ls"));
        let shares: Vec<f64> = kept.top.iter().map(|(_, l)| f64::from(*l).exp()).collect();
        let draws: Vec<f64> = shares.iter().map(|share| share * f64::from(DRAWS)).collect();
        assert!(draws.iter().all(|n| (n - n.round()).abs() < 2.0 * ROUNDING * n), "{draws:?}");
        assert_eq!(draws.iter().map(|n| n.round()).sum::<f64>(), f64::from(DRAWS));
        assert!(kept.top.windows(2).all(|w| rank(&w[0], &w[1]).is_lt()));
        assert_eq!((kept.tail, kept.own), (0.0, row()[3]));
    }
    let sure = [f32::NEG_INFINITY, 0.0, f32::NEG_INFINITY];
    let mut keeper = Keeping::Sampled { draws: DRAWS, seed: 1 }.of(&answer("p", "ls"));
    assert_eq!(keeper.keep(&sure, 0).top, [(1, 0.0)]);
}

#[test]
fn draws_follow_from_seed_and_answer() {
    let of = |seed, id: &str, text: &str| keep(seed, &answer(id, text)).top;
    assert_eq!(of(1, "p", "ls"), of(1, "p", "ls"));
    for other in [of(2, "p", "ls"), of(1, "q", "ls"), of(1, "p", "ps"), of(1, "pl", "s")] {
        assert_ne!(of(1, "p", "ls"), other);
    }
    // Each row of an answer has draws of its own.
    let mut keeper = Keeping::Sampled { draws: DRAWS, seed: 1 }.of(&answer("p", "ls"));
    assert_ne!(keeper.keep(&row(), 3).top, keeper.keep(&row(), 3).top);
}

#[test]
fn what_labels_cannot_hold_is_refused() {
    let sampled = |draws| Keeping::Sampled { draws, seed: 1 };
    for (keeping, said) in [
        (Keeping::Likeliest(0), "top_k is 0, 1 to 4096"),
        (Keeping::Likeliest(4097), "top_k is 4097"),
        (sampled(0), "the number of draws is 0"),
        (sampled(4097), "the number of draws is 4097"),
    ] {
        let error = keeping.check().unwrap_err().to_string();
        assert!(error.contains(said), "{error}");
    }
    assert!(Keeping::Likeliest(4096).check().is_ok() && sampled(4096).check().is_ok());
}
