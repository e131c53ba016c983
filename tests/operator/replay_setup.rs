//! A running service, and replays of its journal.

use std::process::Output;

use odograph_testkit::{ServiceProcess, TestDatabase, Tracker, frame, imei, record};
use serde_json::{Map, Value as Json};
use teltonika_codecs::encode::{NewElement, NewRecord, NewValue};

use crate::ODOGRAPH;

pub const T: u64 = 1_780_000_000_000;

/// A service with a journal that a replay can read.
pub struct Setup {
    pub database: TestDatabase,
    pub directory: tempfile::TempDir,
    pub process: ServiceProcess,
}

impl Setup {
    pub fn start(database: TestDatabase, more: &[(&str, &str)]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let own = [&[("ODOGRAPH_DATA_DIR", directory.path().to_str().unwrap())], more].concat();
        let process = ODOGRAPH.serve(&database.url(), "127.0.0.1:0", &own);
        Self { database, directory, process }
    }

    pub async fn send(&self, device: u64, records: &[NewRecord]) {
        let mut tracker = Tracker::login(self.process.trackers, &imei(device).to_string()).await;
        for records in records.chunks(100) {
            let count = u32::try_from(records.len()).unwrap();
            assert_eq!(tracker.deliver(&frame(records)).await, count);
        }
        self.process.settled().await;
    }

    pub fn replay(&self, arguments: &[&str]) -> Output {
        self.replay_with(arguments, &[])
    }

    pub fn replay_with(&self, arguments: &[&str], more: &[(&str, &str)]) -> Output {
        let url = self.database.url();
        let own = [("DATABASE_URL", url.as_str()), ("ODOGRAPH_DATA_DIR", self.directory.path().to_str().unwrap())];
        ODOGRAPH.run(&[&["replay"], arguments].concat(), &[&own, more].concat())
    }
}

/// The last line of standard output, after success.
pub fn result(output: &Output) -> Json {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout.clone()).unwrap();
    serde_json::from_str(text.lines().last().unwrap()).unwrap()
}

/// Returns how many records were inserted, updated, unchanged and refused.
pub fn counts(output: &Output) -> [u64; 4] {
    let result = result(output);
    ["inserted", "updated", "unchanged", "refused"].map(|name| result[name].as_u64().unwrap())
}

pub fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

/// A record with ignition, external voltage, and an element without a column.
pub fn rich(ts_ms: u64) -> NewRecord {
    let mut record = record(ts_ms, 1);
    record.elements.push(NewElement { id: 66, value: NewValue::U16(12_000) });
    record.elements.push(NewElement { id: 1000, value: NewValue::U16(7) });
    record
}

pub fn seconds(rows: &[Map<String, Json>]) -> Vec<u64> {
    rows.iter().map(|row| (row["ts_ms"].as_u64().unwrap() - T) / 1000).collect()
}
