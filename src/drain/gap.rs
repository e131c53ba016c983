//! The memory of a gap: a part of the journal that the database lacks is gone. Once the drain has passed it nothing else shows
//! it, so a file beside the journal does, until the operator accepts it.

use std::io::{self, Write as _};
use std::path::PathBuf;

use crate::checkpoint::{JournalId, Position};

/// The file; one line a gap. Beside it another one says under which id a journal has just begun anew: what it gave away before
/// had been committed under the former one, so that is no gap.
#[derive(Clone, Debug)]
pub struct GapFile(PathBuf);

impl GapFile {
    /// A file at this path, which need not be there.
    #[must_use]
    pub fn new(path: PathBuf) -> Self {
        Self(path)
    }

    /// What is noted, empty where there is no gap.
    ///
    /// # Errors
    /// When it is there and cannot be read.
    pub fn read(&self) -> io::Result<String> {
        match std::fs::read_to_string(&self.0) {
            Err(wrong) if wrong.kind() == io::ErrorKind::NotFound => Ok(String::new()),
            read => read,
        }
    }

    /// Forgets the gaps: the operator knows.
    ///
    /// # Errors
    /// When the file stays.
    pub fn accept(&self) -> io::Result<()> {
        match std::fs::remove_file(&self.0) {
            Err(wrong) if wrong.kind() == io::ErrorKind::NotFound => Ok(()),
            removed => removed,
        }
    }

    /// This id was drawn for a journal that may begin later than at 0.
    pub(super) fn drawn(&self, id: JournalId) {
        let write = || {
            let mut file = std::fs::File::create(self.beside())?;
            file.write_all(id.to_string().as_bytes())?;
            file.sync_all()
        };
        if let Err(wrong) = write() {
            tracing::warn!(error = %wrong, "the journal's new id cannot be noted; a kill before its first commit gives a false gap");
        }
    }

    /// Whether this id was drawn, and not every lane has committed under it.
    pub(super) fn is_drawn(&self, id: JournalId) -> bool {
        std::fs::read_to_string(self.beside()).is_ok_and(|drawn| drawn == id.to_string())
    }

    /// Every lane has committed under it.
    pub(super) fn forget_drawn(&self) {
        // Where it stays, an alarm is missed only if the whole database is lost.
        let _ = std::fs::remove_file(self.beside());
    }

    fn beside(&self) -> PathBuf {
        self.0.with_extension("new-id")
    }

    /// Notes a gap, unless it is noted already; durable before it returns. Says whether it is new.
    pub(super) fn note(&self, journal: JournalId, from: Position, to: Position) -> io::Result<bool> {
        let line = format!("journal {journal}: positions {from} to {to} were not in the database and are gone\n");
        if self.read()?.contains(&line) {
            return Ok(false);
        }
        let mut file = std::fs::OpenOptions::new().create(true).append(true).open(&self.0)?;
        file.write_all(line.as_bytes())?;
        file.sync_all()?;
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gap_is_noted_once_and_until_it_is_accepted() {
        let directory = tempfile::tempdir().unwrap();
        let gaps = GapFile::new(directory.path().join("gap"));
        let id = JournalId::random();
        assert_eq!(gaps.read().unwrap(), "");
        assert!(gaps.note(id, Position(1), Position(5)).unwrap());
        assert!(!gaps.note(id, Position(1), Position(5)).unwrap());
        assert!(gaps.note(id, Position(9), Position(12)).unwrap());
        assert_eq!(gaps.read().unwrap().lines().count(), 2);
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
