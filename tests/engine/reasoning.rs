//! gpt-oss with its published template, whose generation prompt ends at the model's name: the model
//! writes its channels itself, and only the final one is the answer. The shipped weights, with the
//! template that tests/parity/tokens holds to the published one's renderings.

use crate::support::{prompts, root};
use candle_core::{DType, Device};
use uspx_model::batch::Sequence;
use uspx_model::chat::{Bounds, Reply, TokenBytes};
use uspx_model::generate::{Choice, generate, go_on};
use uspx_model::taps::NoTaps;
use uspx_model::{Holding, LoadedModel, Placement};

fn teacher() -> LoadedModel {
    let folder = tempfile::tempdir().unwrap();
    for entry in std::fs::read_dir(root().join("cli/assets/nano/teacher")).unwrap() {
        let entry = entry.unwrap();
        std::fs::copy(entry.path(), folder.path().join(entry.file_name())).unwrap();
    }
    let template = root().join("tests/parity/tokens/templates/gpt-oss.jinja");
    std::fs::copy(template, folder.path().join("chat_template.jinja")).unwrap();
    LoadedModel::open(folder.path(), Placement::new(Holding::Stored, DType::F32, &Device::Cpu))
        .unwrap()
}

fn replies(model: &LoadedModel, asked: &[Sequence], bounds: Bounds) -> Vec<Reply> {
    let asked: Vec<&Sequence> = asked.iter().collect();
    generate(model, &asked, bounds, &mut Choice::Greedy, &mut NoTaps, &mut |_, _, _| {}).unwrap()
}

#[test]
fn greedy_answers_hold_the_final_channel_alone() {
    let model = teacher();
    let asked: Vec<Sequence> = prompts("cli-heldout.jsonl", 24)
        .iter()
        .map(|p| model.chat.sequence(p, None).unwrap())
        .collect();
    let bounds = Bounds { answer: 24, reasoning: 40 };
    let all: Vec<&Sequence> = asked.iter().collect();
    let raw =
        go_on(&model, &all, bounds.answer + bounds.reasoning, &mut Choice::Greedy, &mut NoTaps)
            .unwrap();
    let [channel, message, end] =
        ["<|channel|>", "<|message|>", "<|end|>"].map(|t| model.chat.encode(t).unwrap()[0]);
    let mut answered = 0;
    for (reply, raw) in replies(&model, &asked, bounds).iter().zip(&raw) {
        assert!(reply.ids.iter().all(|id| matches!(model.chat.token(*id), TokenBytes::Text(_))));
        // Found by hand: what stands behind the header of the first final message.
        let header = [vec![channel], model.chat.encode("final").unwrap(), vec![message]].concat();
        let start =
            raw.ids.windows(header.len()).position(|w| w == header).map(|at| at + header.len());
        let own: Option<Vec<u32>> = start.map(|start| {
            raw.ids[start..]
                .iter()
                .copied()
                .take_while(|id| *id != end)
                .take(bounds.answer)
                .collect()
        });
        if let (false, Some(own)) = (reply.unfinished, own) {
            assert_eq!(reply.ids, own);
            assert!(!reply.reasoning.is_empty());
            answered += usize::from(!own.is_empty());
        }
    }
    assert!(
        answered > 0,
        "no reply of the shipped weights reached its final channel: nothing was tested"
    );
}

#[test]
fn an_analysis_before_the_answer_is_kept_apart_and_one_without_end_is_no_answer() {
    let model = teacher();
    let spoken = |reasoning: &str| -> Vec<Sequence> {
        let begun = model.chat.encode(&format!(
            "<|channel|>analysis<|message|>The person wants a final list{reasoning}"
        ));
        let begun = begun.unwrap();
        let each = |p| {
            let ids = [model.chat.sequence(p, None).unwrap().ids, begun.clone()].concat();
            Sequence { response_start: ids.len(), ids }
        };
        prompts("cli-heldout.jsonl", 4).iter().map(each).collect()
    };
    let bounds = Bounds { answer: 24, reasoning: 12 };
    for reply in
        replies(&model, &spoken("<|end|><|start|>assistant<|channel|>final<|message|>"), bounds)
    {
        assert!(!reply.unfinished && !reply.ids.is_empty() && reply.reasoning.is_empty());
        assert!(!model.chat.answer_text(&reply.ids).contains("wants a final list"));
    }
    for reply in replies(&model, &spoken(""), Bounds { answer: 24, reasoning: 3 }) {
        assert!(
            reply.unfinished && reply.ids.is_empty() && !reply.ended && reply.reasoning.len() <= 3
        );
    }
}
