//! A conversation's tokens against transformers: families of tokenizers x templates x awkward
//! conversations, made and explained by tests/parity/tokens (reference.py states the rule that is
//! tested).

use crate::support::root;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use uspx_domain::Prompt;
use uspx_model::batch::Sequence;
use uspx_model::chat::{Answered, Chat};

#[derive(Deserialize)]
struct Golden {
    /// All tokens that end an answer, ascending.
    ends: Vec<u32>,
    /// The one that the template writes after an answer.
    #[serde(default)]
    end: u32,
    /// A tokenizer that must not be taken: what the message has to name.
    refused: Option<String>,
    #[serde(default)]
    rows: BTreeMap<String, Row>,
}

#[derive(Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
enum Row {
    /// The template refuses: the conversation, or (where there is a prompt) its answer.
    Refused {
        prompt: Option<Vec<u32>>,
        says: String,
    },
    Equal(Wanted),
    Seam(Wanted),
    Rewritten(Wanted),
}

#[derive(Deserialize)]
struct Wanted {
    prompt: Vec<u32>,
    /// What follows it in the joint encoding; none where that does not begin with the prompt's ids.
    rest: Option<Vec<u32>>,
    /// Where the answer's first token is: at least and at most.
    begin: [usize; 2],
    /// What the answer's ids decode to; none where transformers does not decode them to the answer
    /// either.
    text: Option<String>,
}

#[derive(Deserialize)]
struct Conversation {
    system: Option<String>,
    prompt: String,
    answer: String,
}

/// Nothing, or what is wrong.
type Checked = Result<(), String>;
/// uspx's sequence, or its message.
type Found = Result<Answered, String>;
/// How a row was met, for the count; or what is wrong.
type Verdict = Result<&'static str, String>;

/// The folder of the committed cells, or that of `USPX_TOKENS` (all of them, for `make parity`).
fn matrix() -> PathBuf {
    std::env::var_os("USPX_TOKENS").map_or_else(|| root().join("tests/data/tokens"), PathBuf::from)
}

fn read<T: serde::de::DeserializeOwned>(path: &Path) -> T {
    let text = std::fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    serde_json::from_str(&text).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

fn cells() -> Vec<PathBuf> {
    let mut cells: Vec<PathBuf> =
        std::fs::read_dir(matrix()).unwrap().map(|e| e.unwrap().path()).collect();
    cells.retain(|cell| cell.join("golden.json").exists());
    cells.sort();
    assert!(cells.len() >= 12, "{}: only {} cells", matrix().display(), cells.len());
    cells
}

#[test]
fn tokens_are_those_of_transformers() {
    let conversations: BTreeMap<String, Conversation> = read(&matrix().join("conversations.json"));
    let (mut counts, mut differences) = (BTreeMap::<&str, usize>::new(), Vec::new());
    let cells = cells();
    for cell in &cells {
        let name = cell.file_name().unwrap().to_string_lossy().into_owned();
        for (row, verdict) in judge_cell(cell, &conversations) {
            *counts.entry(verdict.as_ref().map_or("different", |how| how)).or_default() += 1;
            differences.extend(verdict.err().map(|what| format!("{name} {row}: {what}")));
        }
    }
    let summary = serde_json::json!({
        "token_cells": cells.len(), "conversations": conversations.len(), "rows": counts,
    });
    // On a line of its own: the harness writes its dots before it.
    println!("\n{summary}");
    let shown = if std::env::var_os("USPX_TOKENS_ALL").is_some() { differences.len() } else { 20 };
    let first: Vec<&str> = differences.iter().take(shown).map(String::as_str).collect();
    assert!(
        differences.is_empty(),
        "{} differences, the first:\n{}",
        differences.len(),
        first.join("\n")
    );
}

/// The verdict of opening a cell, and of each of its rows.
fn judge_cell(
    cell: &Path,
    conversations: &BTreeMap<String, Conversation>,
) -> Vec<(String, Verdict)> {
    let golden: Golden = read(&cell.join("golden.json"));
    let opened = || "opening".to_owned();
    let chat = match (Chat::open(cell), &golden.refused) {
        (Err(error), Some(kind)) => {
            return vec![(opened(), names(&error.to_string(), &[kind, "tokenizer.json"]))];
        }
        (Ok(_), Some(kind)) => {
            return vec![(opened(), Err(format!("a tokenizer of kind {kind} is taken")))];
        }
        (Err(error), None) => return vec![(opened(), Err(error.to_string()))],
        (Ok(chat), None) => chat,
    };
    let mut verdicts =
        vec![(opened(), same("end tokens", chat.ends(), &golden.ends).map(|()| "opened"))];
    verdicts.extend(golden.rows.iter().map(|(name, row)| {
        let conversation = &conversations[name];
        (name.clone(), judge(&chat, golden.end, conversation, row))
    }));
    verdicts
}

fn judge(chat: &Chat, end: u32, conversation: &Conversation, row: &Row) -> Verdict {
    let Conversation { system, prompt, answer } = conversation;
    let (prompt, system) = (prompt.clone(), system.clone());
    let prompt = Prompt { id: "p".into(), prompt, system, ..Prompt::default() };
    let open = chat.sequence(&prompt, None).map_err(|e| e.to_string());
    let whole = chat.answered(&prompt, answer).map_err(|e| e.to_string());
    match row {
        Row::Refused { prompt: None, says } => {
            refused(open, says).and_then(|_| refused(whole, says))
        }
        Row::Refused { prompt: Some(ids), says } => {
            is_prompt(&open?, ids).and_then(|()| refused(whole, says))
        }
        Row::Equal(wanted) | Row::Seam(wanted) | Row::Rewritten(wanted) => {
            is_prompt(&open?, &wanted.prompt)?;
            answered(chat, end, whole, row, wanted)
        }
    }
}

/// What is asked for of a sequence with its answer.
fn answered(chat: &Chat, end: u32, whole: Found, row: &Row, wanted: &Wanted) -> Verdict {
    let [as_joint, as_spelled] = match row {
        Row::Rewritten(_) if whole.is_err() => return Ok("rewritten, refused"),
        Row::Rewritten(_) => ["rewritten, as joint", "rewritten, as spelled"],
        Row::Seam(_) => ["seam, as joint", "seam, as spelled"],
        Row::Equal(_) | Row::Refused { .. } => {
            return equal(chat, &whole?, wanted).map(|()| "equal");
        }
    };
    let whole = whole?;
    joint(&whole.sequence, wanted)
        .map(|()| as_joint)
        .or_else(|_| spelled(chat, end, &whole, wanted).map(|()| as_spelled))
}

/// A sequence without an answer: the prompt's ids, all of them prompt.
fn is_prompt(open: &Sequence, ids: &[u32]) -> Checked {
    same("prompt", &open.ids, ids)?;
    number("the prompt's end", open.response_start, ids.len())
}

/// The joint encoding's ids, the answer where it begins there, and its text.
fn equal(chat: &Chat, found: &Answered, wanted: &Wanted) -> Checked {
    joint(&found.sequence, wanted)?;
    wanted.text.as_ref().map_or(Ok(()), |text| decodes(chat, found, text))
}

/// The joint encoding's ids. Across a seam the merged token counts as answer.
fn joint(found: &Sequence, wanted: &Wanted) -> Checked {
    let rest = wanted.rest.as_ref().ok_or("the joint encoding does not begin with the prompt")?;
    same("ids", &found.ids, &[wanted.prompt.as_slice(), rest].concat())?;
    begins(found, wanted)
}

fn begins(found: &Sequence, wanted: &Wanted) -> Checked {
    let [first, last] = wanted.begin;
    if (first..=last).contains(&found.response_start) {
        return Ok(());
    }
    Err(format!("the answer begins at {}, not at {first} (or up to {last})", found.response_start))
}

/// The prompt's ids, then others that end the turn and whose answer is spelled as it is.
fn spelled(chat: &Chat, end: u32, whole: &Answered, wanted: &Wanted) -> Checked {
    let found = &whole.sequence;
    let begin = found.ids.get(..wanted.prompt.len()).unwrap_or(&found.ids);
    same("prompt of the whole", begin, &wanted.prompt)?;
    same("last id", &found.ids[found.ids.len() - 1..], &[end])?;
    if found.response_start < wanted.prompt.len() {
        return Err(format!("the answer begins at {} inside the prompt", found.response_start));
    }
    decodes(chat, whole, wanted.text.as_deref().unwrap_or_default())
}

/// What the answer's tokens spell, without what the first one spells before it.
fn decodes(chat: &Chat, found: &Answered, text: &str) -> Checked {
    let ids = &found.sequence.ids[found.sequence.response_start..];
    let spelled = chat.decode(ids);
    let decoded = spelled.strip_prefix(&*String::from_utf8_lossy(&found.lead)).unwrap_or(&spelled);
    if decoded == text {
        Ok(())
    } else {
        Err(format!("the answer {decoded:?} of {ids:?}, not {text:?}"))
    }
}

fn refused<T>(found: Result<T, String>, says: &str) -> Verdict {
    let error =
        found.err().ok_or_else(|| format!("is not refused, though the template says {says:?}"))?;
    names(&error, &[says])
}

fn names(message: &str, parts: &[&str]) -> Verdict {
    let missing = parts.iter().find(|part| !message.contains(**part));
    missing.map_or(Ok("refused as expected"), |part| {
        Err(format!("the message does not say {part:?}: {message}"))
    })
}

fn number(what: &str, found: usize, wanted: usize) -> Checked {
    if found == wanted { Ok(()) } else { Err(format!("{what} is {found}, not {wanted}")) }
}

/// Ids that agree, or those around the first difference.
fn same(what: &str, found: &[u32], wanted: &[u32]) -> Checked {
    if found == wanted {
        return Ok(());
    }
    let at = found.iter().zip(wanted).take_while(|(a, b)| a == b).count();
    let around =
        |ids: &[u32]| ids.iter().skip(at.saturating_sub(3)).take(9).copied().collect::<Vec<_>>();
    let lengths = format!("{} ids, not {}", found.len(), wanted.len());
    Err(format!("{what} differ at {at} ({lengths}): {:?}, not {:?}", around(found), around(wanted)))
}
