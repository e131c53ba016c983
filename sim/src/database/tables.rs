//! The content of a database, and the uncommitted changes of a transaction. A transaction sees its own changes. Others
//! see them after the commit.

use std::collections::{BTreeMap, BTreeSet};

use uuid::Uuid;

use odograph::store::{Checkpoint, Correction, FlagChange, Key, Message, Row, StoredCheckpoint, Window};
use odograph_journal::JournalId;
use sha2::{Digest, Sha256};

/// The committed content of a database.
#[derive(Clone, Debug, Default)]
pub struct Tables {
    /// `positions`.
    pub positions: BTreeMap<Key, StoredRow>,
    /// `latest_positions`: device time and fingerprint by device.
    pub latest: BTreeMap<u64, (i64, i32)>,
    /// `quarantined_records`: device and digest.
    pub quarantined: BTreeSet<(u64, [u8; 32])>,
    /// `device_messages`: device and payload by source and position.
    pub messages: BTreeMap<(uuid::Bytes, u64), (u64, Vec<u8>)>,
    /// `position_flag_ledger`.
    pub ledger: BTreeMap<Uuid, Flagged>,
    /// `position_flag_state`, Directus' side.
    pub directus: BTreeMap<Uuid, FlagChange>,
    /// `position_corrections`.
    pub corrections: Vec<Correction>,
    pub(super) checkpoints: BTreeMap<Place, StoredCheckpoint>,
    /// `position_flag_windows`: windows that a change replaced, and that have to follow.
    pub(super) windows: Vec<Replaced>,
}

/// A row of `positions`.
#[derive(Clone, Debug, PartialEq)]
pub struct StoredRow {
    /// Its columns.
    pub row: Row,
    /// Its bytes on the wire, which a real table does not keep.
    pub wire: Vec<u8>,
    /// Whether it is marked.
    pub faulty: bool,
    /// How often the table holds it.
    pub copies: u32,
}

/// A row of the ledger of flags.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Flagged {
    /// The latest change.
    pub seq: i64,
    /// Grows with each row that is written.
    pub version: i64,
    /// What it covers, or covered last.
    pub window: Option<Window>,
    /// Whether it declares anything faulty.
    pub live: bool,
    /// The change that positions follow.
    pub applied_seq: i64,
}

impl Flagged {
    /// What it declares faulty.
    #[must_use]
    pub fn covers(&self) -> Option<Window> {
        self.window.filter(|_| self.live)
    }
}

/// A row of checkpoints: journal and lane.
pub(super) type Place = (uuid::Bytes, u16);

/// A message with its journal and position.
type StoredMessage = ((uuid::Bytes, u64), (u64, Vec<u8>));

/// A window that change `seq` of a flag took away.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Replaced {
    pub(super) flag: Uuid,
    pub(super) seq: i64,
    pub(super) window: Window,
}

/// The uncommitted changes of a transaction.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Writes {
    pub(super) rows: BTreeMap<Key, StoredRow>,
    pub(super) marks: BTreeMap<Key, bool>,
    pub(super) latest: BTreeMap<u64, Option<(i64, i32)>>,
    pub(super) quarantined: Vec<(u64, [u8; 32])>,
    pub(super) messages: Vec<StoredMessage>,
    pub(super) checkpoints: BTreeMap<Place, Option<StoredCheckpoint>>,
    pub(super) ledger: BTreeMap<Uuid, Flagged>,
    pub(super) applied: BTreeMap<Uuid, i64>,
    pub(super) replaced: Vec<Replaced>,
    pub(super) followed: Vec<(Uuid, i64)>,
    pub(super) corrections: Vec<Correction>,
}

impl Writes {
    pub(super) fn messages(&mut self, messages: &[Message]) {
        self.messages.extend(messages.iter().map(|message| {
            let place = (message.source.into_bytes(), message.frame.0);
            (place, (message.imei.get(), message.bytes.clone()))
        }));
    }
}

impl Tables {
    /// Returns the checkpoint of a lane, if the database has one.
    #[must_use]
    pub fn checkpoint(&self, journal: JournalId, lane: u16) -> Option<Checkpoint> {
        self.checkpoints.get(&(journal.to_bytes(), lane)).map(|stored| stored.checkpoint)
    }

    /// Whether bytes of a device are in quarantine.
    #[must_use]
    pub fn holds_quarantined(&self, imei: u64, bytes: &[u8]) -> bool {
        !self.quarantined.is_empty() && self.quarantined.contains(&(imei, Sha256::digest(bytes).into()))
    }

    /// The windows that are declared faulty.
    pub fn live(&self) -> impl Iterator<Item = Window> {
        self.ledger.values().filter_map(Flagged::covers)
    }

    /// Whether positions at an instant may differ from the ledger: a change that covers it is recorded and not applied.
    #[must_use]
    pub fn is_unsettled(&self, imei: u64, ts_ms: i64) -> bool {
        let covers = |window: &Window| window.covers(imei, ts_ms);
        let behind = |flagged: &&Flagged| flagged.applied_seq < flagged.seq;
        self.ledger.values().filter(behind).any(|flagged| flagged.window.as_ref().is_some_and(covers))
            || self.windows.iter().any(|replaced| covers(&replaced.window))
    }

    /// Replaced windows that were not forgotten.
    #[must_use]
    pub fn replaced_windows(&self) -> usize {
        self.windows.len()
    }

    /// Applies the changes of a transaction.
    pub(super) fn take(&mut self, writes: Writes) {
        let Writes {
            rows,
            marks,
            latest,
            quarantined,
            messages,
            checkpoints,
            ledger,
            applied,
            replaced,
            followed,
            corrections,
        } = writes;
        for (key, row) in rows {
            self.positions.entry(key).and_modify(|stored| stored.copies += row.copies).or_insert(row);
        }
        for (key, faulty) in marks {
            if let Some(stored) = self.positions.get_mut(&key) {
                stored.faulty = faulty;
            }
        }
        for (imei, at) in latest {
            match at {
                Some(at) => drop(self.latest.insert(imei, at)),
                None => drop(self.latest.remove(&imei)),
            }
        }
        self.quarantined.extend(quarantined);
        for (place, message) in messages {
            self.messages.entry(place).or_insert(message);
        }
        for (place, stored) in checkpoints {
            match stored {
                Some(stored) => drop(self.checkpoints.insert(place, stored)),
                None => drop(self.checkpoints.remove(&place)),
            }
        }
        self.ledger.extend(ledger);
        for (flag, seq) in applied {
            if let Some(flagged) = self.ledger.get_mut(&flag) {
                flagged.applied_seq = flagged.applied_seq.max(seq);
            }
        }
        self.windows.extend(replaced);
        self.windows.retain(|held| !followed.contains(&(held.flag, held.seq)));
        self.corrections.extend(corrections);
    }
}
