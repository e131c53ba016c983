//! The way from the intake to the database: the journal, if there is one, and a thread for each lane of the drain.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, timeout, timeout_at};
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::AbortOnDropHandle;

use super::error::StartError;
use crate::health::{Health, Reason};
use crate::ingest::drain::{
    BatchLimits, DirectSource, EntrySource, GapFile, JournalProgress, JournalSource, LaneDriver, LaneReports,
};
use crate::ingest::drain::{DrainMetrics, JournalMetrics};
use crate::ingest::intake::Intake;
use crate::metrics::Registry;
use crate::store::{DatabaseStore, DatabaseUrl, Lane, QuarantineCap, Store};
use odograph_journal::{Files, Journal, JournalId, OpeningReport, Options, unix_now_us};

/// What the pipeline needs to know.
pub(super) struct PipelineConfig {
    pub(super) acknowledgement: Acknowledgement,
    /// Directory of the journal and of its note of gaps.
    pub(super) data_dir: PathBuf,
    pub(super) database_url: DatabaseUrl,
    pub(super) journal: Options,
    /// Forget the gaps that were noted.
    pub(super) accept_gap: bool,
    pub(super) accept_clock: bool,
    pub(super) lanes: u16,
    /// Bytes of frames in memory over all sessions.
    pub(super) inflight_max: u32,
    pub(super) batching: BatchLimits,
    pub(super) quarantine_max_per_hour: QuarantineCap,
}

/// What has to happen before a tracker is told "accepted".
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Acknowledgement {
    /// The sync of the journal.
    AfterJournal,
    /// The commit of its batch. There is no journal.
    AfterCommit,
}

/// Opens the journal, if there is one, and starts the lanes.
pub(super) async fn start(
    config: PipelineConfig,
    registry: &Registry,
    health: &Arc<Health>,
) -> Result<(Intake, Pipeline), StartError> {
    let reports =
        LaneReports { metrics: DrainMetrics::new(registry), tally: registry.tally(), health: Arc::clone(health) };
    let journal_metrics = JournalMetrics::new(registry);
    let starter = LaneStarter::new(&config, reports);
    match config.acknowledgement {
        Acknowledgement::AfterCommit => without_journal(&config, registry, starter).await,
        Acknowledgement::AfterJournal => with_journal(&config, registry, starter, journal_metrics).await,
    }
}

/// The intake hands frames to the lanes directly.
async fn without_journal(
    config: &PipelineConfig,
    registry: &Registry,
    mut starter: LaneStarter<'_>,
) -> Result<(Intake, Pipeline), StartError> {
    let (intake, inboxes) = Intake::commit(config.lanes, config.inflight_max, registry.tally());
    let journal = JournalId::random();
    for (number, inbox) in (0..).zip(inboxes) {
        let lane = Lane { journal, number, lanes: config.lanes };
        let source = DirectSource::new(lane, inbox);
        let source = if config.accept_clock { source.accepting_clock() } else { source };
        starter.start(number, source).await?;
    }
    Ok((intake, starter.pipeline))
}

/// The intake appends frames to the journal, and the lanes read them from there.
async fn with_journal(
    config: &PipelineConfig,
    registry: &Registry,
    mut starter: LaneStarter<'_>,
    metrics: JournalMetrics,
) -> Result<(Intake, Pipeline), StartError> {
    let (tally, health) = (registry.tally(), Arc::clone(&starter.reports.health));
    let (journal, opened) = open(config, &metrics).await?;
    tally.recovered(opened.records);
    let gaps = gaps(config, &health)?;
    let progress = Arc::new(JournalProgress::new(
        Arc::clone(journal.catalog()),
        config.lanes,
        gaps,
        config.accept_clock,
        opened.new_id,
        unix_now_us,
        (Arc::clone(&tally), health, metrics),
    ));
    // Open all of them before the first one queries the database: the answer may change what is released.
    let sources = (0..config.lanes).map(|number| JournalSource::new(Arc::clone(&progress), number));
    let sources: Vec<_> = sources.collect::<Result<_, _>>().map_err(|e| StartError::Journal(e.into()))?;
    for (number, source) in (0..).zip(sources) {
        starter.start(number, source).await?;
    }
    progress.update_gauges();
    let appender = journal.appender();
    let relay = AbortOnDropHandle::new(tokio::spawn(appender.relay()));
    let pipeline =
        Pipeline { journal: Some((journal, relay)), progress: Some(Arc::clone(&progress)), ..starter.pipeline };
    registry.before_each_answer(move || progress.update_gauges());
    Ok((Intake::journal(appender, config.inflight_max, tally), pipeline))
}

async fn open(config: &PipelineConfig, metrics: &JournalMetrics) -> Result<(Journal, OpeningReport), StartError> {
    let (directory, options, metrics) = (config.data_dir.join("journal"), config.journal, metrics.clone());
    let shown = directory.display().to_string();
    let opening = tokio::task::spawn_blocking(move || {
        let files = Files::new(&directory).map_err(|source| StartError::Directory { directory, source })?;
        let on_sync = Box::new(move |took| metrics.sync_duration.record(took));
        Journal::open(Arc::new(files), options, on_sync).map_err(|e| StartError::Journal(e.into()))
    });
    let (journal, opened) = opening.await.map_err(|e| StartError::Thread(io::Error::other(e)))??;
    let OpeningReport { entries, records, torn_bytes, damages, damage_skipped_bytes, new_id } = opened;
    tracing::info!(
        directory = shown, id = %journal.catalog().id(), new_id, entries, records, torn_bytes,
        "the journal is open; entries that may not be in the database are drained now"
    );
    if damages > 0 {
        tracing::error!(
            damages,
            bytes = damage_skipped_bytes,
            "damaged places in the journal were skipped; their entries are lost"
        );
    }
    Ok((journal, opened))
}

/// Opens the note of gaps and reports what it says, unless the operator accepts it.
fn gaps(config: &PipelineConfig, health: &Health) -> Result<GapFile, StartError> {
    let directory: &Path = &config.data_dir;
    let files = Files::new(directory);
    let files = files.map_err(|source| StartError::Directory { directory: directory.to_owned(), source })?;
    let gaps = GapFile::new(Arc::new(files));
    let accept = if config.accept_gap { gaps.accept() } else { Ok(()) };
    match accept.and_then(|()| gaps.read()) {
        Ok(noted) if noted.is_empty() => {}
        Ok(noted) => {
            health.raise(Reason::JournalGap);
            noted.lines().for_each(|gap| tracing::error!("not accepted yet: {gap}; see --accept-gap"));
        }
        Err(error) => tracing::error!(%error, "cannot read or remove the note of gaps in the journal"),
    }
    Ok(gaps)
}

/// Starts lanes one after the other.
struct LaneStarter<'a> {
    config: &'a PipelineConfig,
    reports: LaneReports,
    pipeline: Pipeline,
    /// Each lane holds one. When all are dropped, all lanes have ended.
    guard: Arc<DropGuard>,
}

impl<'a> LaneStarter<'a> {
    fn new(config: &'a PipelineConfig, reports: LaneReports) -> Self {
        let all_ended = CancellationToken::new();
        let guard = Arc::new(all_ended.clone().drop_guard());
        let give_up = CancellationToken::new();
        let pipeline = Pipeline {
            journal: None,
            progress: None,
            lanes: Vec::new(),
            finish: CancellationToken::new(),
            _give_up_on_drop: give_up.clone().drop_guard(),
            give_up,
            ended: CancellationToken::new(),
            all_ended,
            health: Arc::clone(&reports.health),
        };
        Self { config, reports, pipeline, guard }
    }

    async fn start<F: EntrySource + Send + 'static>(&mut self, number: u16, source: F) -> Result<(), StartError> {
        let (url, lane) = (&self.config.database_url, source.lane());
        // Records over the cap are still in the journal. Without one, nothing else would hold them.
        let has_journal = self.config.acknowledgement == Acknowledgement::AfterJournal;
        let cap = self.config.quarantine_max_per_hour.filter(|_| has_journal);
        let store = DatabaseStore::open(url, lane, cap).await.map_err(StartError::Store)?;
        self.spawn(number, store, source)
    }

    /// Gives a lane its own thread and runtime, so that decoding and encoding never delay a session.
    fn spawn<S, F>(&mut self, number: u16, store: S, source: F) -> Result<(), StartError>
    where
        S: Store + Send + 'static,
        F: EntrySource + Send + 'static,
    {
        let driver = LaneDriver::new(store, source, self.config.batching, self.reports.clone());
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(StartError::Thread)?;
        let (finish, give_up) = (self.pipeline.finish.clone(), self.pipeline.give_up.clone());
        let guards = (Arc::clone(&self.guard), self.pipeline.ended.clone().drop_guard());
        let thread = std::thread::Builder::new().name(format!("lane-{number}")).spawn(move || {
            let _guards = guards;
            lower_priority();
            runtime.block_on(driver.run(finish, give_up));
        });
        self.pipeline.lanes.push(thread.map_err(StartError::Thread)?);
        Ok(())
    }
}

/// Lets sessions and the journal run first: an answer is late because it waits for a core, not for the disk.
fn lower_priority() {
    // On Linux this concerns the calling thread only. If it is not permitted, nothing is lost.
    let _ = rustix::process::nice(LANE_NICENESS);
}

/// Everything behind the intake.
pub(super) struct Pipeline {
    journal: Option<(Journal, AbortOnDropHandle<()>)>,
    progress: Option<Arc<JournalProgress>>,
    lanes: Vec<std::thread::JoinHandle<()>>,
    finish: CancellationToken,
    give_up: CancellationToken,
    /// Cancelled as soon as one lane ends.
    pub(super) ended: CancellationToken,
    all_ended: CancellationToken,
    health: Arc<Health>,
    /// Ends the lanes if the start fails half-way.
    _give_up_on_drop: DropGuard,
}

impl Pipeline {
    /// How far the lanes are in the journal, if there is one.
    pub(super) fn progress(&self) -> Option<Arc<JournalProgress>> {
        self.progress.clone()
    }

    /// Ends the wait for receipts: frames without one stay unanswered.
    pub(super) fn give_up(&self) {
        match &self.journal {
            // Sessions may wait for room in a full journal. This refuses them.
            Some((journal, _)) => journal.stop_taking(),
            None => self.give_up.cancel(),
        }
    }

    /// Commits what is left within the time given, and ends. The sessions have ended before. Returns the bytes of the journal
    /// that the database may lack.
    pub(super) async fn stop(self, deadline: Instant, records_wait: bool) -> u64 {
        let Self { journal, lanes, finish, give_up, all_ended, health, progress, _give_up_on_drop, .. } = self;
        let uncommitted = || progress.as_ref().map_or(0, |progress| progress.uncommitted_bytes());
        // Messages are no records.
        let waiting = records_wait || uncommitted() > 0;
        finish.cancel();
        // A backlog is not a failure: it stays in the journal. And an absent database takes nothing.
        let away = health.holds(Reason::StoreDown) || health.holds(Reason::StoreRefuses);
        let soon = Instant::now() + IDLE_PATIENCE;
        let patience = if waiting && !away { deadline.max(soon) } else { soon };
        let _ = timeout_at(patience, all_ended.cancelled()).await;
        give_up.cancel();
        let joined = tokio::task::spawn_blocking(move || lanes.into_iter().for_each(|lane| drop(lane.join())));
        let _ = timeout(END_PATIENCE, joined).await;
        if let Some((journal, relay)) = journal {
            // The last group holds the release mark.
            match timeout(END_PATIENCE, tokio::task::spawn_blocking(move || journal.close())).await {
                Ok(Ok(Ok(()))) => {}
                Ok(Ok(Err(error))) => tracing::error!(%error, cause = %error.source, "the journal had failed"),
                _ => tracing::error!("the journal does not close; everything acknowledged is durable nevertheless"),
            }
            drop(relay);
        }
        uncommitted()
    }
}

/// For lanes that have nothing to do.
const IDLE_PATIENCE: Duration = Duration::from_millis(500);
/// For lanes and a journal that should end at once.
const END_PATIENCE: Duration = Duration::from_secs(10);
/// The lowest priority is 19.
const LANE_NICENESS: i32 = 10;
