//! What one forward pass shows of units: of each prompt over its response tokens, and where that is
//! asked for over its own tokens apart, and which experts work together.

mod rows;
mod sums;
mod taps;

use crate::Result;
use crate::batching::{Packer, each_batch};
use crate::estimators::ProbeRequest;
use crate::within::Within;
use rows::{Part, Rows};
use sums::Sums;
use taps::{Parts, TraceTaps};
use uspx_domain::Deposit;
use uspx_model::Progress;
use uspx_model::batch::Batch;

/// What a trace tells besides what response tokens show of units.
#[derive(Debug, Clone, Copy, Default)]
pub struct More {
    /// The same over the prompts' own tokens.
    pub prompt_tokens: bool,
    /// Which experts work together.
    pub co_activation: bool,
}

/// How often two experts of a layer have the same response token, `[layer][expert][expert]`; on the
/// diagonal, how often an expert has one. Empty of a layer without experts.
pub type CoActivation = Vec<Vec<Vec<u64>>>;

/// What a trace found.
#[derive(Debug, Default)]
pub struct Traced {
    /// Over response tokens.
    pub responses: Deposit,
    /// Over the prompts' own tokens, where that was asked for; a prompt's `tokens` count those.
    pub prompts: Option<Deposit>,
    /// Where it was asked for.
    pub co_activation: Option<CoActivation>,
}

/// Traces what is requested: sums of the statistics of each unit per prompt, or their moments over
/// the prompts.
///
/// # Errors
/// Those of the model; a stop by the keeper.
pub fn trace(request: &ProbeRequest<'_>, more: More, progress: &dyn Progress) -> Result<Traced> {
    let sequences = &request.prompts.sequences;
    let mut parts = vec![(Part::Response, Sums::new(request, more.co_activation))];
    if more.prompt_tokens {
        parts.push((Part::Prompt, Sums::new(request, false)));
    }
    let (mut done, total) = (0, sequences.len() as u64);
    let mut each = |members: &[usize], batch: &Batch| {
        let blank = |(part, sums): &(Part, Sums)| (*part, sums.blank(members.len()));
        let mut found: Vec<(Part, Sums)> = parts.iter().map(blank).collect();
        run(request, batch, &mut found)?;
        for ((_, into), (_, from)) in parts.iter_mut().zip(&found) {
            into.take(from, members);
        }
        done += members.len() as u64;
        progress.report(done, total)
    };
    // Of rows that prompts share, it could not be said whose they are.
    let packer: Packer = if more.prompt_tokens { Batch::new } else { Batch::sharing };
    each_batch(sequences, request.batch_tokens, packer, &mut each)?;
    let mut told = parts.iter().map(|(part, sums)| tell(request, *part, sums));
    Ok(Traced {
        responses: told.next().unwrap_or_default(),
        prompts: told.next(),
        co_activation: parts.into_iter().next().map(|(_, s)| s.together).filter(|t| !t.is_empty()),
    })
}

/// Runs a batch, and adds up each part of it.
fn run(request: &ProbeRequest<'_>, batch: &Batch, found: &mut [(Part, Sums)]) -> Result<()> {
    let transformer = &request.model.transformer;
    let frame = transformer.frame(batch)?;
    let taps =
        |(part, sums)| Ok(TraceTaps::new(Rows::of(batch, part, transformer.device())?, sums));
    let parts = found.iter_mut().map(|(part, sums)| (*part, sums));
    let mut taps = Within::new(request, Parts(parts.map(taps).collect::<Result<_>>()?));
    transformer.forward(batch, &frame, &mut taps)?;
    taps.taps.0.iter_mut().try_for_each(TraceTaps::read)
}

fn tell(request: &ProbeRequest<'_>, part: Part, sums: &Sums) -> Deposit {
    let tokens: Vec<u32> = request.prompts.sequences.iter().map(|s| part.tokens(s)).collect();
    let mut deposit = request.deposit_on(&tokens);
    sums.tell(&tokens, &mut deposit);
    deposit
}
