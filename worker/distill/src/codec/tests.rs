//! Labels as bytes, whole and spoilt.

use super::*;
use proptest::prelude::*;

fn sample() -> Labels {
    let token = |piece, start, end| TokenLabel {
        piece,
        start,
        end,
        log_prob: -0.5,
        top: vec![(piece, -0.5), (2, -2.0)],
        tail: 0.25,
    };
    Labels {
        teacher: Fingerprint(Digest::of(b"t")),
        vocabulary: Digest::of(b"v"),
        pieces: vec![
            (7, Piece::Text(b"ls".to_vec())),
            (9, Piece::End),
            (300, Piece::Text(vec![0xff])),
        ],
        prompts: vec![PromptLabels {
            prompt: Prompt { id: "p".into(), prompt: "list".into(), ..Prompt::default() },
            answer: "ls".into(),
            ended: true,
            reasoning: Some("hm".into()),
            tokens: vec![token(0, 0, 2), token(1, 2, 2)],
        }],
    }
}

#[test]
fn bytes_give_back_the_labels() {
    let labels = sample();
    assert_eq!(Labels::from_bytes(&labels.to_bytes().unwrap()).unwrap(), labels);
}

#[test]
fn earlier_turns_stand_at_a_prompt_s_end_and_nothing_where_there_are_none() {
    let plain = sample();
    let mut labels = sample();
    let said = Exchange { user: "u".into(), assistant: "a".into() };
    labels.prompts[0].prompt.earlier = vec![said];
    let (bytes, before) = (labels.to_bytes().unwrap(), plain.to_bytes().unwrap());
    // A list of one pair of texts of one byte.
    assert_eq!(bytes.len(), before.len() + 6);
    assert_eq!(Labels::from_bytes(&bytes).unwrap(), labels);
    assert!(before.windows(2).any(|w| w == [0x96, 0x95]), "a prompt is still five fields");
}

#[test]
fn what_does_not_hold_together_is_refused() {
    let cases: [fn(&mut Labels); 5] = [
        |l| l.prompts[0].tokens[0].piece = 3,
        |l| l.prompts[0].tokens[0].end = 1,
        |l| l.prompts[0].tokens[1].end = 9,
        |l| l.prompts[0].tokens[0].log_prob = f32::NAN,
        |l| l.prompts[0].tokens[0].top[0].1 = 3.0,
    ];
    for (at, spoil) in cases.iter().enumerate() {
        let mut labels = sample();
        spoil(&mut labels);
        let read = Labels::from_bytes(&labels.to_bytes().unwrap());
        assert!(matches!(read, Err(DistillError::Labels(_))), "case {at}: {read:?}");
    }
}

#[test]
fn a_newer_version_is_named() {
    let mut bytes = sample().to_bytes().unwrap();
    bytes[1] = 3;
    assert!(matches!(Labels::from_bytes(&bytes), Err(DistillError::LabelsVersion(3))));
}

#[test]
fn labels_of_the_first_version_are_read() {
    let mut labels = sample();
    labels.prompts[0].reasoning = None;
    let second = labels.to_bytes().unwrap();
    // A row had five fields, and nothing stood in the sixth's place.
    let row = second.len() - 1;
    let mut first = second[..row].to_vec();
    let header = first.windows(2).rposition(|w| w == [0x96, 0x95]).unwrap();
    (first[1], first[header]) = (1, 0x95);
    assert_eq!((second[row], Labels::from_bytes(&first).unwrap()), (0xc0, labels));
}

#[test]
fn every_truncation_is_refused() {
    let bytes = sample().to_bytes().unwrap();
    for keep in 0..bytes.len() {
        assert!(
            Labels::from_bytes(&bytes[..keep]).is_err(),
            "{keep} of {} bytes were accepted",
            bytes.len()
        );
    }
}

proptest! {
    #[test]
    fn garbage_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..200), at in 0usize..150, to in any::<u8>()) {
        let _ = Labels::from_bytes(&bytes);
        let mut spoiled = sample().to_bytes().unwrap();
        let place = at % spoiled.len();
        spoiled[place] = to;
        if let Ok(labels) = Labels::from_bytes(&spoiled) {
            prop_assert_eq!(labels.prompts.len() , labels.prompts.len().min(1));
        }
    }
}
/// A blob of `prompts` rows, each of nothing, with `announced` in the list's place.
fn rows(prompts: usize, announced: u32) -> Vec<u8> {
    let mut labels = sample();
    labels.prompts.clear();
    let mut bytes = labels.to_bytes().unwrap();
    assert_eq!(bytes.pop(), Some(0x90), "an empty list ends the blob");
    bytes.push(0xdd);
    bytes.extend(announced.to_be_bytes());
    let row =
        [&[0x96, 0x95, 0xa0, 0xa0, 0xc0, 0xc0, 0x90, 0xa0, 0xc2][..], &[0xc4, 0, 0xc4, 0, 0xc0]];
    bytes.extend(row.concat().repeat(prompts));
    bytes
}

#[test]
fn lists_end_before_they_outgrow_their_bytes() {
    assert_eq!(Labels::from_bytes(&rows(3, 3)).unwrap().prompts.len(), 3);
    let announced = Labels::from_bytes(&rows(3, u32::MAX)).unwrap_err().to_string();
    assert!(announced.contains("does not decode"), "{announced}");
    let many = MAX_PROMPTS + 1;
    let error = Labels::from_bytes(&rows(many, many as u32)).unwrap_err().to_string();
    assert!(error.contains("more than 1048576 entries"), "{error}");
}

#[test]
fn a_token_with_more_probabilities_than_are_kept_is_refused() {
    let mut labels = sample();
    let whole = vec![(0, -9.0); MAX_TOP_K as usize];
    labels.prompts[0].tokens[0].top = whole;
    let mut bytes = labels.to_bytes().unwrap();
    assert!(Labels::from_bytes(&bytes).is_ok());
    let count = (MAX_TOP_K as u16).to_le_bytes();
    let at = bytes.windows(2).position(|w| w == count).unwrap();
    bytes[at] = 1;
    let error = Labels::from_bytes(&bytes).unwrap_err().to_string();
    assert!(error.contains("more than 4096 probabilities"), "{error}");
}
