//! Support code for the tests and benchmarks of the service. Only for development: the product does not depend on it.
//!
//! | module | contents |
//! |---|---|
//! | [`database`] | a PostgreSQL database or a SQLite file of the test's own, and its rows as JSON |
//! | [`store_fixture`] | such a database with a store and a flag ledger on it, for tests of both stores |
//! | [`private_server`], [`redis_server`] | servers that a test may stop, kill and configure |
//! | [`proxy`] | a proxy that cuts a connection at the message that matters |
//! | [`service_process`] | the service's binary: its commands, and `serve` as a process that can be killed |
//! | [`service`] | the service in this process |
//! | [`admin`] | requests to a service's admin listener |
//! | [`tracker`], [`examples`] | a tracker that sends given bytes, and the vendor's example frames |
//! | [`rows`], [`one_lane`], [`flag_changes`] | sample rows, batches, commits and flags |
//! | [`certificates`], [`small_disk`] | certificates of the test's own, and a file system that fills up |
//! | [`wait`] | polling for a state, with a limit |

#![expect(clippy::unwrap_used, reason = "a step that fails here is a test that fails")]

pub mod admin;
pub mod certificates;
pub mod database;
pub mod examples;
pub mod flag_changes;
pub mod one_lane;
pub mod private_server;
pub mod proxy;
pub mod redis_server;
pub mod rows;
pub mod service;
pub mod service_process;
pub mod small_disk;
pub mod store_fixture;
pub mod tracker;
pub mod wait;

pub use admin::{count, get, metric, readiness};
pub use certificates::{CertificateAndKey, Certificates, Properties};
pub use database::{TestDatabase, server_url};
pub use flag_changes::{deleted, faulty_times, flag, latest_times, set, shifted, window};
pub use one_lane::{
    IMEI, NOON, OTHER, OneLane, counts, error_class, fleet, open_postgres, open_sqlite, some_lane, until_committed,
};
pub use private_server::{PrivateServer, StopMode};
pub use proxy::{Cut, CuttingProxy};
pub use redis_server::RedisServer;
pub use rows::{Cell, Sample, batch, columns, full_row, row, wire};
pub use service::Service;
pub use service_process::{Launch, Odograph, ServiceProcess, StartingService};
pub use small_disk::SmallDisk;
pub use store_fixture::{PostgresFixture, SqliteFixture, StoreFixture};
pub use tracker::{Tracker, frame, framed, imei, record};
pub use wait::{PATIENCE, eventually, eventually_within, until};

/// Makes one test per store of every function: `async fn name(fixture: impl StoreFixture)`.
#[macro_export]
macro_rules! for_both_stores {
    ($($name:ident)*) => {
        mod timescale {
            use $crate::StoreFixture as _;
            $(#[tokio::test] async fn $name() { super::$name($crate::PostgresFixture::new().await).await; })*
        }
        mod sqlite {
            use $crate::StoreFixture as _;
            $(#[tokio::test] async fn $name() { super::$name($crate::SqliteFixture::new().await).await; })*
        }
    };
}
