//! A worker says in its heartbeat how fast it was at its last task, and how much it may use.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use uspx_artifact::Store;
use uspx_bus::{Bus, EmbeddedBus, QueueSpec};
use uspx_domain::{Answers, Judge, Prompt, Speed, Subject, Task, TaskId, Work};
use uspx_model::fingerprint;
use uspx_runtime::Shutdown;
use uspx_wire::subjects::{HEARTBEAT, RESULTS, task_message_id, task_queue};
use uspx_wire::{HeartbeatMessage, decode, pack_task};
use uspx_worker::planning::Machine;
use uspx_worker::{Agent, WorkerSettings};

#[tokio::test(flavor = "multi_thread")]
async fn the_speed_of_the_last_task_is_in_the_heartbeat() {
    let student = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../cli/assets/nano/student");
    let (model, state) = (fingerprint(&student).unwrap(), tempfile::tempdir().unwrap());
    let bus: Arc<dyn Bus> = Arc::new(EmbeddedBus::new());
    let mut settings =
        WorkerSettings::on_cpu("w".parse().unwrap(), vec![student], state.path().to_owned());
    settings.heartbeat_every = Duration::from_millis(20);
    settings.machine = Machine { memory: Some(1 << 30), batch_tokens: Some(77), ..Machine::cpu() };
    let queue = task_queue(&settings.id);
    for name in [queue.as_str(), RESULTS] {
        let lease = Duration::from_secs(600);
        bus.ensure(&QueueSpec { lease, ..QueueSpec::new(name) }).await.unwrap();
    }
    let mut heard = bus.listen(HEARTBEAT).await.unwrap();
    let agent = Agent::new(settings, bus.clone(), Store::memory()).unwrap();
    let end = Shutdown::new();
    let asked = end.clone();
    let listening = async move {
        let mut next = async || {
            let beat = tokio::time::timeout(Duration::from_secs(60), heard.next()).await;
            decode::<HeartbeatMessage>(&beat.unwrap().expect("a heartbeat")).unwrap()
        };
        let first = next().await;
        assert_eq!((first.speed, first.memory_bytes), (None, 1 << 30), "nothing is measured yet");
        let prompt = Prompt {
            id: "p".into(),
            prompt: "list files".into(),
            reference: Some("ls".into()),
            system: None,
            earlier: vec![],
            tags: vec![],
        };
        let work = Work::Judge(Judge {
            prompts: vec![prompt],
            subject: Subject::Model,
            answers: Answers::default(),
        });
        let task = Task { id: TaskId::derived(b"t"), epoch: 1, model, work };
        let message = pack_task(task).unwrap().message;
        bus.publish(&queue, &task_message_id(TaskId::derived(b"t"), 1), message).await.unwrap();
        let speed = loop {
            if let Some(speed) = next().await.speed {
                break speed;
            }
        };
        asked.cancel();
        speed
    };
    let (ran, speed) = tokio::join!(agent.run(&end), listening);
    ran.unwrap();
    let Speed { work, batch_tokens, streamed, .. } = &speed;
    assert_eq!((speed.model, work.as_str(), *batch_tokens, *streamed), (model, "judge", 77, false));
    assert!(speed.is_possible() && speed.prompt_tokens > 3.0);
}
