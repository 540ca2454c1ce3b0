//! The report's three forms, from a state that has everything in it.

use super::*;
use quick_xml::events::Event;
use std::collections::BTreeMap;
use uspx_colony::answers::AnswersReport;
use uspx_colony::drift::Rises;
use uspx_colony::gate::{PairedDifference, TagReport};
use uspx_colony::masked_teacher::MaskedTeacher;
use uspx_colony::misplaced::{Misplaced, Wrong};
use uspx_colony::regressions::{LostAnswers, Regression, Regressions};
use uspx_colony::report::{MaskReport, SaeReport, StudentReport};
use uspx_colony::{Contender, GateReport};
use uspx_domain::{
    Digest, DistilRecipe, ExportFormat, Mask, SaeSummary, SeamPrompts, TrainingSummary, Unit,
    UnitKind,
};

/// A name as somebody might choose it who means ill.
const EVIL: &str = "<script>alert('x')</script> & \"y\" | `z` [a](b)";

fn fingerprint(name: &str) -> Fingerprint {
    Fingerprint(Digest::of(name.as_bytes()))
}

fn students() -> Vec<StudentReport> {
    let of = |contender, bits, mean: Option<f64>| StudentReport {
        contender,
        bits_per_byte: bits,
        interval: Some((bits - 0.05, bits + 0.05)),
        against_base: mean.map(|mean| PairedDifference {
            mean,
            low: mean - 0.2,
            high: mean + 0.2,
            upper: mean + 0.15,
        }),
        exact_match: Some(bits - 0.9).filter(|_| !matches!(contender, Contender::Distilled(_))),
        exact_match_interval: None,
        exact_against_base: None,
        tokens_per_second: Some(12.5),
        bytes: (contender == ExportFormat::GPTQ.into()).then_some(1_250_000),
    };
    vec![
        of(Contender::Teacher, 1.0, Some(-1.0)),
        of(Contender::Base, 2.0, None),
        of(Contender::Distilled(0), 1.9, Some(-0.1)),
        of(ExportFormat::GPTQ.into(), 1.95, Some(-0.05)),
    ]
}

fn answers() -> AnswersReport {
    let difference = PairedDifference { mean: -0.125, low: -0.25, high: 0.0625, upper: 0.03 };
    AnswersReport { prompts: 40, new: 0.5, old: 0.625, difference }
}

fn gate() -> GateReport {
    let tag = TagReport { prompts: 40, new: 1.1, old: 1.0, answers: Some(answers()) };
    GateReport {
        rival: Contender::Base,
        prompts: 80,
        wanted: 80,
        new: 1.95,
        old: 2.0,
        difference: PairedDifference { mean: -0.05, low: -0.25, high: 0.15, upper: 0.1 },
        answers: Some(answers()),
        tags: [(EVIL.to_owned(), tag)].into(),
        refusal: Some("not surely better".to_owned()),
    }
}

fn mask() -> MaskReport {
    MaskReport {
        kind: UnitKind::Expert,
        version: 3,
        kept: 4,
        units: 8,
        layers: vec![(1, 4), (3, 4)],
        rise: Some(0.034),
        rise_interval: Some((0.01, 0.05)),
        prompts: 80,
        random: vec![0.2, 0.3, 0.02],
        curve: vec![(0.25, 0.01), (0.5, 0.03), (0.75, 0.9)],
        jaccard: Some(1.0),
        bootstrap_jaccard: 0.97,
        misplaced: Some(misplaced()),
        label_mask: Some(Mask::everything(fingerprint("t"))),
        masked_teacher: Some(masked_teacher()),
        exact_pairs: 1024,
    }
}

fn misplaced() -> Misplaced {
    let wrong = |expected, at_most| Wrong { units: 4, expected, at_most };
    Misplaced { cut: wrong(0.26, 1), kept: wrong(1.5, 3) }
}

fn masked_teacher() -> MaskedTeacher {
    MaskedTeacher {
        cut: 2,
        units: 8,
        unread: 0.25,
        prompts: 340,
        dreams: 2310,
        validation: Some(0.021),
        bound: 0.05,
        rise: Some(0.027),
        rise_interval: Some((0.012, 0.041)),
        held_out: 80,
    }
}

fn drift() -> Drift {
    let rises = |on_older, on_newest| Rises { on_older, on_newest };
    Drift {
        generation: 1,
        newest: 24,
        older: 276,
        share: 0.08,
        by_older: rises(0.25, 0.75),
        change: 0.5,
        low: 0.25,
        high: 0.75,
        drifted: true,
        by_mask: rises(0.3, 0.6),
        by_newest: rises(0.9, 0.2),
    }
}

fn worth() -> SaeSummary {
    SaeSummary {
        steps: 700,
        tokens: 9000,
        l0: 8.0,
        explained_variance: 0.875,
        dead: 3,
        clean: 1.0,
        grafted: 1.5,
        zero: 6.0,
        mean: 5.0,
    }
}

fn text_alone() -> DistilRecipe {
    let mut recipes = uspx_colony::campaign::StudentPlan::default().recipes;
    DistilRecipe { teacher_weight: 0.0, ..recipes.remove(0) }
}

fn regression() -> Regression {
    Regression { prompt: EVIL.to_owned(), new: 31.25, old: 20.0 }
}

fn refused() -> Report {
    let lost = Some(LostAnswers { prompts: 14, won: 4, named: vec![EVIL.to_owned()] });
    let figures = CampaignReport {
        campaign: EVIL.to_owned(),
        mask: Some(mask()),
        students: students(),
        compared_prompts: 80,
        answered_prompts: 76,
        trainings: BTreeMap::from([(
            0,
            TrainingSummary { steps: 9, before: 3.0, after: 2.0, best_epoch: 1 },
        )]),
        recipes: vec![text_alone()],
        chosen_recipe: Some(0),
        saes: vec![SaeReport { layer: 1, summary: worth(), recovered: 0.9 }],
        gate: Some(gate()),
        regressions: Some(Regressions { worse: 31, prompts: 80, named: vec![regression()], lost }),
        labels: None,
        dreams: 2310,
        skipped: vec![],
        seam_prompts: SeamPrompts { teacher: 2, student: 0 },
        given_up: vec![],
    };
    let unit = |(layer, index): (u32, u32)| UnitReport {
        unit: Unit { kind: UnitKind::Expert, layer, index },
        kept: index < 2,
        score: uspx_colony::combine::Score { mean: 0.5, error: 0.1, effective: 9.0 },
        interval: (0.304, 0.696),
        belongs: Some(0.9),
        confidence: 0.75,
        pheromone: 1.0,
    };
    Report {
        colony: EVIL.to_owned(),
        ending: Some("the release gate refused the student: not surely better".to_owned()),
        release: None,
        previous: None,
        teacher: fingerprint("t"),
        teacher_name: Some(EVIL.to_owned()),
        base: Some(fingerprint("b")),
        base_name: None,
        student_name: None,
        prompts: Prompts { train: 300, validation: 40, gate: 80 },
        advice: advise(&figures, 0.02),
        stability: Some(Stability { version_before: Some(1.0), two_runs: Some(0.52) }),
        drift: Some(drift()),
        cliff: cliff(&mask().curve),
        figures,
        units: (0..2).flat_map(|l| (0..4).map(move |i| (l, i))).map(unit).collect(),
    }
}

/// The names of the elements, each closed in its turn.
fn elements(page: &str) -> Vec<String> {
    let mut reader = quick_xml::Reader::from_str(page);
    let (mut names, mut open) = (Vec::new(), 0);
    loop {
        match reader.read_event().unwrap_or_else(|e| panic!("{e} at {}", reader.error_position())) {
            Event::Start(tag) => {
                open += 1;
                names.push(String::from_utf8(tag.name().as_ref().to_vec()).unwrap());
            }
            Event::Empty(tag) => {
                names.push(String::from_utf8(tag.name().as_ref().to_vec()).unwrap())
            }
            Event::End(_) => open -= 1,
            Event::Eof => break,
            _ => {}
        }
    }
    assert_eq!(open, 0, "something is not closed");
    names
}

#[test]
fn the_page_is_well_formed_and_needs_nothing_else() {
    let page = html::page(&refused()).unwrap();
    let names = elements(&page);
    let count = |name: &str| names.iter().filter(|n| *n == name).count();
    // Eight units, and a bar of each of four models.
    assert_eq!(count("rect"), 8 + 4 + 1, "the cliff's band, too");
    assert_eq!((count("svg"), count("polyline")), (4 + 3, 1));
    let loading = ["script", "link", "img", "iframe", "image", "object", "embed", "use", "base"];
    assert!(loading.iter().all(|name| count(name) == 0), "{names:?}");
    for words in ["http:", "https:", "//", "url(", "@import", "src=", "href="] {
        assert!(!page.contains(words), "{words}");
    }
}

#[test]
fn nothing_from_outside_is_taken_for_markup() {
    let page = html::page(&refused()).unwrap();
    assert!(!page.contains("<script"), "{page}");
    assert!(page.contains("&#60;script&#62;") || page.contains("&lt;script&gt;"), "{page}");
    let text = markdown::report(&refused());
    assert!(!text.contains("<script") || text.contains("\\<script"), "{text}");
    assert!(!text.contains("[a](b)") && text.contains("\\| \\`z\\`"), "{text}");
    // A tag's row has the table's cells and no more.
    let row = text.lines().find(|l| l.starts_with("| \\<script")).unwrap();
    assert_eq!(row.replace("\\|", "").matches('|').count(), 9, "{row}");
}

#[test]
fn all_that_was_found_is_in_every_form() {
    let report = refused();
    let json: serde_json::Value = serde_json::from_slice(&report.json().unwrap()).unwrap();
    assert_eq!(json["figures"]["students"].as_array().unwrap().len(), 4);
    assert_eq!(json["units"].as_array().unwrap().len(), 8);
    assert_eq!((&json["drift"]["drifted"], &json["drift"]["low"]), (&true.into(), &0.25.into()));
    assert_eq!(
        (&json["stability"]["two_runs"], &json["cliff"]["before"]),
        (&0.52.into(), &0.5.into())
    );
    let (page, text) = (html::page(&report).unwrap(), markdown::report(&report));
    let plain = text.replace('\\', "");
    for words in [
        "the release gate refused the student: not surely better",
        "about ",
        "+0.034",
        "[+0.010, +0.050]",
        "2 of 3 random masks",
        "Of the 4 experts that it cuts 0.3 are expected to belong above the cut, with 95 % certainty at most 1",
        "of the 4 that it keeps 1.5 are expected to belong below, at most 3",
        "steep beyond 50 % pruned",
        "version before: 1.00",
        "two runs on other prompts of the same kind: 0.52",
        "The newest 24 prompts (8 % of what counts) are of another kind than the 276 before them",
        "costs +0.500 nats a token more on them (99 % interval +0.250 to +0.750); this mask costs 0.600 there",
        "The labels of 340 prompts and 2310 made up were made by the teacher with 2 of 8 units cut: 25 % of all experts",
        "for 0.05 nats a token on the validation prompts: +0.021. On 80 gate prompts its loss is +0.027 [+0.012, +0.041]",
        "GPTQ, 4 bits",
        "[1.900, 2.000]",
        "2 prompts have other tokens",
        "Worse on 31 of 80 prompts; bits of the 1 answers",
        "+11.2",
        "Their own answers to 76 held-out prompts",
        "105.0 %",
        "12.5",
        "1.2 MB",
        "50.0 % are the reference, against 62.5 %: a difference of -12.5 % [-25.0, +6.2] %",
        "not any more: 14 (",
        "…); newly right: 4.",
        "1 (chosen): the answers",
        "text alone",
        &report.teacher.to_string(),
        &report.base.unwrap().to_string(),
    ] {
        assert!(page.contains(words), "{words} is not in the page");
        assert!(plain.contains(words), "{words} is not in {plain}");
    }
    assert!(page.contains("expert 1 of layer 0: kept, score 0.5000 [0.3040, 0.6960], 75 % sure"));
}

#[test]
fn a_campaign_that_found_nothing_has_a_report_too() {
    let mut report = refused();
    (report.units, report.stability, report.cliff) = (vec![], None, None);
    report.drift = None;
    (report.figures.mask, report.figures.gate) = (None, None);
    (report.figures.students, report.advice) = (vec![], vec![]);
    report.ending = Some("failed: no prompt could be traced".into());
    let page = html::page(&report).unwrap();
    assert!(!elements(&page).contains(&"svg".to_owned()));
    assert!(page.contains("failed: no prompt could be traced"));
    assert!(markdown::report(&report).contains("failed: no prompt could be traced"));
}

#[test]
fn all_three_are_written_and_named() {
    let folder = tempfile::tempdir().unwrap();
    let paths = write(folder.path(), &refused()).unwrap();
    for path in [&paths.json, &paths.markdown, &paths.html] {
        assert!(std::fs::metadata(path).unwrap().len() > 100, "{}", path.display());
    }
    assert!(write(&paths.json.join("within a file"), &refused()).is_err());
}
