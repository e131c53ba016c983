//! From the gate to the database: the journal, if there is one, and a thread for each lane of the drain.

use std::io;
use std::path::Path;
use std::sync::Arc;

use tokio::time::{Instant, timeout, timeout_at};
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::AbortOnDropHandle;

use super::{Accepted, LAST_PATIENCE, SHORT_PATIENCE, StartError};
use crate::config::{AckAfter, Settings};
use crate::health::{Health, Reason};
use crate::ingest::drain::{Batching, Drain, Draining, Feed, GapFile, Inbox, Sizes, Surroundings, Tail, TimeWindow};
use crate::ingest::intake::Gate;
use crate::metrics::{DrainMetrics, JournalMetrics, Registry};
use crate::store::{DatabaseUrl, Lane, PostgresStore, SqliteStore, Store};
use odograph_journal::JournalId;
use odograph_journal::system_us;
use odograph_journal::{Files, Journal, Opened, Options};

/// Everything behind the gateway.
pub(super) struct Pipeline {
    journal: Option<(Journal, AbortOnDropHandle<()>)>,
    draining: Option<Arc<Draining>>,
    lanes: Vec<std::thread::JoinHandle<()>>,
    finish: CancellationToken,
    give_up: CancellationToken,
    /// A lane has ended.
    pub(super) ended: CancellationToken,
    all_ended: CancellationToken,
    health: Arc<Health>,
    /// A start that fails half-way leaves no lane behind.
    _dropped: DropGuard,
}

/// Opens the journal where there is one, and starts the lanes.
pub(super) async fn start(
    settings: &Settings,
    accepted: Accepted,
    registry: &Registry,
    health: &Arc<Health>,
) -> Result<(Gate, Pipeline), StartError> {
    let (tally, metrics) = (registry.tally(), DrainMetrics::new(registry));
    let journal_metrics = JournalMetrics::new(registry);
    let around = Surroundings { metrics, tally: Arc::clone(&tally), health: Arc::clone(health) };
    let mut lanes = Lanes::new(settings, around, health);
    match settings.ack_after {
        AckAfter::Commit => {
            let (gate, inboxes) = Gate::commit(settings.lanes, settings.inflight_max, tally);
            let journal = JournalId::random();
            for (number, inbox) in (0..).zip(inboxes) {
                let lane = Lane { journal, number, lanes: settings.lanes };
                lanes.start(number, Inbox::new(lane, inbox)).await?;
            }
            Ok((gate, lanes.pipeline(None)))
        }
        AckAfter::Journal => {
            let (journal, opened) = open(settings, accepted, &journal_metrics).await?;
            tally.recovered(opened.records);
            let gaps = gaps(&settings.data_dir, accepted, health)?;
            let (contents, health) = (Arc::clone(journal.contents()), Arc::clone(health));
            let draining = Draining::new(
                contents,
                settings.lanes,
                gaps,
                accepted.clock,
                opened.new_id,
                system_us,
                (Arc::clone(&tally), health, journal_metrics),
            );
            let draining = Arc::new(draining);
            // All of them before the first one asks the database, which may change what is released.
            let tails = (0..settings.lanes).map(|number| Tail::new(Arc::clone(&draining), number));
            let tails: Vec<_> = tails.collect::<Result<_, _>>().map_err(|wrong| StartError::Journal(wrong.into()))?;
            for (number, tail) in (0..).zip(tails) {
                lanes.start(number, tail).await?;
            }
            draining.look();
            lanes.pipeline.draining = Some(Arc::clone(&draining));
            registry.before_each_answer(move || draining.look());
            let appender = journal.appender();
            let relay = AbortOnDropHandle::new(tokio::spawn(appender.relay()));
            Ok((Gate::journal(appender, settings.inflight_max, tally), lanes.pipeline(Some((journal, relay)))))
        }
    }
}

async fn open(
    settings: &Settings,
    accepted: Accepted,
    metrics: &JournalMetrics,
) -> Result<(Journal, Opened), StartError> {
    let (directory, metrics) = (settings.data_dir.join("journal"), metrics.clone());
    let options = Options { limits: settings.journal, recovery: accepted.recovery };
    let shown = directory.display().to_string();
    let opening = tokio::task::spawn_blocking(move || {
        let files = Files::new(&directory).map_err(|wrong| StartError::Directory { directory, source: wrong })?;
        let on_sync = Box::new(move |took| metrics.sync_duration.record(took));
        Journal::open(Arc::new(files), options, on_sync).map_err(|wrong| StartError::Journal(wrong.into()))
    });
    let (journal, opened) = opening.await.map_err(|wrong| StartError::Thread(io::Error::other(wrong)))??;
    let Opened { entries, records, torn_bytes, damages, damage_skipped_bytes, new_id } = opened;
    tracing::info!(
        directory = shown, id = %journal.contents().id(), new_id, entries, records, torn_bytes,
        "the journal is open; what it holds that may not be in the database is drained now"
    );
    if damages > 0 {
        tracing::error!(
            damages,
            bytes = damage_skipped_bytes,
            "damaged places of the journal were skipped; their entries are lost"
        );
    }
    Ok((journal, opened))
}

fn gaps(directory: &Path, accepted: Accepted, health: &Health) -> Result<GapFile, StartError> {
    let files = Files::new(directory);
    let files = files.map_err(|source| StartError::Directory { directory: directory.to_owned(), source })?;
    let gaps = GapFile::new(Arc::new(files));
    let accept = if accepted.gap { gaps.accept() } else { Ok(()) };
    match accept.and_then(|()| gaps.read()) {
        Ok(noted) if noted.is_empty() => {}
        Ok(noted) => {
            health.raise(Reason::JournalGap);
            noted.lines().for_each(|gap| tracing::error!("not accepted yet: {gap}; see --accept-gap"));
        }
        Err(wrong) => tracing::error!(error = %wrong, "the note of gaps in the journal cannot be read or removed"),
    }
    Ok(gaps)
}

/// Lanes that are being started.
struct Lanes<'a> {
    settings: &'a Settings,
    around: Surroundings,
    pipeline: Pipeline,
    /// Every lane holds one: when all are gone, all have ended.
    guard: Arc<DropGuard>,
}

impl<'a> Lanes<'a> {
    fn new(settings: &'a Settings, around: Surroundings, health: &Arc<Health>) -> Self {
        let all_ended = CancellationToken::new();
        let guard = Arc::new(all_ended.clone().drop_guard());
        let give_up = CancellationToken::new();
        let pipeline = Pipeline {
            journal: None,
            draining: None,
            lanes: Vec::new(),
            finish: CancellationToken::new(),
            _dropped: give_up.clone().drop_guard(),
            give_up,
            ended: CancellationToken::new(),
            all_ended,
            health: Arc::clone(health),
        };
        Self { settings, around, pipeline, guard }
    }

    async fn start<F: Feed + Send + 'static>(&mut self, number: u16, feed: F) -> Result<(), StartError> {
        let (url, lane) = (&self.settings.database_url, feed.lane());
        // What is over the bound is in the journal. Where there is none, nothing else would have it.
        let cap = self.settings.quarantine_max_per_hour.filter(|_| self.settings.ack_after == AckAfter::Journal);
        match url {
            DatabaseUrl::Sqlite(_) => {
                let store = SqliteStore::open(url, lane).await.map_err(StartError::Store)?;
                self.spawn(number, store.keeping(cap), feed)
            }
            DatabaseUrl::Postgres(_) => {
                let store = PostgresStore::new(url, lane).map_err(StartError::Store)?;
                self.spawn(number, store.keeping(cap), feed)
            }
        }
    }

    /// A lane has a thread and a runtime of its own, so that decoding and encoding never hold up a session.
    fn spawn<S, F>(&mut self, number: u16, store: S, feed: F) -> Result<(), StartError>
    where
        S: Store + Send + 'static,
        F: Feed + Send + 'static,
    {
        let Settings {
            time_window_past: past, time_window_future: future, batch_rows: rows, batch_linger: linger, ..
        } = *self.settings;
        let (window, remembered) = (TimeWindow { past, future }, Sizes::default());
        let batching = Batching { rows, linger, window, remembered };
        let drain = Drain::new(store, feed, batching, self.around.clone());
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(StartError::Thread)?;
        let (finish, give_up) = (self.pipeline.finish.clone(), self.pipeline.give_up.clone());
        let guards = (Arc::clone(&self.guard), self.pipeline.ended.clone().drop_guard());
        let thread = std::thread::Builder::new().name(format!("lane-{number}")).spawn(move || {
            let _guards = guards;
            stand_back();
            runtime.block_on(drain.run(finish, give_up));
        });
        self.pipeline.lanes.push(thread.map_err(StartError::Thread)?);
        Ok(())
    }

    fn pipeline(self, journal: Option<(Journal, AbortOnDropHandle<()>)>) -> Pipeline {
        Pipeline { journal, ..self.pipeline }
    }
}

/// Lets sessions and journal go first: what makes an answer late is waiting for a core, not the disk.
fn stand_back() {
    // The thread's own on Linux. Where it is not allowed, nothing is lost.
    let _ = rustix::process::nice(LANE_NICENESS);
}

impl Pipeline {
    /// What empties the journal, if there is one.
    pub(super) fn draining(&self) -> Option<Arc<Draining>> {
        self.draining.clone()
    }

    /// What is waiting for a receipt and has none soon gets none any more.
    pub(super) fn give_up(&self) {
        match &self.journal {
            // A full one has sessions wait until it takes nothing more.
            Some((journal, _)) => journal.stop_taking(),
            None => self.give_up.cancel(),
        }
    }

    /// No session is left: commits what there is within the time given, and ends.
    pub(super) async fn stop(self, deadline: Instant, waiting: bool) {
        let Self { journal, lanes, finish, give_up, all_ended, health, _dropped, .. } = self;
        finish.cancel();
        // A backlog is no failure, and a database that is away takes nothing.
        let away = health.holds(Reason::StoreDown) || health.holds(Reason::StoreRefuses);
        let shortly = Instant::now() + SHORT_PATIENCE;
        let patience = if waiting && !away { deadline.max(shortly) } else { shortly };
        let _ = timeout_at(patience, all_ended.cancelled()).await;
        give_up.cancel();
        let joined = tokio::task::spawn_blocking(move || lanes.into_iter().for_each(|lane| drop(lane.join())));
        let _ = timeout(LAST_PATIENCE, joined).await;
        if let Some((journal, relay)) = journal {
            // What was released is written with the last group.
            match timeout(LAST_PATIENCE, tokio::task::spawn_blocking(move || journal.close())).await {
                Ok(Ok(Ok(()))) => {}
                Ok(Ok(Err(wrong))) => tracing::error!(error = %wrong, cause = %wrong.source, "the journal had failed"),
                _ => tracing::error!("the journal does not close; what was acknowledged is durable all the same"),
            }
            drop(relay);
        }
    }
}

/// Of 19 steps.
const LANE_NICENESS: i32 = 10;
