//! Shared by the tests of admission: a service that admits registered devices only, and the output of its commands.

use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, Output};

use odograph::store::{DatabaseUrl, MigrateOptions, migrate};
use odograph_testkit::{ServiceProcess, TestDatabase, Tracker, count, eventually};
use teltonika_codecs::{Imei, encode};

use crate::ODOGRAPH;

pub const REGISTERED: (&str, &str) = ("ODOGRAPH_ADMISSION", "registered");

/// Migrates, creates the table with its trigger, and registers devices.
pub async fn with_devices(database: TestDatabase, imeis: &[Imei]) -> TestDatabase {
    let options = MigrateOptions { standalone_devices: true, ..MigrateOptions::default() };
    migrate(&DatabaseUrl::parse(&database.url()).unwrap(), &options).await.unwrap();
    for imei in imeis {
        register(&database, *imei).await;
    }
    database
}

pub async fn register(database: &TestDatabase, imei: Imei) {
    database.execute(&format!("INSERT INTO devices (imei) VALUES ('{imei}')")).await;
}

pub async fn remove(database: &TestDatabase, imei: Imei) {
    database.execute(&format!("DELETE FROM devices WHERE imei = '{imei}'")).await;
}

/// Starts a service that keeps its data in this directory.
pub fn serve(database: &TestDatabase, directory: &Path, more: &[(&str, &str)]) -> ServiceProcess {
    let own = [("ODOGRAPH_DATA_DIR", directory.to_str().unwrap()), REGISTERED];
    ODOGRAPH.serve(&database.url(), "127.0.0.1:0", &[&own[..], more].concat())
}

/// Logs in and is refused: the byte 0, then the end.
pub async fn is_told_no(target: SocketAddr, imei: Imei) {
    let mut tracker = Tracker::connect(target).await;
    tracker.send(&encode::login(imei)).await;
    assert_eq!(tracker.receive::<1>().await.unwrap(), [0]);
    assert!(tracker.is_closed_unanswered().await);
}

/// Logs in and is closed without an answer.
pub async fn is_sent_away(target: SocketAddr, imei: Imei) {
    let mut tracker = Tracker::connect(target).await;
    tracker.send(&encode::login(imei)).await;
    assert!(tracker.is_closed_unanswered().await);
}

pub async fn reloads(admin: SocketAddr, result: &str) -> u64 {
    count(admin, &format!("odograph_admission_reloads_total{{result=\"{result}\"}}")).await
}

/// Waits until the service knows this many devices.
pub async fn knows(admin: SocketAddr, devices: u64) {
    let known = async || (count(admin, "odograph_admission_devices").await == devices).then_some(());
    eventually("the list of devices", known).await;
}

/// Waits until this many sessions have ended for this reason.
pub async fn closed(admin: SocketAddr, reason: &str, times: u64) {
    let series = format!("odograph_connections_closed_total{{reason=\"{reason}\"}}");
    eventually(&series, async || (count(admin, &series).await == times).then_some(())).await;
}

/// `odograph devices …` on a data directory.
pub fn devices(directory: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(ODOGRAPH.path());
    command.arg("devices").args(arguments).env("ODOGRAPH_DATA_DIR", directory).env("ODOGRAPH_ADMISSION", "registered");
    command.env_remove("DATABASE_URL").output().unwrap()
}

pub fn said(output: &Output) -> (String, String) {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    (text(&output.stdout), text(&output.stderr))
}
