//! The network between trackers and service: cut, half-open, byte by byte, without answers, and all trackers at once.

use std::time::{Duration, Instant};

use odograph_fleet::Plan;
use odograph_testkit::eventually;

use crate::load::Load;
use crate::relay::{NetworkConditions, Relay};
use crate::report::Outcome;
use crate::setup::DrillSetup;

crate::drills! {
    "net-cut", long, cut, "every connection is reset, again and again";
    "net-half-open", long, half_open, "trackers vanish in the middle of a frame, and the service's ends stay open";
    "net-one-byte-segments", long, one_byte, "every byte is a segment of its own";
    "net-lost-acks", short, lost_acks, "no answer arrives for a while: everything is sent again, in other packets";
    "net-reconnect-storm", long, storm, "10,000 trackers come back at once";
}

async fn cut(mut setup: DrillSetup) -> Outcome {
    let database = setup.database().await;
    let serve = setup.launch(&database.url()).start(&setup.next_log()).await;
    let relay = Relay::new(serve.trackers);
    let load = setup.load(relay.address);
    for _ in 0..setup.times(5, 40) {
        load.goes_on(setup.random.u64(100..800)).await;
        relay.cut();
    }
    load.goes_on(1_000).await;
    let findings = setup.end(serve, load, &database).await;
    Outcome { findings, faults: vec![("connections cut", relay.connections_cut())] }
}

async fn half_open(mut setup: DrillSetup) -> Outcome {
    let database = setup.database().await;
    let serve = setup.launch(&database.url()).with("ODOGRAPH_FRAME_TIMEOUT", "2s").start(&setup.next_log()).await;
    let relay = Relay::new(serve.trackers);
    let load = setup.load(relay.address);
    for _ in 0..setup.times(2, 5) {
        load.goes_on(setup.random.u64(500..2_000)).await;
        let before = relay.half_open();
        relay.set(NetworkConditions::HalfOpen);
        eventually("trackers to vanish", async || (relay.half_open() > before + 100).then_some(())).await;
        relay.set(NetworkConditions::Normal);
    }
    let dead = relay.half_open();
    load.goes_on(1_000).await;
    let closed =
        ["frame_timeout", "replaced"].map(|reason| format!("odograph_connections_closed_total{{reason=\"{reason}\"}}"));
    eventually("the service to notice", async || {
        // A tracker that vanishes again and again replaces its own sockets.
        let noticed = serve.count(&closed[0]).await + serve.count(&closed[1]).await;
        (noticed >= dead).then_some(())
    })
    .await;
    let findings = setup.end(serve, load, &database).await;
    Outcome { findings, faults: vec![("half-open connections", dead)] }
}

async fn one_byte(mut setup: DrillSetup) -> Outcome {
    let database = setup.database().await;
    let serve = setup.launch(&database.url()).start(&setup.next_log()).await;
    let relay = Relay::new(serve.trackers);
    relay.set(NetworkConditions::ByteByByte);
    let plan = Plan { devices: 40, records: 3, rate: Some(600.0), ..setup.plan(relay.address) };
    let load = Load::start(plan);
    load.goes_on(setup.times(600, 3_000)).await;
    let findings = setup.end(serve, load, &database).await;
    Outcome { findings, faults: vec![("segments of one byte", relay.single_bytes())] }
}

async fn lost_acks(mut setup: DrillSetup) -> Outcome {
    let database = setup.database().await;
    let serve = setup.launch(&database.url()).start(&setup.next_log()).await;
    let relay = Relay::new(serve.trackers);
    let load = setup.load(relay.address);
    for _ in 0..setup.times(2, 8) {
        load.goes_on(setup.random.u64(500..2_000)).await;
        let before = relay.answers_lost();
        relay.set(NetworkConditions::AnswersLost);
        eventually("answers to get lost", async || (relay.answers_lost() > before + 200).then_some(())).await;
        relay.set(NetworkConditions::Normal);
    }
    load.goes_on(1_000).await;
    let duplicates = async || {
        let again = serve.count("odograph_records_duplicate_total").await;
        (again > 0).then_some(again)
    };
    let again = eventually("resent records to be recognised", duplicates).await;
    let findings = setup.end(serve, load, &database).await;
    Outcome { findings, faults: vec![("answers lost", relay.answers_lost()), ("records that came again", again)] }
}

async fn storm(mut setup: DrillSetup) -> Outcome {
    let database = setup.database().await;
    let launch = setup.launch(&database.url());
    let serve = launch.start(&setup.next_log()).await;
    let launch = launch.listen(&serve.trackers.to_string());
    let plan = Plan { devices: TRACKERS, records: 2, rate: None, sources: 2, ..setup.plan(serve.trackers) };
    let load = Load::start(Plan { lose_answer_every: 100, ..plan });
    let all = async || (serve.count("odograph_connections_open").await >= NEARLY_ALL).then_some(());
    eventually("all trackers to be connected", all).await;
    load.goes_on(20_000).await;
    // All connections end at once, and the trackers come back as soon as the service listens.
    let before = load.reconnects();
    serve.kill();
    let serve = launch.start(&setup.next_log()).await;
    let begun = Instant::now();
    let accepted = async || serve.count("odograph_logins_total{result=\"accepted\"}").await;
    eventually("all trackers to be back", async || (accepted().await >= u64::from(TRACKERS)).then_some(())).await;
    let took = begun.elapsed();
    setup.say(&format!("{} logins in {took:?}", accepted().await));
    assert!(took < Duration::from_secs(15), "it took {took:?} until all trackers were back");
    load.goes_on(20_000).await;
    let reconnects = load.reconnects() - before;
    let findings = setup.end(serve, load, &database).await;
    Outcome {
        findings,
        faults: vec![("reconnects", reconnects), ("ms until all were back", u64::try_from(took.as_millis()).unwrap())],
    }
}

const TRACKERS: u32 = 10_000;
/// At any moment some trackers are between two connections.
const NEARLY_ALL: u64 = 9_500;
