//! One process: the service's own sessions, intake, journal writer and lanes on a faulty disk, without a thread of its
//! own.

use std::any::Any;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use fastrand::Rng;
use odograph::health::{Health, Reason};
use odograph::ingest::drain::{
    BatchLimits, DirectSource, EntrySource, FilterSizes, GapFile, JournalProgress, JournalSource, LaneDriver,
    LaneReports, TimeWindow,
};
use odograph::ingest::drain::{DrainMetrics, JournalMetrics};
use odograph::ingest::gateway::{CloseReason, Gateway, GatewayMetrics, Timeouts, serve};
use odograph::ingest::intake::Intake;
use odograph::metrics::{Registry, Tally};
use odograph::store::{COMMIT_ORDER, FLAG_ORDER, FlagLedger, Lane};

use crate::database::SimDatabase;
use odograph_faulty_disk::FaultyDisk;
use odograph_journal::{
    Entry, Limits, Log, NewEntry, OpenError, OpeningDraw, Options, Reader, RecoveryMode, SharedCatalog, Storage, Writer,
};
use odograph_journal::{JournalId, Position};
use tokio_util::sync::CancellationToken;

use crate::clock::wall;
use crate::executor::{Bell, Task};
use crate::flags::{Stream, consume};
use crate::mutants::{EmptyCommit, LyingDisk};
use crate::network::Wire;
use crate::plan::{Mutant, Plan};
use crate::sent::Sent;
use crate::watched_store::WatchedStore;

thread_local! {
    /// Shared by all processes. The oracle reads only the tally of each.
    static METRICS: (Registry, GatewayMetrics, DrainMetrics, JournalMetrics) = {
        let registry = Registry::new();
        let (gateway, drain, journal) =
            (GatewayMetrics::new(&registry), DrainMetrics::new(&registry), JournalMetrics::new(&registry));
        (registry, gateway, drain, journal)
    };
}

/// Removes old samples of histograms.
pub fn upkeep() {
    METRICS.with(|(registry, ..)| registry.upkeep());
}

/// A process, whether or not it runs.
pub struct Process {
    pub disk: FaultyDisk,
    /// Processes with copies of one directory.
    pub family: usize,
    pub running: Option<Running>,
    /// It is to stay down for now.
    pub held: bool,
    /// The tag of its last opening; 0 before the first.
    tag: u32,
    /// The tag of its next opening, if it is not drawn.
    next_tag: Option<u32>,
}

/// What runs.
pub struct Running {
    pub journal: Option<Journal>,
    gateway: Arc<Gateway>,
    pub tally: Arc<Tally>,
    pub health: Arc<Health>,
    pub sessions: BTreeMap<usize, Task<CloseReason>>,
    pub lanes: Vec<Task<bool>>,
    pub consumer: Task<()>,
    pub stop: CancellationToken,
    pub finish: CancellationToken,
    _lock: Box<dyn Any + Send + Sync>,
}

/// The journal's part of a process, and what the harness knows of it.
pub struct Journal {
    pub writer: Writer,
    pub catalog: Arc<SharedCatalog>,
    /// Items by the positions of their entries, as they were read back.
    pub entries: BTreeMap<u64, Vec<usize>>,
    read_to: Position,
    pub released: Position,
    pub stopped: bool,
}

/// What all processes share.
pub struct Surrounds<'a> {
    pub bell: &'a Arc<Bell>,
    pub database: &'a SimDatabase,
    pub stream: &'a Stream,
    pub plan: &'a Plan,
}

/// Why a process does not start.
#[derive(Debug)]
pub enum NotStarted {
    /// The disk failed, or the power.
    Disk,
    /// A failure that no crash may cause.
    Failure(String),
}

impl Process {
    pub fn new(disk: FaultyDisk, family: usize) -> Self {
        Self { disk, family, running: None, held: false, tag: 0, next_tag: None }
    }

    /// A process on a copy of the directory. With the memory of the original, as in a virtual machine that is put back to a
    /// snapshot, it goes on under the same tag.
    pub fn copy_of(original: &Self, disk: FaultyDisk, with_memory: bool) -> Self {
        let next_tag = Some(original.tag).filter(|tag| with_memory && *tag != 0);
        Self { next_tag, ..Self::new(disk, original.family) }
    }

    /// Opens the journal and starts everything, as `app` does. Gives the records that were found.
    pub fn start(
        &mut self,
        number: usize,
        lanes: u16,
        rng: &mut Rng,
        around: &Surrounds<'_>,
        sent: &Sent,
    ) -> Result<u64, NotStarted> {
        let plan = around.plan;
        let storage: Arc<dyn Storage> = match plan.mutant {
            Some(Mutant::LyingDisk) => Arc::new(LyingDisk(self.disk.clone())),
            _ => Arc::new(self.disk.clone()),
        };
        let lock = storage.lock().map_err(|e| NotStarted::Failure(format!("the lock is held: {e}")))?;
        assert!(storage.lock().is_err(), "one process a directory");
        let (gateway_metrics, drain_metrics, journal_metrics) =
            METRICS.with(|(_, gateway, drain, journal)| (gateway.clone(), drain.clone(), journal.clone()));
        let (tally, health) = (Arc::new(Tally::default()), Arc::new(Health::default()));
        health.clear(Reason::Starting);
        let surroundings =
            LaneReports { metrics: drain_metrics, tally: Arc::clone(&tally), health: Arc::clone(&health) };
        let (finish, give_up) = (CancellationToken::new(), CancellationToken::new());
        let mut tasks = Vec::new();
        let mut found = 0;
        let (intake, journal) = if plan.commit_mode {
            let (intake, inboxes) = Intake::commit(lanes, INFLIGHT, Arc::clone(&tally));
            let id = JournalId::from_bytes(rng.u128(..).to_le_bytes());
            for (number, inbox) in (0..).zip(inboxes) {
                let feed = DirectSource::new(Lane { journal: id, number, lanes }, inbox);
                tasks.push(lane(around, feed, &surroundings, &finish, &give_up));
            }
            (intake, None)
        } else {
            let (mut draw, options) = (draw(rng), Options { limits: limits(plan), recovery: RecoveryMode::Strict });
            draw.tag = self.next_tag.take().unwrap_or(draw.tag);
            self.tag = draw.tag;
            let (log, opened) = Log::open(Arc::clone(&storage), options, draw, wall()).map_err(not_opened)?;
            let catalog = Arc::clone(log.catalog());
            let writer = Writer::new(log, options.limits.group_bytes(), Box::new(|_| ()));
            tally.recovered(opened.records);
            found = opened.records;
            let gaps = GapFile::new(Arc::clone(&storage));
            if gaps.read().is_ok_and(|noted| !noted.is_empty()) {
                health.raise(Reason::JournalGap);
            }
            let shared = (Arc::clone(&tally), Arc::clone(&health), journal_metrics);
            let draining =
                Arc::new(JournalProgress::new(Arc::clone(&catalog), lanes, gaps, false, opened.new_id, wall, shared));
            for number in 0..lanes {
                let tail = JournalSource::new(Arc::clone(&draining), number).map_err(|_| NotStarted::Disk)?;
                tasks.push(lane(around, tail, &surroundings, &finish, &give_up));
            }
            let intake = Intake::journal(writer.appender(), INFLIGHT, Arc::clone(&tally));
            let status = catalog.status();
            let mut journal = Journal {
                writer,
                catalog,
                entries: BTreeMap::new(),
                read_to: status.begin,
                released: Position(0),
                stopped: false,
            };
            journal.read(sent).map_err(NotStarted::Failure)?;
            (intake, Some(journal))
        };
        let timeouts =
            Timeouts { login: Duration::from_secs(10), frame: Duration::from_secs(20), idle: Duration::from_mins(5) };
        let gateway = Arc::new(Gateway::new(intake, timeouts, gateway_metrics, Arc::clone(&tally), None, None, wall));
        let deaf = plan.mutant == Some(Mutant::DeafConsumer);
        let order = match plan.mutant {
            Some(Mutant::FlagOrder(order)) => order,
            _ => FLAG_ORDER,
        };
        let ledger = FlagLedger::over(around.database.clone()).in_order(order);
        let consumer = consume(number, around.stream.clone(), ledger, deaf);
        self.running = Some(Running {
            journal,
            gateway,
            tally,
            health,
            sessions: BTreeMap::new(),
            lanes: tasks,
            consumer: Task::new(around.bell, consumer),
            stop: CancellationToken::new(),
            finish,
            _lock: lock,
        });
        Ok(found)
    }
}

impl Running {
    /// Serves a connection.
    pub fn accept(&mut self, bell: &Arc<Bell>, connection: usize, wire: &Wire) {
        let (end, gateway, stop) = (wire.end(), Arc::clone(&self.gateway), self.stop.clone());
        let session = async move { serve(end, None, connection as u64, &gateway, &stop).await };
        self.sessions.insert(connection, Task::new(bell, session));
    }
}

impl Journal {
    /// Reads what was synced since the last time. What was not sent must not be there.
    pub fn read(&mut self, sent: &Sent) -> Result<(), String> {
        let Ok(mut reader) = Reader::open(&self.catalog, self.read_to) else { return Ok(()) };
        while let Ok(Some(Entry { position, entry, .. })) = reader.next() {
            let NewEntry { imei, bytes, .. } = entry;
            let Some(items) = sent.of_entry(imei.get(), bytes) else {
                return Err(format!("the journal holds bytes at {position} that no tracker sent"));
            };
            self.entries.insert(position.0, items.to_vec());
        }
        self.read_to = reader.cursor().position;
        Ok(())
    }
}

/// Items that an image of a disk holds once it is opened, which must go well.
pub fn held_by(image: FaultyDisk, plan: &Plan, sent: &Sent) -> Result<Vec<bool>, String> {
    let mut held = vec![false; sent.items.len()];
    let options = Options { limits: limits(plan), recovery: RecoveryMode::Strict };
    let draw = OpeningDraw { id: JournalId::from_bytes([9; 16]), tag: 9, begin: Position(0) };
    let opened = Log::open(Arc::new(image), options, draw, wall());
    let (log, _) = opened.map_err(|e| format!("what a power cut leaves cannot be opened: {e}"))?;
    let catalog = log.catalog();
    let reader = Reader::open(catalog, catalog.status().begin);
    let mut reader = reader.map_err(|e| format!("what a power cut leaves cannot be read: {e}"))?;
    while let Some(found) = reader.next().map_err(|e| format!("what a power cut leaves cannot be read: {e}"))? {
        let items = sent.of_entry(found.entry.imei.get(), found.entry.bytes).ok_or("bytes that no tracker sent")?;
        for item in items {
            held[*item] = true;
        }
    }
    Ok(held)
}

fn lane<F: EntrySource + 'static>(
    around: &Surrounds<'_>,
    feed: F,
    surroundings: &LaneReports,
    finish: &CancellationToken,
    give_up: &CancellationToken,
) -> Task<bool> {
    let window = TimeWindow { past: Duration::from_hours(24 * 365), future: Duration::from_hours(24) };
    // So few that it forgets.
    let remembered = FilterSizes { devices: 2, perhaps: 64 };
    let batching =
        BatchLimits { rows: around.plan.batch_rows, linger: Duration::from_millis(50), window, filter: remembered };
    let order = match around.plan.mutant {
        Some(Mutant::CommitOrder(order)) => order,
        _ => &COMMIT_ORDER,
    };
    let store = WatchedStore::new(around.database, feed.lane(), order);
    let surroundings = surroundings.clone();
    let (finish, give_up) = (finish.clone(), give_up.clone());
    if around.plan.mutant == Some(Mutant::EmptyCommit) {
        let store = EmptyCommit::new(store, feed.lane());
        return Task::new(around.bell, LaneDriver::new(store, feed, batching, surroundings).run(finish, give_up));
    }
    Task::new(around.bell, LaneDriver::new(store, feed, batching, surroundings).run(finish, give_up))
}

fn not_opened(error: OpenError) -> NotStarted {
    match error {
        OpenError::Io { .. } | OpenError::Poisoned(_) => NotStarted::Disk,
        error => NotStarted::Failure(format!("no crash is damage: {error}")),
    }
}

fn draw(rng: &mut Rng) -> OpeningDraw {
    OpeningDraw { id: JournalId::from_bytes(rng.u128(..).to_le_bytes()), tag: rng.u32(1..), begin: Position(0) }
}

/// Small enough to be read whole, and to be full now and then.
fn limits(plan: &Plan) -> Limits {
    let files = if plan.small_journal { 4 } else { 10 };
    Limits::with_pieces(files * SEGMENT, SEGMENT, 1500, Duration::from_hours(1)).unwrap()
}

const SEGMENT: u64 = 4 << 10;
const INFLIGHT: u32 = 64 << 10;
