//! The end of a schedule: the faults stop, and everything must come to rest in bounded time.

use std::time::Duration;

use odograph::store::FlagState;
use odograph_faulty_disk::Faults;
use tokio::time::Instant;

use crate::trace::Step;
use crate::world::World;

impl World {
    pub async fn come_to_rest(&mut self) -> Result<(), String> {
        self.note(Step::Rest);
        self.resting = true;
        // A clock that was ahead has marked the journal. Back at the right time, an operator would have to confirm it.
        self.clock_off_us = self.clock_ahead_us;
        self.database.refuse(None);
        // Rows that are refused to the end come to rest in quarantine.
        if self.rng.bool() {
            self.database.refuse_faster_than(None);
        }
        // Copies of one directory take turns, as an operator would arrange it. A process without a turn of its own runs
        // in the last one.
        let families: Vec<_> = self.processes.iter().map(|process| process.family).collect();
        let most = (0..families.len()).map(|family| families.iter().filter(|of| **of == family).count()).max();
        for turn in 0..most.unwrap_or(1) {
            for number in 0..self.processes.len() {
                let earlier = families[..number].iter().filter(|family| **family == families[number]).count();
                let size = families.iter().filter(|family| **family == families[number]).count();
                let held = earlier != turn.min(size - 1);
                self.processes[number].held = held;
                if held && self.processes[number].running.is_some() {
                    self.end(number, false);
                }
                self.processes[number].disk.set_faults(Faults::default());
            }
            self.settle().await?;
        }
        Ok(())
    }

    async fn settle(&mut self) -> Result<(), String> {
        let mut calm_since = None;
        for _ in 0..MOST_ROUNDS {
            self.show_time();
            let busy = self.round()?;
            self.check()?;
            if !busy {
                // Long enough for idle lanes to check the database, which may have gone back in the last moment.
                calm_since = if self.is_at_rest() { calm_since.or_else(|| Some(Instant::now())) } else { None };
                if calm_since.is_some_and(|since| since.elapsed() > CALM) {
                    return Ok(());
                }
                self.bell.wait(Duration::from_secs(10)).await;
            }
        }
        Err(format!("does not come to rest: {}", self.unrest()))
    }

    /// Everything that can be done, once.
    fn round(&mut self) -> Result<bool, String> {
        let mut busy = false;
        // Waits for transactions, as DROP TRIGGER does.
        let _ = self.database.drop_rows(false);
        for number in 0..self.processes.len() {
            if self.processes[number].running.is_none() && !self.processes[number].held {
                self.start(number)?;
                busy = true;
            }
            let stopping = self.processes[number].running.as_ref().is_some_and(|running| {
                running.stop.is_cancelled() && (running.sessions.is_empty() || running.lanes.is_empty())
            });
            if stopping {
                self.end(number, false);
                busy = true;
            }
        }
        while self.poll_one() {
            busy = true;
            self.check()?;
        }
        while self.serve_one() {
            busy = true;
        }
        while self.notice_one() {
            busy = true;
        }
        for process in 0..self.processes.len() {
            while self.write(process)? || self.run_task(process) {
                busy = true;
            }
        }
        while self.marshals.relay(&mut self.rng, &self.stream) {
            busy = true;
        }
        for tracker in 0..self.trackers.len() {
            busy |= self.track(tracker);
        }
        while self.arrive_one() {
            busy = true;
        }
        for tracker in 0..self.trackers.len() {
            busy |= self.reach(tracker);
        }
        Ok(busy)
    }

    fn is_at_rest(&self) -> bool {
        self.unrest().is_empty()
    }

    /// Describes what is not done.
    fn unrest(&self) -> String {
        let mut unrest = Vec::new();
        for (number, tracker) in self.trackers.iter().enumerate() {
            if !tracker.is_done() {
                unrest.push(format!("tracker {number} holds {:?}", tracker.held));
            }
        }
        for (number, process) in self.processes.iter().enumerate().filter(|(_, process)| !process.held) {
            let Some(running) = &process.running else {
                unrest.push(format!("process {number} is down"));
                continue;
            };
            let waiting = running.tally.read().waiting;
            if waiting > 0 {
                unrest.push(format!("{waiting} records wait in process {number}"));
            }
            if let Some(journal) = &running.journal {
                let status = journal.catalog.status();
                if status.released < status.end {
                    let id = journal.catalog.id();
                    let reached = self.database.read(|tables| [0, 1].map(|lane| tables.checkpoint(id, lane)));
                    let (released, end) = (status.released, status.end);
                    unrest.push(format!(
                        "process {number} is released to {released} of {end}, lanes have reached {reached:?}"
                    ));
                }
            }
        }
        if !self.stream.is_done() {
            unrest.push("the stream has entries".to_owned());
        }
        let behind = self.database.read(|tables| {
            let settled = tables.ledger.values().all(|flagged| flagged.applied_seq >= flagged.seq);
            let known = |change: &odograph::store::FlagChange| {
                tables.ledger.get(&change.flag).is_some_and(|held| held.seq >= change.seq)
            };
            !settled || !tables.directus.values().all(known)
        });
        if behind && self.plan.mutant != Some(super::plan::Mutant::DeafConsumer) {
            unrest.push("flags are behind".to_owned());
        }
        unrest.join("; ")
    }

    /// Checks that the ledger has the last change of each flag, unless the database lost it.
    pub fn flags_at_rest(&self) -> Result<(), String> {
        self.database.read(|tables| {
            if tables.replaced_windows() > 0 && self.plan.mutant != Some(crate::plan::Mutant::DeafConsumer) {
                return Err("windows that positions follow were not forgotten".to_owned());
            }
            for change in &self.marshals.flags {
                let held = tables.ledger.get(&change.flag);
                let window = match &change.state {
                    FlagState::Set { window, faulty: true, .. } => Some(*window),
                    _ => None,
                };
                match held {
                    Some(held) if held.seq == change.seq && held.covers() == window => {}
                    _ if self.oracle.went_back > 0 && held.is_none_or(|held| held.seq < change.seq) => {}
                    _ => return Err(format!("marshals made {change:?}, the ledger has {held:?}")),
                }
            }
            Ok(())
        })
    }
}

const CALM: Duration = Duration::from_secs(12);
const MOST_ROUNDS: usize = 6_000;
