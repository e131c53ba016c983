//! Remembers a gap: a part of the journal that the database lacks is lost. Once the drain has passed it, nothing else shows it, so a
//! file next to the journal does, until the operator accepts it.

use std::io;
use std::sync::Arc;

use odograph_journal::Storage;
use odograph_journal::{JournalId, Position};

/// The file, with one line per gap. A second file holds an id that the journal has just drawn: what it removed before was
/// committed under the former id, so that is not a gap.
#[derive(Clone, Debug)]
pub struct GapFile(Arc<dyn Storage>);

impl GapFile {
    /// The file in this directory. It need not exist.
    #[must_use]
    pub fn new(directory: Arc<dyn Storage>) -> Self {
        Self(directory)
    }

    /// The noted gaps; empty if there are none.
    ///
    /// # Errors
    /// When it exists and cannot be read.
    pub fn read(&self) -> io::Result<String> {
        self.text(NOTE)
    }

    /// Forgets the gaps, because the operator accepts them.
    ///
    /// # Errors
    /// When the file cannot be removed.
    pub fn accept(&self) -> io::Result<()> {
        self.remove(NOTE)?;
        self.0.sync_names()
    }

    /// Notes an id that was drawn for a journal that may begin after 0.
    pub(super) fn drawn(&self, id: JournalId) {
        if let Err(error) = self.write(DRAWN, &id.to_string()) {
            tracing::warn!(error = %error, "cannot note the journal's new id; a kill before its first commit will report a false gap");
        }
    }

    /// Whether this id was drawn, and not every lane has committed under it.
    pub(super) fn is_drawn(&self, id: JournalId) -> bool {
        self.text(DRAWN).is_ok_and(|drawn| drawn == id.to_string())
    }

    /// Every lane has committed under it.
    pub(super) fn forget_drawn(&self) {
        // If it stays, an alarm is missed only if the whole database is lost.
        let _ = self.remove(DRAWN);
    }

    /// Notes a gap durably, unless it is noted already. Returns whether it is new.
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
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(String::new()),
            file => file?,
        };
        let mut bytes = vec![0; usize::try_from(file.size()?).map_err(io::Error::other)?];
        let read = file.read_at(0, &mut bytes)?;
        bytes.truncate(read);
        String::from_utf8(bytes).map_err(io::Error::other)
    }

    /// Writes a file durably, as a whole or not at all.
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
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
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
