//! The quarantine as an operator looks at it: what is there, by reason, device and time; and clearing it.

use std::fmt::Write as _;

use teltonika_codecs::Imei;

use super::{DatabaseUrl, ErrorClass, StoreError};
use crate::store::model::batch::QuarantineReason;
use crate::store::postgres::quarantine::PostgresQuarantine;
use crate::store::sqlite::quarantine::SqliteQuarantine;
use odograph_journal::{JournalId, Position};

/// Which records are meant; all of them where nothing is named.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct QuarantineFilter {
    /// Refused for this reason.
    pub reason: Option<QuarantineReason>,
    /// From this device.
    pub imei: Option<Imei>,
    /// First received at this time or later, microseconds since 1970-01-01 UTC.
    pub from_us: Option<i64>,
    /// First received before this time.
    pub to_us: Option<i64>,
    /// Their digest begins with these hexadecimal digits.
    pub digest: Option<String>,
}

/// A record, or a whole frame, that is in quarantine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QuarantineEntry {
    /// Who sent it.
    pub imei: Imei,
    /// SHA-256 of its bytes: with the device, its name.
    pub digest: [u8; 32],
    /// Why it is there.
    pub reason: String,
    /// What exactly.
    pub detail: String,
    /// When it first came, microseconds since 1970-01-01 UTC.
    pub received_at_us: i64,
    /// The journal that had it.
    pub journal: JournalId,
    /// The frame that brought it.
    pub position: Position,
    /// Its place among the frame's records; `None` for a whole frame.
    pub record_index: Option<u8>,
    /// Codec id on the wire.
    pub codec: u8,
    /// A record's bytes on the wire, or a frame's data field.
    pub bytes: Vec<u8>,
    /// How often it came.
    pub seen: u64,
}

/// Where a record stands in the order of time.
pub type QuarantineCursor = (i64, Imei, [u8; 32]);

impl QuarantineEntry {
    /// Where it stands in the order of time.
    #[must_use]
    pub const fn cursor(&self) -> QuarantineCursor {
        (self.received_at_us, self.imei, self.digest)
    }
}

/// How much there is for a reason.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QuarantineTotal {
    /// The reason.
    pub reason: String,
    /// Records and whole frames.
    pub records: u64,
    /// How often they came.
    pub seen: u64,
}

/// In which order records are given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum QuarantineOrder {
    Oldest,
    Newest,
}

/// The quarantine of a database.
pub struct Quarantine(Kind);

pub(crate) enum Kind {
    Postgres(PostgresQuarantine),
    Sqlite(SqliteQuarantine),
}

impl Quarantine {
    /// Connects to a database that is there.
    ///
    /// # Errors
    /// When it cannot be reached.
    pub async fn open(url: &DatabaseUrl) -> Result<Self, StoreError> {
        Ok(Self(match url {
            DatabaseUrl::Postgres(url) => Kind::Postgres(PostgresQuarantine::open(url).await?),
            DatabaseUrl::Sqlite(path) => Kind::Sqlite(SqliteQuarantine::open(path).await?),
        }))
    }

    /// How much there is, by reason.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn totals(&mut self, filter: &QuarantineFilter) -> Result<Vec<QuarantineTotal>, StoreError> {
        match &mut self.0 {
            Kind::Postgres(quarantine) => quarantine.totals(filter).await,
            Kind::Sqlite(quarantine) => quarantine.totals(filter).await,
        }
    }

    /// The newest ones, at most so many.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn newest(&mut self, filter: &QuarantineFilter, most: u32) -> Result<Vec<QuarantineEntry>, StoreError> {
        self.page(filter, QuarantineOrder::Newest, None, most).await
    }

    /// The oldest ones behind a place, at most so many.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn after(
        &mut self,
        filter: &QuarantineFilter,
        cursor: Option<QuarantineCursor>,
        most: u32,
    ) -> Result<Vec<QuarantineEntry>, StoreError> {
        self.page(filter, QuarantineOrder::Oldest, cursor, most).await
    }

    pub(crate) async fn page(
        &mut self,
        filter: &QuarantineFilter,
        order: QuarantineOrder,
        behind: Option<QuarantineCursor>,
        most: u32,
    ) -> Result<Vec<QuarantineEntry>, StoreError> {
        match &mut self.0 {
            Kind::Postgres(quarantine) => quarantine.page(filter, order, behind, most).await,
            Kind::Sqlite(quarantine) => quarantine.page(filter, order, behind, most).await,
        }
    }

    /// Deletes some of them, the oldest first, in one small transaction; 0 when there are no more.
    ///
    /// # Errors
    /// When the database fails. What was deleted before stays so.
    pub async fn purge_some(&mut self, filter: &QuarantineFilter) -> Result<u64, StoreError> {
        match &mut self.0 {
            Kind::Postgres(quarantine) => quarantine.purge_some(filter).await,
            Kind::Sqlite(quarantine) => quarantine.purge_some(filter).await,
        }
    }
}

/// What the two databases write differently.
pub(crate) struct QuarantineDialect {
    /// The digest as hexadecimal digits in lower case.
    pub(crate) digest_hex: &'static str,
    pub(crate) time: fn(i64) -> String,
    pub(crate) bytes: fn(&str) -> String,
}

/// What a statement has behind its table. Only numbers, the words of an enum and hexadecimal digits come into its text.
pub(crate) fn conditions(
    filter: &QuarantineFilter,
    behind: Option<QuarantineCursor>,
    dialect: &QuarantineDialect,
) -> String {
    let QuarantineFilter { reason, imei, from_us, to_us, digest } = filter;
    let mut text = " WHERE true".to_owned();
    let mut and = |condition: String| {
        // Writing to a string does not fail.
        let _ = write!(text, " AND {condition}");
    };
    if let Some(reason) = reason {
        and(format!("reason = '{}'", reason.as_str()));
    }
    if let Some(imei) = imei {
        and(format!("imei = {}", imei.get()));
    }
    if let Some(from) = from_us {
        and(format!("received_at >= {}", (dialect.time)(*from)));
    }
    if let Some(to) = to_us {
        and(format!("received_at < {}", (dialect.time)(*to)));
    }
    if let Some(digits) = digest {
        let digits: String = digits.chars().filter(char::is_ascii_hexdigit).collect();
        and(format!("{} LIKE '{}%'", dialect.digest_hex, digits.to_ascii_lowercase()));
    }
    if let Some((received_at_us, imei, digest)) = behind {
        let hex: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
        let time = (dialect.time)(received_at_us);
        and(format!("received_at >= {time}"));
        and(format!("(received_at, imei, digest) > ({time}, {}, {})", imei.get(), (dialect.bytes)(&hex)));
    }
    text
}

pub(crate) fn ordered(order: QuarantineOrder, most: u32) -> String {
    let way = match order {
        QuarantineOrder::Oldest => "ASC",
        QuarantineOrder::Newest => "DESC",
    };
    format!(" ORDER BY received_at {way}, imei {way}, digest {way} LIMIT {most}")
}

/// A row that only somebody else can have written.
pub(crate) fn not_ours() -> StoreError {
    StoreError::new(ErrorClass::Refuses, READING, "quarantined_records holds what odograph did not write")
}

/// As a database holds it.
pub(crate) struct QuarantineRow {
    pub(crate) imei: i64,
    pub(crate) digest: Vec<u8>,
    pub(crate) reason: String,
    pub(crate) detail: String,
    pub(crate) received_at_us: i64,
    pub(crate) journal: [u8; 16],
    pub(crate) position: i64,
    pub(crate) record_index: Option<i16>,
    pub(crate) codec: i16,
    pub(crate) bytes: Vec<u8>,
    pub(crate) seen: i64,
}

impl QuarantineRow {
    pub(crate) fn entry(self) -> Result<QuarantineEntry, StoreError> {
        let Self { imei, digest, reason, detail, received_at_us, journal, position, record_index, codec, bytes, seen } =
            self;
        let imei = u64::try_from(imei).ok().and_then(|imei| Imei::try_from(imei).ok()).ok_or_else(not_ours)?;
        let small = |number: i16| u8::try_from(number).map_err(|_| not_ours());
        Ok(QuarantineEntry {
            imei,
            digest: digest.try_into().map_err(|_| not_ours())?,
            reason,
            detail,
            received_at_us,
            journal: JournalId::from_bytes(journal),
            position: Position(u64::try_from(position).map_err(|_| not_ours())?),
            record_index: record_index.map(small).transpose()?,
            codec: small(codec)?,
            bytes,
            seen: u64::try_from(seen).unwrap_or(0),
        })
    }
}

pub(crate) const OPENING: &str = "connecting to the database for the quarantine";
pub(crate) const READING: &str = "reading the quarantine";
pub(crate) const PURGING: &str = "purging the quarantine";
/// Rows in one transaction: some ten milliseconds.
pub(crate) const STEP: u32 = 5_000;
