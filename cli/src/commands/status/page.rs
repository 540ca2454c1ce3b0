//! A status as a person reads it.

use super::source::{Life, Picture};
use crate::output::{self, time};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use uspx_domain::{Coverage, SeamPrompts};
use uspx_wire::{
    CampaignStatus, DriftStatus, LackStatus, MaskStatus, ReasonStatus, StatusMessage,
    StudentsStatus, WorkerStatus,
};

/// All of it, a row each.
pub(super) fn table(picture: &Picture) -> output::Table {
    let status = &picture.status;
    let name = match &status.campaign {
        Some(campaign) => format!("{}, campaign {}", status.colony, campaign.name),
        None => status.colony.clone(),
    };
    let mut table = output::table(&["colony", &name]);
    table.add_row(["coordinator", &coordinator(picture)]);
    table.add_row(["state", &state(picture)]);
    for (name, text) in rows(status) {
        table.add_row([name, text]);
    }
    for worker in &status.workers {
        table.add_row([format!("worker {}", worker.worker), at_work(worker, &picture.life)]);
    }
    for lack in &status.lacking {
        table.add_row(["lacking".to_owned(), lacking(lack)]);
    }
    table
}

fn coordinator(picture: &Picture) -> String {
    let age = time(picture.age.as_secs_f64());
    match &picture.life {
        Life::Alive => format!("runs; this picture is {age} old"),
        Life::Ended => format!("has ended with its campaign, {age} ago"),
        Life::Gone => format!(
            "DOES NOT RUN: this picture is {age} old. Started again, it goes on from its ledger"
        ),
        Life::Silent(who) => {
            let who = who.as_ref().map_or_else(String::new, |who| format!(" ({who})"));
            format!("NOT HEARD OF{who}: this picture is {age} old, and was not renewed")
        }
    }
}

fn state(picture: &Picture) -> String {
    let status = &picture.status;
    let now = match status.campaign.as_ref().filter(|c| !c.ended && c.stage > 0) {
        Some(CampaignStatus { stage, stages, doing, .. }) => {
            format!("stage {stage} of {stages}, {doing} (epoch {})", status.epoch)
        }
        None => status.stage.clone(),
    };
    match picture.life {
        Life::Gone | Life::Silent(_) => format!("was at: {now}"),
        Life::Alive | Life::Ended => now,
    }
}

fn rows(status: &StatusMessage) -> Vec<(String, String)> {
    let tasks = format!(
        "{} open, {} answered, {} given up",
        status.tasks_open, status.tasks_answered, status.tasks_failed
    );
    let campaign = status.campaign.as_ref();
    let running = campaign.filter(|c| !c.ended);
    let left = running.and_then(|c| c.left_millis).map(Duration::from_millis);
    let left = left.map(|left| format!("about {} of this stage", time(left.as_secs_f64())));
    let budget =
        campaign.map(|c| format!("{} exact runs spent of at most {}", c.exact_pairs, c.exact_most));
    let mask = status.mask.as_ref();
    let rows = [
        ("left", left),
        ("tasks", Some(tasks)),
        ("budget", budget),
        ("mask", mask.map(|mask| drawn(mask, campaign))),
        ("stability", mask.map(|mask| stability(mask, campaign))),
        ("in doubt", campaign.and_then(wrong)),
        ("newest", campaign.and_then(|c| c.drift.as_ref()).map(newest)),
        ("release", status.release.map(|release| release.to_string())),
        ("students", status.students.as_ref().map(students)),
    ];
    let known = rows.into_iter().filter_map(|(name, text)| Some((name.to_owned(), text?)));
    known.chain(reasons(status)).collect()
}

fn students(students: &StudentsStatus) -> String {
    let why = if students.kept_back == "held" { "HELD: " } else { "" };
    format!("{why}{}", students.text)
}

fn drawn(mask: &MaskStatus, campaign: Option<&CampaignStatus>) -> String {
    let kept = mask.kept_fraction * 100.0;
    let swapped = campaign.and_then(|c| c.mask_swapped).map(|n| match n {
        0 => "nothing exchanged".to_owned(),
        1 => "1 unit exchanged".to_owned(),
        n => format!("{n} units exchanged"),
    });
    let ago =
        campaign.and_then(|c| c.mask_unix_millis).and_then(since).map(|t| time(t.as_secs_f64()));
    let change = match (swapped, ago) {
        (Some(swapped), Some(ago)) => format!("; {swapped} {ago} ago"),
        (Some(swapped), None) => format!("; {swapped} by it"),
        (None, Some(ago)) => format!("; drawn {ago} ago"),
        (None, None) => String::new(),
    };
    format!("version {}, keeps {kept:.0} %{change}", mask.revision)
}

/// Each with what it means: the one is easily taken for the other.
fn stability(mask: &MaskStatus, campaign: Option<&CampaignStatus>) -> String {
    let before = format!("{:.2} of it as in the version before", mask.stability);
    match campaign.and_then(|c| c.two_runs) {
        Some(two) => format!("{before}; two runs on other prompts would share {two:.2}"),
        None => before,
    }
}

/// Whether the newest prompts are of another kind.
fn newest(drift: &DriftStatus) -> String {
    let shifted = if drift.drifted { "SHIFTED: " } else { "" };
    format!("{shifted}{}", drift.text)
}

/// How many units stand on the wrong side of the cut.
fn wrong(campaign: &CampaignStatus) -> Option<String> {
    let (cut, kept) = (campaign.wrongly_cut?, campaign.wrongly_kept?);
    Some(format!(
        "of {} units cut {:.1} belong above the cut (95 %: at most {}), of {} kept {:.1} below (at most {})",
        cut.units, cut.expected, cut.at_most, kept.units, kept.expected, kept.at_most
    ))
}

fn since(unix_millis: u64) -> Option<Duration> {
    SystemTime::now().duration_since(UNIX_EPOCH + Duration::from_millis(unix_millis)).ok()
}

fn at_work(worker: &WorkerStatus, life: &Life) -> String {
    let was = if matches!(life, Life::Gone | Life::Silent(_)) { "was " } else { "" };
    let work = worker.work.as_ref().map_or_else(String::new, |work| format!(" at {work}"));
    let done = worker.current.map_or_else(String::new, |c| format!(" {}/{}", c.done, c.total));
    let speed = worker.tokens_per_second.map_or_else(String::new, |s| format!(", {s} tokens/s"));
    format!(
        "{was}{}{work}{done}{speed}, on {}, {} answers",
        worker.state, worker.device, worker.answered
    )
}

fn lacking(lack: &LackStatus) -> String {
    let print: String = lack.fingerprint.to_string().chars().take(12).collect();
    format!(
        "worker {} has no {} ({print}..): give it the folder, --models DIR,..; until then it gets \
         no such tasks",
        lack.worker, lack.model
    )
}

/// What to bear in mind: why tasks failed, which prompts were left out or have a seam, how much of
/// the answers is labelled.
fn reasons(status: &StatusMessage) -> Vec<(String, String)> {
    let counted = |what: &'static str| {
        move |r: &ReasonStatus| (what.to_owned(), format!("{} × {}: {}", r.count, r.work, r.reason))
    };
    let labels = status
        .labels
        .iter()
        .map(|labels| ("labels".to_owned(), Coverage::from(*labels).to_string()));
    let left_out = status.skipped.iter().map(|s| ("left out".to_owned(), s.text.clone()));
    let given_up = status.given_up.iter().map(counted("given up"));
    let attempts = status.failed_attempts.iter().map(counted("failed attempts"));
    let seams = status
        .seam_prompts
        .iter()
        .flat_map(|seams| SeamPrompts::from(*seams).lines())
        .map(|line| ("seams".to_owned(), line));
    labels.chain(left_out).chain(seams).chain(given_up).chain(attempts).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use uspx_domain::TaskId;
    use uspx_wire::{CurrentTask, WrongStatus};

    fn picture(life: Life, ended: bool) -> Picture {
        let worker = WorkerStatus {
            worker: "spare-box".parse().unwrap(),
            state: "working".into(),
            device: "cpu".into(),
            current: Some(CurrentTask { task: TaskId::derived(b"t"), done: 30, total: 194 }),
            answered: 20,
            silent_millis: 100,
            work: Some("ablate".into()),
            tokens_per_second: Some(1200),
        };
        let campaign = CampaignStatus {
            name: "first".into(),
            stage: 3,
            stages: 8,
            doing: "exact ablations".into(),
            ended,
            exact_pairs: 2048,
            exact_most: 16_384,
            left_millis: Some(90_000),
            mask_swapped: Some(3),
            mask_unix_millis: None,
            two_runs: Some(0.61),
            wrongly_cut: Some(WrongStatus { units: 32, expected: 0.75, at_most: 2 }),
            wrongly_kept: Some(WrongStatus { units: 32, expected: 1.5, at_most: 4 }),
            drift: Some(DriftStatus {
                drifted: true,
                newest: 24,
                older: 276,
                share: 0.08,
                change: 0.5,
                low: 0.25,
                high: 0.75,
                text: "the newest 24 prompts are of another kind".into(),
            }),
        };
        let lack = LackStatus {
            worker: "spare-box".parse().unwrap(),
            model: "student".into(),
            fingerprint: uspx_domain::Fingerprint(uspx_domain::Digest::of(b"s")),
        };
        let status = StatusMessage {
            colony: "home".into(),
            stage: if ended { "done: published release 3".into() } else { "explore".into() },
            epoch: 7,
            tasks_open: 3,
            tasks_answered: 40,
            tasks_failed: 0,
            workers: vec![worker],
            mask: Some(MaskStatus { revision: 5, kept_fraction: 0.5, stability: 0.98 }),
            release: None,
            written_unix_millis: 0,
            given_up: vec![],
            failed_attempts: vec![],
            skipped: vec![],
            seam_prompts: None,
            labels: None,
            campaign: Some(campaign),
            lacking: vec![lack],
            students: Some(StudentsStatus {
                kept_back: "held".into(),
                waits: false,
                text: "no student is made until uspx coordinator resume".into(),
            }),
        };
        Picture { status, age: Duration::from_secs(200), life }
    }

    fn text(life: Life, ended: bool) -> String {
        let text = table(&picture(life, ended)).to_string();
        text.split_whitespace().collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn a_living_coordinator_says_what_is_done_and_what_is_left() {
        let text = text(Life::Alive, false);
        for words in [
            "stage 3 of 8, exact ablations (epoch 7)",
            "about 90 s of this stage",
            "2048 exact runs spent of at most 16384",
            "3 units exchanged",
            "two runs on other prompts would share 0.61",
            "newest SHIFTED: the newest 24 prompts are of another kind",
            "of 32 units cut 0.8 belong above the cut (95 %: at most 2)",
            "working at ablate 30/194, 1200 tokens/s, on cpu",
            "worker spare-box has no student",
            "students HELD: no student is made until uspx coordinator resume",
        ] {
            assert!(text.contains(words), "no `{words}` in {text}");
        }
    }

    #[test]
    fn a_dead_one_is_never_at_work() {
        let gone = text(Life::Gone, false);
        assert!(gone.contains("DOES NOT RUN: this picture is 3 min old"), "{gone}");
        assert!(gone.contains("was at: stage 3") && gone.contains("was working"), "{gone}");
        let silent = text(Life::Silent(Some("host box, process 7".into())), false);
        assert!(silent.contains("NOT HEARD OF (host box, process 7)"), "{silent}");
    }

    #[test]
    fn an_ended_campaign_says_how() {
        let text = text(Life::Ended, true);
        assert!(text.contains("state done: published release 3"), "{text}");
        assert!(!text.contains("of this stage") && !text.contains("stage 3 of 8"), "{text}");
    }

    #[test]
    fn nothing_is_wider_than_eighty_columns() {
        let table = table(&picture(Life::Gone, false)).to_string();
        let widest = table.lines().map(textwrap::core::display_width).max().unwrap();
        assert!(widest <= usize::from(output::columns()), "{table}");
    }
}
