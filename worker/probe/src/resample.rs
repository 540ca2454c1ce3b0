//! Which prompt takes another one's outputs, where a unit is replaced by what it is elsewhere: each
//! position has a counterpart, so both have as many tokens.

use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;
use std::collections::BTreeMap;
use uspx_model::batch::Sequence;

/// For each sequence the number of another one of the same length, if there is any: the same for
/// the same seed. Those of a length give to each other in a circle, so that all give once.
pub fn sources(sequences: &[Sequence], seed: u64) -> Vec<Option<usize>> {
    let mut lengths: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
    for (number, sequence) in sequences.iter().enumerate() {
        lengths.entry(sequence.ids.len()).or_default().push(number);
    }
    let mut found = vec![None; sequences.len()];
    for (length, mut circle) in lengths.into_iter().filter(|(_, of)| of.len() > 1) {
        // A stream for each length: prompts of another one change nothing.
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        random.set_stream(length as u64);
        circle.shuffle(&mut random);
        for (taker, giver) in circle.iter().zip(circle.iter().cycle().skip(1)) {
            found.get_mut(*taker).into_iter().for_each(|place| *place = Some(*giver));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_takes_from_another_one_of_its_length() {
        let of = |length: &usize| Sequence { ids: vec![1; *length], response_start: 1 };
        let lengths = [5, 7, 5, 5, 9, 7, 5];
        let sequences: Vec<Sequence> = lengths.iter().map(of).collect();
        let found = sources(&sequences, 3);
        assert_eq!(found[4], None, "no other has nine tokens");
        let mut givers: Vec<usize> = found.iter().flatten().copied().collect();
        for (taker, giver) in found.iter().enumerate().filter_map(|(t, g)| Some((t, (*g)?))) {
            assert!(taker != giver && lengths[taker] == lengths[giver], "{taker} from {giver}");
        }
        givers.sort_unstable();
        assert_eq!(givers, [0, 1, 2, 3, 5, 6]);
        assert_eq!(found, sources(&sequences, 3));
        assert!((0..20).any(|seed| sources(&sequences, seed) != found));
        let fewer = [0, 2, 3, 6].map(|number| sequences[number].clone());
        let places = [0, 2, 3, 6];
        let among: Vec<Option<usize>> =
            sources(&fewer, 3).into_iter().map(|giver| giver.map(|g| places[g])).collect();
        assert_eq!(among, places.map(|number| found[number]));
    }
}
