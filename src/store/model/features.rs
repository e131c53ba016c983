//! What a database offers beyond plain tables, and what its absence costs.

/// What this server's build of TimescaleDB, or its absence, makes of `positions`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Features {
    /// What `positions` is.
    pub positions: PositionsTable,
    /// Whether old positions are compressed into columns.
    pub columnstore: Columnstore,
}

/// What kind of table `positions` is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PositionsTable {
    /// A hypertable.
    Hypertable {
        /// The version of TimescaleDB.
        timescaledb: String,
    },
    /// An ordinary table of PostgreSQL: works, but does not age well.
    Plain,
    /// A table in a SQLite file.
    Embedded,
}

/// Whether old chunks of `positions` are compressed into columns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Columnstore {
    /// Yes.
    On,
    /// They could be, and are not: `odograph migrate` has not run since, or the operator switched it off.
    Off,
    /// This build of TimescaleDB, under the Apache licence, has no columnstore.
    NotInThisBuild,
    /// There are no chunks.
    NoChunks,
}

impl Features {
    /// What a SQLite file offers.
    pub(crate) const EMBEDDED: Self = Self { positions: PositionsTable::Embedded, columnstore: Columnstore::NoChunks };

    /// What is missing and what that costs. `None` if nothing is missing, and for a SQLite file, which never has it.
    #[must_use]
    pub fn lacks(&self) -> Option<&'static str> {
        match (&self.positions, self.columnstore) {
            (PositionsTable::Embedded, _) | (PositionsTable::Hypertable { .. }, Columnstore::On) => None,
            (PositionsTable::Plain, _) => Some(
                "TimescaleDB is not installed, so positions is an ordinary table: everything works, but old data is \
                 deleted row by row and never compressed, and queries by time slow down as it grows; install \
                 TimescaleDB 2.13 or later, add it to shared_preload_libraries, and run `odograph migrate` again",
            ),
            (PositionsTable::Hypertable { .. }, Columnstore::Off) => Some(
                "the columnstore is off for positions: everything works, but old chunks stay as rows and take several \
                 times the space; `odograph migrate` switches it on",
            ),
            (PositionsTable::Hypertable { .. }, Columnstore::NotInThisBuild | Columnstore::NoChunks) => Some(
                "this build of TimescaleDB (Apache licence, such as Debian's package) has no columnstore: everything \
                 works, but old chunks stay as rows and take several times the space; the community build has it, and \
                 `odograph migrate` then switches it on",
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_is_reported_with_its_cost() {
        let hypertable = PositionsTable::Hypertable { timescaledb: "2.19.3".to_owned() };
        let lacks = |positions: &PositionsTable, columnstore| {
            Features { positions: positions.clone(), columnstore }.lacks().unwrap_or_default()
        };
        assert!(lacks(&PositionsTable::Plain, Columnstore::NoChunks).contains("row by row"));
        assert!(lacks(&hypertable, Columnstore::NotInThisBuild).contains("several times the space"));
        assert!(lacks(&hypertable, Columnstore::Off).contains("odograph migrate"));
        assert_eq!(lacks(&hypertable, Columnstore::On), "");
        assert_eq!(lacks(&PositionsTable::Embedded, Columnstore::NoChunks), "");
    }
}
