//! What is refused, what is passed over, and that whatever is written can be read again.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod values;

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

fn named_task(name: &str) -> Vec<u8> {
    let (_, task) = values::tasks().into_iter().find(|(each, _)| each == name).unwrap();
    encode(&task).unwrap().to_vec()
}

/// A message with another text of the same length in the place of one.
fn renamed(bytes: &[u8], from: &str, to: &str) -> Vec<u8> {
    assert_eq!(from.len(), to.len());
    let at = bytes.windows(from.len()).position(|window| window == from.as_bytes()).unwrap();
    [&bytes[..at], to.as_bytes(), &bytes[at + to.len()..]].concat()
}

fn enveloped(v: u16, kind: &'static str, body: Vec<u8>) -> Vec<u8> {
    rmp_serde::to_vec_named(&RawEnvelope { v, kind, body: ByteBuf::from(body) }).unwrap()
}

#[test]
fn a_newer_version_is_refused_naming_what_to_upgrade() {
    let error = decode::<Content<Task>>(&enveloped(2, "task", b"whatever".to_vec())).unwrap_err();
    assert!(
        matches!(error, WireError::Newer { kind: "task", found: 2, known: 1, .. }),
        "{error:?}"
    );
    let text = error.to_string();
    assert!(
        text.contains("upgrade uspx on this machine") && text.contains(env!("CARGO_PKG_VERSION")),
        "{text}"
    );
    let zero = decode::<Content<Task>>(&enveloped(0, "task", vec![]));
    assert_eq!(zero, Err(WireError::NoSuchVersion { kind: "task", found: 0 }));
}

#[test]
fn another_kind_is_refused() {
    let bytes = encode(&values::heartbeat()).unwrap();
    let error = decode::<Content<Task>>(&bytes).unwrap_err();
    assert_eq!(error, WireError::Kind { expected: "task", found: "heartbeat".into() });
}

#[test]
fn unknown_fields_of_a_known_version_are_passed_over() {
    #[derive(Serialize)]
    struct LaterStatus {
        #[serde(flatten)]
        known: StatusMessage,
        battery_percent: u8,
        nested: Vec<Vec<u8>>,
    }
    let later =
        LaterStatus { known: values::status(), battery_percent: 80, nested: vec![vec![1], vec![]] };
    let bytes = enveloped(1, "status", rmp_serde::to_vec_named(&later).unwrap());
    assert_eq!(decode::<StatusMessage>(&bytes).unwrap(), values::status());
}

/// What a release that knows one thing more would send: not damage, so that the reader can say what
/// it lacks.
#[test]
fn what_a_later_release_names_is_told_from_damage() {
    for (known, later, what) in [
        ("estimate", "dissolve", "a kind of job"),
        ("trace", "quake", "an estimator"),
        ("zero", "mood", "a baseline"),
        ("expert", "spirit", "a kind of unit"),
    ] {
        let bytes = renamed(&named_task("task-trace"), known, later);
        let error = decode::<Content<Task>>(&bytes).unwrap_err();
        assert!(
            matches!(error, WireError::Unknown { kind: "task", what: found, .. } if found == what),
            "{error:?}"
        );
        assert!(error.is_not_spoken() && !error.to_string().contains(later), "{error}");
    }
    let error = decode::<Content<Task>>(&renamed(&named_task("task-distil-alm"), "alm", "elm"));
    let error = error.unwrap_err();
    assert!(matches!(error, WireError::Unknown { what: "a distillation loss", .. }), "{error:?}");
    assert!(error.is_not_spoken() && !error.to_string().contains("elm"), "{error}");
    let (_, answer) =
        values::answers().into_iter().find(|(name, _)| name == "answer-scores").unwrap();
    let error =
        decode::<Content<Answer>>(&renamed(&encode(&answer).unwrap(), "saliency", "serenity"))
            .unwrap_err();
    assert!(matches!(error, WireError::Unknown { what: "a statistic", .. }), "{error:?}");
}

/// The names in messages are those that a worker says that it speaks.
#[test]
fn jobs_have_the_names_that_workers_say() {
    let mut kinds = std::collections::BTreeSet::new();
    for (_, message) in values::tasks() {
        let Content::Inline(task) = &message else { continue };
        let bytes = encode(&message).unwrap();
        let key = [&[0xa0 + task.work.kind().len() as u8], task.work.kind().as_bytes()].concat();
        assert!(bytes.windows(key.len()).any(|window| window == key), "{}", task.work.kind());
        assert!(Speaks::here().knows(&task.work));
        kinds.insert(task.work.kind());
    }
    assert_eq!(kinds, Work::<Prompt>::KINDS.iter().copied().collect());
}

#[test]
fn a_worker_that_does_not_read_our_tasks_may_be_asked_for_nothing() {
    let mut heartbeat = values::heartbeat();
    assert_eq!(heartbeat.may_be_asked(false), heartbeat.speaks);
    heartbeat.reads.clear();
    assert_eq!(heartbeat.may_be_asked(false), Speaks::default());
}

#[test]
fn who_passes_over_earlier_turns_is_not_asked_of_conversations() {
    let older = values::heartbeat();
    assert_eq!(older.may_be_asked(true), Speaks::default());
    let ours = HeartbeatMessage { reads: HeartbeatMessage::read_here(), ..older };
    assert_eq!(ours.may_be_asked(true), ours.speaks);
}

#[test]
fn damage_is_refused_without_showing_text() {
    let body = rmp_serde::to_vec_named(&std::collections::BTreeMap::from([(
        "inline",
        "the secret prompt",
    )]))
    .unwrap();
    let error = decode::<Content<Task>>(&enveloped(1, "task", body)).unwrap_err();
    assert_eq!(error, WireError::Body { kind: "task", flaw: Flaw::Fields });
    assert!(!format!("{error} {error:?}").contains("secret"));
}

#[test]
fn deep_nesting_is_refused() {
    let mut body = vec![0x81, 0xa1, b'x'];
    body.extend(std::iter::repeat_n(0x91, 100_000));
    body.push(0xc0);
    let error = decode::<HeartbeatMessage>(&enveloped(1, "heartbeat", body)).unwrap_err();
    assert_eq!(error, WireError::Body { kind: "heartbeat", flaw: Flaw::TooDeep });
    let error = decode::<HeartbeatMessage>(&[0x91; 100_000]).unwrap_err();
    assert!(matches!(error, WireError::Envelope(_)), "{error}");
}

#[test]
fn lengths_that_lie_take_no_memory() {
    for claim in [
        [0xdd, 0xff, 0xff, 0xff, 0xff],
        [0xdf, 0xff, 0xff, 0xff, 0xff],
        [0xc6, 0xff, 0xff, 0xff, 0xff],
    ] {
        decode::<HeartbeatMessage>(&claim).unwrap_err();
        let mut body = vec![0x81, 0xa6];
        body.extend(b"models");
        body.extend(claim);
        decode::<HeartbeatMessage>(&enveloped(1, "heartbeat", body)).unwrap_err();
    }
}

#[test]
fn too_large_and_trailing_are_refused() {
    let big = vec![0; MAX_MESSAGE + 1];
    assert!(matches!(decode::<Content<Task>>(&big), Err(WireError::TooLarge { .. })));
    let mut heartbeat = values::heartbeat();
    heartbeat.device = "x".repeat(MAX_MESSAGE);
    assert!(matches!(encode(&heartbeat), Err(WireError::TooLarge { .. })));
    let mut bytes = encode(&values::heartbeat()).unwrap().to_vec();
    bytes.push(0xc0);
    assert_eq!(decode::<HeartbeatMessage>(&bytes), Err(WireError::Envelope(Flaw::Trailing)));
}

#[test]
fn every_cut_of_a_message_is_refused() {
    fn refused<M: Message + std::fmt::Debug>(message: &M) {
        let bytes = encode(message).unwrap();
        (0..bytes.len()).for_each(|end| drop(decode::<M>(&bytes[..end]).unwrap_err()));
    }
    refused(&values::status());
    refused(&values::heartbeat());
    refused(&values::mask_message());
    values::tasks().iter().for_each(|(_, task)| refused(task));
    values::answers().iter().for_each(|(_, answer)| refused(answer));
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
    let message: Content<Answer> = decode(&packed.message).unwrap();
    assert_eq!(message, Content::Stored(reference));
    assert_eq!(unpack_answer(&reference, &blob).unwrap(), big_answer());
}

#[test]
fn a_wrong_blob_is_refused() {
    let (reference, blob) = pack_answer(big_answer()).unwrap().blob.unwrap();
    let mut tampered = blob.to_vec();
    *tampered.last_mut().unwrap() ^= 1;
    assert_eq!(unpack_answer(&reference, &tampered), Err(WireError::WrongBlob { kind: "answer" }));
    let other = encode(&Content::<Answer>::Stored(reference)).unwrap();
    assert_eq!(
        unpack_answer(&BlobRef::to(&other), &other),
        Err(WireError::Nested { kind: "answer" })
    );
    assert!(matches!(unpack_task(&reference, &blob), Err(WireError::Kind { .. })));
}

#[test]
fn small_content_stays_inline() {
    let task = values::task(Work::Label(Label::of(vec![])));
    let packed = pack_task(task.clone()).unwrap();
    assert_eq!(packed.blob, None);
    assert_eq!(decode::<Content<Task>>(&packed.message).unwrap(), Content::Inline(task));
}

/// Layers of 90,000 units are a bit each, and a bitmap that lies about its width is refused.
#[test]
fn a_mask_of_a_large_kind_stays_small() {
    let half: Vec<u32> = (0..90_000).filter(|n| n % 2 == 1).collect();
    let keep = KeepLists([(UnitKind::ExpertChannel, vec![half; 4])].into());
    let mut message = values::mask_message();
    message.mask.keep = keep;
    let bytes = encode(&message).unwrap();
    assert!(bytes.len() < 4 * 90_000 / 8 + 600, "{}", bytes.len());
    assert_eq!(decode::<MaskMessage>(&bytes).unwrap(), message);

    let width = bytes.windows(5).position(|window| window == b"width").unwrap() + 5;
    assert_eq!(bytes[width..width + 5], [0xce, 0, 1, 0x5f, 0x90]);
    for (at, value) in [(width + 4, 0x8f), (width + 4, 0x91), (width + 1, 0xff)] {
        let mut lying = bytes.to_vec();
        lying[at] = value;
        assert_eq!(
            decode::<MaskMessage>(&lying),
            Err(WireError::Body { kind: "mask", flaw: Flaw::Fields }),
            "{at}"
        );
    }
}

/// What a worker says of itself, with a shape that a coordinator would allocate by.
fn claims(shape: ModelShape) -> HeartbeatMessage {
    let mut heartbeat = values::heartbeat();
    heartbeat.models.truncate(1);
    heartbeat.models[0].shape = shape;
    heartbeat
}

#[test]
fn absurd_heartbeats_are_refused_before_anyone_allocates_by_them() {
    let experts = |experts, channels| MlpShape::Experts { experts, top_k: 4, channels };
    let uniform = |layers, heads, mlp| ModelShape::uniform(layers, LayerShape::new(heads, mlp));
    // The largest published models fit.
    for shape in [uniform(61, 128, experts(384, 2048)), uniform(126, 128, experts(1, 53_248))] {
        let good = claims(shape);
        assert_eq!(decode::<HeartbeatMessage>(&encode(&good).unwrap()).unwrap(), good);
    }
    let mut long = values::heartbeat();
    long.device = "x".repeat(300);
    let mut many = values::heartbeat();
    many.models = vec![many.models[0].clone(); 65];
    let fast = |change: fn(&mut uspx_domain::Speed)| {
        let mut heartbeat = values::heartbeat_with_speed();
        heartbeat.speed.iter_mut().for_each(change);
        heartbeat
    };
    let absurd = [
        fast(|s| s.tokens_per_second = f64::NAN),
        fast(|s| s.tokens_per_second = f64::INFINITY),
        fast(|s| s.prompt_tokens = 0.0),
        fast(|s| s.work = "x".repeat(300)),
        claims(uniform(2000, 4, experts(4, 4))),
        claims(uniform(2, u32::MAX, experts(4, 4))),
        claims(uniform(2, 4, experts(u32::MAX, 4))),
        claims(uniform(2, 4, experts(1 << 16, 1 << 16))),
        claims(uniform(2, 4, MlpShape::Dense { channels: u32::MAX })),
        long,
        many,
    ];
    for heartbeat in absurd {
        let read = decode::<HeartbeatMessage>(&encode(&heartbeat).unwrap());
        assert_eq!(read, Err(WireError::Body { kind: "heartbeat", flaw: Flaw::Bounds }));
    }
}

#[test]
fn invariant_7_a_failure_s_free_text_is_not_read() {
    let outcome = Outcome::Failed(FailureReason::NoMemory.into());
    let (_, answer) =
        values::answers().into_iter().find(|(n, _)| n == "answer-failed-machine").unwrap();
    let bytes = encode(&answer).unwrap();
    let said = renamed(&bytes, "out of memory", "my secret ask");
    let Content::Inline(read) = decode::<Content<Answer>>(&said).unwrap() else { panic!("stored") };
    assert_eq!(
        read.outcome,
        Outcome::Failed(Failure { kind: FailureKind::Machine, reason: FailureReason::Unstated })
    );
    assert_ne!(read.outcome, outcome);
}
