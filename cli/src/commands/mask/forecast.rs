//! What `mask build` will cost: passes from counts, time from a second of measuring; and the
//! cheaper way, where there is one.

use super::search;
use crate::args::MaskBuildArgs;
use crate::error::Result;
use crate::measured::needed;
use crate::models::Subject;
use crate::output;
use crate::rows::Ranking;
use std::time::{Duration, Instant};
use uspx_domain::{Estimator, ModelShape, Statistic, UnitKind};
use uspx_model::NoProgress;
use uspx_model::taps::NoTaps;
use uspx_probe::evaluate::{Against, evaluate};

/// How long passes are timed, about.
const MEASURING: Duration = Duration::from_secs(1);
/// Fewer passes than this are not worth the measuring.
const FEW: f64 = 200.0;

/// Says it on stderr.
pub(super) fn tell(args: &MaskBuildArgs, subject: &Subject) -> Result<()> {
    let Subject { model, prompts, .. } = subject;
    let count = prompts.sequences.len();
    let scoring = all_passes(args.ranking(), &model.shape(), &args.units) * count as f64;
    let masks = search::count(args) * args.units.len();
    let trying = masks * search::prompts(count);
    let method = match masks {
        0 => args.ranking().name().to_owned(),
        _ => format!("{} and {masks} masks", args.ranking().name()),
    };
    let (mut text, pass) = described(&method, subject, scoring + trying as f64)?;
    if let Some((cheap, each)) = cheaper(args, &model.shape()) {
        let passes = each * count as f64;
        text += &format!("; --method {cheap} takes {passes:.0} passes{}", time(pass, passes));
    }
    output::remark_paragraph(&text);
    Ok(())
}

/// Says on stderr what a method costs that takes so many passes of each prompt.
pub(super) fn tell_passes(method: &str, subject: &Subject, each: f64) -> Result<()> {
    let passes = each * subject.prompts.sequences.len() as f64;
    output::remark_paragraph(&described(method, subject, passes)?.0);
    Ok(())
}

/// What so many passes in all are, and the seconds of one where they were worth the measuring.
fn described(method: &str, subject: &Subject, passes: f64) -> Result<(String, Option<f64>)> {
    let pass = if passes < FEW { None } else { seconds_of_a_pass(subject)? };
    let text = format!(
        "{method} on {} prompts: the time of about {passes:.0} forward passes of a prompt{}",
        subject.prompts.sequences.len(),
        time(pass, passes)
    );
    Ok((text, pass))
}

fn time(pass: Option<f64>, passes: f64) -> String {
    pass.map_or_else(String::new, |s| format!(", about {}", output::time(s * passes)))
}

/// Forward-equivalents of one prompt. An exact run starts at the layer of its unit, on the clean
/// run's values; a backward pass is worth two forward ones.
fn passes(estimator: Estimator, shape: &ModelShape, kinds: &[UnitKind]) -> f64 {
    let layers = f64::from(shape.depth().max(1));
    if let Some(passes) = estimator.row().passes {
        return passes(layers);
    }
    let left = |layer| layers - f64::from(layer);
    let runs = |kind: &UnitKind| -> f64 {
        (0..shape.depth()).map(|at| f64::from(shape.width(*kind, at)) * left(at)).sum()
    };
    1.0 + kinds.iter().map(runs).sum::<f64>() / layers
}

/// Those of all that a way to rank units needs.
fn all_passes(ranking: Ranking, shape: &ModelShape, kinds: &[UnitKind]) -> f64 {
    needed(&[ranking], kinds).into_iter().map(|(e, kinds)| passes(e, shape, &kinds)).sum()
}

/// The best score of one forward pass, where the method takes more.
fn cheaper(args: &MaskBuildArgs, shape: &ModelShape) -> Option<(&'static str, f64)> {
    let own = all_passes(args.ranking(), shape, &args.units);
    let all = Statistic::cheap().into_iter().flat_map(|statistic| {
        statistic.row().methods.iter().map(move |method| Ranking::Score(statistic, method))
    });
    let of = |ranking: Ranking| {
        let each = all_passes(ranking, shape, &args.units);
        let ranks_all = args.units.iter().all(|kind| !ranking.estimators(*kind).is_empty());
        (ranks_all && each < own).then_some((ranking.name(), each))
    };
    all.filter_map(of).min_by(|a, b| a.1.total_cmp(&b.1))
}

/// Measured on the first prompts, more of them until a second is over; none of a model that is
/// streamed, whose passes cost the reading of its file, however many prompts go along.
fn seconds_of_a_pass(subject: &Subject) -> Result<Option<f64>> {
    let Subject { model, prompts, batch_tokens, .. } = subject;
    if model.transformer.is_streamed() {
        return Ok(None);
    }
    let (start, mut count) = (Instant::now(), 1);
    loop {
        let some = prompts.part(0..count);
        let at = Instant::now();
        evaluate(model, &some, *batch_tokens, &mut NoTaps, &Against::Nothing, &NoProgress)?;
        if start.elapsed() >= MEASURING || count >= prompts.sequences.len() {
            return Ok(Some(at.elapsed().as_secs_f64() / some.sequences.len().max(1) as f64));
        }
        count *= 4;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use uspx_domain::{LayerShape, MlpShape};

    /// Against the runs written out: two layers of three experts.
    #[test]
    fn passes_are_counted_from_where_a_cut_bites() {
        let mlp = MlpShape::Experts { experts: 3, top_k: 1, channels: 4 };
        let shape = ModelShape::uniform(2, LayerShape::new(2, mlp));
        let exact = Estimator::named("exact").unwrap();
        // The clean run, three whole runs, three from the second layer on.
        assert_eq!(passes(exact, &shape, &[UnitKind::Expert]), 1.0 + 3.0 + 3.0 * 0.5);
        assert_eq!(passes(Estimator::TRACE, &shape, &[UnitKind::Expert]), 1.0);
    }
}
