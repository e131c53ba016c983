//! Faults, and processes that end and start again.

use odograph::store::ErrorClass;
use odograph_faulty_disk::{Faults, FaultyDisk};

use crate::plan::Mutant;
use crate::process::{NotStarted, Process, Surrounds};
use crate::trace::{Fault, Step};
use crate::world::{FASTEST_KMH, World};

impl World {
    /// Causes a fault of a kind that this seed has. Returns whether there was one.
    pub fn fault(&mut self) -> Result<bool, String> {
        for _ in 0..6 {
            if self.try_fault()? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn try_fault(&mut self) -> Result<bool, String> {
        let process = self.rng.usize(..self.processes.len());
        let runs = self.processes[process].running.is_some();
        let fault = match self.rng.u8(0..24) {
            // Most faults end: a process starts again.
            0..6 if !runs => {
                self.start(process)?;
                return Ok(true);
            }
            6 | 7 if self.plan.kills && runs => self.crash(process, false),
            8 if self.plan.kills && runs => self.crash(process, true),
            9 if self.plan.kills && runs => {
                self.stop(process);
                Fault::Stop { process }
            }
            10 | 11 if self.plan.disk => self.fail_disk(process),
            12 if self.plan.full => self.fill_disk(process),
            13 if self.plan.clones && self.processes.len() < 3 => self.copy(process),
            14 | 15 if self.plan.database => self.fail_database(),
            16 | 17 if self.plan.goes_back => self.go_back(),
            18 if self.plan.clocks => self.jump(),
            19 if self.plan.flags > 0 => {
                self.stream.trim();
                Fault::StreamTrimmed
            }
            20 if self.plan.refuses_rows => {
                let refuses = self.rng.bool();
                self.database.refuse_faster_than(refuses.then_some(FASTEST_KMH));
                if refuses { Fault::RowsRefused } else { Fault::RowsTaken }
            }
            21 if self.plan.drops_rows => {
                let drops = self.rng.bool();
                if !self.database.drop_rows(drops) {
                    return Ok(false);
                }
                if drops { Fault::RowsDropped } else { Fault::RowsKept }
            }
            _ => return Ok(false),
        };
        self.note(Step::Fault(fault));
        Ok(true)
    }

    /// Ends the process, or its machine, in the middle of its work.
    fn crash(&mut self, process: usize, power: bool) -> Fault {
        self.end(process, power);
        if power { Fault::PowerCut { process } } else { Fault::Kill { process } }
    }

    /// The service ends itself: its journal failed, or a lane could not go on.
    pub fn end_process(&mut self, process: usize) {
        self.end(process, false);
    }

    /// Drops everything that runs, and all its connections.
    pub fn end(&mut self, process: usize, power: bool) {
        self.processes[process].running = None;
        for connection in self.connections.iter().filter(|connection| connection.process == process) {
            connection.wire.cut();
        }
        if power {
            self.processes[process].disk.power_cycle();
        } else {
            self.processes[process].disk.kill();
        }
        if self.plan.mutant == Some(Mutant::ForgottenJournal) {
            self.processes[process].disk = FaultyDisk::new(self.rng.u64(..));
        }
    }

    /// Stops the process in good order: it takes no more, answers what it took, and commits what it has.
    fn stop(&mut self, process: usize) {
        let Some(running) = &mut self.processes[process].running else { return };
        running.stop.cancel();
        if self.rng.bool() {
            running.finish.cancel();
            if let Some(journal) = &running.journal {
                journal.writer.stop_taking();
            }
        }
    }

    fn fail_disk(&mut self, process: usize) -> Fault {
        let (disk, rng) = (&self.processes[process].disk, &mut self.rng);
        let (faults, fault) = match rng.u8(0..3) {
            0 => {
                let operations = rng.u64(0..14);
                let faults = Faults { power_off_after: Some(operations), ..Faults::default() };
                (faults, Fault::PowerOffAfter { process, operations })
            }
            1 => {
                let writes = rng.u64(0..5);
                (
                    Faults { fail_write_after: Some(writes), ..Faults::default() },
                    Fault::FailWriteAfter { process, writes },
                )
            }
            _ => {
                let syncs = rng.u64(0..5);
                (Faults { fail_sync_after: Some(syncs), ..Faults::default() }, Fault::FailSyncAfter { process, syncs })
            }
        };
        disk.set_faults(faults);
        fault
    }

    fn fill_disk(&mut self, process: usize) -> Fault {
        let full = self.rng.bool();
        let capacity = full.then(|| self.rng.u64(6_000..30_000));
        self.processes[process].disk.set_faults(Faults { capacity, ..Faults::default() });
        if full { Fault::DiskFull { process } } else { Fault::DiskRoom { process } }
    }

    /// Copies the directory, and starts a second process on the copy.
    fn copy(&mut self, process: usize) -> Fault {
        let original = &self.processes[process];
        let seed = self.rng.u64(..);
        let (copy, with_memory) = if self.rng.bool() {
            (original.disk.after_power_cut(Some(seed)), false)
        } else {
            (original.disk.image(seed), seed.is_multiple_of(2))
        };
        self.processes.push(Process::copy_of(original, copy, with_memory));
        Fault::Clone { process }
    }

    fn fail_database(&mut self) -> Fault {
        match self.rng.u8(0..4) {
            0 | 1 => {
                let rng = &mut self.rng;
                self.database.restart(|| rng.bool());
                Fault::Restart
            }
            _ if self.refusing => {
                self.refusing = false;
                self.database.refuse(None);
                Fault::Accept
            }
            _ => {
                self.refusing = true;
                let class = if self.rng.bool() { ErrorClass::Unavailable } else { ErrorClass::Refuses };
                self.database.refuse(Some(class));
                Fault::Refuse
            }
        }
    }

    fn go_back(&mut self) -> Fault {
        if self.rng.u8(..) < 150 {
            self.snapshots.push(self.database.snapshot());
            return Fault::Snapshot;
        }
        let snapshot = self.rng.usize(..self.snapshots.len());
        self.database.restore(&self.snapshots[snapshot]);
        self.oracle.goes_back();
        Fault::WentBack
    }

    fn jump(&mut self) -> Fault {
        let seconds = match self.rng.u8(0..6) {
            0 | 1 => 0,
            2 => self.rng.i64(-200..200),
            3 => self.rng.i64(-9_000..9_000),
            4 => -super::clock::BEGIN_US / 1_000_000,
            _ => self.rng.i64(-100_000..4_000_000),
        };
        self.clock_off_us = seconds * 1_000_000;
        self.clock_ahead_us = self.clock_ahead_us.max(self.clock_off_us);
        self.show_time();
        Fault::Clock { seconds }
    }

    /// Starts a process. If its disk fails meanwhile, the process is down, and a later step starts it again.
    pub fn start(&mut self, number: usize) -> Result<(), String> {
        let lanes = self.rng.u16(1..3);
        let around = Surrounds { bell: &self.bell, database: &self.database, stream: &self.stream, plan: &self.plan };
        let started = self.processes[number].start(number, lanes, &mut self.rng, &around, &self.oracle.sent);
        let opened = match started {
            Ok(records) => Ok(records),
            Err(NotStarted::Failure(failure)) => return Err(format!("process {number}: {failure}")),
            Err(NotStarted::Disk) => {
                let power = self.rng.bool();
                self.end(number, power);
                Err("the disk failed")
            }
        };
        self.note(Step::Start { process: number, lanes, opened });
        Ok(())
    }
}
