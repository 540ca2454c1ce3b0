//! Replies of channels and of think blocks, token by token.

use super::*;

/// Token n spells the n-th text; those that begin with `<|` are control tokens.
const TEXTS: [&str; 14] = [
    "<|start|>",
    "<|channel|>",
    "<|message|>",
    "<|end|>",
    "<|return|>",
    "assistant",
    "analysis",
    "final",
    "hm",
    "ls",
    "\n\n",
    "<think>",
    "</thi",
    "nk>",
];

fn tokens() -> Vec<TokenBytes> {
    let each = |t: &&str| {
        if t.starts_with("<|") {
            TokenBytes::Special
        } else {
            TokenBytes::Text(t.as_bytes().to_vec())
        }
    };
    TEXTS.iter().map(each).collect()
}

fn ids(texts: &[&str]) -> Vec<u32> {
    texts.iter().map(|t| TEXTS.iter().position(|x| x == t).unwrap() as u32).collect()
}

fn read(reasoning: &Reasoning, prompt: &[&str], reply: &[&str], bounds: Bounds) -> (String, Reply) {
    let (tokens, own) = (tokens(), prompt.concat());
    let mut reader = Reader::new(reasoning, (&tokens, &[4]), (&ids(prompt), &own), bounds);
    for id in ids(reply) {
        reader.take(id);
    }
    let answer = reader.finish();
    (answer.ids.iter().map(|id| TEXTS[*id as usize]).collect(), answer)
}

const CHANNELS: Reasoning =
    Reasoning::Channels(Channels { start: 0, channel: 1, message: 2, end: 3 });
const THINK: Reasoning = Reasoning::Think(Think { open: "<think>", close: "</think>" });

#[test]
fn only_the_final_channel_is_the_answer() {
    let bounds = Bounds { answer: 9, reasoning: 20 };
    let aside = ["<|channel|>", "analysis", "<|message|>", "hm", "final", "<|end|>"];
    let last =
        ["<|start|>", "assistant", "<|channel|>", "final", "<|message|>", "ls", "hm", "<|return|>"];
    let prompt = ["<|start|>", "assistant"];
    let (text, answer) = read(&CHANNELS, &prompt, &[&aside[..], &last].concat(), bounds);
    assert_eq!(
        (text.as_str(), answer.ended, answer.unfinished, answer.reasoning.len()),
        ("lshm", true, false, 11)
    );
    // A prompt that opens the final channel itself.
    let opened = ["<|start|>", "assistant", "<|channel|>", "final", "<|message|>"];
    let (text, answer) = read(&CHANNELS, &opened, &["ls", "<|return|>"], bounds);
    assert_eq!((text.as_str(), answer.ended, answer.reasoning.len()), ("ls", true, 0));
    // Cut off within the analysis, or ended there: no answer.
    for cut in [&aside[..4], &[&aside[..4], &["<|return|>"]].concat()] {
        let (text, answer) = read(&CHANNELS, &prompt, cut, bounds);
        assert!(text.is_empty() && answer.unfinished && !answer.ended);
    }
    let short = Bounds { answer: 9, reasoning: 5 };
    let (text, answer) = read(&CHANNELS, &prompt, &[&aside[..], &last].concat(), short);
    assert!(text.is_empty() && answer.unfinished && answer.reasoning.len() == 5);
    let (text, answer) =
        read(&CHANNELS, &opened, &["ls", "hm", "ls"], Bounds { answer: 2, reasoning: 0 });
    assert_eq!((text.as_str(), answer.ended, answer.unfinished), ("lshm", false, false));
}

#[test]
fn what_follows_the_think_block_is_the_answer() {
    let bounds = Bounds { answer: 9, reasoning: 20 };
    for (prompt, reply, want, thought) in [
        (
            &["<think>"][..],
            &["hm", "</thi", "nk>", "\n\n", "ls", "\n\n", "<|return|>"][..],
            "ls\n\n",
            4,
        ),
        (&[], &["<think>", "hm", "</thi", "nk>", "\n\n", "ls", "<|return|>"], "ls", 5),
        (&[], &["ls", "hm", "<|return|>"], "lshm", 0),
        (&[], &["\n\n", "ls", "<|return|>"], "\n\nls", 0),
        (
            &["<think>", "\n\n", "</thi", "nk>", "\n\n"],
            &["ls", "<think>", "<|return|>"],
            "ls<think>",
            0,
        ),
    ] {
        let (text, answer) = read(&THINK, prompt, reply, bounds);
        assert_eq!(
            (text.as_str(), answer.ended, answer.reasoning.len()),
            (want, true, thought),
            "{reply:?}"
        );
    }
    let (text, answer) = read(&THINK, &["<think>"], &["hm", "hm"], bounds);
    assert!(text.is_empty() && answer.unfinished && !answer.ended);
}
