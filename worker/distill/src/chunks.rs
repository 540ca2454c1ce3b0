//! Two tokenisations of one answer cut into chunks: the shortest stretches of bytes that begin and
//! end at a token's boundary on both sides.

use std::ops::Range;

/// Tokens of both sides that spell the same bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chunk {
    /// Tokens of the teacher's tokenisation.
    pub teacher: Range<usize>,
    /// Tokens of the student's.
    pub student: Range<usize>,
}

/// The chunks of two tokenisations, given by their tokens' byte spans, in order.
///
/// All tokens of text have bytes, and both sides spell the same. An end of turn spells none; where
/// both sides have one it is a chunk of its own, where only one has it, it is in none.
pub fn chunks(teacher: &[(u32, u32)], student: &[(u32, u32)]) -> Vec<Chunk> {
    let (mut chunks, mut from, mut t, mut s) = (Vec::new(), (0, 0), 0, 0);
    while let (Some(theirs), Some(ours)) = (teacher.get(t), student.get(s)) {
        if is_end(*theirs) != is_end(*ours) {
            break;
        }
        // Whoever is behind goes on.
        t += usize::from(theirs.1 <= ours.1);
        s += usize::from(ours.1 <= theirs.1);
        if theirs.1 == ours.1 {
            chunks.push(Chunk { teacher: from.0..t, student: from.1..s });
            from = (t, s);
        }
    }
    chunks
}

fn is_end(span: (u32, u32)) -> bool {
    span.0 == span.1
}

/// The same with every chunk that must not end where it does joined to the one after it; the last
/// one ends in any case.
///
/// # Errors
/// Those of `may_end`.
pub fn joined<E>(
    chunks: Vec<Chunk>,
    mut may_end: impl FnMut(&Chunk) -> Result<bool, E>,
) -> Result<Vec<Chunk>, E> {
    let mut out: Vec<Chunk> = Vec::with_capacity(chunks.len());
    let mut is_open = false;
    for chunk in chunks {
        let ends = may_end(&chunk)?;
        match out.last_mut().filter(|_| is_open) {
            Some(last) => {
                (last.teacher.end, last.student.end) = (chunk.teacher.end, chunk.student.end);
            }
            None => out.push(chunk),
        }
        is_open = !ends;
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;
    use std::convert::Infallible;

    /// Spans of `bytes` bytes, cut where asked for; with an end of turn or without.
    fn spans(bytes: u32, cuts: &[bool], ends: bool) -> Vec<(u32, u32)> {
        let inner = (1..bytes).filter(|at| cuts[*at as usize]);
        let bounds: Vec<u32> = [0].into_iter().chain(inner).chain([bytes]).collect();
        let text = bounds.windows(2).map(|w| (w[0], w[1]));
        text.chain(ends.then_some((bytes, bytes))).collect()
    }

    fn bounds(spans: &[(u32, u32)], tokens: &Range<usize>) -> (u32, u32) {
        (spans[tokens.start].0, spans[tokens.end - 1].1)
    }

    proptest! {
        #[test]
        fn chunks_cover_all_once_end_together_and_are_minimal(
            bytes in 1u32..24,
            cuts in prop::collection::vec((any::<bool>(), any::<bool>()), 24),
            ends in (any::<bool>(), any::<bool>()),
        ) {
            let (theirs, ours): (Vec<bool>, Vec<bool>) = cuts.into_iter().unzip();
            let (theirs, ours) = (spans(bytes, &theirs, ends.0), spans(bytes, &ours, ends.1));
            let found = chunks(&theirs, &ours);
            let (mut at, mut next) = (0, (0, 0));
            for chunk in &found {
                prop_assert_eq!((chunk.teacher.start, chunk.student.start), next);
                prop_assert!(!chunk.teacher.is_empty() && !chunk.student.is_empty());
                let both = (bounds(&theirs, &chunk.teacher), bounds(&ours, &chunk.student));
                prop_assert_eq!(both.0, both.1);
                prop_assert_eq!(both.0.0, at);
                (at, next) = (both.0.1, (chunk.teacher.end, chunk.student.end));
            }
            prop_assert_eq!(at, bytes);
            // As many as there are places where both sides have a boundary: none could be cut
            // again.
            let places = |spans: &[(u32, u32)]| -> BTreeSet<u32> {
                spans.iter().filter(|s| s.0 < s.1).map(|s| s.1).collect()
            };
            let common = places(&theirs).intersection(&places(&ours)).count();
            prop_assert_eq!(found.len(), common + usize::from(ends.0 && ends.1));
        }

        #[test]
        fn joining_leaves_out_no_token_and_only_ends_that_may_not_be(
            ends in prop::collection::vec(any::<bool>(), 1..12),
        ) {
            let each = |at: usize| Chunk { teacher: at..at + 1, student: 2 * at..2 * at + 2 };
            let all: Vec<Chunk> = (0..ends.len()).map(each).collect();
            let may = |chunk: &Chunk| Ok::<_, Infallible>(ends[chunk.teacher.start]);
            let found = joined(all, may).unwrap();
            let got: Vec<usize> = found.iter().map(|chunk| chunk.teacher.end - 1).collect();
            let last = ends.len() - 1;
            let want: Vec<usize> = (0..=last).filter(|at| ends[*at] || *at == last).collect();
            prop_assert_eq!(got, want);
            let mut next = (0, 0);
            for chunk in &found {
                prop_assert_eq!((chunk.teacher.start, chunk.student.start), next);
                prop_assert_eq!(chunk.student.end, 2 * chunk.teacher.end);
                next = (chunk.teacher.end, chunk.student.end);
            }
        }
    }
}
