//! What is refused, what is passed over, and that whatever is written can be read again.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod values;

use proptest::prelude::*;
use serde::Serialize;
use serde_bytes::ByteBuf;
use uspx_domain::*;
use uspx_wire::*;

#[derive(Serialize)]
struct RawEnvelope {
    v: u16,
    kind: &'static str,
    body: ByteBuf,
}

fn enveloped(v: u16, kind: &'static str, body: Vec<u8>) -> Vec<u8> {
    rmp_serde::to_vec_named(&RawEnvelope { v, kind, body: ByteBuf::from(body) }).unwrap()
}

#[test]
fn a_newer_version_is_refused_naming_what_to_upgrade() {
    let error = decode::<TaskMessage>(&enveloped(2, "task", b"whatever".to_vec())).unwrap_err();
    assert!(matches!(error, WireError::Newer { kind: "task", found: 2, known: 1, .. }), "{error:?}");
    let text = error.to_string();
    assert!(text.contains("upgrade uspx on this machine") && text.contains(env!("CARGO_PKG_VERSION")), "{text}");
    let zero = decode::<TaskMessage>(&enveloped(0, "task", vec![]));
    assert_eq!(zero, Err(WireError::NoSuchVersion { kind: "task", found: 0 }));
}

#[test]
fn another_kind_is_refused() {
    let bytes = encode(&values::hello()).unwrap();
    let error = decode::<TaskMessage>(&bytes).unwrap_err();
    assert_eq!(error, WireError::Kind { expected: "task", found: "hello".into() });
}

#[test]
fn unknown_fields_of_a_known_version_are_passed_over() {
    #[derive(Serialize)]
    struct LaterHello {
        #[serde(flatten)]
        known: HelloMessage,
        battery_percent: u8,
        nested: Vec<Vec<u8>>,
    }
    let later = LaterHello { known: values::hello(), battery_percent: 80, nested: vec![vec![1], vec![]] };
    let bytes = enveloped(1, "hello", rmp_serde::to_vec_named(&later).unwrap());
    assert_eq!(decode::<HelloMessage>(&bytes).unwrap(), values::hello());
}

/// What an older coordinator does with an answer that skips prompts: it reads it, and its check finds them missing.
#[test]
fn skipped_prompts_are_a_field_that_older_readers_pass_over() {
    #[derive(serde::Deserialize)]
    struct OlderAnswer {
        outcome: Outcome,
    }
    #[derive(serde::Deserialize)]
    enum OlderContent {
        #[serde(rename = "inline")]
        Inline(OlderAnswer),
    }
    #[derive(serde::Deserialize)]
    struct OlderMessage {
        answer: OlderContent,
    }
    #[derive(serde::Deserialize)]
    struct Sealed {
        v: u16,
        body: ByteBuf,
    }
    let (_, message) = values::answers().into_iter().find(|(name, _)| name == "answer-skipped").unwrap();
    let sealed: Sealed = rmp_serde::from_slice(&encode(&message).unwrap()).unwrap();
    assert_eq!(sealed.v, 1);
    let OlderContent::Inline(older) = rmp_serde::from_slice::<OlderMessage>(&sealed.body).unwrap().answer;
    let Outcome::Losses(rows) = older.outcome else { panic!("losses were written") };
    assert_eq!(rows[0].prompts.len(), 1);
}

#[test]
fn an_unknown_variant_is_refused_without_showing_text() {
    let body = rmp_serde::to_vec_named(&std::collections::BTreeMap::from([("task", "the secret prompt")])).unwrap();
    let error = decode::<TaskMessage>(&enveloped(1, "task", body)).unwrap_err();
    assert_eq!(error, WireError::Body { kind: "task", flaw: Flaw::Fields });
    assert!(!format!("{error} {error:?}").contains("secret"));
}

#[test]
fn deep_nesting_is_refused() {
    let mut body = vec![0x81, 0xa1, b'x'];
    body.extend(std::iter::repeat_n(0x91, 100_000));
    body.push(0xc0);
    let error = decode::<HelloMessage>(&enveloped(1, "hello", body)).unwrap_err();
    assert_eq!(error, WireError::Body { kind: "hello", flaw: Flaw::TooDeep });
    let error = decode::<HelloMessage>(&[0x91; 100_000]).unwrap_err();
    assert!(matches!(error, WireError::Envelope(_)), "{error}");
}

#[test]
fn lengths_that_lie_take_no_memory() {
    for claim in [[0xdd, 0xff, 0xff, 0xff, 0xff], [0xdf, 0xff, 0xff, 0xff, 0xff], [0xc6, 0xff, 0xff, 0xff, 0xff]] {
        decode::<HelloMessage>(&claim).unwrap_err();
        let mut body = vec![0x81, 0xa6];
        body.extend(b"models");
        body.extend(claim);
        decode::<HelloMessage>(&enveloped(1, "hello", body)).unwrap_err();
    }
}

#[test]
fn too_large_and_trailing_are_refused() {
    let big = vec![0; MAX_MESSAGE + 1];
    assert!(matches!(decode::<TaskMessage>(&big), Err(WireError::TooLarge { .. })));
    let mut hello = values::hello();
    hello.device = "x".repeat(MAX_MESSAGE);
    assert!(matches!(encode(&hello), Err(WireError::TooLarge { .. })));
    let mut bytes = encode(&values::hello()).unwrap().to_vec();
    bytes.push(0xc0);
    assert_eq!(decode::<HelloMessage>(&bytes), Err(WireError::Envelope(Flaw::Trailing)));
}

#[test]
fn every_cut_of_a_message_is_refused() {
    let bytes = encode(&values::status()).unwrap();
    for end in 0..bytes.len() {
        decode::<StatusMessage>(&bytes[..end]).unwrap_err();
    }
}

fn big_answer() -> Answer {
    let unit = Unit { kind: UnitKind::Channel, layer: 0, index: 0 };
    let columns = vec![Column { unit, statistic: Statistic::ATP, values: vec![0.1; 80_000] }];
    values::answer(Outcome::Scores(Deposit { columns, ..Deposit::default() }))
}

#[test]
fn large_content_becomes_a_blob_and_a_small_message() {
    let packed = pack_answer(big_answer()).unwrap();
    let (reference, blob) = packed.blob.unwrap();
    assert!(blob.len() > INLINE_LIMIT && packed.message.len() < 400);
    let message: AnswerMessage = decode(&packed.message).unwrap();
    assert_eq!(message.answer, Content::Stored(reference));
    assert_eq!(unpack_answer(&reference, &blob).unwrap(), big_answer());
}

#[test]
fn a_wrong_blob_is_refused() {
    let (reference, blob) = pack_answer(big_answer()).unwrap().blob.unwrap();
    let mut tampered = blob.to_vec();
    *tampered.last_mut().unwrap() ^= 1;
    assert_eq!(unpack_answer(&reference, &tampered), Err(WireError::WrongBlob { kind: "answer" }));
    let other = encode(&AnswerMessage { answer: Content::Stored(reference) }).unwrap();
    assert_eq!(unpack_answer(&BlobRef::to(&other), &other), Err(WireError::Nested { kind: "answer" }));
    assert!(matches!(unpack_task(&reference, &blob), Err(WireError::Kind { .. })));
}

#[test]
fn small_content_stays_inline() {
    let task = values::task(Work::Label(Label::of(vec![])));
    let packed = pack_task(task.clone()).unwrap();
    assert_eq!(packed.blob, None);
    assert_eq!(decode::<TaskMessage>(&packed.message).unwrap().task, Content::Inline(task));
}

fn prompts() -> impl Strategy<Value = Vec<Prompt>> {
    let prompt = (".{1,12}", ".{0,40}", proptest::option::of(".{0,20}"), proptest::option::of(".{0,9}"))
        .prop_map(|(id, prompt, reference, system)| Prompt { id, prompt, reference, system, tags: vec![] });
    proptest::collection::vec(prompt, 0..4)
}

fn unit() -> impl Strategy<Value = Unit> {
    let kind = proptest::sample::select(UnitKind::ALL);
    (kind, any::<u32>(), any::<u32>()).prop_map(|(kind, layer, index)| Unit { kind, layer, index })
}

fn work() -> impl Strategy<Value = Work<Prompt>> {
    let blob = any::<Vec<u8>>().prop_map(|b| BlobRef::to(&b));
    prop_oneof![
        prompts().prop_map(|prompts| Work::Label(Label::of(prompts))),
        (prompts(), proptest::collection::vec(unit().prop_map(Cut::Unit), 0..5))
            .prop_map(|(prompts, cuts)| Work::Ablate(Ablate { prompts, cuts })),
        (prompts(), any::<[u32; 3]>()).prop_map(|(prompts, numbers)| {
            let [top_k, max_new_tokens, max_reasoning_tokens] = numbers;
            let mask = None;
            Work::Label(Label { prompts, mask, top_k, max_new_tokens, max_reasoning_tokens })
        }),
        (prompts(), blob).prop_map(|(prompts, b)| { Work::Judge(Judge { prompts, subject: Subject::Adapted(b) }) }),
    ]
}

fn skipped() -> impl Strategy<Value = Vec<Skipped>> {
    let reason = prop_oneof![
        any::<(u32, u32)>().prop_map(|(tokens, context)| SkipReason::TooLong { tokens, context }),
        Just(SkipReason::Template),
        any::<u32>().prop_map(|tokens| SkipReason::Unfinished { tokens }),
    ];
    let one = (".{1,12}", reason).prop_map(|(id, reason)| Skipped { id, reason });
    proptest::collection::vec(one, 0..4)
}

fn outcome() -> impl Strategy<Value = Outcome> {
    let values =
        || proptest::collection::vec(proptest::num::f32::ANY.prop_filter("equal to itself", |v| !v.is_nan()), 0..6);
    let column = (unit(), values()).prop_map(|(unit, values)| Column { unit, statistic: Statistic::SALIENCY, values });
    prop_oneof![
        proptest::collection::vec(column, 0..4)
            .prop_map(|columns| Outcome::Scores(Deposit { columns, ..Deposit::default() })),
        (values(), any::<Vec<u32>>()).prop_map(|(nats, bytes)| Outcome::Losses(vec![LossRow {
            prompts: vec![],
            nats,
            bytes
        }])),
        ".{0,60}".prop_map(|reason| { Outcome::Failed(Failure { kind: FailureKind::Machine, reason }) }),
    ]
}

proptest! {
    #[test]
    fn tasks_come_back_as_they_went(work in work(), epoch: u32, name: Vec<u8>) {
        let task = Task { id: TaskId::derived(&name), epoch, model: Fingerprint(Digest::of(&name)), work };
        let packed = pack_task(task.clone()).unwrap();
        prop_assert_eq!(decode::<TaskMessage>(&packed.message).unwrap().task, Content::Inline(task));
    }

    #[test]
    fn answers_come_back_as_they_went(outcome in outcome(), skipped in skipped(), seams: u32, millis: u64) {
        let answer = Answer { millis, skipped, seams, ..values::answer(outcome) };
        let packed = pack_answer(answer.clone()).unwrap();
        prop_assert_eq!(decode::<AnswerMessage>(&packed.message).unwrap().answer, Content::Inline(answer));
    }

    #[test]
    fn random_bytes_never_panic(bytes: Vec<u8>) {
        let _ = decode::<TaskMessage>(&bytes);
        let _ = decode::<StatusMessage>(&enveloped(1, "status", bytes.clone()));
        let _ = decode::<AnswerMessage>(&enveloped(1, "answer", bytes));
    }

    #[test]
    fn a_damaged_message_never_panics(at: prop::sample::Index, with: u8, which: prop::sample::Index) {
        let all = values::tasks();
        let mut bytes = encode(&all[which.index(all.len())].1).unwrap().to_vec();
        let at = at.index(bytes.len());
        bytes[at] = with;
        let _ = decode::<TaskMessage>(&bytes);
    }
}
