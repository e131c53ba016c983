//! One schedule: a seed, the world that it makes, and the outcome.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::plan::Mutant;
use crate::process;
use crate::trace::Trace;
use crate::world::World;

/// The outcome of one schedule.
pub struct ScheduleOutcome {
    /// What did not hold, if anything did not.
    pub failure: Option<String>,
    /// The number of records and messages that trackers made.
    pub items: usize,
    /// The number of images of a disk that were opened after a simulated power cut.
    pub images: u64,
    trace: Arc<Mutex<Trace>>,
}

/// Runs the schedule of a seed, with or without something broken on purpose.
#[must_use]
pub fn run(seed: u64, mutant: Option<Mutant>) -> ScheduleOutcome {
    let trace = Arc::new(Mutex::new(Trace::default()));
    let ran = catch_unwind(AssertUnwindSafe(|| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        runtime.block_on(tokio::task::unconstrained(async {
            let mut world = World::new(seed, mutant, Arc::clone(&trace));
            let failure = world.run().await.err();
            (failure, world.oracle.sent.items.len(), world.oracle.images_opened)
        }))
    }));
    process::upkeep();
    let (failure, items, images) = ran.unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
        (Some(format!("panic: {}", text.unwrap_or_default())), 0, 0)
    });
    ScheduleOutcome { failure, items, images, trace }
}

impl ScheduleOutcome {
    /// Returns the number of steps.
    #[must_use]
    pub fn steps(&self) -> usize {
        self.trace().count_steps()
    }

    /// Returns how often each kind of fault happened.
    #[must_use]
    pub fn faults(&self) -> BTreeMap<&'static str, u64> {
        self.trace().faults.clone()
    }

    /// Returns a hash of all steps and of the result. The same seed gives the same hash.
    #[must_use]
    pub fn hash(&self) -> u32 {
        self.trace().hash()
    }

    /// Describes the schedule: every step, what did not hold, and the command that repeats it.
    #[must_use]
    pub fn report(&self, seed: u64) -> String {
        let failure = self.failure.as_deref().unwrap_or("everything held");
        let repeat = format!("SIM_SEED={seed} SIM_SCHEDULES=1 cargo test -p odograph-sim any_schedule");
        format!("{}\nseed {seed}: {failure}\nrepeat: {repeat}", self.trace())
    }

    fn trace(&self) -> MutexGuard<'_, Trace> {
        self.trace.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
