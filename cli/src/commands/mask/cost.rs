//! What a cut costs, measured on some of the prompts that it was built from: two passes of each.

use crate::commands::eval::pooled_stderr;
use crate::error::Result;
use crate::models::Subject;
use std::fmt;
use uspx_domain::Mask;
use uspx_model::NoProgress;
use uspx_model::taps::{NoTaps, Taps};
use uspx_probe::evaluate::{Against, evaluate};

/// Prompts that it is measured on, at most.
const PROMPTS: usize = 64;
/// Standard errors to either side of a 95 % interval.
const Z: f64 = 1.96;

/// The rise of the loss under a mask, nats per response token.
#[derive(Debug, Clone, Copy)]
pub(super) struct Cost {
    rise: f64,
    /// Its standard error over prompts; not a number where there is one.
    error: f64,
    prompts: usize,
}

/// Measures it.
pub(super) fn of(subject: &Subject, mask: &Mask) -> Result<Cost> {
    let Subject { model, prompts, batch_tokens, .. } = subject;
    let some = prompts.part(0..PROMPTS);
    let mut cut = model.cut_of_mask(mask)?;
    let nats = |taps: &mut dyn Taps| -> Result<_> {
        let found = evaluate(model, &some, *batch_tokens, taps, &Against::Nothing, &NoProgress)?;
        Ok(found.losses)
    };
    let (clean, under) = (nats(&mut NoTaps)?, nats(&mut cut)?);
    let rises: Vec<f32> = under.nats.iter().zip(&clean.nats).map(|(u, c)| u - c).collect();
    let tokens: Vec<u32> = clean.prompts.iter().map(|p| p.tokens).collect();
    let all: f64 = tokens.iter().copied().map(f64::from).sum();
    let rise = rises.iter().copied().map(f64::from).sum::<f64>() / all;
    Ok(Cost { rise, error: pooled_stderr(&rises, &tokens), prompts: tokens.len() })
}

impl fmt::Display for Cost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { rise, error, prompts } = self;
        write!(f, "the cut costs {rise:+.4} nats per response token")?;
        if !error.is_nan() {
            write!(f, ", 95 % [{:+.4}, {:+.4}]", rise - Z * error, rise + Z * error)?;
        }
        write!(
            f,
            ", on {prompts} of the prompts that it was built from; on others it costs more: measure \
             it with `uspx probe ablate`"
        )
    }
}
