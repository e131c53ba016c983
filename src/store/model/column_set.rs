//! The columns of `positions`, as both databases name them in SQL.

use super::columns::{ELEMENT_COLUMNS, ELEMENTS};
use super::rows::Rows;

/// The columns that every row fills, in the order in which they are written.
pub(crate) const BASE_COLUMNS: [&str; 15] = [
    "imei",
    "ts",
    "fingerprint",
    "longitude",
    "latitude",
    "altitude_m",
    "angle_deg",
    "speed_kmh",
    "satellites",
    "priority",
    "codec",
    "event_io_id",
    "valid",
    "faulty",
    "received_at",
];

/// Filled by one codec only.
const GENERATION_TYPE: &str = "generation_type";

/// The columns that rows fill: all of the above, some of the elements, perhaps the generation type and `io`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct ColumnSet {
    present: u32,
    generation_type: bool,
    io: bool,
}

impl ColumnSet {
    pub(crate) fn of(rows: &Rows) -> Self {
        Self { present: rows.present(), generation_type: rows.has_generation_type(), io: rows.has_io() }
    }

    /// The columns of both sets.
    pub(crate) fn and(self, other: Self) -> Self {
        Self {
            present: self.present | other.present,
            generation_type: self.generation_type || other.generation_type,
            io: self.io || other.io,
        }
    }

    pub(crate) fn has_generation_type(self) -> bool {
        self.generation_type
    }

    pub(crate) fn has_io(self) -> bool {
        self.io
    }

    /// Bit n is set for element column n.
    pub(crate) fn present(self) -> u32 {
        self.present
    }

    /// Indices of the element columns.
    pub(crate) fn elements(self) -> impl Iterator<Item = usize> {
        (0..ELEMENT_COLUMNS).filter(move |column| self.present & (1 << column) != 0)
    }

    pub(crate) fn len(self) -> usize {
        BASE_COLUMNS.len() + usize::from(self.generation_type) + self.elements().count() + usize::from(self.io)
    }

    /// `imei, ts, …`
    pub(crate) fn names(self) -> String {
        let elements = self.elements().filter_map(|column| ELEMENTS.get(column)).map(|element| element.name);
        let generation_type = self.generation_type.then_some(GENERATION_TYPE);
        let io = self.io.then_some("io");
        let names: Vec<_> = BASE_COLUMNS.into_iter().chain(generation_type).chain(elements).chain(io).collect();
        names.join(", ")
    }
}

/// Every column of a position, each once.
pub(crate) fn all_columns() -> Vec<&'static str> {
    let elements = ELEMENTS.iter().map(|element| element.name);
    BASE_COLUMNS.into_iter().chain([GENERATION_TYPE]).chain(elements).chain(["io"]).collect()
}

/// The columns that are decoded from a record's bytes: all but its key, its receive time, and its flag.
pub(crate) fn decoded_columns() -> Vec<&'static str> {
    all_columns().into_iter().filter(|name| !NOT_DECODED.contains(name)).collect()
}

const NOT_DECODED: [&str; 5] = ["imei", "ts", "fingerprint", "faulty", "received_at"];

/// `table.longitude, table.latitude, …`: the decoded columns of a table.
pub(crate) fn decoded_of(table: &str) -> String {
    let names: Vec<_> = decoded_columns().iter().map(|name| format!("{table}.{name}")).collect();
    names.join(", ")
}

/// The end of an insert into `positions` for records that were decoded again: a stored row gets all decoded columns,
/// including those that this batch does not fill.
pub(crate) fn decoded_wins(differs: &str) -> String {
    let assignments: Vec<_> = decoded_columns().iter().map(|name| format!("{name} = excluded.{name}")).collect();
    format!(
        "ON CONFLICT (imei, ts, fingerprint) DO UPDATE SET {} WHERE ({}) {differs} ({})",
        assignments.join(", "),
        decoded_of("positions"),
        decoded_of("excluded")
    )
}

/// The end of an insert into `latest_positions`: only forward in device time, and then the whole row, so that a column
/// that this batch does not fill becomes NULL.
pub(crate) fn latest_wins() -> String {
    let replaced = BASE_COLUMNS
        .iter()
        .skip(1)
        .copied()
        .chain(ELEMENTS.iter().map(|element| element.name))
        .chain([GENERATION_TYPE, "io"]);
    let assignments: Vec<_> = replaced.map(|name| format!("{name} = excluded.{name}")).collect();
    format!(
        "ON CONFLICT (imei) DO UPDATE SET {} \
         WHERE (excluded.ts, excluded.fingerprint) > (latest_positions.ts, latest_positions.fingerprint)",
        assignments.join(", ")
    )
}
