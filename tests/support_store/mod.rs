//! What the tests of the stores need: databases of their own, sample rows, and reading rows back.

#![allow(dead_code, unused_imports, reason = "each test file uses its part")]

mod certificates;
mod databases;
mod rows;
mod steps;

pub(crate) use certificates::{Certificates, Pair};
pub(crate) use databases::{PostgresDatabase, PrivateServer, SqliteDatabase, TestDatabase, server_url};
pub(crate) use rows::{Sample, batch, columns, full_row, row, wire};
pub(crate) use steps::{
    IMEI, NOON, OTHER, OneLane, class, counts, fleet, some_lane, sqlite, timescale, until_committed,
};
