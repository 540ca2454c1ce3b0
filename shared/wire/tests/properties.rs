//! Whatever is written can be read again, and no bytes make a reader panic.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod values;

use proptest::prelude::*;
use uspx_domain::*;
use uspx_wire::*;

/// The envelope of version 1 around bytes.
fn enveloped(kind: &str, body: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0x83, 0xa1, b'v', 1, 0xa4];
    bytes.extend(b"kind");
    bytes.push(0xa0 + kind.len() as u8);
    bytes.extend(kind.as_bytes());
    bytes.push(0xa4);
    bytes.extend(b"body");
    bytes.extend([0xc6]);
    bytes.extend((body.len() as u32).to_be_bytes());
    bytes.extend(body);
    bytes
}

fn prompts() -> impl Strategy<Value = Vec<Prompt>> {
    let prompt =
        (".{1,12}", ".{0,40}", proptest::option::of(".{0,20}"), proptest::option::of(".{0,9}"))
            .prop_map(|(id, prompt, reference, system)| Prompt {
                id,
                prompt,
                reference,
                system,
                ..Prompt::default()
            });
    proptest::collection::vec(prompt, 0..4)
}

fn unit() -> impl Strategy<Value = Unit> {
    let kind = proptest::sample::select(UnitKind::ALL);
    (kind, any::<u32>(), any::<u32>()).prop_map(|(kind, layer, index)| Unit { kind, layer, index })
}

/// Masks of any shape, of all kinds of unit: lists that a bitmap cannot say too.
fn mask() -> impl Strategy<Value = Mask> {
    let ascending = proptest::collection::btree_set(0..3000u32, 0..400)
        .prop_map(|set| set.into_iter().collect());
    let sparse = proptest::collection::vec(any::<u32>(), 0..4);
    let layers = proptest::collection::vec(prop_oneof![ascending, sparse], 0..4);
    let keep =
        proptest::collection::btree_map(proptest::sample::select(UnitKind::ALL), layers, 0..5);
    let model = Fingerprint(Digest::of(b"model"));
    (any::<u32>(), keep).prop_map(move |(version, keep)| Mask {
        version,
        model,
        keep: KeepLists(keep),
    })
}

fn shape() -> impl Strategy<Value = ModelShape> {
    // Within what a model may have; beyond it see reading.rs.
    let dense = (0u32..1 << 20).prop_map(|channels| MlpShape::Dense { channels });
    let experts = (0u32..1 << 12, any::<u32>(), 0u32..1 << 13);
    let experts = experts.prop_map(|(experts, top_k, channels)| MlpShape::Experts {
        experts,
        top_k,
        channels,
    });
    let layer = ((0u32..1 << 12, 0u32..1 << 24), prop_oneof![dense, experts]);
    let layer = layer.prop_map(|((heads, features), mlp)| LayerShape { heads, mlp, features });
    proptest::collection::vec(layer, 0..6).prop_map(|layers| ModelShape { layers })
}

fn told() -> impl Strategy<Value = Told> {
    let told = (any::<Vec<u8>>(), any::<u64>());
    told.prop_map(|(name, tokens)| Told { blob: BlobRef::to(&name), tokens })
}

fn part() -> impl Strategy<Value = Part> {
    let round = (any::<u32>(), proptest::collection::vec(told(), 0..4));
    let round = round.prop_map(|(machines, told)| Round { machines, told });
    let machine = any::<(u32, u32)>().prop_map(|(at, of)| Place::Machine { at, of });
    let place = prop_oneof![machine, Just(Place::End)];
    let loss = proptest::sample::select(DistilLoss::ALL);
    let rest = (place, loss, any::<u32>());
    (proptest::collection::vec(round, 0..4), rest).prop_map(|(rounds, (place, loss, steps))| {
        let recipe = DistilRecipe {
            rank: steps,
            alpha: 0.5,
            epochs: steps,
            learning_rate: 0.0,
            batch_tokens: steps,
            teacher_weight: 1.0,
            seed: 7,
            loss,
            nf4: steps % 2 == 1,
        };
        Part { train: vec![BlobRef::to(b"l")], validation: vec![], recipe, rounds, steps, place }
    })
}

fn work() -> impl Strategy<Value = Work<Prompt>> {
    let blob = any::<Vec<u8>>().prop_map(|b| BlobRef::to(&b));
    prop_oneof![
        prompts().prop_map(|prompts| Work::Label(Label::of(prompts))),
        (
            prompts(),
            proptest::collection::vec(
                prop_oneof![unit().prop_map(Cut::Unit), mask().prop_map(Cut::Mask)],
                0..5
            )
        )
            .prop_map(|(prompts, cuts)| Work::Ablate(Ablate { prompts, cuts })),
        (prompts(), proptest::option::of(mask()), any::<[u32; 3]>()).prop_map(
            |(prompts, mask, numbers)| {
                let [top_k, max_new_tokens, max_reasoning_tokens] = numbers;
                let dreams = Dreams { rounds: top_k % 3, seed: top_k.into() };
                let dreams = if dreams.is_none() { Dreams::default() } else { dreams };
                let samples = max_new_tokens % 5;
                let least = (samples > 0).then_some(0.25);
                let answering =
                    Answering { samples, min_consistency: least, ..Answering::default() };
                Work::Label(Label {
                    prompts,
                    mask,
                    top_k,
                    max_new_tokens,
                    max_reasoning_tokens,
                    dreams,
                    answering,
                    seed: if samples > 0 { max_new_tokens.into() } else { 0 },
                })
            }
        ),
        part().prop_map(Work::Part),
        (prompts(), blob, 0u32..3, any::<u32>()).prop_map(|(prompts, b, tokens, reasoning)| {
            let answers = Answers { tokens, reasoning };
            let answers = if answers.is_none() { Answers::default() } else { answers };
            Work::Judge(Judge { prompts, subject: Subject::Adapted(b), answers })
        }),
    ]
}

fn skipped() -> impl Strategy<Value = Vec<Skipped>> {
    let reason = prop_oneof![
        any::<(u32, u32)>().prop_map(|(tokens, context)| SkipReason::TooLong { tokens, context }),
        Just(SkipReason::Template),
        any::<u32>().prop_map(|tokens| SkipReason::Unfinished { tokens }),
        any::<(u32, u32)>()
            .prop_map(|(agreeing, samples)| SkipReason::Inconsistent { agreeing, samples }),
        any::<u32>().prop_map(|millinats| SkipReason::Unlikely { millinats }),
        Just(SkipReason::Refused),
    ];
    let one = (".{1,12}", reason).prop_map(|(id, reason)| Skipped { id, reason });
    proptest::collection::vec(one, 0..4)
}

fn outcome() -> impl Strategy<Value = Outcome> {
    let values = || {
        proptest::collection::vec(
            proptest::num::f32::ANY.prop_filter("equal to itself", |v| !v.is_nan()),
            0..6,
        )
    };
    let statistic = || proptest::sample::select(Statistic::ALL);
    let column = (unit(), statistic(), values());
    let column = column.prop_map(|(unit, statistic, values)| Column { unit, statistic, values });
    let moments = (unit(), statistic(), values(), values(), values());
    let moments = moments.prop_map(|(Unit { kind, layer, .. }, statistic, x, xx, xt)| Moments {
        kind,
        layer,
        statistic,
        x,
        xx,
        xt,
    });
    prop_oneof![
        (proptest::collection::vec(column, 0..4), proptest::collection::vec(moments, 0..4))
            .prop_map(|(columns, moments)| Outcome::Scores(Deposit {
                prompts: vec![],
                columns,
                moments
            })),
        (values(), any::<Vec<u32>>(), any::<Vec<bool>>(), any::<Option<(u64, u64)>>()).prop_map(
            |(nats, bytes, right, pace)| {
                let pace = pace.map(|(tokens, micros)| Pace { tokens, micros });
                Outcome::Losses(vec![LossRow { prompts: vec![], nats, bytes, right, pace }])
            }
        ),
        (told(), proptest::option::of(0.0f32..9.0), any::<(u32, u32)>())
            .prop_map(|(told, loss, (epoch, left))| Outcome::Told { told, loss, epoch, left }),
        proptest::sample::select(FailureReason::ALL)
            .prop_map(|reason| Outcome::Failed(reason.into())),
    ]
}

proptest! {
    #[test]
    fn tasks_come_back_as_they_went(work in work(), epoch: u32, name: Vec<u8>) {
        let task = Task { id: TaskId::derived(&name), epoch, model: Fingerprint(Digest::of(&name)), work };
        let packed = pack_task(task.clone()).unwrap();
        prop_assert_eq!(decode::<Content<Task>>(&packed.message).unwrap(), Content::Inline(task));
    }

    #[test]
    fn answers_come_back_as_they_went(outcome in outcome(), skipped in skipped(), seams: u32, millis: u64) {
        let answer = Answer { millis, skipped, seams, ..values::answer(outcome) };
        let packed = pack_answer(answer.clone()).unwrap();
        prop_assert_eq!(decode::<Content<Answer>>(&packed.message).unwrap(), Content::Inline(answer));
    }

    #[test]
    fn masks_come_back_as_they_went(mask in mask()) {
        let message = MaskMessage { mask, ..values::mask_message() };
        prop_assert_eq!(decode::<MaskMessage>(&encode(&message).unwrap()).unwrap(), message);
    }

    #[test]
    fn heartbeats_come_back_as_they_went(shape in shape(), reads in prop::collection::btree_map(".{0,40}", any::<u16>(), 0..20)) {
        let mut heartbeat = HeartbeatMessage { reads, ..values::heartbeat() };
        heartbeat.models[0].shape = shape;
        prop_assert_eq!(decode::<HeartbeatMessage>(&encode(&heartbeat).unwrap()).unwrap(), heartbeat);
    }

    #[test]
    fn random_bytes_never_panic(bytes: Vec<u8>) {
        let _ = decode::<Content<Task>>(&bytes);
        let _ = decode::<StatusMessage>(&enveloped("status", &bytes));
        let _ = decode::<HeartbeatMessage>(&enveloped("heartbeat", &bytes));
        let _ = decode::<MaskMessage>(&enveloped("mask", &bytes));
        let _ = decode::<Content<Answer>>(&enveloped("answer", &bytes));
    }

    #[test]
    fn a_damaged_message_never_panics(at: prop::sample::Index, with: u8, which: prop::sample::Index) {
        fn damaged<M: Message>(message: &M, at: prop::sample::Index, with: u8) {
            let mut bytes = encode(message).unwrap().to_vec();
            let at = at.index(bytes.len());
            bytes[at] = with;
            let _ = decode::<M>(&bytes);
        }
        let (tasks, answers) = (values::tasks(), values::answers());
        damaged(&tasks[which.index(tasks.len())].1, at, with);
        damaged(&answers[which.index(answers.len())].1, at, with);
        damaged(&values::mask_message(), at, with);
        damaged(&values::heartbeat_with_speed(), at, with);
    }
}
