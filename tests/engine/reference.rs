//! Losses, logits, routing and exact effects against PyTorch.

use crate::support::{ModelReference, measured, nano, prompts, reference, root};
use candle_core::{DType, Device};
use uspx_domain::{Column, Estimator, ModelShape, Prompt, Statistic, UnitKind};
use uspx_model::batch::Batch;
use uspx_model::chat::Bounds;
use uspx_model::generate::{Choice, generate};
use uspx_model::taps::NoTaps;
use uspx_model::{Holding, LoadedModel, NoProgress, Placement};
use uspx_probe::evaluate::{Against, evaluate};

/// The 58 reference prompts: 48 command lines, 10 of arithmetic that are longer than the sliding
/// window.
fn reference_prompts() -> Vec<Prompt> {
    let mut all = prompts("cli-heldout.jsonl", 48);
    all.extend(prompts("math-heldout.jsonl", 10));
    all
}

fn agrees(model: &LoadedModel, wanted: &ModelReference) {
    let all = reference_prompts();
    assert_eq!(wanted.per_prompt.len(), all.len());
    let found = evaluate(
        model,
        &model.readable(&all).unwrap(),
        2048,
        &mut NoTaps,
        &Against::Nothing,
        &NoProgress,
    )
    .unwrap()
    .losses;
    for ((want, tokens), nats) in wanted.per_prompt.iter().zip(&found.prompts).zip(&found.nats) {
        assert_eq!(want.id, tokens.id);
        assert_eq!(want.response_tokens, tokens.tokens as usize, "{}", want.id);
        let relative = (f64::from(*nats) - want.loss_sum).abs() / want.loss_sum;
        assert!(relative < 1e-4, "{}: {nats} against {}", want.id, want.loss_sum);
    }
    let sum: f64 = found.nats.iter().take(48).copied().map(f64::from).sum();
    let tokens: u32 = found.prompts.iter().take(48).map(|p| p.tokens).sum();
    let bytes: u32 = found.bytes.iter().take(48).sum();
    assert!((sum / f64::from(tokens) - wanted.loss_per_token).abs() < 1e-4);
    assert!((sum / std::f64::consts::LN_2 / f64::from(bytes) - wanted.bits_per_byte).abs() < 1e-4);
}

fn tokens_and_logits_agree(model: &LoadedModel, wanted: &ModelReference) {
    let sequences = model.readable(&reference_prompts()).unwrap().sequences;
    let batch = Batch::new(&sequences.iter().collect::<Vec<_>>()).unwrap();
    let frame = model.transformer.frame(&batch).unwrap();
    let x = model.transformer.forward(&batch, &frame, &mut NoTaps).unwrap();
    let logits =
        model.transformer.logits(&x, &batch.last_rows()).unwrap().to_vec2::<f32>().unwrap();
    for ((sequence, want), logits) in sequences.iter().zip(&wanted.per_prompt).zip(&logits) {
        assert_eq!(sequence.ids[..8], want.first_ids[..], "{}", want.id);
        assert_eq!(sequence.response_start, want.prompt_tokens);
        for (id, value) in &want.last_logits_top5 {
            assert!(
                (f64::from(logits[*id as usize]) - value).abs() < 2e-3,
                "{} token {id}",
                want.id
            );
        }
    }
}

#[test]
fn teacher_losses_agree_with_transformers() {
    agrees(&nano("teacher"), &reference().teacher);
}

#[test]
fn student_losses_agree_with_transformers() {
    agrees(&nano("student"), &reference().student);
}

#[test]
fn tokens_and_last_logits_agree_with_transformers() {
    let reference = reference();
    tokens_and_logits_agree(&nano("teacher"), &reference.teacher);
    tokens_and_logits_agree(&nano("student"), &reference.student);
}

/// `[layer][unit]`: a statistic summed over the prompts.
fn table(
    columns: &[Column],
    shape: &ModelShape,
    kind: UnitKind,
    statistic: Statistic,
) -> Vec<Vec<f64>> {
    let mut table: Vec<Vec<f64>> = Vec::new();
    table.extend(shape.widths(kind).iter().map(|width| vec![f64::NAN; *width as usize]));
    for column in columns.iter().filter(|c| c.unit.kind == kind && c.statistic == statistic) {
        let sum = column.values.iter().copied().map(f64::from).sum();
        table[column.unit.layer as usize][column.unit.index as usize] = sum;
    }
    table
}

fn close(found: &[Vec<f64>], want: &[Vec<f64>], tolerance: f64, what: &str) {
    assert_eq!(found.len(), want.len());
    for (layer, (found, want)) in found.iter().zip(want).enumerate() {
        for (unit, (f, w)) in found.iter().zip(want).enumerate() {
            assert!((f - w).abs() <= tolerance, "{what} {layer}.{unit}: {f} against {w}");
        }
    }
}

#[test]
fn routing_agrees_with_transformers() {
    let (model, want) = (nano("teacher"), reference().teacher_probe);
    let sixteen = prompts("cli-heldout.jsonl", 16);
    assert!(sixteen.iter().zip(&want.prompts).all(|(p, id)| p.id == *id));
    let sixteen = model.readable(&sixteen).unwrap();
    let deposit = measured(Estimator::TRACE, &model, &sixteen, 1024);
    let shape = model.shape();
    let get = |statistic| table(&deposit.columns, &shape, UnitKind::Expert, statistic);
    close(&get(Statistic::COUNT), &want.expert_count, 0.0, "count");
    close(&get(Statistic::GATE_MASS), &want.expert_gate_mass, 2e-3, "gate mass");
}

#[test]
fn exact_effects_agree_with_transformers() {
    let (model, want) = (nano("teacher"), reference().teacher_probe);
    let (sixteen, shape) =
        (model.readable(&prompts("cli-heldout.jsonl", 16)).unwrap(), model.shape());
    for (kind, effects) in [
        (UnitKind::Expert, &want.expert_ban_reroute_effect_nats_per_token),
        (UnitKind::Head, &want.head_zero_effect_nats_per_token),
    ] {
        let deposit = measured(Estimator::EXACT, &model, &sixteen, 4096);
        let tokens: f64 = deposit.prompts.iter().map(|p| f64::from(p.tokens)).sum();
        let mut found = table(&deposit.columns, &shape, kind, Statistic::EXACT);
        found.iter_mut().flatten().for_each(|v| *v /= tokens);
        close(&found, effects, 1e-3, "effect");
    }
    let clean = evaluate(&model, &sixteen, 4096, &mut NoTaps, &Against::Nothing, &NoProgress)
        .unwrap()
        .losses;
    let tokens: f64 = clean.prompts.iter().map(|p| f64::from(p.tokens)).sum();
    let loss = clean.nats.iter().copied().map(f64::from).sum::<f64>() / tokens;
    assert!((loss - want.clean_loss_per_token).abs() < 1e-4);
}

#[test]
fn batching_does_not_change_a_loss() {
    let model = nano("teacher");
    let some = model.readable(&prompts("math-heldout.jsonl", 6)).unwrap();
    let alone =
        evaluate(&model, &some, 1, &mut NoTaps, &Against::Nothing, &NoProgress).unwrap().losses;
    let together = evaluate(&model, &some, 1 << 20, &mut NoTaps, &Against::Nothing, &NoProgress)
        .unwrap()
        .losses;
    for (a, b) in alone.nats.iter().zip(&together.nats) {
        assert!((a - b).abs() < 1e-3 * a.abs(), "{a} against {b}");
    }
}

#[test]
fn cached_decoding_gives_the_tokens_of_whole_forward_passes() {
    for which in ["teacher", "student"] {
        let model = nano(which);
        let asked: Vec<_> = prompts("cli-heldout.jsonl", 4)
            .iter()
            .chain(&prompts("math-heldout.jsonl", 2))
            .map(|p| model.chat.sequence(p, None).unwrap())
            .collect();
        let all: Vec<_> = asked.iter().collect();
        let answers = generate(
            &model,
            &all,
            Bounds::answer(40),
            &mut Choice::Greedy,
            &mut NoTaps,
            &mut |_, _, _| {},
        )
        .unwrap();
        for (sequence, answer) in asked.iter().zip(&answers) {
            let mut ids = sequence.ids.clone();
            let mut greedy = Vec::new();
            for _ in 0..40 {
                let batch = Batch::new(&[&uspx_model::batch::Sequence {
                    response_start: ids.len(),
                    ids: ids.clone(),
                }])
                .unwrap();
                let frame = model.transformer.frame(&batch).unwrap();
                let x = model.transformer.forward(&batch, &frame, &mut NoTaps).unwrap();
                let logits = model.transformer.logits(&x, &batch.last_rows()).unwrap();
                let next = logits.argmax(1).unwrap().to_vec1::<u32>().unwrap()[0];
                if model.chat.ends().contains(&next) {
                    break;
                }
                greedy.push(next);
                ids.push(next);
            }
            assert_eq!(answer.ids, greedy, "{which}");
        }
    }
}

/// Streamed, and with key-value caches that do not fit in memory, decoding gives the same tokens.
#[test]
fn streamed_decoding_gives_the_same_tokens() {
    let asked = prompts("cli-heldout.jsonl", 5);
    let decoded =
        [(Holding::Stored, 1 << 30), (Holding::Streamed, 1 << 30), (Holding::Streamed, 10_000)]
            .map(|(holding, boundaries)| {
                let mut placement = Placement::new(holding, DType::F32, &Device::Cpu);
                placement.boundaries = boundaries;
                let model =
                    LoadedModel::open(&root().join("cli/assets/nano/teacher"), placement).unwrap();
                let sequences: Vec<_> =
                    asked.iter().map(|p| model.chat.sequence(p, None).unwrap()).collect();
                let sequences: Vec<_> = sequences.iter().collect();
                let answers = generate(
                    &model,
                    &sequences,
                    Bounds::answer(16),
                    &mut Choice::Greedy,
                    &mut NoTaps,
                    &mut |_, _, _| {},
                );
                answers.unwrap().into_iter().map(|a| a.ids).collect::<Vec<_>>()
            });
    assert!(decoded[0].iter().any(|ids| ids.len() > 4));
    assert_eq!(decoded[0], decoded[1]);
    assert_eq!(decoded[0], decoded[2]);
}
