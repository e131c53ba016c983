//! The drain: reads entries, decodes them, builds rows, and commits batch by batch. It has one or more lanes, each a slice of the
//! devices with a thread and a connection of its own.
//!
//! ```text
//! journal ─ journal_source ─┐
//!                           ├─► builder: rows, duplicate filter, latest positions ─► batch ─► driver ─► store
//! intake ─ direct_source ───┘                                                          └─ committed ─► release, or receipts
//! ```
//!
//! Entries queue up while a batch is committed, so batches grow with the backlog by themselves. After an error the same batch is
//! committed again, however long it takes: nothing is dropped.
//!
//! # Reading order
//!
//! - `driver` ([`LaneDriver`]) is the loop of one lane: seek, gather, commit, release.
//! - `source` ([`EntrySource`]) is what it reads from: `journal_source`, or `direct_source` if there is no journal.
//! - `builder`, `row`, `duplicates`, `latest` turn entries into a batch.
//! - `progress` ([`JournalProgress`]) is what the lanes of one journal share: what is committed by all, and so released.
//! - `clock_watch` (with `clock`, `host_clock`) holds a lane while a clock is wrong, and corrects receive times afterwards.
//! - `store_health`, `gap` report what an operator must know; `metrics` and `journal_metrics` count.
//!
//! # Words
//!
//! A *checkpoint* is what the database holds for a lane. The *span* of a batch is the part of the journal from its checkpoint to the
//! last entry read. A lane has *reached* or *committed* a position when the database has everything before it: *reached* after a seek, by its
//! checkpoint, and *committed* by a commit of this process. The journal *releases* what all lanes have committed.

mod builder;
mod clock;
mod clock_watch;
mod direct_source;
mod driver;
mod duplicates;
mod gap;
mod host_clock;
mod journal_metrics;
mod journal_source;
mod latest;
mod limits;
mod metrics;
mod progress;
mod row;
mod source;
mod store_health;

pub use builder::{BatchBuilder, Frame, TimeWindow, open as open_frame, stored as stored_message};
pub use clock::{BUILT_US, ImplausibleClock, check as check_clock};
pub use direct_source::DirectSource;
pub use driver::LaneDriver;
pub use duplicates::{DeviceFilter, DuplicateFilter, Familiarity, FilterSizes};
pub use gap::GapFile;
pub use journal_metrics::JournalMetrics;
pub use journal_source::{JournalSource, with_plausible_receive_time};
pub use latest::LatestPositions;
pub use limits::BatchLimits;
pub use metrics::DrainMetrics;
pub use progress::{JournalProgress, OldestUnknown};
pub use row::{AcceptedFrameError, BuiltRow};
pub use source::{EntrySource, SourceError};
pub use store_health::LaneReports;
