//! The memory of a gap: a part of the journal that the database lacks is gone. Once the drain has passed it nothing else shows
//! it, so a file beside the journal does, until the operator accepts it.

use std::io;
use std::sync::Arc;

use odograph_journal::Storage;
use odograph_journal::{JournalId, Position};

/// The file; one line a gap. Beside it another one says under which id a journal has just begun anew: what it gave away before
/// had been committed under the former one, so that is no gap.
#[derive(Clone, Debug)]
pub struct GapFile(Arc<dyn Storage>);

impl GapFile {
    /// In this directory, where it need not be yet.
    #[must_use]
    pub fn new(directory: Arc<dyn Storage>) -> Self {
        Self(directory)
    }

    /// What is noted, empty where there is no gap.
    ///
    /// # Errors
    /// When it is there and cannot be read.
    pub fn read(&self) -> io::Result<String> {
        self.text(NOTE)
    }

    /// Forgets the gaps: the operator knows.
    ///
    /// # Errors
    /// When the file stays.
    pub fn accept(&self) -> io::Result<()> {
        self.remove(NOTE)?;
        self.0.sync_names()
    }

    /// This id was drawn for a journal that may begin later than at 0.
    pub(super) fn drawn(&self, id: JournalId) {
        if let Err(wrong) = self.write(DRAWN, &id.to_string()) {
            tracing::warn!(error = %wrong, "the journal's new id cannot be noted; a kill before its first commit gives a false gap");
        }
    }

    /// Whether this id was drawn, and not every lane has committed under it.
    pub(super) fn is_drawn(&self, id: JournalId) -> bool {
        self.text(DRAWN).is_ok_and(|drawn| drawn == id.to_string())
    }

    /// Every lane has committed under it.
    pub(super) fn forget_drawn(&self) {
        // Where it stays, an alarm is missed only if the whole database is lost.
        let _ = self.remove(DRAWN);
    }

    /// Notes a gap, unless it is noted already; durable before it returns. Says whether it is new.
    pub(super) fn note(&self, journal: JournalId, from: Position, to: Position) -> io::Result<bool> {
        let line = format!("journal {journal}: positions {from} to {to} were not in the database and are gone\n");
        let noted = self.read()?;
        if noted.contains(&line) {
            return Ok(false);
        }
        self.write(NOTE, &(noted + &line))?;
        Ok(true)
    }

    fn text(&self, name: &str) -> io::Result<String> {
        let file = match self.0.open(name) {
            Err(wrong) if wrong.kind() == io::ErrorKind::NotFound => return Ok(String::new()),
            file => file?,
        };
        let mut bytes = vec![0; usize::try_from(file.size()?).map_err(io::Error::other)?];
        let read = file.read_at(0, &mut bytes)?;
        bytes.truncate(read);
        String::from_utf8(bytes).map_err(io::Error::other)
    }

    /// Puts a file there as a whole or not at all; durable before it returns.
    fn write(&self, name: &str, text: &str) -> io::Result<()> {
        let new = format!("{name}.tmp");
        self.remove(&new)?;
        let file = self.0.create(&new)?;
        file.write_at(0, text.as_bytes())?;
        file.sync()?;
        self.0.rename(&new, name)?;
        self.0.sync_names()
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        match self.0.remove(name) {
            Err(wrong) if wrong.kind() == io::ErrorKind::NotFound => Ok(()),
            removed => removed,
        }
    }
}

const NOTE: &str = "journal-gap";
const DRAWN: &str = "journal-gap.new-id";

#[cfg(test)]
mod tests {
    use super::*;
    use odograph_faulty_disk::FaultyDisk;

    #[test]
    fn a_gap_is_noted_once_and_until_it_is_accepted() {
        let disk = FaultyDisk::new(1);
        let gaps = GapFile::new(Arc::new(disk.clone()));
        let id = JournalId::random();
        assert_eq!(gaps.read().unwrap(), "");
        assert!(gaps.note(id, Position(1), Position(5)).unwrap());
        assert!(!gaps.note(id, Position(1), Position(5)).unwrap());
        assert!(gaps.note(id, Position(9), Position(12)).unwrap());
        disk.power_cycle();
        assert_eq!(gaps.read().unwrap().lines().count(), 2, "also after a power cut");
        assert!(!gaps.is_drawn(id));
        gaps.drawn(id);
        assert!(gaps.is_drawn(id) && !gaps.is_drawn(JournalId::random()));
        gaps.forget_drawn();
        assert!(!gaps.is_drawn(id));
        gaps.accept().unwrap();
        gaps.accept().unwrap();
        assert_eq!(gaps.read().unwrap(), "");
    }
}
