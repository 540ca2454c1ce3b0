//! Sequences in batches that fit: one that the device has no memory for is halved, and the work
//! goes on.

use crate::Result;
use uspx_model::batch::{Batch, Sequence, pack};

/// Makes a batch of sequences: [`Batch::new`] or [`Batch::sharing`].
pub type Packer = fn(&[&Sequence]) -> Result<Batch>;

/// Runs `work(members, batch)` on all sequences, in batches of at most `tokens` padded tokens.
///
/// Where `work` fails for want of memory the batch is halved, and no later one is larger; so `work`
/// must leave nothing behind when it fails.
///
/// # Errors
/// Those of `work`; a single sequence that does not fit.
pub fn each_batch(
    sequences: &[Sequence],
    tokens: usize,
    packer: Packer,
    work: &mut dyn FnMut(&[usize], &Batch) -> Result<()>,
) -> Result<()> {
    let lengths: Vec<usize> = sequences.iter().map(|s| s.ids.len()).collect();
    let mut open: Vec<Vec<usize>> = pack(&lengths, tokens).into_iter().rev().collect();
    let mut most = usize::MAX;
    while let Some(group) = open.pop() {
        let members: Vec<&Sequence> = group.iter().filter_map(|i| sequences.get(*i)).collect();
        let batch = packer(&members)?;
        let splits = group.len() > 1;
        if splits && batch.tokens() > most {
            halve(group, &mut open);
            continue;
        }
        match work(&group, &batch) {
            Err(error) if splits && error.is_out_of_memory() => {
                most = batch.tokens() / 2;
                tracing::warn!(
                    tokens = batch.tokens(),
                    "the device is out of memory: going on with batches half as large"
                );
                halve(group, &mut open);
            }
            result => result?,
        }
    }
    Ok(())
}

/// Copies rows of one value per member, `[.., members]`, to the members' places in rows of one
/// value per prompt, `[.., prompts]`, both flat.
pub(crate) fn at_members(into: &mut [f64], from: &[f64], prompts: usize, members: &[usize]) {
    let rows = into.chunks_exact_mut(prompts.max(1)).zip(from.chunks_exact(members.len().max(1)));
    for (into, from) in rows {
        for (member, value) in members.iter().zip(from) {
            into.get_mut(*member).into_iter().for_each(|place| *place = *value);
        }
    }
}

/// Puts both halves of a group back, the first one to be taken next.
fn halve(mut group: Vec<usize>, open: &mut Vec<Vec<usize>>) {
    let second = group.split_off(group.len() / 2);
    open.extend([second, group]);
}

#[cfg(test)]
mod tests {
    use super::*;
    use uspx_model::ModelError;

    fn out_of_memory() -> ModelError {
        candle_core::Error::Msg("DriverError(CUDA_ERROR_OUT_OF_MEMORY, \"out of memory\")".into())
            .into()
    }

    #[test]
    fn a_batch_too_large_for_the_device_is_halved_and_every_sequence_runs_once() {
        let sequences: Vec<Sequence> = (0..11u32)
            .map(|i| Sequence { ids: vec![i; 5 + i as usize], response_start: 1 })
            .collect();
        let (mut seen, mut failures) = (Vec::new(), 0);
        each_batch(&sequences, 1000, Batch::new, &mut |members, batch| {
            if batch.tokens() > 40 {
                failures += 1;
                return Err(out_of_memory());
            }
            seen.extend_from_slice(members);
            Ok(())
        })
        .unwrap();
        seen.sort_unstable();
        assert_eq!(seen, (0..11).collect::<Vec<_>>());
        assert!(
            (1..4).contains(&failures),
            "{failures} failures: what is known not to fit is not tried"
        );
    }

    #[test]
    fn other_errors_and_a_single_sequence_that_does_not_fit_end_the_work() {
        let sequences = vec![Sequence { ids: vec![1; 9], response_start: 1 }; 4];
        let fails = |error: fn() -> ModelError| {
            each_batch(&sequences, 1000, Batch::new, &mut |_, _| Err(error()))
                .unwrap_err()
                .to_string()
        };
        assert!(fails(out_of_memory).contains("OUT_OF_MEMORY"));
        assert!(fails(|| ModelError::Stopped).contains("stopped"));
    }
}
