//! The service: one task that owns the colony's state. Records are durable before anything follows
//! from them.

mod added;
mod compacting;
mod day;
mod founding;
mod releases;
mod rest;
mod saes;
mod settling;
mod silence;
mod speeds;
mod start;
mod telling;

use crate::dispatch::Dispatch;
use crate::intake::{self, Incoming, Readers};
use crate::ledger::{self, Ledger};
use crate::owner::{Issued, Owner};
use crate::registry::Registry;
use crate::report::Paths;
use crate::status::{self, CampaignProgress, Pace};
use crate::{CoordinatorSettings, PromptBook, Prompts, ServiceError, errbench, owner, warnings};
use releases::Released;
use settling::{not_ours, settle};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;
use uspx_artifact::Store;
use uspx_bus::{Bus, DeadLetter, Delivery};
use uspx_colony::{Colony, Command, Ending, Event, State, Step};
use uspx_domain::{Answer, WorkerId};
use uspx_runtime::{Shutdown, folders};
use uspx_wire::subjects::{parse_task_message_id, worker_of_queue};

/// How often silence is looked for, the outbox tried again and the status written.
const TICK: Duration = Duration::from_millis(500);
/// The pause between two ticks from which on the service was held up, and has heard nobody
/// meanwhile.
const HELD_UP: Duration = Duration::from_secs(2);
/// How long tasks wait for a worker that speaks them, while others are here.
const PATIENCE: Duration = Duration::from_secs(120);

/// How a coordinator's run ended.
#[derive(Debug, Clone, PartialEq)]
pub enum Finished {
    /// The campaign is over.
    Campaign(Ending),
    /// Somebody asked it to stop; started again, it goes on.
    Stopped,
}

/// A coordinator, ready to run.
pub struct Coordinator {
    settings: CoordinatorSettings,
    bus: Arc<dyn Bus>,
    store: Store,
    book: PromptBook,
    ledger: Ledger,
    colony: Colony,
    registry: Arc<Registry>,
    dispatch: Dispatch,
    /// Whether the campaign that the settings ask for is under way, or has ended.
    decided: bool,
    /// All tasks of this ledger.
    issued: Issued,
    /// This ledger's name in claims.
    ledger_id: String,
    progress: watch::Sender<CampaignProgress>,
    pace: Pace,
    releases: JoinSet<Released>,
    /// Sparse autoencoders on their way from the store.
    layouts: JoinSet<()>,
    /// The report of the campaign that has ended.
    reported: Option<Paths>,
    /// Since when workers can be heard: their silence before that says nothing.
    hearing: Instant,
    ticked: Instant,
    /// When no task waited for a worker that speaks it.
    spoken: Instant,
    /// Until when workers rest.
    rests: BTreeMap<WorkerId, Instant>,
    /// Whether the status could be written last time: a full disk is told once.
    shown: bool,
}

impl Coordinator {
    /// Opens the ledger in the state folder and replays it.
    ///
    /// # Errors
    /// The state folder cannot be used, another coordinator holds it, the ledger is damaged, or the
    /// prompts cannot be split.
    pub fn open(
        settings: CoordinatorSettings,
        bus: Arc<dyn Bus>,
        store: Store,
        prompts: impl Into<Prompts>,
    ) -> Result<Self, ServiceError> {
        folders::make_private(&settings.state).map_err(ServiceError::file(&settings.state))?;
        let mut state = State::default();
        let mut issued = Issued::default();
        let mut replayed = 0u64;
        let ledger = Ledger::open(&settings.state.join(ledger::FILE_NAME), |record| {
            state.fold(&record);
            issued.note(&record);
            replayed += 1;
        })?;
        tracing::info!(
            records = ledger.sequence(),
            replayed,
            epoch = state.epoch(),
            "replayed the ledger"
        );
        if !state.deviations().is_empty() {
            let epochs = state.deviations();
            tracing::warn!(
                ?epochs,
                "today's rules would decide otherwise; what was decided stands"
            );
        }
        let (seed, campaign) = (settings.plan.seed, state.campaign());
        let added = errbench::read(&settings.state)?;
        let book = prompts.into().book(seed, campaign)?.with(added, seed, campaign)?;
        // After the ledger is held: nobody else makes one meanwhile.
        let ledger_id = owner::ledger_id(&settings.state)?;
        let dispatch = Dispatch::new(bus.clone(), store.clone(), settings.lease);
        Ok(Self {
            dispatch,
            issued,
            ledger_id,
            settings,
            bus,
            store,
            book,
            ledger,
            pace: Pace::new(&state),
            colony: Colony::resume(state),
            registry: Arc::new(Registry::default()),
            decided: false,
            progress: watch::Sender::default(),
            releases: JoinSet::new(),
            layouts: JoinSet::new(),
            reported: None,
            hearing: Instant::now(),
            ticked: Instant::now(),
            spoken: Instant::now(),
            rests: BTreeMap::new(),
            shown: true,
        })
    }

    /// The prompts in their splits.
    pub fn book(&self) -> &PromptBook {
        &self.book
    }

    /// What the colony knows.
    pub fn state(&self) -> &State {
        self.colony.state()
    }

    /// Follows the campaign from outside.
    pub fn watch(&self) -> watch::Receiver<CampaignProgress> {
        self.progress.subscribe()
    }

    /// Claims the colony, then runs until the campaign is over or the end is asked for.
    ///
    /// # Errors
    /// [`ServiceError::Owned`] where another coordinator works on this bus, and whatever else cannot
    /// be waited out. The ledger holds all that was accepted; a new start goes on from there.
    pub async fn run(&mut self, shutdown: &Shutdown) -> Result<Finished, ServiceError> {
        let claiming =
            owner::claim(&self.bus, &self.ledger_id, self.settings.takeover, shutdown).await?;
        let Some(owner) = claiming.map(Arc::new) else { return Ok(Finished::Stopped) };
        let readers = shutdown.child();
        let outcome = tokio::select! {
            // First: whoever slept must look at the claim before anything else.
            biased;
            replaced = owner.keep() => Err(replaced),
            outcome = self.serve(shutdown, &readers, &owner) => outcome,
        };
        readers.cancel();
        if let Ok(Finished::Campaign(_)) = outcome {
            self.conclude(shutdown).await;
        }
        // The bus is another's now, its status too.
        if !matches!(outcome, Err(ServiceError::Replaced { .. })) {
            self.show().await;
            owner.release().await;
        }
        outcome
    }

    async fn serve(
        &mut self,
        shutdown: &Shutdown,
        readers: &Shutdown,
        owner: &Arc<Owner>,
    ) -> Result<Finished, ServiceError> {
        let Some(begun) = self.begin(shutdown, readers, owner).await? else {
            return Ok(Finished::Stopped);
        };
        let Readers { mut answers, mut heartbeats, mut tasks } = begun;
        self.dispatch.close_strays(self.colony.state()).await;
        let mut clock = tokio::time::interval(TICK);
        clock.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        self.settle();
        self.greet();
        let mut ended = self.start().await?;
        loop {
            match ended.take() {
                Some(ending) if !self.settings.stay => return Ok(Finished::Campaign(ending)),
                Some(_) => self.rest_on_it(shutdown).await,
                None => {}
            }
            ended = tokio::select! {
                () = shutdown.cancelled() => return Ok(Finished::Stopped),
                Some(message) = answers.recv() => self.take(message, owner).await?,
                Some(heartbeat) = heartbeats.recv() => self.heard(heartbeat).await?,
                Some(ended) = tasks.join_next() => match shutdown.is_cancelled() {
                    // It heard first of the wish to end.
                    true => return Ok(Finished::Stopped),
                    false => return Err(intake::ended(ended)),
                },
                Some(released) = self.releases.join_next() => self.released(released).await?,
                _ = clock.tick() => self.tick().await?,
            };
        }
    }

    async fn take(
        &mut self,
        message: Incoming,
        owner: &Owner,
    ) -> Result<Option<Ending>, ServiceError> {
        match message {
            Incoming::Answer(answer, delivery) => self.answered(answer, &delivery, owner).await,
            // It is gone, and the task goes to another at once.
            Incoming::Garbled(task, worker, delivery) => {
                if !self.issued.contains(task) {
                    return not_ours(task, &worker, &delivery).await;
                }
                let ended = self.event(Event::LeaseLost { task, worker }).await?;
                if let Err(error) = settle(owner, delivery.ack()).await? {
                    tracing::warn!(%error, "an unreadable answer will come again");
                }
                Ok(ended)
            }
            Incoming::Dead(letter) => self.buried(&letter, owner).await,
            Incoming::Broken(error) => Err(error),
        }
    }

    /// Invariant 3: the delivery is acknowledged only after the ledger has the answer.
    async fn answered(
        &mut self,
        answer: Box<Answer>,
        delivery: &Delivery,
        owner: &Owner,
    ) -> Result<Option<Ending>, ServiceError> {
        let (task, worker) = (answer.task, answer.worker.clone());
        if !self.issued.contains(task) {
            return not_ours(task, &worker, delivery).await;
        }
        let step = self.colony.step(Event::AnswerArrived { worker: worker.clone(), answer });
        tracing::debug!(%task, %worker, verdict = ?step.verdict, "an answer");
        let ended = self.commit(step).await?;
        if let Err(error) = settle(owner, delivery.ack()).await? {
            tracing::warn!(%error, "an answer will come again, and be recognised");
        }
        Ok(ended)
    }

    async fn buried(
        &mut self,
        letter: &DeadLetter,
        owner: &Owner,
    ) -> Result<Option<Ending>, ServiceError> {
        tracing::warn!(
            queue = letter.queue,
            message = letter.message_id,
            deliveries = letter.deliveries,
            "a dead letter"
        );
        let named = parse_task_message_id(&letter.message_id).zip(worker_of_queue(&letter.queue));
        let ended = match named {
            Some(((task, _), worker)) => self.event(Event::DeadLetter { task, worker }).await?,
            None => None,
        };
        if let Err(error) = settle(owner, letter.settle()).await? {
            tracing::warn!(%error, "a dead letter will come again");
        }
        Ok(ended)
    }

    async fn tick(&mut self) -> Result<Option<Ending>, ServiceError> {
        self.listen();
        for worker in self.silent() {
            tracing::warn!(%worker, "a worker has fallen silent: its tasks go to others");
            if let Some(ending) = self.event(Event::WorkerLost { worker: worker.clone() }).await? {
                return Ok(Some(ending));
            }
            self.dispatch.close_stray(&worker, self.colony.state()).await;
        }
        for (worker, current) in self.registry.take_hung(2 * self.settings.lease) {
            if let Some(ending) = self.hung(worker, current).await? {
                return Ok(Some(ending));
            }
        }
        let wake = self.wake().await?;
        for ended in [wake, self.obey().await?, self.note_day().await?, self.take_added().await?] {
            if ended.is_some() {
                return Ok(ended);
            }
        }
        let ended = match self.is_patience_over() {
            true => self.event(Event::NobodySpeaks).await?,
            false => self.event(Event::Tick).await?,
        };
        self.show().await;
        Ok(ended)
    }

    async fn event(&mut self, event: Event) -> Result<Option<Ending>, ServiceError> {
        let step = self.colony.step(event);
        self.commit(step).await
    }

    /// Makes a step's records durable, then carries out its commands.
    async fn commit(&mut self, step: Step) -> Result<Option<Ending>, ServiceError> {
        self.ledger.append(&step.records)?;
        for record in &step.records {
            self.issued.note(record);
        }
        warnings::tell(&step.records, self.colony.state());
        self.lay_out_new(&step.records);
        let mut ended = None;
        for command in step.commands {
            match command {
                Command::Issue { task, worker, attempt } => {
                    self.dispatch.issue(*task, worker, attempt)
                }
                Command::Withdraw { task, worker } => {
                    self.dispatch.withdraw(task, &worker, self.colony.state()).await;
                }
                Command::Rest { worker, strikes } => self.rest(worker, strikes),
                Command::PublishMask(mask) => self.share_mask(&mask).await,
                Command::PublishRelease(order) => self.publish(*order),
                Command::Finish(ending) => ended = Some(ending),
            }
        }
        self.dispatch.flush(self.colony.state(), &self.book).await?;
        self.progress.send_replace(status::progress(self.colony.state(), &self.registry));
        if compacting::is_time(&step.records) {
            self.compact()?;
        }
        Ok(ended)
    }
}
