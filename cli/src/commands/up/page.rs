//! The last page: one honest table of what was cut, what that costs, and what the student is worth.

use super::{Found, Inputs, PulledStudent};
use crate::error::Result;
use crate::{figures, output};
use serde::Serialize;
use std::path::Path;
use uspx_colony::gate::PairedDifference;
use uspx_colony::report::StudentReport;
use uspx_colony::{CampaignReport, Contender, Ending};
use uspx_domain::ExportFormat;

/// The JSON form of `uspx up` and `uspx demo`.
#[derive(Serialize)]
struct Page<'a> {
    mask: Option<MaskPage<'a>>,
    student: StudentPage,
    /// `measured`, `published`, `refused` or `failed`.
    ending: &'static str,
    /// Why it was refused or failed.
    reason: Option<&'a str>,
    release: Option<&'a Path>,
    release_number: Option<u64>,
    seconds: f64,
    peak_rss_bytes: Option<u64>,
    figures: &'a CampaignReport,
}

#[derive(Serialize)]
struct MaskPage<'a> {
    kept_fraction: f64,
    heldout_loss_rise: Option<f64>,
    random_masks_mean_loss_rise: Option<f64>,
    random_masks: usize,
    curve: &'a [(f64, f64)],
    label_mask: bool,
}

#[derive(Serialize)]
struct StudentPage {
    teacher_bits_per_byte: Option<f64>,
    base_bits_per_byte: Option<f64>,
    references_only_bits_per_byte: Option<f64>,
    references_and_teacher_bits_per_byte: Option<f64>,
    distilled_bits_per_byte: Option<f64>,
    gptq_bits_per_byte: Option<f64>,
    gptq_against_base: Option<[f64; 3]>,
    rtn_bits_per_byte: Option<f64>,
    gguf_bits_per_byte: Option<f64>,
    /// Shares of prompts that a model answers with the reference.
    teacher_exact_match: Option<f64>,
    base_exact_match: Option<f64>,
    gptq_exact_match: Option<f64>,
    gptq_exact_against_base: Option<[f64; 3]>,
    gguf_exact_match: Option<f64>,
    /// One answer at a time, where it was judged.
    gptq_tokens_per_second: Option<f64>,
}

fn student(figures: &CampaignReport, who: Contender) -> Option<&StudentReport> {
    figures.students.iter().find(|s| s.contender == who)
}

fn bits(figures: &CampaignReport, who: Contender) -> Option<f64> {
    student(figures, who).map(|s| s.bits_per_byte)
}

/// How a campaign ended, and why.
fn ending(ending: &Ending) -> (&'static str, Option<&str>) {
    match ending {
        Ending::Measured => ("measured", None),
        Ending::Published(_) => ("published", None),
        Ending::Refused(reason) => ("refused", Some(reason)),
        Ending::Failed(reason) => ("failed", Some(reason)),
    }
}

/// Prints the page, as JSON or for a person.
pub(super) fn tell(found: &Found, inputs: &Inputs) -> Result<()> {
    if inputs.json { json(found) } else { print(found, inputs) }
}

fn json(found: &Found) -> Result<()> {
    let (ending, reason) = ending(&found.ending);
    let pulled = found.student.as_ref().map(|student| &student.pulled);
    let figures = &found.figures;
    let of = |who| bits(figures, who);
    let exact = |who| student(figures, who).and_then(|s| s.exact_match);
    let gptq = student(figures, ExportFormat::GPTQ.into());
    let ends = |d: PairedDifference| [d.mean, d.low, d.high];
    output::json(&Page {
        mask: figures.mask.as_ref().map(|m| MaskPage {
            kept_fraction: f64::from(m.kept) / f64::from(m.units.max(1)),
            heldout_loss_rise: m.rise,
            random_masks_mean_loss_rise: m.random_mean(),
            random_masks: m.random.len(),
            curve: &m.curve,
            label_mask: m.label_mask.is_some(),
        }),
        student: StudentPage {
            teacher_bits_per_byte: of(Contender::Teacher),
            base_bits_per_byte: of(Contender::Base),
            references_only_bits_per_byte: of(Contender::Distilled(0)),
            references_and_teacher_bits_per_byte: of(Contender::Distilled(1)),
            distilled_bits_per_byte: figures
                .chosen_recipe
                .and_then(|n| of(Contender::Distilled(n))),
            gptq_bits_per_byte: of(ExportFormat::GPTQ.into()),
            gptq_against_base: gptq.and_then(|s| s.against_base).map(ends),
            rtn_bits_per_byte: of(ExportFormat::RTN.into()),
            gguf_bits_per_byte: of(ExportFormat::GGUF.into()),
            teacher_exact_match: exact(Contender::Teacher),
            base_exact_match: exact(Contender::Base),
            gptq_exact_match: exact(ExportFormat::GPTQ.into()),
            gptq_exact_against_base: gptq.and_then(|s| s.exact_against_base).map(ends),
            gguf_exact_match: exact(ExportFormat::GGUF.into()),
            gptq_tokens_per_second: gptq.and_then(|s| s.tokens_per_second),
        },
        ending,
        reason,
        release: pulled.map(|p| p.folder.as_path()),
        release_number: pulled.map(|p| p.release),
        seconds: found.seconds,
        peak_rss_bytes: uspx_runtime::memory::peak_rss(),
        figures,
    })
}

fn print(found: &Found, inputs: &Inputs) -> Result<()> {
    figures::show(&found.figures)?;
    if let Some(student) = &found.student {
        answers(student)?;
    }
    let peak = uspx_runtime::memory::peak_rss().unwrap_or(0) as f64 / 1e6;
    output::line(&format!("\nin {:.0} s, peak memory {peak:.0} MB", found.seconds))?;
    next_commands(found, inputs)
}

fn answers(student: &PulledStudent) -> Result<()> {
    for a in &student.answers {
        output::line(&format!(
            "{}\n  reference  {}\n  GPTQ       {}\n  GGUF       {}",
            a.prompt, a.reference, a.gptq, a.gguf
        ))?;
    }
    output::line(&format!(
        "\nrelease {}, pulled and verified, is in\n{}",
        student.pulled.release,
        student.pulled.folder.display()
    ))
}

/// Commands to go on with, by the name that this program was started under.
fn next_commands(found: &Found, inputs: &Inputs) -> Result<()> {
    let uspx = std::env::args().next().unwrap_or_else(|| "uspx".to_owned());
    let (layout, teacher) = (&inputs.layout, inputs.models.teacher.display());
    let state = layout.colony();
    let mut next = Vec::new();
    if found.student.is_some() {
        let (student, store) = (layout.student(), inputs.store_url());
        next.push(format!("{uspx} run --from {} \"List files by size\"", student.display()));
        next.push(format!("{uspx} pull {store}    # on another machine that reaches the store"));
    }
    next.push(format!("{uspx} status --state {}", state.display()));
    if let Some(prompts) = &inputs.held_out {
        let (prompts, mask) = (prompts.display(), state.join("mask.json"));
        let mask = mask.display();
        next.push(format!("{uspx} eval --model {teacher} --prompts {prompts} --mask {mask}"));
    }
    output::line("\nnext:")?;
    next.iter().try_for_each(|line| output::line(&format!("  {line}")))
}
