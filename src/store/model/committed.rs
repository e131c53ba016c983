//! The result of a commit.

use super::row::Key;

/// What a commit did. The sum is the number of rows that the batch offered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Committed {
    inserted: u64,
    duplicates: u64,
    refused: Vec<Key>,
    path: WritePath,
    capped: u64,
    reduced: Reduced,
}

/// Messages and quarantined records that the database did not take as they are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reduced {
    /// Written without text or bytes.
    pub partly: u64,
    /// Not written at all. Their bytes are in the journal, as long as it keeps them.
    pub left_out: u64,
}

impl Reduced {
    /// Counts one entry by the form that was written: 0 is the whole entry, `None` is none at all.
    pub(crate) fn count(&mut self, form: Option<usize>) {
        match form {
            Some(0) => {}
            Some(_) => self.partly += 1,
            None => self.left_out += 1,
        }
    }

    pub(crate) fn add(&mut self, other: Self) {
        self.partly += other.partly;
        self.left_out += other.left_out;
    }
}

/// How most rows of a batch were written; also a metric label.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum WritePath {
    /// Straight into the table.
    Copy,
    /// Under the key, which decides row by row.
    Conflict,
}

impl WritePath {
    /// Every path.
    pub const ALL: [Self; 2] = [Self::Copy, Self::Conflict];

    /// The metric label.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Copy => "copy",
            Self::Conflict => "conflict",
        }
    }
}

impl Committed {
    /// Only a store makes one, and only for its own commit.
    pub(crate) const fn new(inserted: u64, duplicates: u64, refused: Vec<Key>, path: WritePath) -> Self {
        Self { inserted, duplicates, refused, path, capped: 0, reduced: Reduced { partly: 0, left_out: 0 } }
    }

    /// How most rows were written.
    #[must_use]
    pub const fn path(&self) -> WritePath {
        self.path
    }

    /// The same, with the number of records over the cap of the quarantine.
    pub(crate) fn with_capped(self, capped: u64) -> Self {
        Self { capped, ..self }
    }

    /// The same, with what the database did not take as it is.
    pub(crate) fn with_reduced(self, reduced: Reduced) -> Self {
        Self { reduced, ..self }
    }

    /// Messages and quarantined records that the database did not take as they are.
    #[must_use]
    pub const fn reduced(&self) -> Reduced {
        self.reduced
    }

    /// Records over the quarantine's cap for a device and hour, which are only counted.
    #[must_use]
    pub const fn capped(&self) -> u64 {
        self.capped
    }

    /// Rows that were new.
    #[must_use]
    pub const fn inserted(&self) -> u64 {
        self.inserted
    }

    /// Rows that were stored before, or came twice in the batch.
    #[must_use]
    pub const fn duplicates(&self) -> u64 {
        self.duplicates
    }

    /// Rows that the database refused; they are in quarantine.
    #[must_use]
    pub fn refused(&self) -> &[Key] {
        &self.refused
    }
}
