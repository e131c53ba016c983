//! Tasks on segment files: creating them ahead of time, using them again, removing them.
//!
//! The order of their steps keeps one rule through every power cut: a file has the name of a segment only while its synced
//! header says so. Until then its name is [`SPARE`], which opening removes.

use std::io;

use super::catalog::{SegmentTask, TaskOutcome};
use super::error::Poisoned;
use super::identity::Origin;
use super::segment::Spare;
use super::segment::{SPARE, SegmentHeader, name};
use super::storage::{Storage, is_no_space};

/// Runs a task.
///
/// # Errors
/// A disk that fails, other than by having no space.
pub(super) fn run(storage: &dyn Storage, origin: Origin, task: &SegmentTask) -> Result<TaskOutcome, Poisoned> {
    let (doing, result) = match *task {
        SegmentTask::Create { number, size } => {
            ("making a segment", create(storage, SegmentHeader { origin, number, size }))
        }
        SegmentTask::Reuse { old, number, size } => {
            ("reusing a segment", reuse(storage, old, SegmentHeader { origin, number, size }))
        }
        SegmentTask::Remove { old } => ("removing a segment", remove(storage, &name(old))),
    };
    match result {
        Err(error) if is_no_space(&error) => {
            // The incomplete file only takes up space.
            remove_if_there(storage, SPARE).map_err(|error| Poisoned::new("removing a spare segment", error))?;
            Ok(TaskOutcome::NoSpace)
        }
        result => result.map_err(|error| Poisoned::new(doing, error)),
    }
}

/// Removes a file that may not be there.
pub(super) fn remove_if_there(storage: &dyn Storage, name: &str) -> io::Result<()> {
    match storage.remove(name) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        done => done,
    }
}

fn create(storage: &dyn Storage, header: SegmentHeader) -> io::Result<TaskOutcome> {
    remove_if_there(storage, SPARE)?;
    let file = storage.create(SPARE)?;
    file.reserve(header.size)?;
    // Space that was only reserved makes each later sync wait for the file system; written space does not.
    let zeros = vec![0; usize::try_from(header.size).unwrap_or(ZEROS).min(ZEROS)];
    let mut at = 0;
    while at < header.size {
        let length = usize::try_from(header.size - at).unwrap_or(ZEROS).min(ZEROS);
        file.write_at(at, zeros.get(..length).unwrap_or_default())?;
        at += length as u64;
        // In pieces, so that the syncs of the writer do not queue behind one large one.
        if at % SYNC_EVERY == 0 {
            file.sync()?;
        }
    }
    label(storage, header)
}

fn reuse(storage: &dyn Storage, old: u64, header: SegmentHeader) -> io::Result<TaskOutcome> {
    storage.rename_new(&name(old), SPARE)?;
    // Otherwise a power cut could leave the new header under the old name.
    storage.sync_names()?;
    label(storage, header)
}

/// Makes the spare file into a segment: the header first, then the name.
fn label(storage: &dyn Storage, header: SegmentHeader) -> io::Result<TaskOutcome> {
    let SegmentHeader { number, size, .. } = header;
    let file = storage.open(SPARE)?;
    file.write_at(0, &header.encode())?;
    file.sync()?;
    storage.rename_new(SPARE, &name(number))?;
    storage.sync_names()?;
    Ok(TaskOutcome::Spare(Spare { number, file, size }))
}

fn remove(storage: &dyn Storage, name: &str) -> io::Result<TaskOutcome> {
    storage.remove(name)?;
    storage.sync_names()?;
    Ok(TaskOutcome::Removed)
}

const ZEROS: usize = 1 << 20;
const SYNC_EVERY: u64 = 8 << 20;
