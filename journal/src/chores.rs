//! Chores on files: making segments ahead of time, using files again, removing them. Nobody waits while they are done in time.
//!
//! The order of steps keeps one rule through every power cut: a file has a segment's name only while its synced header says so,
//! and every name on the way there is [`SPARE`], which opening removes.

use std::io;

use super::catalog::{Chore, Done};
use super::error::Poisoned;
use super::identity::Origin;
use super::segment::Spare;
use super::segment::{SPARE, SegmentHeader, name};
use super::storage::{Storage, is_no_space};

/// Does a chore.
///
/// # Errors
/// A disk that fails, other than by having no space.
pub(super) fn run(storage: &dyn Storage, origin: Origin, chore: &Chore) -> Result<Done, Poisoned> {
    let (doing, result) = match *chore {
        Chore::Create { number, size } => ("making a segment", create(storage, SegmentHeader { origin, number, size })),
        Chore::Reuse { old, number, size } => {
            ("reusing a segment", reuse(storage, old, SegmentHeader { origin, number, size }))
        }
        Chore::Remove { old } => ("removing a segment", remove(storage, &name(old))),
    };
    match result {
        Err(error) if is_no_space(&error) => {
            // What was made so far only takes up space.
            remove_if_there(storage, SPARE).map_err(|error| Poisoned::new("removing a spare segment", error))?;
            Ok(Done::NoSpace)
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

fn create(storage: &dyn Storage, header: SegmentHeader) -> io::Result<Done> {
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

fn reuse(storage: &dyn Storage, old: u64, header: SegmentHeader) -> io::Result<Done> {
    storage.rename(&name(old), SPARE)?;
    // Else a power cut could leave the new header under the old name.
    storage.sync_names()?;
    label(storage, header)
}

/// Makes the spare file into a segment: the header first, then the name.
fn label(storage: &dyn Storage, header: SegmentHeader) -> io::Result<Done> {
    let SegmentHeader { number, size, .. } = header;
    let file = storage.open(SPARE)?;
    file.write_at(0, &header.encode())?;
    file.sync()?;
    storage.rename(SPARE, &name(number))?;
    storage.sync_names()?;
    Ok(Done::Spare(Spare { number, file, size }))
}

fn remove(storage: &dyn Storage, name: &str) -> io::Result<Done> {
    storage.remove(name)?;
    storage.sync_names()?;
    Ok(Done::Removed)
}

const ZEROS: usize = 1 << 20;
const SYNC_EVERY: u64 = 8 << 20;
