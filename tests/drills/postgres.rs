//! PostgreSQL down: stopped in both ways, a backend killed, an outage of a minute, connections cut at every boundary.

use std::time::{Duration, Instant};

use odograph_fleet::Plan;
use odograph_testkit::{StopMode, eventually, eventually_within};

use crate::load::Load;
use crate::moments::{InCopy, connect, until_row};
use crate::report::Outcome;
use crate::setup::DrillSetup;
use crate::wire::Wire;

crate::drills! {
    "pg-stop-fast", long, stop_fast, "PostgreSQL is stopped (fast) and started under load";
    "pg-stop-immediate", short, stop_immediate, "PostgreSQL is stopped as in a crash and started under load";
    "pg-stop-ack-after-commit", long, stop_ack_after_commit, "PostgreSQL is stopped as in a crash under a service without a journal";
    "pg-backend-terminated", long, backend_terminated, "the service's session is ended in the middle of a COPY";
    "pg-backend-killed", long, backend_killed, "kill -9 of the backend in the middle of a COPY; all of PostgreSQL restarts";
    "pg-outage-60s", long, outage, "PostgreSQL is down for a minute, and trackers must not notice";
    "pg-cut-connection", short, cut, "the connection is cut after every message of the protocol, one after the other";
}

async fn stop_fast(setup: DrillSetup) -> Outcome {
    stop(setup, StopMode::Fast, "journal").await
}

async fn stop_immediate(setup: DrillSetup) -> Outcome {
    stop(setup, StopMode::Immediate, "journal").await
}

async fn stop_ack_after_commit(setup: DrillSetup) -> Outcome {
    stop(setup, StopMode::Immediate, "commit").await
}

async fn stop(mut setup: DrillSetup, how: StopMode, ack_after: &str) -> Outcome {
    let database = setup.database().await;
    let serve = setup.launch(&database.url()).with("ODOGRAPH_ACK_AFTER", ack_after).start(&setup.next_log()).await;
    let load = setup.load(serve.trackers);
    let mut stops = 0;
    while stops < setup.times(1, 5) {
        load.goes_on(setup.random.u64(500..3_000)).await;
        tokio::time::sleep(Duration::from_millis(setup.random.u64(0..100))).await;
        setup.server.stop(how);
        serve.names_reason("store_down").await;
        if ack_after == "journal" {
            load.goes_on(setup.random.u64(500..3_000)).await;
        } else {
            // By then every earlier answer has arrived. From then on no tracker gets an answer.
            tokio::time::sleep(Duration::from_millis(200)).await;
            let before = load.acknowledged();
            tokio::time::sleep(Duration::from_millis(setup.random.u64(500..2_000))).await;
            assert_eq!(load.acknowledged(), before, "acknowledged without a database");
        }
        setup.server.start();
        stops += 1;
        serve.is_ready().await;
    }
    load.goes_on(500).await;
    let errors = serve.count("odograph_store_errors_total{class=\"unavailable\"}").await;
    let findings = setup.end(serve, load, &database).await;
    Outcome { findings, faults: vec![("stops", stops), ("errors that the service met", errors)] }
}

async fn backend_terminated(mut setup: DrillSetup) -> Outcome {
    let database = setup.database().await;
    let serve = setup.launch(&database.url()).start(&setup.next_log()).await;
    let load = setup.load(serve.trackers);
    let client = connect(&database.url()).await;
    let mut ended = 0;
    while ended < setup.times(1, 5) {
        let in_copy = InCopy::catch(&database.url(), &load).await;
        let backend = in_copy.number();
        let sent: bool = client.query_one("SELECT pg_terminate_backend($1)", &[&backend]).await.unwrap().get(0);
        assert!(sent, "there was no session to end");
        drop(in_copy);
        let gone = format!("SELECT 1 WHERE NOT EXISTS (SELECT FROM pg_stat_activity WHERE pid = {backend})");
        until_row(&client, "the session to end", &gone).await;
        ended += 1;
        load.goes_on(setup.random.u64(500..2_000)).await;
    }
    let findings = setup.end(serve, load, &database).await;
    Outcome { findings, faults: vec![("sessions ended inside COPY", ended)] }
}

async fn backend_killed(mut setup: DrillSetup) -> Outcome {
    let database = setup.database().await;
    let serve = setup.launch(&database.url()).start(&setup.next_log()).await;
    let load = setup.load(serve.trackers);
    let mut killed = 0;
    while killed < setup.times(1, 3) {
        let witness = connect(&database.url()).await;
        let in_copy = InCopy::catch(&database.url(), &load).await;
        in_copy.kill();
        // Every session ends with it.
        eventually("the server to end its sessions", async || witness.is_closed().then_some(())).await;
        drop(in_copy);
        killed += 1;
        // The server comes back by itself.
        load.goes_on(setup.random.u64(500..2_000)).await;
        serve.is_ready().await;
    }
    let findings = setup.end(serve, load, &database).await;
    Outcome { findings, faults: vec![("backends killed inside COPY", killed)] }
}

async fn outage(mut setup: DrillSetup) -> Outcome {
    let database = setup.database().await;
    let serve = setup.launch(&database.url()).start(&setup.next_log()).await;
    let load = setup.load(serve.trackers);
    load.goes_on(2_000).await;
    setup.server.stop(StopMode::Immediate);
    let (begun, before) = (Instant::now(), load.acknowledged());
    while begun.elapsed() < Duration::from_mins(1) {
        // No tracker waits longer than usual.
        let last = load.acknowledged();
        tokio::time::sleep(Duration::from_secs(2)).await;
        assert!(load.acknowledged() > last + 2_000, "trackers notice the outage");
    }
    let meanwhile = load.acknowledged() - before;
    let seconds = begun.elapsed().as_secs();
    setup.server.start();
    load.goes_on(2_000).await;
    let findings = setup.end(serve, load, &database).await;
    Outcome { findings, faults: vec![("seconds away", seconds), ("records acknowledged meanwhile", meanwhile)] }
}

async fn cut(mut setup: DrillSetup) -> Outcome {
    let database = setup.database().await;
    let wire = Wire::new(&setup.server.url);
    let serve = setup.launch(&wire.url(&database.url())).start(&setup.next_log()).await;
    // It takes minutes, and every record is audited.
    let load = Load::start(Plan { rate: Some(1_000.0), ..setup.plan(serve.trackers) });
    load.goes_on(500).await;
    // From both ends: a connection that is cut late has committed before, so the service does not give up.
    let all: Vec<u64> = if setup.short {
        (0..8).map(|_| setup.random.u64(1..MESSAGES)).collect()
    } else {
        (1..=MESSAGES / 2).flat_map(|at| [at, MESSAGES + 1 - at]).collect()
    };
    let wanted = all.len() as u64;
    wire.cut_behind(all.into_iter());
    // End the open sessions, so that new connections take a boundary.
    connect(&database.url()).await.batch_execute(END_SESSIONS).await.unwrap();
    eventually_within(Duration::from_mins(7), "every boundary to be cut", async || {
        (wire.cut().1 >= wanted).then_some(())
    })
    .await;
    let (left, cuts, kinds) = wire.cut();
    assert_eq!((left, cuts), (0, wanted));
    load.goes_on(500).await;
    let findings = setup.end(serve, load, &database).await;
    Outcome { findings, faults: vec![("cuts", cuts), ("kinds of messages", kinds as u64)] }
}

const END_SESSIONS: &str = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
    WHERE datname = current_database() AND application_name = 'odograph'";
/// Login, schema inspection, lane claim, prepared statements, and several batches.
const MESSAGES: u64 = 240;
