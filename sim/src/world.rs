//! One world: trackers, processes, a database and marshals under one seeded scheduler, which decides every step.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::database::{SimDatabase, Snapshot};
use fastrand::Rng;
use odograph_faulty_disk::FaultyDisk;
use teltonika_codecs::Imei;
use tokio::time::Instant;

use crate::clock;
use crate::executor::Bell;
use crate::flags::{Marshals, Stream};
use crate::oracle::Oracle;
use crate::plan::{Mutant, Plan};
use crate::process::Process;
use crate::trace::{Step, Trace};
use crate::tracker::{Connection, Tracker};

pub struct World {
    pub rng: Rng,
    pub plan: Plan,
    pub bell: Arc<Bell>,
    pub trace: Arc<Mutex<Trace>>,
    pub oracle: Oracle,
    pub database: SimDatabase,
    pub snapshots: Vec<Snapshot>,
    pub refusing: bool,
    pub processes: Vec<Process>,
    pub trackers: Vec<Tracker>,
    pub connections: Vec<Connection>,
    pub stream: Stream,
    pub marshals: Marshals,
    pub began: Instant,
    /// How far the wall clock is off.
    pub clock_off_us: i64,
    /// How far it was ahead at most.
    pub clock_ahead_us: i64,
    /// The faults have stopped, and everything comes to rest.
    pub resting: bool,
}

/// What a step is about.
#[derive(Clone, Copy, PartialEq)]
enum Choice {
    Poll,
    Serve,
    Notice,
    Take,
    Write,
    SegmentTask,
    Track,
    Arrive,
    Reach,
    Time,
    Declare,
    Relay,
}

impl World {
    pub fn new(seed: u64, mutant: Option<Mutant>, trace: Arc<Mutex<Trace>>) -> Self {
        let mut rng = Rng::with_seed(seed);
        // Back-off and filters of the service draw from here.
        fastrand::seed(rng.u64(..));
        let plan = Plan::new(&mut rng, mutant);
        let database = SimDatabase::new(match mutant {
            Some(Mutant::Database(flaw)) => Some(flaw),
            _ => None,
        });
        // Early, so that a schedule has the time to divide a batch and to commit it.
        database.refuse_faster_than(plan.refuses_rows.then_some(FASTEST_KMH));
        let base_ms = clock::BEGIN_US.unsigned_abs() / 1000;
        let trackers = (0..plan.trackers).map(|number| Tracker::new(&mut rng, number as u64, base_ms)).collect();
        let processes = (0..plan.processes).map(|number| Process::new(FaultyDisk::new(rng.u64(..)), number)).collect();
        clock::set(clock::BEGIN_US);
        Self {
            rng,
            plan,
            bell: Arc::default(),
            trace,
            oracle: Oracle::default(),
            snapshots: vec![database.snapshot()],
            database,
            refusing: false,
            processes,
            trackers,
            connections: Vec::new(),
            stream: Stream::default(),
            marshals: Marshals::default(),
            began: Instant::now(),
            clock_off_us: 0,
            clock_ahead_us: 0,
            resting: false,
        }
    }

    /// The whole schedule: faults for a while, then rest.
    pub async fn run(&mut self) -> Result<(), String> {
        for number in 0..self.processes.len() {
            self.start(number)?;
        }
        for _ in 0..self.plan.steps {
            self.step().await?;
        }
        self.come_to_rest().await?;
        self.oracle.at_rest(&self.plan, &self.database)?;
        if self.oracle.sent.items.iter().any(|item| item.gone) {
            self.trace.lock().unwrap().count("(records gone with a database that went back, and reported)");
        }
        self.flags_at_rest()?;
        let stored = self.database.read(|tables| tables.positions.len());
        let acked = self.oracle.sent.items.iter().filter(|item| item.acked).count();
        self.trace.lock().unwrap().seal(&(stored, acked, self.oracle.sent.items.len()));
        Ok(())
    }

    pub fn note(&self, step: Step) {
        self.trace.lock().unwrap().note(step);
    }

    /// One step, and what must hold after it.
    async fn step(&mut self) -> Result<(), String> {
        self.show_time();
        let faulty = self.plan.fault_every > 0 && self.rng.usize(..self.plan.fault_every) == 0;
        if !(faulty && self.fault()?) {
            let mut tries = 0;
            while tries < 12 && !self.act()? {
                tries += 1;
            }
            if tries == 12 || self.rng.u8(..) < 16 {
                self.pass_time().await;
            }
        }
        self.check()
    }

    pub fn check(&mut self) -> Result<(), String> {
        self.hear_answers()?;
        self.oracle.check(&mut self.rng, &self.plan, &mut self.processes, &self.database)
    }

    /// Takes one step of a drawn kind. Returns false if there was nothing to do.
    fn act(&mut self) -> Result<bool, String> {
        const WEIGHTS: [(Choice, u32); 12] = [
            (Choice::Poll, 40),
            (Choice::Serve, 40),
            (Choice::Notice, 3),
            (Choice::Take, 3),
            (Choice::Write, 10),
            (Choice::SegmentTask, 3),
            (Choice::Track, 12),
            (Choice::Arrive, 12),
            (Choice::Reach, 8),
            (Choice::Time, 2),
            (Choice::Declare, 4),
            (Choice::Relay, 5),
        ];
        let mut drawn = self.rng.u32(..WEIGHTS.iter().map(|(_, weight)| *weight).sum::<u32>());
        let mut choice = Choice::Time;
        for (candidate, weight) in WEIGHTS {
            if drawn < weight {
                choice = candidate;
                break;
            }
            drawn -= weight;
        }
        match choice {
            Choice::Poll => Ok(self.poll_one()),
            Choice::Serve => Ok(self.serve_one()),
            Choice::Notice => Ok(self.notice_one()),
            Choice::Take => Ok(self.take_one()),
            Choice::Write => self.write_one(),
            Choice::SegmentTask => Ok(self.run_one_task()),
            Choice::Track => Ok(self.track_one()),
            Choice::Arrive => Ok(self.arrive_one()),
            Choice::Reach => Ok(self.reach_one()),
            Choice::Time => Ok(false),
            Choice::Declare => Ok(self.declare_one()),
            Choice::Relay => Ok(self.marshals.relay(&mut self.rng, &self.stream)),
        }
    }

    /// A while passes, and timers run out.
    async fn pass_time(&mut self) {
        let ms = match self.rng.u8(0..10) {
            0..5 => self.rng.u64(1..60),
            5..8 => self.rng.u64(60..2_000),
            8 => self.rng.u64(2_000..12_000),
            _ => self.rng.u64(12_000..70_000),
        };
        self.note(Step::Time { ms });
        tokio::time::advance(Duration::from_millis(ms)).await;
        self.show_time();
    }

    /// Sets the wall clock by the time that has passed.
    pub fn show_time(&self) {
        let passed = i64::try_from(self.began.elapsed().as_micros()).unwrap();
        clock::set(clock::BEGIN_US + passed + self.clock_off_us);
    }

    pub fn imeis(&self) -> Vec<Imei> {
        self.trackers.iter().map(|tracker| tracker.imei).collect()
    }

    fn declare_one(&mut self) -> bool {
        if self.plan.flags == 0 {
            return false;
        }
        let (imeis, base_ms) = (self.imeis(), clock::BEGIN_US.unsigned_abs() / 1000);
        let (flag, seq, events) =
            self.marshals.declare(&mut self.rng, self.plan.flags, &imeis, base_ms, &self.database);
        self.note(Step::Declare { flag, seq, events });
        true
    }
}

/// Rows that are faster are refused while the database refuses rows. Trackers make every fourth one faster.
pub const FASTEST_KMH: u16 = 150;
