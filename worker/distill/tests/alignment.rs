//! Alignment of the teacher's probabilities to the student's tokens, against enumeration by plain
//! tokenisation.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]

use candle_core::{DType, Device};
use proptest::prelude::*;
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use uspx_distill::align::Soft;
use uspx_distill::chunks::{Chunk, chunks, joined};
use uspx_distill::labels::{piece_of, vocabulary};
use uspx_distill::losses::{Alm, Gold, Hybrid, Lesson, Loss, lesson};
use uspx_distill::{Keeping, Labels, Piece, PromptLabels, TokenLabel, dream, make_labels};
use uspx_domain::{Digest, Fingerprint, Prompt};
use uspx_model::chat::{Bounds, Chat};
use uspx_model::{LoadedModel, NoProgress, Placement};

fn nano(which: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../cli/assets/nano").join(which)
}

fn chats() -> &'static (Chat, Chat) {
    static CHATS: OnceLock<(Chat, Chat)> = OnceLock::new();
    CHATS.get_or_init(|| {
        (Chat::open(&nano("teacher")).unwrap(), Chat::open(&nano("student")).unwrap())
    })
}

fn read(
    labels: &Labels,
    prompt: &PromptLabels,
    student: &Chat,
    vocabulary: Digest,
) -> uspx_distill::Result<Lesson<Soft>> {
    lesson(&Hybrid, labels, prompt, student, vocabulary)
}

fn prompt(reference: &str) -> Prompt {
    Prompt {
        id: "p".into(),
        prompt: "Say it".into(),
        reference: Some(reference.into()),
        ..Prompt::default()
    }
}

/// Labels of `answer` with made-up probabilities: at each teacher token its own, and those that
/// `others` names.
fn made_up(answer: &str, own: f32, others: &[(u32, f32)]) -> Labels {
    let (teacher, _) = chats();
    let sequence = teacher.sequence(&prompt(answer), Some(answer)).unwrap();
    let ids = &sequence.ids[sequence.response_start..];
    let mut pieces: Vec<(u32, Piece)> = Vec::new();
    let mut place = |id: u32| match pieces.iter().position(|(p, _)| *p == id) {
        Some(at) => at as u32,
        None => {
            pieces.push((id, piece_of(teacher, id)));
            pieces.len() as u32 - 1
        }
    };
    let (mut tokens, mut at) = (Vec::new(), 0);
    for &id in ids {
        let length = match piece_of(teacher, id) {
            Piece::Text(bytes) => bytes.len() as u32,
            _ => 0,
        };
        let others: Vec<(u32, f32)> = others.iter().filter(|(o, _)| *o != id).copied().collect();
        let top: Vec<(u32, f32)> =
            std::iter::once((id, own)).chain(others).map(|(id, p)| (place(id), p.ln())).collect();
        let listed: f32 = top.iter().map(|(_, l)| l.exp()).sum();
        tokens.push(TokenLabel {
            piece: place(id),
            start: at,
            end: at + length,
            log_prob: own.ln(),
            top,
            tail: 1.0 - listed,
        });
        at += length;
    }
    let prompts = vec![PromptLabels {
        prompt: prompt(answer),
        answer: answer.into(),
        ended: true,
        reasoning: None,
        tokens,
    }];
    Labels {
        teacher: Fingerprint(Digest::of(b"t")),
        vocabulary: vocabulary(teacher),
        pieces,
        prompts,
    }
}

/// The student's next-token masses by enumerating the strings that the labels speak of, with plain
/// tokenisation.
fn enumerated(
    labels: &Labels,
    at: usize,
    span: (usize, usize),
    ids: &[u32],
    student: &Chat,
) -> (HashMap<u32, f64>, f64) {
    let answer = labels.prompts[0].answer.as_bytes();
    let tokens = &labels.prompts[0].tokens;
    let (mut masses, mut unknown) = (HashMap::new(), 0.0);
    let mut index =
        tokens.iter().position(|t| t.end as usize > span.0 || t.start == t.end).unwrap();
    let mut reached = 1.0;
    loop {
        let token = &tokens[index];
        let mut onward = None;
        let listed: f64 = token.top.iter().map(|(_, l)| f64::from(*l).exp()).sum();
        unknown += reached * (1.0 - listed);
        for (piece, log_prob) in &token.top {
            let mass = reached * f64::from(*log_prob).exp();
            if *piece == token.piece && (token.end as usize) < span.1 {
                onward = Some(mass);
                continue;
            }
            let mut text = answer[..token.start as usize].to_vec();
            let ends = match labels.piece(*piece).unwrap() {
                Piece::Text(bytes) => {
                    text.extend(bytes);
                    false
                }
                _ => true,
            };
            if *piece == token.piece {
                *masses.entry(ids[at]).or_default() += mass;
            } else if !text.starts_with(&answer[..span.0]) || (text.len() == span.0 && !ends) {
                // Contradicts the answer's bytes, or says nothing beyond them.
                if !ends && answer.starts_with(&text) {
                    unknown += mass;
                }
            } else {
                let mut whole = student.encode(std::str::from_utf8(&text).unwrap()).unwrap();
                if ends {
                    whole.push(*student.ends().last().unwrap())
                }
                if whole.starts_with(&ids[..at]) {
                    *masses.entry(whole[at]).or_default() += mass;
                }
            }
        }
        match onward {
            Some(mass) => (reached, index) = (mass, index + 1),
            None => break,
        }
    }
    let total: f64 = masses.values().sum::<f64>() + unknown;
    masses.values_mut().for_each(|m| *m /= total);
    (masses, unknown / total)
}

#[test]
fn projection_agrees_with_enumeration() {
    let (teacher, student) = chats();
    // Tokens of plain text, so that every string of the enumeration is whole characters.
    let plain = |id: &u32| matches!(piece_of(teacher, *id), Piece::Text(b) if b.is_ascii());
    let end = *teacher.ends().last().unwrap();
    let others: Vec<(u32, f32)> =
        (33..2000).step_by(61).filter(plain).chain([end]).map(|id| (id, 0.01)).collect();
    let (mut spanning, mut inside) = (0, 0);
    let text = std::fs::read_to_string(nano("../prompts/cli-train.jsonl")).unwrap();
    let references = uspx_domain::parse_prompts(&text, false)
        .unwrap()
        .prompts
        .into_iter()
        .filter_map(|p| p.reference);
    for answer in references.filter(|r| r.is_ascii()).take(120) {
        let labels = made_up(&answer, 0.5, &others);
        let example = read(&labels, &labels.prompts[0], student, vocabulary(student)).unwrap();
        let ids = &example.sequence.ids[example.sequence.response_start..];
        let mut start = 0;
        for (at, id) in ids.iter().enumerate() {
            let length = match piece_of(student, *id) {
                Piece::Text(b) => b.len(),
                _ => 0,
            };
            let (want, _) = enumerated(&labels, at, (start, start + length), ids, student);
            let got: HashMap<u32, f64> =
                example.said[at].iter().map(|(i, m)| (*i, f64::from(*m))).collect();
            let keys: std::collections::BTreeSet<_> = want.keys().chain(got.keys()).collect();
            for key in keys {
                let (want, got) =
                    (want.get(key).copied().unwrap_or(0.0), got.get(key).copied().unwrap_or(0.0));
                assert!(
                    (want - got).abs() < 1e-5,
                    "`{answer}` at {at}, token {key}: {got} against {want}"
                );
            }
            let starts: Vec<usize> =
                labels.prompts[0].tokens.iter().map(|t| t.start as usize).collect();
            spanning += usize::from(starts.iter().any(|s| *s > start && *s < start + length));
            inside += usize::from(!starts.contains(&start));
            start += length;
        }
    }
    assert!(
        spanning > 20 && inside > 20,
        "the cases are not covered: {spanning} spanning, {inside} inside"
    );
}

#[test]
fn equal_vocabularies_give_back_the_teachers_distribution() {
    let teacher =
        LoadedModel::open(&nano("teacher"), Placement::floats(DType::F32, &Device::Cpu)).unwrap();
    let prompts = [prompt("ls -l /tmp"), prompt("grep -r 'naïve§' ./dir | wc -l")];
    let labels = make_labels(
        &teacher,
        &prompts,
        None,
        Keeping::Likeliest(16),
        (Bounds::answer(8), usize::MAX),
        &NoProgress,
    )
    .unwrap()
    .0;
    for prompt in &labels.prompts {
        let example = read(&labels, prompt, &teacher.chat, vocabulary(&teacher.chat)).unwrap();
        assert_eq!(example.said.len(), prompt.tokens.len());
        for (soft, token) in example.said.iter().zip(&prompt.tokens) {
            let mut want: Vec<(u32, f32)> =
                token.top.iter().map(|(p, l)| (labels.pieces[*p as usize].0, l.exp())).collect();
            let own = (labels.pieces[token.piece as usize].0, token.log_prob.exp());
            if !want.iter().any(|(id, _)| *id == own.0) {
                want.push(own);
            }
            want.sort_by_key(|(id, _)| *id);
            assert_eq!(soft.len(), want.len());
            for (got, want) in soft.iter().zip(want) {
                assert!(
                    got.0 == want.0 && (got.1 - want.1).abs() < 2e-3,
                    "{got:?} against {want:?}"
                );
            }
        }
        // By bytes alone, as if the vocabularies were not known to be equal: what stays is in the
        // same proportions.
        let by_bytes = read(&labels, prompt, &teacher.chat, Digest::of(b"another")).unwrap();
        for (one, other) in example.said.iter().zip(&by_bytes.said) {
            let ratios: Vec<f32> = other
                .iter()
                .map(|(id, m)| m / one.iter().find(|(i, _)| i == id).map_or(f32::NAN, |(_, m)| *m))
                .collect();
            assert!(
                !ratios.is_empty() && ratios.iter().all(|r| (r / ratios[0] - 1.0).abs() < 1e-3),
                "{ratios:?}"
            );
        }
    }
}

#[test]
fn the_teachers_probabilities_add_up() {
    let teacher =
        LoadedModel::open(&nano("teacher"), Placement::floats(DType::F32, &Device::Cpu)).unwrap();
    let mut asked = prompt("x");
    asked.reference = None;
    asked.prompt = "Display help with emulator".into();
    let labels = make_labels(
        &teacher,
        &[prompt("tar -xf file.tar"), asked],
        None,
        Keeping::Likeliest(32),
        (Bounds::answer(24), usize::MAX),
        &NoProgress,
    )
    .unwrap()
    .0;
    assert_eq!(labels.prompts[0].answer, "tar -xf file.tar");
    assert_eq!(labels.prompts[1].answer, "emulator --help");
    assert!(labels.prompts[1].ended);
    for token in labels.prompts.iter().flat_map(|p| &p.tokens) {
        let sum: f32 = token.top.iter().map(|(_, l)| l.exp()).sum::<f32>() + token.tail;
        assert!((sum - 1.0).abs() < 1e-3, "{sum}");
        assert!(token.top.windows(2).all(|w| w[0].1 >= w[1].1));
    }
    let read = Labels::from_bytes(&labels.to_bytes().unwrap()).unwrap();
    assert_eq!(read, labels);
}

#[test]
fn an_answer_cut_short_teaches_no_end() {
    let teacher =
        LoadedModel::open(&nano("teacher"), Placement::floats(DType::F32, &Device::Cpu)).unwrap();
    let mut asked = prompt("x");
    asked.reference = None;
    asked.prompt = "Display help with emulator".into();
    let labels = make_labels(
        &teacher,
        &[asked],
        None,
        Keeping::Likeliest(8),
        (Bounds::answer(2), usize::MAX),
        &NoProgress,
    )
    .unwrap()
    .0;
    let (_, student) = chats();
    let example = read(&labels, &labels.prompts[0], student, vocabulary(student)).unwrap();
    assert!(!labels.prompts[0].ended);
    assert!(!student.ends().contains(example.sequence.ids.last().unwrap()));
    assert_eq!(example.said.len(), example.sequence.response_len());
}

/// The tokenisation bias of a chunk's end, by plain tokenisation of whole texts.
fn bias(labels: &Labels, chunk: &Chunk, ids: &[u32], student: &Chat) -> (f64, f64) {
    let prompt = &labels.prompts[0];
    let answer = prompt.answer.as_bytes();
    let last = &prompt.tokens[chunk.teacher.end - 1];
    let fixed = &ids[..chunk.student.end];
    let keeps = |before: u32, said: &[u8]| {
        let text = [&answer[..before as usize], said].concat();
        student.encode(std::str::from_utf8(&text).unwrap()).unwrap().starts_with(fixed)
    };
    let others = |token: &TokenLabel| -> Vec<(Vec<u8>, f64)> {
        let others = token.top.iter().filter(|(piece, _)| *piece != token.piece);
        let text = |(piece, log_prob): &(u32, f32)| match labels.piece(*piece).unwrap() {
            Piece::Text(bytes) => Some((bytes.clone(), f64::from(*log_prob).exp())),
            _ => None,
        };
        others.filter_map(text).collect()
    };
    let own = f64::from(last.log_prob).exp();
    let bytes = &answer[last.start as usize..last.end as usize];
    let longer: Vec<(Vec<u8>, f64)> =
        others(last).into_iter().filter(|(said, _)| said.starts_with(bytes)).collect();
    let whole = own + longer.iter().map(|(_, mass)| mass).sum::<f64>();
    let ours = longer.iter().filter(|(said, _)| keeps(last.start, said));
    let next = prompt.tokens.get(chunk.teacher.end).map(others).unwrap_or_default();
    let theirs = next.iter().filter(|(said, _)| !keeps(last.end, said));
    let sum = |masses: &mut dyn Iterator<Item = f64>| masses.sum::<f64>() / whole;
    (sum(&mut ours.map(|(_, mass)| *mass)), sum(&mut theirs.map(|(_, mass)| own * mass)))
}

fn references() -> Vec<String> {
    let text = std::fs::read_to_string(nano("../prompts/cli-train.jsonl")).unwrap();
    let prompts = uspx_domain::parse_prompts(&text, false).unwrap().prompts;
    prompts.into_iter().filter_map(|p| p.reference).filter(|r| r.is_ascii()).collect()
}

#[test]
fn chunks_end_where_both_tokenizers_mean_nearly_the_same() {
    let (teacher, student) = chats();
    let vocabulary = vocabulary(student);
    let (mut ours, mut theirs, mut several) = (0, 0, 0);
    for answer in references().iter().take(400) {
        // Tokens that go on beyond one of the answer's.
        let sequence = teacher.sequence(&prompt(answer), Some(answer)).unwrap();
        let text = |id: u32| match piece_of(teacher, id) {
            Piece::Text(bytes) if bytes.is_ascii() => bytes,
            _ => vec![],
        };
        let used: Vec<Vec<u8>> =
            sequence.ids[sequence.response_start..].iter().map(|id| text(*id)).collect();
        let goes_on = |id: &u32| {
            let bytes = text(*id);
            used.iter().any(|u| !u.is_empty() && bytes.len() > u.len() && bytes.starts_with(u))
        };
        let others: Vec<(u32, f32)> =
            (0..2000).filter(goes_on).step_by(3).take(20).map(|id| (id, 0.02)).collect();
        let labels = made_up(answer, 0.3, &others);
        let labelled = &labels.prompts[0];
        let found = lesson(&Alm, &labels, labelled, student, vocabulary).unwrap();
        let ids = &found.sequence.ids[found.sequence.response_start..];
        let spans = |chat: &Chat, ids: &[u32]| -> Vec<(u32, u32)> {
            let length = |id: &u32| match piece_of(chat, *id) {
                Piece::Text(bytes) => bytes.len() as u32,
                _ => 0,
            };
            let ends = ids.iter().scan(0, |at, id| {
                *at += length(id);
                Some((*at - length(id), *at))
            });
            ends.collect()
        };
        let all =
            chunks(&spans(teacher, &sequence.ids[sequence.response_start..]), &spans(student, ids));
        let want = joined(all, |chunk| {
            let (one, other) = bias(&labels, chunk, ids, student);
            (ours, theirs) = (ours + u32::from(one > 0.1), theirs + u32::from(other > 0.1));
            Ok::<_, std::convert::Infallible>(one.max(other) <= 0.1)
        });
        let want = want.unwrap();
        assert_eq!(found.said.len(), want.len(), "`{answer}`: {:?}, {want:?}", found.said);
        for (found, want) in found.said.iter().zip(&want) {
            assert_eq!(found.tokens, want.student, "`{answer}`");
            let log_prob = want.teacher.len() as f64 * f64::from(0.3f32.ln());
            assert!((found.log_prob - log_prob).abs() < 1e-9, "`{answer}`");
            several += u32::from(want.teacher.len() != want.student.len());
        }
        let tokens: usize = found.said.iter().map(|chunk| chunk.tokens.len()).sum();
        assert_eq!(tokens, ids.len(), "every token is in a chunk");
    }
    assert!(ours > 20 && theirs > 20 && several > 20, "{ours}, {theirs}, {several}");
}

#[test]
fn tokens_are_matched_by_their_bytes_and_the_others_sorted() {
    let (teacher, student) = chats();
    let bytes = |chat: &Chat, id: u32| match piece_of(chat, id) {
        Piece::Text(bytes) => Some(bytes),
        _ => None,
    };
    let of_student: std::collections::BTreeSet<Vec<u8>> =
        (0..student.tokens().len() as u32).filter_map(|id| bytes(student, id)).collect();
    let others: Vec<(u32, f32)> =
        (33..2000).step_by(61).zip(1..).map(|(id, n)| (id, 0.4 / 2f32.powi(n))).collect();
    let (mut matched, mut sorted, mut merged) = (0, 0, 0);
    for answer in references().iter().take(120) {
        let labels = made_up(answer, 0.5, &others);
        let gold = Gold::new(std::slice::from_ref(&labels), student);
        let labelled = &labels.prompts[0];
        let found = lesson(&gold, &labels, labelled, student, vocabulary(student)).unwrap();
        let tokens: usize = found.said.iter().map(|chunk| chunk.tokens.len()).sum();
        assert_eq!(tokens, found.sequence.response_len(), "every token is in a chunk");
        let mut at = 0;
        for chunk in &found.said {
            let text: usize = found.sequence.ids[found.sequence.response_start..]
                [chunk.tokens.clone()]
            .iter()
            .map(|id| bytes(student, *id).map_or(0, |b| b.len()))
            .sum();
            at += text;
            let place = labelled
                .tokens
                .iter()
                .rposition(|t| t.end as usize == at && (t.start < t.end) == (text > 0));
            let label = &labelled.tokens[place.unwrap()];
            let first = labelled.tokens.iter().position(|t| t.start as usize == at - text);
            let before = place.unwrap() - first.unwrap().min(place.unwrap());
            let reached = 0.5f64.powi(if text > 0 { before as i32 } else { 0 });
            merged += u32::from(text > 0 && before > 0);
            let (mut want, mut rest) = (HashMap::new(), Vec::new());
            for (piece, log_prob) in &label.top {
                let mass = reached * f64::from(*log_prob).exp();
                let id = labels.pieces[*piece as usize].0;
                match bytes(teacher, id) {
                    Some(text) if of_student.contains(&text) => {
                        want.insert(text, mass);
                    }
                    Some(_) => rest.push(mass),
                    None if teacher.ends().contains(&id) => {
                        want.insert(b"the end".to_vec(), mass);
                    }
                    None => rest.push(mass),
                }
            }
            assert_eq!(chunk.matched.len(), want.len(), "`{answer}`");
            for (id, mass) in &chunk.matched {
                let text = bytes(student, *id).unwrap_or(b"the end".to_vec());
                assert!((want[&text] - mass).abs() < 1e-6, "`{answer}`: {mass}");
            }
            assert_eq!(chunk.sorted.len(), rest.len(), "`{answer}`");
            for (got, want) in chunk.sorted.iter().zip(&rest) {
                assert!((got - want).abs() < 1e-6, "`{answer}`: {got} against {want}");
            }
            assert!(chunk.sorted.windows(2).all(|w| w[0] >= w[1]));
            (matched, sorted) = (matched + want.len(), sorted + rest.len());
        }
    }
    assert!(matched > 100 && sorted > 100 && merged > 20, "{matched}, {sorted}, {merged}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]
    #[test]
    fn any_answer_gives_masses_of_at_most_one(answer in "[a-z /|-]{0,6}(\\PC|é|漢|🦀|\u{301}){1,12}", own in 0.05f32..0.6) {
        prop_assume!(!answer.trim().is_empty());
        let (_, student) = chats();
        // Bytes of split characters are among the candidates.
        let others: Vec<(u32, f32)> = (0..2000).step_by(83).map(|id| (id, 0.015)).collect();
        let labels = made_up(&answer, own, &others);
        prop_assume!(labels.prompts[0].tokens.last().is_some_and(|t| t.end as usize == answer.len()));
        let example = read(&labels, &labels.prompts[0], student, vocabulary(student)).unwrap();
        prop_assert_eq!(example.said.len(), example.sequence.response_len());
        for row in &example.said {
            let sum: f32 = row.iter().map(|(_, m)| m).sum();
            prop_assert!(sum <= 1.0 + 1e-5, "sum {}", sum);
            prop_assert!(row.iter().all(|(id, m)| *m >= 0.0 && (*id as usize) < student.tokens().len()));
            prop_assert!(row.windows(2).all(|w| w[0].0 < w[1].0));
        }
        // The answer's own token keeps what the teacher gives it, wherever both stand at the same
        // byte.
        let first = example.sequence.ids[example.sequence.response_start];
        prop_assert!(example.said[0].iter().any(|(id, m)| *id == first && *m > 0.0));
    }
}

/// The shipped teacher, and prompts of a person.
fn dreamer() -> (LoadedModel, Vec<Prompt>) {
    let floats = Placement::floats(DType::F32, &Device::Cpu);
    let text = std::fs::read_to_string(nano("../prompts/cli-train.jsonl")).unwrap();
    let prompts = uspx_domain::parse_prompts(&text, false).unwrap().prompts;
    (LoadedModel::open(&nano("teacher"), floats).unwrap(), prompts)
}

#[test]
fn rounds_of_dreams_are_told_as_one_work_and_repeat_no_prompt() {
    let (teacher, prompts) = dreamer();
    let told = std::sync::Mutex::new(Vec::new());
    let note = |done: u64, total: u64| {
        told.lock().unwrap().push((done, total));
        true
    };
    let how = uspx_domain::Dreams { rounds: 3, seed: 5 };
    let all = uspx_distill::dreams(&teacher, &prompts[..10], None, (how, 40), &note).unwrap();
    let told = told.into_inner().unwrap();
    assert!(told.is_sorted() && told.iter().all(|(_, total)| *total == 30), "{told:?}");
    assert_eq!(told.last(), Some(&(30, 30)));
    let texts: std::collections::HashSet<&str> = all.iter().map(|p| p.prompt.as_str()).collect();
    let ids: std::collections::HashSet<&str> = all.iter().map(|p| p.id.as_str()).collect();
    assert_eq!((texts.len(), ids.len()), (all.len(), all.len()));
    assert!(all.len() > 8, "{} of 30", all.len());
}

#[test]
fn dreams_are_new_whole_and_repeatable() {
    let (teacher, prompts) = dreamer();
    let dreams = dream(&teacher, &prompts[..24], None, 80, 9, &NoProgress).unwrap();
    assert!(dreams.len() > 8, "{} of 24", dreams.len());
    for dreamt in &dreams {
        assert!(prompts[..24].iter().all(|p| p.prompt != dreamt.prompt));
        // The prompt begins as its origin does.
        let origin = prompts.iter().find(|p| dreamt.id.ends_with(&p.id)).unwrap();
        assert_eq!(dreamt.prompt.chars().next(), origin.prompt.chars().next());
        assert!(dreamt.reference.as_ref().is_some_and(|r| !r.contains("<|")));
    }
    assert_eq!(dreams, dream(&teacher, &prompts[..24], None, 80, 9, &NoProgress).unwrap());
    assert_ne!(dreams, dream(&teacher, &prompts[..24], None, 80, 10, &NoProgress).unwrap());
}
