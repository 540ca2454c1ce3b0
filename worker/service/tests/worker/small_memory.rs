//! A student whose floats do not fit into this machine's memory: its adapter is trained on NF4 and judged on
//! weights read from their file, and its files of 4 bits are judged as they are.

use super::{assets, prompts};
use candle_core::Device;
use std::path::Path;
use uspx_distill::{Keeping, make_labels, recipe_references};
use uspx_domain::{
    Answers, BlobRef, Distil, DistilRecipe, Export, ExportFormat, Judge, LossRow, Outcome, Subject,
    Task, TaskId, Work,
};
use uspx_model::budget::{Demands, Workload};
use uspx_model::chat::Bounds;
use uspx_model::{Holding, ModelError, NoProgress, fingerprint};
use uspx_worker::holdings::Holdings;
use uspx_worker::jobs::run;
use uspx_worker::open_models::OpenModels;
use uspx_worker::planning::Machine;
use uspx_worker::product::{Blob, Inputs, Product};

/// A machine with the shipped models and so much memory, and the blobs that were made so far.
struct Small<'a> {
    inputs: &'a mut Inputs,
    scratch: &'a Path,
}

impl Small<'_> {
    fn take(&mut self, blob: &Blob) -> BlobRef {
        let (blob, bytes) = match blob {
            Blob::Bytes(bytes) => (BlobRef::to(bytes), bytes.to_vec()),
            Blob::File(path, blob) => (*blob, std::fs::read(path).unwrap()),
        };
        if let Some(place) = self.inputs.place(blob) {
            std::fs::write(place, bytes).unwrap();
        }
        blob
    }

    fn take_all(&mut self, made: &Product) {
        for blob in &made.blobs {
            self.take(blob);
        }
    }

    fn run(&self, memory: u64, work: Work<uspx_domain::Prompt>) -> Result<Product, String> {
        let holdings = Holdings::scan(&[assets().join("nano/student")]).unwrap();
        let machine = Machine { memory: Some(memory), ..Machine::cpu() };
        let mut models = OpenModels::new(holdings, machine, self.scratch.to_owned());
        let model = fingerprint(&assets().join("nano/student")).unwrap();
        let task = Task { id: TaskId::derived(b"t"), epoch: 1, model, work };
        let ran = run(&task, &mut models, self.inputs, &NoProgress);
        ran.map(|(product, _)| product).map_err(|error| error.to_string())
    }

    fn judged(&self, memory: u64, subject: Subject) -> LossRow {
        let judge = Judge { prompts: prompts(24), subject, answers: Answers::default() };
        match self.run(memory, Work::Judge(judge)).unwrap().outcome {
            Outcome::Losses(mut rows) => rows.remove(0),
            other => panic!("{other:?}"),
        }
    }
}

const ROOMY: u64 = 4 << 30;

/// The least memory for a student's work, which is planned to be held so.
fn least(work: Workload, holding: Holding) -> u64 {
    let demands = Demands::of_folder(&assets().join("nano/student")).unwrap();
    let plan = |budget| demands.plan(budget, work, false, &Device::Cpu);
    let Err(ModelError::Budget { needed, .. }) = plan(0) else { panic!("{work:?} takes nothing") };
    assert_eq!(plan(needed).unwrap().holding, holding);
    needed
}

fn assert_alike(one: &LossRow, other: &LossRow, within: f32) {
    assert_eq!(one.nats.len(), other.nats.len());
    for (one, other) in one.nats.iter().zip(&other.nats) {
        assert!((one - other).abs() <= within * one.abs(), "{one} {other}");
    }
}

#[test]
fn a_student_whose_floats_do_not_fit_is_trained_and_judged_all_the_same() {
    let scratch = tempfile::tempdir().unwrap();
    let mut inputs = Inputs::new_in(scratch.path()).unwrap();
    let mut small = Small { inputs: &mut inputs, scratch: scratch.path() };
    let teacher = fingerprint(&assets().join("nano/teacher")).unwrap();
    let opened = super::models(Machine::cpu(), scratch.path()).get(teacher, Workload::Forward);
    let (keeping, bounds) = (Keeping::Likeliest(4), (Bounds::answer(16), usize::MAX));
    let labels =
        make_labels(&opened.unwrap().model, &prompts(48), None, keeping, bounds, &NoProgress);
    let labels = small.take(&Blob::Bytes(labels.unwrap().0.to_bytes().unwrap().into()));

    let recipe =
        DistilRecipe { rank: 4, batch_tokens: 256, epochs: 2, nf4: true, ..recipe_references() };
    let distil =
        |recipe| Work::Distil(Distil { train: vec![labels], validation: vec![labels], recipe });
    let work = Workload::TrainingNf4 { batch_tokens: 256, rank: 4, width: 4 };
    let enough = least(work, Holding::Nf4);
    let floats = small.run(enough, distil(DistilRecipe { nf4: false, ..recipe }));
    assert!(floats.unwrap_err().contains("campaign.distil.nf4"));
    let made = small.run(enough, distil(recipe)).unwrap();
    let Outcome::Adapter { blob: adapter, summary } = &made.outcome else { panic!("{made:?}") };
    assert!(summary.after < summary.before, "{summary:?}");
    small.take_all(&made);

    let streamed = least(Workload::Adapted, Holding::Streamed);
    let [held, read] =
        [ROOMY, streamed].map(|memory| small.judged(memory, Subject::Adapted(*adapter)));
    assert_alike(&held, &read, 1e-4);
    let in_4_bits = least(Workload::FourBit, Holding::Stored);
    for format in [ExportFormat::GPTQ, ExportFormat::GGUF] {
        let (adapter, calibration) = (Some(*adapter), prompts(16));
        let export =
            Work::Export(Export { adapter, calibration, finish: 0, labels: vec![], format });
        let made = small.run(ROOMY, export).unwrap();
        small.take_all(&made);
        let Outcome::Exported { files } = made.outcome else { panic!("{:?}", made.outcome) };
        let subject = Subject::Exported { format, files };
        let [floats, coded] =
            [ROOMY, in_4_bits].map(|memory| small.judged(memory, subject.clone()));
        assert_alike(&floats, &coded, 1e-3);
    }
}
