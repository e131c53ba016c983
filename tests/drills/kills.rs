//! kill -9: at random, inside COPY, between commit and release, in a journal write, during recovery. Fifty in the long version.

use std::time::Duration;

use odograph_fleet::audit::Findings;
use odograph_testkit::eventually;

use crate::moments::{InCopy, blocker};
use crate::report::Outcome;
use crate::setup::DrillSetup;
use crate::strace::{Strace, died_in};
use crate::wire::{Hold, Wire};

crate::drills! {
    "kill-random", short, at_random, "kill -9 at random moments";
    "kill-ack-after-commit", long, ack_after_commit, "kill -9 at random moments of a service without a journal";
    "kill-in-copy", short, in_copy, "kill -9 while the server is in the middle of a COPY";
    "kill-before-release", short, before_release, "kill -9 when the commit has happened and the service does not know";
    "kill-journal-write", short, in_journal_write, "kill -9 on entering a write or a sync of the journal";
    "kill-in-recovery", short, in_recovery, "kill -9 while the journal is being recovered, again and again";
}

async fn at_random(setup: DrillSetup) -> Outcome {
    let (setup, findings, kills, with_backlog) = kill_at_random(setup, "journal").await;
    drop(setup);
    Outcome { findings, faults: vec![("kills", kills), ("of them with records not yet committed", with_backlog)] }
}

/// Nothing is recovered then: what was not committed was not acknowledged, and comes again.
async fn ack_after_commit(setup: DrillSetup) -> Outcome {
    let (setup, findings, kills, recovered) = kill_at_random(setup, "commit").await;
    assert!(recovered == 0 && !setup.data().join("journal").exists(), "there is a journal");
    Outcome { findings, faults: vec![("kills", kills)] }
}

/// Returns the audit's findings, the number of kills, and the number of kills after which the next start found records
/// that were not committed.
async fn kill_at_random(mut setup: DrillSetup, ack_after: &str) -> (DrillSetup, Findings, u64, u64) {
    let database = setup.database().await;
    let launch = setup.launch(&database.url()).with("ODOGRAPH_ACK_AFTER", ack_after);
    let mut serve = launch.start(&setup.next_log()).await;
    let launch = launch.listen(&serve.trackers.to_string());
    let load = setup.load(serve.trackers);
    let (mut kills, mut with_backlog) = (0, 0);
    while kills < setup.times(3, 20) {
        load.goes_on(setup.random.u64(200..2_500)).await;
        tokio::time::sleep(Duration::from_micros(setup.random.u64(0..60_000))).await;
        serve.kill();
        kills += 1;
        serve = launch.start(&setup.next_log()).await;
        with_backlog += u64::from(serve.count("odograph_records_recovered_total").await > 0);
    }
    load.goes_on(500).await;
    let findings = setup.end(serve, load, &database).await;
    (setup, findings, kills, with_backlog)
}

async fn in_copy(mut setup: DrillSetup) -> Outcome {
    let database = setup.database().await;
    let launch = setup.launch(&database.url());
    let mut serve = launch.start(&setup.next_log()).await;
    let launch = launch.listen(&serve.trackers.to_string());
    let load = setup.load(serve.trackers);
    let mut kills = 0;
    while kills < setup.times(1, 10) {
        let in_copy = InCopy::catch(&database.url(), &load).await;
        serve.kill();
        drop(in_copy);
        kills += 1;
        serve = launch.start(&setup.next_log()).await;
        load.goes_on(setup.random.u64(200..2_000)).await;
    }
    let findings = setup.end(serve, load, &database).await;
    Outcome { findings, faults: vec![("kills inside COPY", kills)] }
}

async fn before_release(mut setup: DrillSetup) -> Outcome {
    let database = setup.database().await;
    let wire = Wire::new(&setup.server.url);
    let launch = setup.launch(&wire.url(&database.url()));
    let mut serve = launch.start(&setup.next_log()).await;
    let launch = launch.listen(&serve.trackers.to_string());
    let load = setup.load(serve.trackers);
    let mut kills = 0;
    while kills < setup.times(1, 6) {
        load.goes_on(setup.random.u64(500..2_000)).await;
        wire.hold(Hold::Answer);
        eventually("a commit", async || (wire.held() > kills).then_some(())).await;
        tokio::time::sleep(Duration::from_millis(setup.random.u64(0..300))).await;
        serve.kill();
        kills += 1;
        serve = launch.start(&setup.next_log()).await;
    }
    load.goes_on(500).await;
    let findings = setup.end(serve, load, &database).await;
    Outcome { findings, faults: vec![("kills with a commit unknown to the service", wire.held())] }
}

async fn in_journal_write(mut setup: DrillSetup) -> Outcome {
    let database = setup.database().await;
    let launch = setup.launch(&database.url());
    let mut serve = launch.start(&setup.next_log()).await;
    let launch = launch.listen(&serve.trackers.to_string());
    let load = setup.load(serve.trackers);
    let (mut writes, mut syncs) = (0, 0);
    for kill in 0..setup.times(2, 6) {
        load.goes_on(setup.random.u64(200..1_500)).await;
        let call = if kill % 2 == 0 { "pwrite64" } else { "fdatasync" };
        let fault = format!("{call}:signal=KILL:when={}", setup.random.u32(1..40));
        let strace = Strace::inject(&serve, &setup.directory, "pwrite64,fdatasync", &fault).await;
        serve.ends().await;
        let log = strace.log().await;
        assert!(!died_in(&log, call).is_empty(), "it did not die in {call}: {log}");
        *(if kill % 2 == 0 { &mut writes } else { &mut syncs }) += 1;
        serve = launch.start(&setup.next_log()).await;
    }
    load.goes_on(500).await;
    let findings = setup.end(serve, load, &database).await;
    Outcome { findings, faults: vec![("kills in a write", writes), ("kills in a sync", syncs)] }
}

async fn in_recovery(mut setup: DrillSetup) -> Outcome {
    let database = setup.database().await;
    let launch = setup.launch(&database.url());
    let serve = launch.start(&setup.next_log()).await;
    let launch = launch.listen(&serve.trackers.to_string());
    let load = setup.load(serve.trackers);
    load.goes_on(1_000).await;
    // Something to recover.
    let blocked = blocker(&database.url()).await;
    load.goes_on(setup.times(3_000, 10_000)).await;
    serve.kill();
    let trace = setup.directory.join("strace-recovery.log");
    let (mut kills, mut in_reads, mut missed) = (0, 0, 0);
    while kills < setup.times(2, 8) {
        // Half of them on entering a read of the journal, the others at any time.
        let starting = if kills % 2 == 0 {
            let fault = format!("inject=pread64:signal=KILL:when={}", setup.random.u32(1..12));
            let strace = ["strace", "-D", "-f", "-y", "-s", "0", "-e", "trace=pread64", "-e", &fault, "-o"];
            let mut starting =
                launch.clone().under(&[&strace[..], &[trace.to_str().unwrap()]].concat()).spawn(&setup.next_log());
            starting.ends().await;
            starting
        } else {
            let starting = launch.spawn(&setup.next_log());
            tokio::time::sleep(Duration::from_millis(setup.random.u64(5..200))).await;
            starting
        };
        let mut was_killed = starting.addresses().is_none();
        if kills % 2 == 0 {
            let killed = async || std::fs::read_to_string(&trace).ok().filter(|log| log.contains("killed by SIGKILL"));
            let log = eventually("strace to report the kill", killed).await;
            // The first reads are of the program's libraries.
            was_killed &= log.contains(".seg>");
            in_reads += u64::from(was_killed);
            std::fs::remove_file(&trace).unwrap();
        }
        kills += u64::from(was_killed);
        missed += u64::from(!was_killed);
        assert!(missed < 100, "the kill came too early or too late {missed} times");
    }
    drop(blocked);
    let serve = launch.start(&setup.next_log()).await;
    let recovered = serve.count("odograph_records_recovered_total").await;
    load.goes_on(500).await;
    let findings = setup.end(serve, load, &database).await;
    let faults = vec![
        ("kills before it was up", kills),
        ("of them while it read the journal", in_reads),
        ("records recovered in the end", recovered),
    ];
    Outcome { findings, faults }
}
