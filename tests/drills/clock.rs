//! Clocks: the service's own clock, which jumps back and forth (libfaketime), and the clocks of trackers.

use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use odograph_fleet::{Clocks, Plan};
use odograph_testkit::Launch;

use crate::load::Load;
use crate::report::Outcome;
use crate::setup::{DrillSetup, number};

crate::drills! {
    "clock-forth-and-back", long, forth_and_back, "the service's clock jumps by minutes, by hours, and to before its build";
    "clock-behind-at-boot", short, behind_at_boot, "the machine boots eight hours behind, and its clock is set right while trackers send";
    "clock-ahead-at-boot", long, ahead_at_boot, "the machine boots five hours ahead, and its clock is set right while trackers send";
    "clock-wrong-device", short, wrong_device, "trackers with wrong clocks, some of them in 2004";
}

async fn forth_and_back(mut setup: DrillSetup) -> Outcome {
    let database = setup.database().await;
    let clock = Clock::new(&setup);
    let serve = clock.fake(setup.launch(&database.url())).start(&setup.next_log()).await;
    let load = setup.load(serve.trackers);
    load.goes_on(1_000).await;
    let mut waits = 0;
    for _ in 0..setup.times(1, 3) {
        // Small steps in either direction have no effect.
        for minutes in [setup.random.i64(1..4), -setup.random.i64(1..4), 0] {
            clock.is_off_by(60 * minutes);
            load.goes_on(setup.random.u64(300..1_000)).await;
        }
        // A time before this program was built: the drain waits, trackers do not, and the wait ends by itself.
        clock.is_off_by(-3 * 365 * 86_400);
        load.goes_on(500).await;
        serve.names_reason("clock").await;
        load.goes_on(1_000).await;
        waits += 1;
        clock.is_off_by(0);
        serve.is_ready().await;
    }
    // Hours ahead: only the database's clock tells.
    clock.is_off_by(2 * 3_600);
    load.goes_on(500).await;
    serve.names_reason("clock").await;
    load.goes_on(1_000).await;
    waits += 1;
    clock.is_off_by(0);
    serve.is_ready().await;
    let findings = setup.end(serve, load, &database).await;
    let ahead = "SELECT count(*) AS n FROM positions WHERE received_at > now() + INTERVAL '10 minutes'";
    assert_eq!(number(&database, ahead).await, 0, "rows received in the future");
    Outcome { findings, faults: vec![("times that the drain waited", waits)] }
}

async fn behind_at_boot(setup: DrillSetup) -> Outcome {
    wrong_at_boot(setup, -8 * 3_600).await
}

async fn ahead_at_boot(setup: DrillSetup) -> Outcome {
    wrong_at_boot(setup, 5 * 3_600).await
}

async fn wrong_at_boot(mut setup: DrillSetup, off_seconds: i64) -> Outcome {
    let database = setup.database().await;
    let clock = Clock::new(&setup);
    clock.is_off_by(off_seconds);
    let serve = clock.fake(setup.launch(&database.url()).default_time_windows()).start(&setup.next_log()).await;
    let plan = Plan { start_ms: ago_ms(Duration::from_hours(1)), ..setup.plan(serve.trackers) };
    let load = Load::start(plan);
    load.goes_on(1_000).await;
    serve.names_reason("clock").await;
    load.goes_on(500).await;
    let waited = serve.count("odograph_records_waiting").await;
    clock.is_off_by(0);
    serve.is_ready().await;
    let findings = setup.end(serve, load, &database).await;
    let wrong = "SELECT count(*) AS n FROM positions WHERE received_at NOT BETWEEN now() - INTERVAL '1 hour' AND now()";
    assert_eq!(number(&database, wrong).await, 0, "rows with a wrong receive time");
    assert_eq!(findings.quarantined, 0, "good records in quarantine");
    Outcome { findings, faults: vec![("records that waited for the clock", waited)] }
}

/// A time before now, in milliseconds of Unix time.
fn ago_ms(ago: Duration) -> u64 {
    let then = SystemTime::now().checked_sub(ago).unwrap().duration_since(SystemTime::UNIX_EPOCH).unwrap();
    u64::try_from(then.as_millis()).unwrap()
}

async fn wrong_device(mut setup: DrillSetup) -> Outcome {
    let database = setup.database().await;
    let serve = setup.launch(&database.url()).default_time_windows().start(&setup.next_log()).await;
    let plan =
        Plan { clocks: Clocks::SomeStray, start_ms: ago_ms(Duration::from_hours(24)), ..setup.plan(serve.trackers) };
    let load = Load::start(plan);
    load.goes_on(setup.times(2_000, 20_000)).await;
    let findings = setup.end(serve, load, &database).await;
    let behind = "SELECT count(*) AS n FROM positions WHERE ts < received_at - INTERVAL '100 days'";
    let behind = number(&database, behind).await;
    let stray = findings.quarantined;
    Outcome { findings, faults: vec![("records of 2004 in quarantine", stray), ("rows 200 days behind", behind)] }
}

/// The clock as one service sees it. Monotonic time is unchanged, as when the kernel's clock is set.
struct Clock {
    library: PathBuf,
    file: PathBuf,
}

impl Clock {
    fn new(setup: &DrillSetup) -> Self {
        let libraries = std::fs::read_dir("/usr/lib").unwrap().map(|entry| entry.unwrap().path());
        let library = libraries.map(|path| path.join("faketime/libfaketimeMT.so.1")).find(|path| path.is_file());
        let library = library.expect("libfaketime is missing: apt-get install faketime");
        let clock = Self { library, file: setup.directory.join("clock") };
        clock.is_off_by(0);
        clock
    }

    fn is_off_by(&self, seconds: i64) {
        // Replaced in one step: a half-written file would be another time.
        let next = self.file.with_extension("next");
        std::fs::write(&next, format!("{seconds:+}\n")).unwrap();
        std::fs::rename(next, &self.file).unwrap();
    }

    fn fake(&self, launch: Launch) -> Launch {
        launch
            .with("LD_PRELOAD", self.library.to_str().unwrap())
            .with("FAKETIME_TIMESTAMP_FILE", self.file.to_str().unwrap())
            .with("FAKETIME_NO_CACHE", "1")
            .with("FAKETIME_DONT_FAKE_MONOTONIC", "1")
            .with("DONT_FAKE_MONOTONIC", "1")
            .with("NO_FAKE_STAT", "1")
    }
}
