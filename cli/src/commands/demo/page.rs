//! The demo's last page: one honest table of what was cut, what that costs, and what the student is
//! worth.

use super::{Found, Layout};
use crate::error::Result;
use crate::output;
use serde::Serialize;
use std::path::Path;
use uspx_colony::report::{MaskReport, StudentReport};
use uspx_colony::{CampaignReport, Contender};

/// The JSON form of `uspx demo`.
#[derive(Serialize)]
struct Page<'a> {
    mask: Option<MaskPage<'a>>,
    student: StudentPage,
    release: &'a Path,
    release_number: u64,
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
}

fn student(figures: &CampaignReport, who: Contender) -> Option<&StudentReport> {
    figures.students.iter().find(|s| s.contender == who)
}

fn bits(figures: &CampaignReport, who: Contender) -> Option<f64> {
    student(figures, who).map(|s| s.bits_per_byte)
}

/// Prints the JSON form.
pub(super) fn json(found: &Found) -> Result<()> {
    let figures = &found.figures;
    let of = |who| bits(figures, who);
    let against = student(figures, Contender::Gptq).and_then(|s| s.against_base);
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
            gptq_bits_per_byte: of(Contender::Gptq),
            gptq_against_base: against.map(|d| [d.mean, d.low, d.high]),
            rtn_bits_per_byte: of(Contender::Rtn),
            gguf_bits_per_byte: of(Contender::Gguf),
        },
        release: &found.pulled.folder,
        release_number: found.pulled.release,
        seconds: found.seconds,
        peak_rss_bytes: uspx_runtime::memory::peak_rss(),
        figures,
    })
}

/// Prints the page for a person.
pub(super) fn print(found: &Found, layout: &Layout, store: &str) -> Result<()> {
    if let Some(mask) = &found.figures.mask {
        output::line(&mask_table(mask))?;
    }
    output::line(&student_table(&found.figures))?;
    for caveat in found.figures.caveats() {
        output::line(&caveat)?;
    }
    for a in &found.answers {
        output::line(&format!(
            "{}\n  reference  {}\n  GPTQ       {}\n  GGUF       {}",
            a.prompt, a.reference, a.gptq, a.gguf
        ))?;
    }
    output::line(&format!(
        "\nrelease {}, pulled and verified, is in {}\nin {:.0} s, peak memory {:.0} MB",
        found.pulled.release,
        found.pulled.folder.display(),
        found.seconds,
        uspx_runtime::memory::peak_rss().unwrap_or(0) as f64 / 1e6
    ))?;
    next_commands(layout, store)
}

fn mask_table(mask: &MaskReport) -> String {
    let rise = |r: f64| format!("{r:+.3}");
    let pruned = 1.0 - f64::from(mask.kept) / f64::from(mask.units.max(1));
    let mut table =
        output::table(&["what was cut from the teacher", "held-out loss, nats per token"]);
    let kind = format!(
        "{:.0} % of the {}s ({} of {} kept)",
        pruned * 100.0,
        mask.kind,
        mask.kept,
        mask.units
    );
    table.add_row([
        format!("{kind}, by this colony's mask"),
        mask.rise.map_or_else(|| "-".into(), rise),
    ]);
    let random = mask.random_mean().map_or_else(|| "-".into(), rise);
    table.add_row([format!("as many at random (mean of {} masks)", mask.random.len()), random]);
    for (share, r) in &mask.curve {
        table.add_row([format!("{:.0} %", share * 100.0), rise(*r)]);
    }
    table.to_string()
}

fn student_table(figures: &CampaignReport) -> String {
    let mut table = output::table(&[
        "model, on held-out prompts",
        "bits per byte",
        "against the base, 95 % interval",
    ]);
    for s in &figures.students {
        let against = s.against_base.map_or_else(
            || "-".to_owned(),
            |d| format!("{:+.3}  [{:+.3}, {:+.3}]", d.mean, d.low, d.high),
        );
        table.add_row([
            name(s.contender, figures.chosen_recipe),
            format!("{:.3}", s.bits_per_byte),
            against,
        ]);
    }
    table.to_string()
}

fn name(who: Contender, chosen: Option<u32>) -> String {
    let mark = |n| if chosen == Some(n) { " (chosen)" } else { "" };
    match who {
        Contender::Teacher => "teacher".to_owned(),
        Contender::Base => "base student".to_owned(),
        Contender::Distilled(0) => format!("distilled on references only{}", mark(0)),
        Contender::Distilled(1) => format!("distilled on references + teacher{}", mark(1)),
        Contender::Distilled(n) => format!("distilled by recipe {}{}", n + 1, mark(n)),
        Contender::Gptq => "GPTQ, 4 bits (released)".to_owned(),
        Contender::Rtn => "rounded to nearest, 4 bits".to_owned(),
        Contender::Gguf => "GGUF, 4 bits (released)".to_owned(),
        Contender::Published => "published before".to_owned(),
    }
}

/// Commands to go on with, by the name that this program was started under.
fn next_commands(layout: &Layout, store: &str) -> Result<()> {
    let uspx = std::env::args().next().unwrap_or_else(|| "uspx".to_owned());
    let (laptop, state) = (layout.laptop(), layout.out.join("colony"));
    let (teacher, prompts) = (layout.model("teacher"), layout.prompts("cli-heldout.jsonl"));
    output::line("\nnext:")?;
    output::line(&format!("  {uspx} run --from {} \"List files by size\"", laptop.display()))?;
    output::line(&format!("  {uspx} pull {store}    # on another machine that reaches the store"))?;
    output::line(&format!("  {uspx} status --state {}", state.display()))?;
    output::line(&format!(
        "  {uspx} eval --model {} --prompts {}",
        teacher.display(),
        prompts.display()
    ))
}
