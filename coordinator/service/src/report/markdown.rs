//! The report as Markdown, and the model card of a release.

use super::Report;
use super::content::Content;
use super::table::Table;
use crate::names::pull_command;
use uspx_colony::ReleaseOrder;
use uspx_domain::{ExportFormat, Fingerprint};

/// `report.md`.
pub(super) fn report(report: &Report) -> String {
    let content = Content::of(report);
    let title = format!(
        "# Campaign {} of colony {}",
        plain(&report.figures.campaign),
        plain(&report.colony)
    );
    let ending = format!("\n**{}**\n", plain(&content.ending));
    [title, "\n".to_owned(), ending, advice(&content), figures(&content)].concat()
}

/// `README.md` of a release that lies in `store`.
pub(crate) fn card(report: &Report, order: &ReleaseOrder, store: &str) -> String {
    let head = format!(
        "# Student {} of colony {}\n\nA 4-bit student distilled for one person's prompts by uspx.\n\n\
         {}- teacher: {}\n- base: {}\n{}- `adapter/`: the adapter on the base, for `peft`\n- `mask.json`: what the \
         teacher's mask keeps\n- `report.json`: all figures\n",
        order.release,
        plain(&report.colony),
        called(report.student_name.as_deref()),
        model(report.teacher_name.as_deref(), order.teacher),
        model(report.base_name.as_deref(), order.base),
        folders(order)
    );
    let use_it = format!("\nUse it: `{}`, then `uspx run`.\n", pull_command(store));
    [head, figures(&Content::of(report)), use_it].concat()
}

fn called(name: Option<&str>) -> String {
    name.map_or_else(String::new, |name| format!("- called in its files: {}\n", plain(name)))
}

/// A model by name and hash, or by its hash alone.
fn model(name: Option<&str>, hash: Fingerprint) -> String {
    name.map_or_else(|| format!("`{hash}`"), |name| format!("{} (`{hash}`)", plain(name)))
}

/// A line for each format's folder.
fn folders(order: &ReleaseOrder) -> String {
    let line = |format: ExportFormat| {
        let row = format.row();
        Some(format!("- `{}/`: {}\n", row.folder?, row.help))
    };
    let has = |format: &ExportFormat| order.formats.contains_key(format);
    ExportFormat::released().filter(has).filter_map(line).collect()
}

fn figures(content: &Content) -> String {
    let parts = [
        students(content),
        answers(content),
        section("The release gate", &content.gate),
        tags(content),
        regressions(content),
        section("The teacher's mask", &content.mask),
        section("How steady the mask is", &content.stability),
        section("The newest prompts", &content.newest),
        trainings(content),
        saes(content),
        list("Caveats", &content.caveats),
        facts(content),
    ];
    parts.concat()
}

fn section(title: &str, lines: &[String]) -> String {
    if lines.is_empty() {
        return String::new();
    }
    let lines: Vec<String> = lines.iter().map(|l| plain(l)).collect();
    format!("\n## {title}\n\n{}\n", lines.join("\n"))
}

fn list(title: &str, lines: &[String]) -> String {
    if lines.is_empty() {
        return String::new();
    }
    let lines: String = lines.iter().map(|l| format!("- {}\n", plain(l))).collect();
    format!("\n## {title}\n\n{lines}")
}

fn advice(content: &Content) -> String {
    list("What would help", &content.advice)
}

fn facts(content: &Content) -> String {
    let fact = |f: &super::content::Fact| format!("{}: {}", f.name, f.value);
    list("What it was measured on", &content.facts.iter().map(fact).collect::<Vec<_>>())
}

/// A table whose first column is text, and whose others are figures.
fn table(title: &str, headings: &[&str], rows: Vec<Vec<String>>) -> String {
    if rows.is_empty() {
        return String::new();
    }
    let line = |cells: Vec<String>| format!("| {} |\n", cells.join(" | "));
    let rule = headings.iter().enumerate().map(|(at, _)| if at == 0 { "---" } else { "---:" });
    let head = line(headings.iter().map(|h| (*h).to_owned()).collect());
    let rule = line(rule.map(str::to_owned).collect());
    let body: String =
        rows.into_iter().map(|row| line(row.iter().map(|c| plain(c)).collect())).collect();
    format!("\n## {title}\n\n{head}{rule}{body}")
}

fn students(content: &Content) -> String {
    let title = format!("Models on {} held-out prompts, bits per byte", content.compared);
    let row = |s: &super::content::StudentRow| {
        let cells = [&s.name, &s.bits, &s.interval, &s.against, &s.against_interval];
        cells.map(String::clone).to_vec()
    };
    let headings = ["model", "bits per byte", "95 %", "against the base", "95 %"];
    table(&title, &headings, content.students.iter().map(row).collect())
}

fn tags(content: &Content) -> String {
    set("By tag, bits per byte", &content.tags)
}

fn answers(content: &Content) -> String {
    set(&format!("Their own answers to {} held-out prompts", content.answered), &content.answers)
}

fn set(title: &str, rows: &Table) -> String {
    table(title, &rows.headings, rows.rows.clone())
}

fn regressions(content: &Content) -> String {
    let row = |r: &super::content::RegressionRow| {
        vec![r.prompt.clone(), r.new.clone(), r.old.clone(), r.change.clone()]
    };
    let title = content.worse.as_deref().unwrap_or_default();
    let headings = ["prompt", "student", "rival", "change"];
    table(title, &headings, content.regressions.iter().map(row).collect())
}

fn trainings(content: &Content) -> String {
    let row = |t: &super::content::TrainingRow| {
        let (steps, epoch) = (t.steps.to_string(), t.best_epoch.to_string());
        vec![t.recipe.clone(), t.before.clone(), t.after.clone(), steps, epoch]
    };
    let headings = ["recipe", "loss before", "loss after", "steps", "best epoch"];
    let title = "Trainings, nats per response token on the validation prompts";
    table(title, &headings, content.trainings.iter().map(row).collect())
}

fn saes(content: &Content) -> String {
    let row = |s: &super::content::SaeRow| {
        let (layer, dead, steps) = (s.layer.to_string(), s.dead.to_string(), s.steps.to_string());
        vec![layer, s.recovered.clone(), s.explained.clone(), s.l0.clone(), dead, steps]
    };
    let headings = ["layer", "loss recovered", "variance explained", "L0", "dead", "steps"];
    let title = "Sparse autoencoders, on the validation prompts";
    table(title, &headings, content.saes.iter().map(row).collect())
}

/// Text that came from outside, as text: on one line, and nothing in it is Markdown or HTML.
fn plain(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    for c in text.chars() {
        // A bracket alone is none of a link.
        let opens_link = c == '(' && plain.ends_with(']');
        if opens_link || matches!(c, '\\' | '`' | '*' | '_' | '<' | '>' | '|' | '&') {
            plain.push('\\');
        }
        plain.push(if c.is_control() { ' ' } else { c });
    }
    plain
}
