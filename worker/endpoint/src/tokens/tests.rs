//! Which tokens an answer's are, and what is said of them.

use super::*;

fn candidate(token: &str, probability: f32) -> Candidate {
    let logprob = Some(probability.ln());
    Candidate { token: token.into(), logprob, bytes: Some(token.as_bytes().to_vec()), id: None }
}

fn token(token: &str, probability: f32, others: &[(&str, f32)]) -> Token {
    let others = others.iter().map(|(token, p)| candidate(token, *p)).collect();
    Token { own: candidate(token, probability), top_logprobs: Some(others) }
}

fn plain(texts: &[&str]) -> Vec<Token> {
    texts.iter().map(|text| token(text, 0.5, &[])).collect()
}

/// What the labels of an answer cover, and what stands there.
fn read(written: &[Token], answer: &str, ended: bool) -> Option<Vec<(u32, u32, Piece)>> {
    let mut pieces = Pieces::default();
    let labels = labels(written, (answer, ended), &mut pieces)?;
    let table = pieces.into_table();
    let each = |l: &TokenLabel| (l.start, l.end, table[l.piece as usize].1.clone());
    Some(labels.iter().map(each).collect())
}

fn text(bytes: &[u8]) -> Piece {
    Piece::Text(bytes.to_vec())
}

#[test]
fn an_answer_is_found_behind_reasoning_and_before_the_end() {
    let wanted = vec![(0, 2, text(b"ls")), (2, 5, text(b" -l")), (5, 5, Piece::End)];
    for before in [&[][..], &["<think>", "hm", "</think>", "\n\n"]] {
        let written = plain(&[before, &["ls", " -l", "<|im_end|>"]].concat());
        assert_eq!(read(&written, "ls -l", true), Some(wanted.clone()));
        // Cut off, the last is no end: then these tokens are not the answer's.
        assert_eq!(read(&written, "ls -l", false), None);
        let untold = plain(&[before, &["ls", " -l"]].concat());
        assert_eq!(read(&untold, "ls -l", true), Some(wanted[..2].to_vec()));
    }
}

#[test]
fn space_that_the_first_token_begins_with_is_no_text_of_the_answer() {
    let written = [token("\n ls", 0.5, &[("\n ls", 0.5), (" dir", 0.25), ("\n du", 0.125)])];
    let mut pieces = Pieces::default();
    let labels = labels(&written, ("ls", true), &mut pieces).unwrap();
    let table = pieces.into_table();
    let tops: Vec<&Piece> = labels[0].top.iter().map(|(at, _)| &table[*at as usize].1).collect();
    assert_eq!(tops, [&text(b"ls"), &Piece::Control, &text(b"du")]);
    assert_eq!(read(&plain(&["xls"]), "ls", true), None);
}

#[test]
fn characters_of_several_tokens_are_whole_by_their_bytes() {
    let mut written = plain(&["a", "\u{fffd}", "\u{fffd}"]);
    written[1].own.bytes = Some(vec![0xc3]);
    written[2].own.bytes = Some(vec![0xa4]);
    let wanted = vec![(0, 1, text(b"a")), (1, 2, text(&[0xc3])), (2, 3, text(&[0xa4]))];
    assert_eq!(read(&written, "aä", true), Some(wanted));
    // Without them the text of the tokens is not the answer's.
    written.iter_mut().for_each(|token| token.own.bytes = None);
    assert_eq!(read(&written, "aä", true), None);
    assert_eq!(read(&plain(&["\u{120}ls"]), " ls", true), None, "names of a vocabulary");
}

#[test]
fn probabilities_add_up() {
    let mut written =
        [token("ls", 0.5, &[("ls", 0.5), ("dir", 0.125), ("", 0.0625), ("</s>", 0.0625)])];
    let others = written[0].top_logprobs.as_mut().unwrap();
    others.push(Candidate { token: "never".into(), logprob: Some(-9999.0), bytes: None, id: None });
    others.push(Candidate { token: "unsaid".into(), logprob: None, bytes: None, id: None });
    let mut pieces = Pieces::default();
    let labels = labels(&written, ("ls", true), &mut pieces).unwrap();
    let table = pieces.into_table();
    let found: Vec<(&Piece, f32)> =
        labels[0].top.iter().map(|(at, l)| (&table[*at as usize].1, l.exp())).collect();
    // Two tokens that end the turn are one piece.
    let wanted = [(text(b"ls"), 0.5), (Piece::End, 0.125), (text(b"dir"), 0.125)];
    assert_eq!(found.len(), 3);
    for (piece, mass) in wanted {
        assert!(found.iter().any(|(p, m)| **p == piece && (m - mass).abs() < 1e-6), "{found:?}");
    }
    assert!(found.windows(2).all(|w| w[0].1 >= w[1].1));
    assert!(
        (labels[0].tail - 0.25).abs() < 1e-6 && (labels[0].log_prob - 0.5f32.ln()).abs() < 1e-6
    );
}

#[test]
fn a_token_without_a_probability_leaves_the_text_alone() {
    let mut written = plain(&["ls", " -l"]);
    written[0].own.logprob = None;
    assert_eq!(read(&written, "ls -l", true), None);
    assert_eq!(read(&[], "ls", true), None);
}
