//! Steps of normal operation, and faults on the way of a message.

use crate::database::Fate;
use odograph_journal::WriterTurn;

use crate::network::Wire;
use crate::plan::Mutant;
use crate::trace::Step;
use crate::tracker::{Connection, Owed};
use crate::world::World;

impl World {
    /// Polls a task that was woken.
    pub fn poll_one(&mut self) -> bool {
        let mut ready = Vec::new();
        for (process, of) in self.processes.iter().enumerate() {
            let Some(running) = &of.running else { continue };
            let sessions = running.sessions.iter().filter(|(_, task)| task.is_ready());
            ready.extend(sessions.map(|(number, _)| (process, "session", *number)));
            let lanes = running.lanes.iter().enumerate().filter(|(_, task)| task.is_ready());
            ready.extend(lanes.map(|(number, _)| (process, "lane", number)));
            if running.consumer.is_ready() {
                ready.push((process, "consumer", 0));
            }
        }
        if ready.is_empty() {
            return false;
        }
        let (process, task, number) = ready[self.rng.usize(..ready.len())];
        self.poll(process, task, number);
        true
    }

    fn poll(&mut self, process: usize, task: &'static str, number: usize) {
        self.note(Step::Poll { process, task, number });
        let Some(running) = &mut self.processes[process].running else { return };
        match task {
            "session" => {
                if running.sessions.get_mut(&number).is_some_and(|session| session.poll().is_some()) {
                    running.sessions.remove(&number);
                }
            }
            "lane" => {
                if let Some(whole) = running.lanes[number].poll() {
                    drop(running.lanes.remove(number));
                    // As in `app`: a lane that ends by itself ends the process.
                    if !running.finish.is_cancelled() || !whole {
                        self.end_process(process);
                    }
                }
            }
            _ => drop(running.consumer.poll()),
        }
    }

    /// The database serves a statement, with a fate.
    pub fn serve_one(&mut self) -> bool {
        let waiting = self.database.waiting();
        if waiting.is_empty() {
            return false;
        }
        let statement = waiting[self.rng.usize(..waiting.len())];
        let fate = if !self.resting && self.rng.u8(..) < self.plan.statement_faults {
            match self.rng.u8(0..4) {
                0 => Fate::NotSent,
                1 | 2 => Fate::NotAnswered,
                _ => Fate::Victim,
            }
        } else {
            Fate::Done
        };
        self.note(Step::Serve { doing: statement.doing, fate });
        self.database.serve(statement.statement, fate);
        true
    }

    /// The database notices that a client is gone.
    pub fn notice_one(&mut self) -> bool {
        let left = self.database.left();
        if left.is_empty() {
            return false;
        }
        let backend = left[self.rng.usize(..left.len())];
        let commits = backend.committing && self.rng.bool();
        self.note(Step::Noticed { backend: backend.backend, commits });
        self.database.end(backend.backend, commits);
        true
    }

    /// Returns a process that runs and has a journal.
    fn journaling(&mut self) -> Option<usize> {
        let process = self.rng.usize(..self.processes.len());
        let running = self.processes[process].running.as_ref()?;
        running.journal.as_ref().filter(|journal| !journal.stopped).map(|_| process)
    }

    /// The journal's writer takes what is waiting; more may come before it writes.
    pub fn take_one(&mut self) -> bool {
        let Some(process) = self.journaling() else { return false };
        if let Some(journal) = self.processes[process].running.as_mut().and_then(|running| running.journal.as_mut()) {
            journal.writer.take(std::time::Duration::ZERO);
        }
        self.note(Step::Take { process });
        true
    }

    /// The journal's writer writes, syncs and answers.
    pub fn write_one(&mut self) -> Result<bool, String> {
        match self.journaling() {
            Some(process) => self.write(process),
            None => Ok(false),
        }
    }

    pub fn write(&mut self, process: usize) -> Result<bool, String> {
        let Some(journal) = self.processes[process].running.as_mut().and_then(|running| running.journal.as_mut())
        else {
            return Ok(false);
        };
        if journal.stopped {
            return Ok(false);
        }
        let turn = journal.writer.turn();
        if turn.is_ok() {
            journal.read(&self.oracle.sent)?;
        }
        journal.stopped = matches!(turn, Ok(WriterTurn::Closed));
        if self.plan.mutant == Some(Mutant::EarlyRelease) && self.rng.u8(..) < 20 {
            let _ = journal.catalog.release(journal.catalog.status().end);
        }
        if matches!(turn, Ok(WriterTurn::Nothing)) {
            return Ok(false);
        }
        let (failed, waits) = (turn.is_err(), matches!(turn, Ok(WriterTurn::NoRoom)));
        self.note(Step::Wrote { process, turn: turn.map_err(|e| e.doing) });
        if failed {
            // As in `app`: the lanes end, and the process with them.
            self.end_process(process);
        }
        Ok(!waits)
    }

    /// The journal runs its most urgent segment task.
    pub fn run_one_task(&mut self) -> bool {
        self.journaling().is_some_and(|process| self.run_task(process))
    }

    pub fn run_task(&mut self, process: usize) -> bool {
        let Some(journal) = self.processes[process].running.as_ref().and_then(|running| running.journal.as_ref())
        else {
            return false;
        };
        if !journal.catalog.run_task(super::clock::wall()) {
            return false;
        }
        let failed = journal.catalog.status().state == odograph_journal::JournalState::Poisoned;
        self.note(Step::SegmentTask { process });
        if failed {
            self.end_process(process);
        }
        true
    }

    /// A tracker connects, sends, or loses its link.
    pub fn track_one(&mut self) -> bool {
        let tracker = self.rng.usize(..self.trackers.len());
        self.track(tracker)
    }

    pub fn track(&mut self, tracker: usize) -> bool {
        let Some(connection) = self.trackers[tracker].link.as_ref().map(|link| link.connection) else {
            let quiet = self.trackers[tracker].is_done() && (self.resting || self.rng.u8(..) < 200);
            return !quiet && self.connect(tracker);
        };
        let closed = self.connections[connection].wire.state().closed;
        if closed || (!self.resting && self.rng.u8(..) < self.plan.links) {
            let cut = closed || self.rng.bool();
            self.hang_up(tracker, cut);
            return true;
        }
        let (rng, sent) = (&mut self.rng, &mut self.oracle.sent);
        let Some(packet) = self.trackers[tracker].packet(rng, sent, self.resting) else { return false };
        self.note(Step::Send { tracker, what: packet.what, records: packet.items.clone() });
        let connection = &mut self.connections[connection];
        connection.wire.state().up.extend(packet.bytes);
        if let Some(count) = packet.count {
            connection.expected.push_back(Owed { items: packet.items, count });
        }
        true
    }

    fn connect(&mut self, tracker: usize) -> bool {
        let process = self.rng.usize(..self.processes.len());
        let takes = |running: &&mut super::process::Running| !running.stop.is_cancelled();
        let Some(running) = self.processes[process].running.as_mut().filter(takes) else { return false };
        let number = self.connections.len();
        let wire = Wire::new(self.plan.room);
        wire.state().up.extend(self.trackers[tracker].login());
        running.accept(&self.bell, number, &wire);
        let (expected, answers) = (std::collections::VecDeque::new(), Vec::new());
        self.connections.push(Connection { wire, process, expected, answers, accepted: false });
        self.trackers[tracker].connected(number);
        self.note(Step::Connect { tracker, process });
        true
    }

    pub fn hang_up(&mut self, tracker: usize, cut: bool) {
        let Some(connection) = self.trackers[tracker].hang_up() else { return };
        let wire = &self.connections[connection].wire;
        if cut {
            wire.cut();
        } else {
            wire.finish();
        }
        self.note(Step::Hangup { tracker, cut });
    }

    /// Bytes arrive at a service: all, or some.
    pub fn arrive_one(&mut self) -> bool {
        let under_way = |connection: &&Connection| !connection.wire.state().up.is_empty();
        let from = self.connections.len().saturating_sub(RECENT);
        let recent = self.connections.iter().enumerate().skip(from);
        let ready: Vec<_> = recent.filter(|(_, connection)| under_way(connection)).map(|(number, _)| number).collect();
        if ready.is_empty() {
            return false;
        }
        let connection = ready[self.rng.usize(..ready.len())];
        let length = self.connections[connection].wire.state().up.len();
        let bytes = if self.rng.u8(..) < 150 { length } else { self.rng.usize(1..=length) };
        self.connections[connection].wire.arrive(bytes);
        self.note(Step::Arrive { connection, bytes });
        if self.plan.mutant == Some(Mutant::EarlyReceipt) && bytes == length {
            let connection = &mut self.connections[connection];
            for owed in &connection.expected {
                self.oracle.acknowledged(&owed.items);
            }
        }
        true
    }

    /// Bytes of answers reach a tracker.
    pub fn reach_one(&mut self) -> bool {
        let tracker = self.rng.usize(..self.trackers.len());
        self.reach(tracker)
    }

    pub fn reach(&mut self, tracker: usize) -> bool {
        let Some(connection) = self.trackers[tracker].link.as_ref().map(|link| link.connection) else { return false };
        let length = self.connections[connection].wire.state().down.len();
        if length == 0 {
            return false;
        }
        let bytes = if self.rng.u8(..) < 200 { length } else { self.rng.usize(1..=length) };
        let reached = self.connections[connection].wire.reach(bytes);
        self.trackers[tracker].receive(&reached);
        self.note(Step::Reach { connection, bytes });
        true
    }

    /// Reads the answers that services wrote. An answer is a promise from that moment, even if it never arrives.
    pub fn hear_answers(&mut self) -> Result<(), String> {
        let from = self.connections.len().saturating_sub(RECENT);
        for (number, connection) in self.connections.iter_mut().enumerate().skip(from) {
            let written = std::mem::take(&mut connection.wire.state().written);
            if written.is_empty() {
                continue;
            }
            connection.answers.extend(written);
            if !connection.accepted && !connection.answers.is_empty() {
                if connection.answers.remove(0) != 1 {
                    return Err(format!("connection {number}: a login is answered with 1"));
                }
                connection.accepted = true;
            }
            while let Some(answer) = connection.answers.first_chunk::<4>().copied() {
                connection.answers.drain(..4);
                let Some(owed) = connection.expected.pop_front() else {
                    return Err(format!("connection {number}: an answer to nothing"));
                };
                if u32::from_be_bytes(answer) != owed.count {
                    return Err(format!("connection {number}: {answer:?} answers a frame of {}", owed.count));
                }
                self.oracle.acknowledged(&owed.items);
            }
        }
        Ok(())
    }
}

/// Older connections are long gone.
const RECENT: usize = 64;
