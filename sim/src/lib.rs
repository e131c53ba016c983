//! A simulated world around the service's own code: see `docs/simulation.md`.

#![allow(
    clippy::unwrap_used,
    clippy::missing_panics_doc,
    missing_docs,
    reason = "support for tests: it fails by panicking"
)]

mod acts;
mod clock;
pub mod database;
mod executor;
mod faults;
mod flags;
mod mutants;
mod network;
mod oracle;
pub mod orders;
pub mod plan;
mod process;
mod rest;
mod sent;
pub mod trace;
mod tracker;
mod watched_store;
mod world;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, PoisonError};

use crate::plan::Mutant;
use crate::trace::Trace;
use crate::world::World;

/// What came of one schedule.
pub struct Outcome {
    pub trace: Arc<Mutex<Trace>>,
    /// What did not hold.
    pub wrong: Option<String>,
    pub items: usize,
    pub images: u64,
}

/// Runs the schedule of a seed.
#[must_use]
pub fn run(seed: u64, mutant: Option<Mutant>) -> Outcome {
    let trace = Arc::new(Mutex::new(Trace::default()));
    let ran = catch_unwind(AssertUnwindSafe(|| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        let mut facts = (0, 0);
        let wrong = runtime.block_on(tokio::task::unconstrained(async {
            let mut world = World::new(seed, mutant, Arc::clone(&trace));
            let wrong = world.run().await.err();
            facts = (world.oracle.sent.items.len(), world.oracle.images_opened);
            wrong
        }));
        (wrong, facts)
    }));
    process::upkeep();
    let (wrong, (items, images)) = ran.unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
        (Some(format!("panic: {}", text.unwrap_or_default())), (0, 0))
    });
    Outcome { trace, wrong, items, images }
}

impl Outcome {
    pub fn hash(&self) -> u32 {
        self.trace.lock().unwrap_or_else(PoisonError::into_inner).hash()
    }

    /// For people: what was wrong, how it came to that, and how to see it again.
    pub fn tell(&self, seed: u64) -> String {
        let wrong = self.wrong.as_deref().unwrap_or("nothing");
        let trace = self.trace.lock().unwrap_or_else(PoisonError::into_inner);
        format!(
            "{trace}\nseed {seed}: {wrong}\nagain: SIM_SEED={seed} SIM_SCHEDULES=1 cargo test -p odograph-sim any_schedule"
        )
    }
}
