//! What the tests of the stores need: databases of their own, sample rows, and reading rows back.

#![allow(dead_code, unused_imports, reason = "each test file uses its part")]

mod certificates;
mod databases;
mod flags;
mod proxy;
mod rows;
mod small_disk;
mod steps;

/// Makes a test of every function for each store.
#[macro_export]
macro_rules! for_both_stores {
    ($($name:ident)*) => {
        mod timescale {
            use super::*;
            $(#[tokio::test] async fn $name() { super::$name(PostgresDatabase::new().await).await; })*
        }
        mod sqlite {
            use super::*;
            $(#[tokio::test] async fn $name() { super::$name(SqliteDatabase::new().await).await; })*
        }
    };
}

pub(crate) use certificates::{Certificates, Pair};
pub(crate) use databases::{PostgresDatabase, PrivateServer, SqliteDatabase, TestDatabase, server_url};
pub(crate) use flags::{deleted, faulty_times, flag, latest, set, shifted, window};
pub(crate) use proxy::{Cut, Proxy};
pub(crate) use rows::{Cell, Sample, batch, columns, full_row, row, wire};
pub(crate) use small_disk::SmallDisk;
pub(crate) use steps::{
    IMEI, NOON, OTHER, OneLane, class, counts, fleet, some_lane, sqlite, timescale, until_committed,
};
