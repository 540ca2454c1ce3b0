//! Labels of drawn tokens: they do not depend on batches, survive their file, teach, and say in the mean
//! what the whole distribution says.

use super::{assets, open, prompts, short, trained_by};
use candle_core::{Device, Var};
use uspx_distill::labels::{piece_of, vocabulary};
use uspx_distill::losses::{Hybrid, Loss, lesson};
use uspx_distill::{Keeping, Labels, Piece, PromptLabels, TokenLabel, make_labels};
use uspx_domain::{Digest, Fingerprint, Prompt};
use uspx_model::NoProgress;
use uspx_model::chat::{Bounds, Chat};

fn sampled(count: usize, (seed, room): (u64, usize)) -> Labels {
    let (teacher, keeping) = (open("teacher"), Keeping::Sampled { draws: 50, seed });
    let together = (Bounds::answer(16), room);
    make_labels(&teacher, &prompts()[..count], None, keeping, together, &NoProgress).unwrap().0
}

/// The texts and shares of every place's draws.
fn drawn(labels: &Labels) -> Vec<Vec<(&Piece, f32)>> {
    let tokens = labels.prompts.iter().flat_map(|prompt| &prompt.tokens);
    tokens.map(|t| t.top.iter().map(|(at, l)| (labels.piece(*at).unwrap(), *l)).collect()).collect()
}

/// At how many places other tokens, or other shares of them, were drawn.
fn others(one: &Labels, other: &Labels) -> (usize, usize) {
    let (one, other) = (drawn(one), drawn(other));
    (one.iter().zip(&other).filter(|(one, other)| one != other).count(), other.len())
}

/// But for a draw that falls between two tokens: the model's last bits depend on the batch.
#[test]
fn draws_do_not_depend_on_what_is_labelled_together() {
    let together = sampled(12, (7, usize::MAX));
    for (count, room) in [(12, usize::MAX), (12, 1), (5, 100)] {
        let (apart, places) = others(&together, &sampled(count, (7, room)));
        println!("{count} answers, {room} tokens together: {apart} of {places} places differ");
        assert!(apart * 50 <= places && places > 25, "{apart} of {places}");
        assert!(apart == 0 || room != usize::MAX);
    }
    let (apart, places) = others(&together, &sampled(12, (8, usize::MAX)));
    assert!(apart * 2 > places, "{apart} of {places} with another seed");
}

#[test]
fn drawn_labels_survive_their_file() {
    let labels = sampled(12, (7, usize::MAX));
    assert_eq!(Labels::from_bytes(&labels.to_bytes().unwrap()).unwrap(), labels);
    for token in labels.prompts.iter().flat_map(|prompt| &prompt.tokens) {
        let sum: f32 = token.top.iter().map(|(_, l)| l.exp()).sum();
        assert!((sum - 1.0).abs() < 2e-3 && token.tail == 0.0, "{token:?}");
    }
    let missing = |t: &&TokenLabel| t.top.iter().all(|(piece, _)| *piece != t.piece);
    let tokens = labels.prompts.iter().flat_map(|prompt| &prompt.tokens);
    assert!(tokens.filter(missing).count() > 20, "the answer's tokens are always drawn");
}

#[test]
fn a_student_learns_from_drawn_labels() {
    let (_, summary) = trained_by(short(), &sampled(96, (7, usize::MAX)));
    assert!(summary.after < summary.before - 0.1, "{summary:?}");
}

/// Labels of "ls" that say the same everywhere: probabilities of the answer's own token, which is .2 likely,
/// and of two others.
fn made_up(teacher: &Chat, shares: [f64; 3]) -> Labels {
    let prompt = Prompt { id: "p".into(), prompt: "Say it".into(), ..Prompt::default() };
    let sequence = teacher.sequence(&prompt, Some("ls")).unwrap();
    let own = &sequence.ids[sequence.response_start..];
    let others = (300..).filter(|id| !own.contains(id)).take(2);
    let pieces: Vec<(u32, Piece)> =
        own.iter().copied().chain(others).map(|id| (id, piece_of(teacher, id))).collect();
    let (mut at, mut tokens) = (0, Vec::new());
    for piece in 0..own.len() as u32 {
        let length = match &pieces[piece as usize].1 {
            Piece::Text(bytes) => bytes.len() as u32,
            _ => 0,
        };
        let named = [piece, own.len() as u32, own.len() as u32 + 1];
        let kept = named.into_iter().zip(shares).filter(|(_, share)| *share > 0.0);
        let top = kept.map(|(piece, share)| (piece, share.ln() as f32)).collect();
        let (start, end, log_prob, tail) = (at, at + length, 0.2f32.ln(), 0.0);
        tokens.push(TokenLabel { piece, start, end, log_prob, top, tail });
        at += length;
    }
    let prompts = vec![PromptLabels { tokens, ..PromptLabels::text(prompt, "ls".into()) }];
    let teacher = (Fingerprint(Digest::of(b"t")), vocabulary(teacher));
    Labels { teacher: teacher.0, vocabulary: teacher.1, pieces, prompts }
}

/// The hybrid loss's gradient by the logits, for a student of the teacher's vocabulary.
fn gradient(chat: &Chat, labels: &Labels, weight: f32) -> Vec<f64> {
    let lesson = lesson(&Hybrid, labels, &labels.prompts[0], chat, vocabulary(chat)).unwrap();
    let hard = &lesson.sequence.ids[lesson.sequence.response_start..];
    let shape = (hard.len(), chat.tokens().len());
    let logits: Vec<f64> = (0..shape.0 * shape.1).map(|i| (i * 37 % 101) as f64 / 40.0).collect();
    let x = Var::from_vec(logits, shape, &Device::Cpu).unwrap();
    let loss = Hybrid.loss(&x, hard, &[&lesson], weight).unwrap();
    loss.backward().unwrap().get(&x).unwrap().flatten_all().unwrap().to_vec1().unwrap()
}

#[test]
fn the_hybrid_gradient_is_the_whole_distribution_s_in_the_mean() {
    let chat = Chat::open(&assets("nano/teacher")).unwrap();
    let whole = [0.2, 0.5, 0.3];
    for weight in [1.0, 0.5] {
        let want = gradient(&chat, &made_up(&chat, whole), weight);
        let mut mean = vec![0.0; want.len()];
        // All that two draws can be; in four of nine the answer's own token is not among them.
        for (first, second) in (0..9).map(|i| (i / 3, i % 3)) {
            let mut shares = [0.0; 3];
            shares[first] += 0.5;
            shares[second] += 0.5;
            let drawn = gradient(&chat, &made_up(&chat, shares), weight);
            for (mean, drawn) in mean.iter_mut().zip(drawn) {
                *mean += whole[first] * whole[second] * drawn;
            }
        }
        let apart = mean.iter().zip(&want).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
        let largest = want.iter().map(|g| g.abs()).fold(0.0, f64::max);
        assert!(apart < 1e-6 && largest > 0.1, "weight {weight}: {apart} apart of {largest}");
    }
}
