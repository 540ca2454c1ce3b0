//! Sequences packed into a ragged batch: which row is which token of which sequence.

use crate::{ModelError, Result};
use std::collections::HashMap;
use std::ops::Range;

/// A tokenised prompt and its answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sequence {
    /// Token ids: the prompt's, then the answer's.
    pub ids: Vec<u32>,
    /// Where the answer's first token is; equal to `ids.len()` where there is no answer.
    pub response_start: usize,
}

impl Sequence {
    /// Answer tokens.
    pub fn response_len(&self) -> usize {
        self.ids.len().saturating_sub(self.response_start)
    }
}

/// The rows of one sequence in a batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Span {
    /// Rows of another sequence that begins with the same tokens: positions 0, 1, …
    pub prefix: Vec<u32>,
    /// Its own rows, at the positions after those.
    pub queries: Range<u32>,
    /// Position of the first of its own rows.
    pub first: usize,
}

/// Sequences one after another.
#[derive(Debug, Clone, Default)]
pub struct Batch {
    /// Token ids of all rows, `[N]`.
    pub ids: Vec<u32>,
    /// Tokens of each sequence.
    pub lengths: Vec<usize>,
    /// Rows that predict response tokens (the position before each).
    pub predicting: Vec<u32>,
    /// The response tokens, one for each of `predicting`.
    pub targets: Vec<u32>,
    /// Response tokens of each sequence.
    pub responses: Vec<usize>,
    /// For each of the N rows: which sequence, and whether it is a response token. A shared row is
    /// of the first sequence that has it.
    pub place: Vec<(u32, bool)>,
    /// Where each sequence's rows are.
    pub spans: Vec<Span>,
}

/// Rows of prompts met so far: (row before, token) to row.
type Trie = HashMap<(Option<u32>, u32), u32>;

impl Batch {
    /// Packs `sequences`, every token a row of its own: for what is measured or differentiated row
    /// by row.
    ///
    /// # Errors
    /// An empty sequence, or an answer with no token before it.
    pub fn new(sequences: &[&Sequence]) -> Result<Self> {
        Self::pack(sequences, None)
    }

    /// Packs `sequences`, prompts that begin alike sharing the rows of their common beginning:
    /// under causal attention these are the same in all of them. No response token shares its row.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub fn sharing(sequences: &[&Sequence]) -> Result<Self> {
        Self::pack(sequences, Some(Trie::new()))
    }

    fn pack(sequences: &[&Sequence], mut trie: Option<Trie>) -> Result<Self> {
        let mut batch = Self::default();
        for (at, sequence) in sequences.iter().enumerate() {
            batch.push(at as u32, sequence, trie.as_mut())?;
        }
        Ok(batch)
    }

    fn push(&mut self, at: u32, sequence: &Sequence, trie: Option<&mut Trie>) -> Result<()> {
        let start = sequence.response_start;
        if sequence.ids.is_empty() || (start == 0 && sequence.response_len() > 0) {
            return Err(ModelError::Request(
                "a sequence needs at least one token before its answer".into(),
            ));
        }
        let base = self.ids.len() as u32;
        let prefix = trie.map(|trie| shared(trie, sequence, base)).unwrap_or_default();
        let first = prefix.len();
        self.ids.extend(sequence.ids.iter().skip(first));
        self.lengths.push(sequence.ids.len());
        self.responses.push(sequence.response_len());
        self.place.extend((first..sequence.ids.len()).map(|i| (at, i >= start)));
        let span = Span { prefix, queries: base..self.ids.len() as u32, first };
        for (i, &id) in sequence.ids.iter().enumerate().skip(start) {
            self.predicting.extend(span.row(i - 1));
            self.targets.push(id);
        }
        self.spans.push(span);
        Ok(())
    }

    /// Rows to run.
    pub fn tokens(&self) -> usize {
        self.ids.len()
    }

    /// Last row of each sequence.
    pub fn last_rows(&self) -> Vec<u32> {
        self.spans.iter().filter_map(|s| s.row(s.len().checked_sub(1)?)).collect()
    }
}

/// The rows that hold the beginning of `sequence` already; the rest of its prompt is entered, its
/// rows from `base`.
fn shared(trie: &mut Trie, sequence: &Sequence, base: u32) -> Vec<u32> {
    let mut rows = Vec::new();
    let mut last = None;
    let mut next = base;
    // The last token stays a row of its own, so that every sequence has one.
    let may_share = sequence.response_start.min(sequence.ids.len() - 1);
    for id in sequence.ids.iter().take(may_share) {
        let known = trie.get(&(last, *id)).copied();
        let row = known.unwrap_or(next);
        match known {
            Some(row) => rows.push(row),
            None => {
                trie.insert((last, *id), row);
                next += 1;
            }
        }
        last = Some(row);
    }
    rows
}

impl Span {
    /// Tokens of the sequence.
    pub fn len(&self) -> usize {
        self.first + self.queries.len()
    }

    /// Whether it has no token.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The row of a position.
    pub fn row(&self, position: usize) -> Option<u32> {
        match position.checked_sub(self.first) {
            None => self.prefix.get(position).copied(),
            Some(own) => self.queries.clone().nth(own),
        }
    }
}

/// Groups of sequence indices, each of at most `budget` tokens when padded to its longest (one
/// sequence at least).
///
/// Sequences of like length share a group, so little is padded.
pub fn pack(lengths: &[usize], budget: usize) -> Vec<Vec<usize>> {
    let mut order: Vec<usize> = (0..lengths.len()).collect();
    order.sort_by_key(|i| (lengths.get(*i).copied(), *i));
    let mut groups: Vec<Vec<usize>> = Vec::new();
    for i in order {
        // Ascending lengths: this one is the longest of its group.
        let length = lengths.get(i).copied().unwrap_or(0);
        match groups.last_mut() {
            Some(group) if (group.len() + 1) * length <= budget => group.push(i),
            _ => groups.push(vec![i]),
        }
    }
    groups
}
#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packing_keeps_every_sequence_once_and_the_budget() {
        let lengths = [5, 90, 3, 40, 41, 7, 200, 1];
        let groups = pack(&lengths, 100);
        let mut seen: Vec<usize> = groups.iter().flatten().copied().collect();
        seen.sort_unstable();
        assert_eq!(seen, (0..lengths.len()).collect::<Vec<_>>());
        for group in &groups {
            let longest = group.iter().map(|i| lengths[*i]).max().unwrap();
            assert!(group.len() == 1 || group.len() * longest <= 100);
        }
    }

    #[test]
    fn predicting_rows_stand_one_before_their_targets() {
        let a = Sequence { ids: vec![9, 8, 7, 6], response_start: 2 };
        let b = Sequence { ids: vec![5, 4], response_start: 1 };
        let batch = Batch::new(&[&a, &b]).unwrap();
        assert_eq!(batch.predicting, vec![1, 2, 4]);
        assert_eq!(batch.targets, vec![7, 6, 4]);
        assert_eq!(batch.responses, vec![2, 1]);
        assert_eq!(batch.last_rows(), vec![3, 5]);
        assert!(Batch::new(&[&Sequence { ids: vec![1], response_start: 0 }]).is_err());
    }

    #[test]
    fn prompts_that_begin_alike_share_rows_and_answers_never_do() {
        let of = |ids: &[u32], response_start| Sequence { ids: ids.to_vec(), response_start };
        let all =
            [of(&[1, 2, 3, 9], 3), of(&[1, 2, 4, 9], 3), of(&[1, 2, 3, 9], 3), of(&[1, 2], 2)];
        let batch = Batch::sharing(&all.each_ref()).unwrap();
        assert_eq!(batch.ids, vec![1, 2, 3, 9, 4, 9, 9, 2]);
        assert_eq!(batch.spans[1], Span { prefix: vec![0, 1], queries: 4..6, first: 2 });
        assert_eq!(batch.spans[2], Span { prefix: vec![0, 1, 2], queries: 6..7, first: 3 });
        assert_eq!(batch.spans[3], Span { prefix: vec![0], queries: 7..8, first: 1 });
        assert_eq!(batch.predicting, vec![2, 4, 2]);
        assert_eq!(batch.last_rows(), vec![3, 5, 6, 7]);
        for (span, sequence) in batch.spans.iter().zip(&all) {
            let ids: Vec<u32> =
                (0..span.len()).map(|p| batch.ids[span.row(p).unwrap() as usize]).collect();
            assert_eq!(ids, sequence.ids);
        }
    }
}
