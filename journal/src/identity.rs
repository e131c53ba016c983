//! Who a journal is: the file `identity`, written anew and renamed, so it is there whole or not at all.
//!
//! The origin never changes and stands in every group. The id is the name that the database knows, and is drawn again when the
//! journal cannot vouch for its past.

use std::io;

use uuid::Uuid;

use super::error::OpenError;
use super::label::{self, LABEL_LEN, Label};
use super::storage::Storage;
use crate::position::JournalId;

/// Drawn when the journal is made, and never again: content of another journal does not pass for content of this one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Origin(pub(super) [u8; 16]);

impl Origin {
    /// Names the content of all copies of a journal up to a place with this tag.
    pub(super) fn content_id(self, tag: i64) -> Uuid {
        let mut bytes = self.0;
        for (byte, of_tag) in bytes.iter_mut().rev().zip(tag.to_le_bytes()) {
            *byte ^= of_tag;
        }
        Uuid::from_bytes(bytes)
    }
}

/// There are segments, and nothing says whose they are.
pub(super) fn missing() -> OpenError {
    OpenError::Damaged { name: FILE.to_owned(), offset: 0, what: "it is missing beside segments" }
}

/// Origin and id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Identity {
    pub(super) origin: Origin,
    pub(super) id: JournalId,
}

impl Identity {
    /// Reads the file; `None` when there is none.
    pub(super) fn read(storage: &dyn Storage, names: &[String]) -> Result<Option<Self>, OpenError> {
        if !names.iter().any(|name| name == FILE) {
            return Ok(None);
        }
        let mut bytes = [0; LABEL_LEN];
        let read = storage.open(FILE).and_then(|file| file.read_at(0, &mut bytes));
        let read = read.map_err(|error| OpenError::io("reading", FILE, error))?;
        Self::decode(bytes.get(..read).unwrap_or_default()).map(Some)
    }

    /// Makes the file say this, and survive a power cut.
    pub(super) fn write(&self, storage: &dyn Storage) -> io::Result<()> {
        match storage.remove(NEW_FILE) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let file = storage.create(NEW_FILE)?;
        file.write_at(0, &self.encode())?;
        file.sync()?;
        storage.rename(NEW_FILE, FILE)?;
        storage.sync_names()
    }

    fn encode(&self) -> [u8; LABEL_LEN] {
        let mut content = [0; 32];
        content[..16].copy_from_slice(&self.origin.0);
        content[16..].copy_from_slice(&self.id.to_bytes());
        label::encode(MAGIC, &content)
    }

    fn decode(bytes: &[u8]) -> Result<Self, OpenError> {
        let [o0, o1, o2, o3, o4, o5, o6, o7, o8, o9, o10, o11, o12, o13, o14, o15, id @ ..] =
            match label::decode(MAGIC, bytes) {
                Label::Whole(content) => content,
                Label::OtherVersion(version) => {
                    return Err(OpenError::OtherVersion { name: FILE.to_owned(), version });
                }
                Label::Damaged | Label::NotOurs => {
                    return Err(OpenError::Damaged {
                        name: FILE.to_owned(),
                        offset: 0,
                        what: "it is not a journal's identity",
                    });
                }
            };
        let origin = Origin([o0, o1, o2, o3, o4, o5, o6, o7, o8, o9, o10, o11, o12, o13, o14, o15]);
        Ok(Self { origin, id: JournalId::from_bytes(id) })
    }
}

pub(super) const FILE: &str = "identity";
/// Left behind by a crash while the file was written; it means nothing.
const NEW_FILE: &str = "identity.new";
const MAGIC: [u8; 8] = *b"odojrnl\0";
