//! Sessions on real sockets: frames split and joined, resends, and every kind of bad input with its counter.

use std::time::Duration;

use odograph_testkit::{
    Service, TestDatabase, Tracker, count, eventually, frame, framed, get, imei, metric, readiness, record,
};
use teltonika_codecs::encode;
use tokio::io::AsyncWriteExt as _;

const T: u64 = 1_780_000_000_000;

async fn sqlite() -> (TestDatabase, Service) {
    let database = TestDatabase::sqlite();
    let service = Service::start(&database.url(), &[]).await;
    (database, service)
}

/// Waits until a counter has reached 1.
async fn counted(service: &Service, series: &str) {
    let admin = service.admin;
    eventually(series, async || (metric(admin, series).await >= 1.0).then_some(())).await;
}

#[tokio::test]
async fn a_login_and_a_frame_split_at_every_byte_give_the_same_rows() {
    let (database, service) = sqlite().await;
    let login = encode::login(imei(1));
    let whole = [&login[..], &frame(&[record(T, 1), record(T + 1000, 0)])].concat();
    for cut in 1..whole.len() {
        let mut tracker = Tracker::connect(service.trackers).await;
        tracker.send(&whole[..cut]).await;
        // The service must read the first part alone, or nothing is split: its counter of bytes shows that.
        let (admin, read) = (service.admin, whole.len() * (cut - 1) + cut);
        let part_read = async || (count(admin, "odograph_received_bytes_total").await == read as u64).then_some(());
        eventually("the first part to be read", part_read).await;
        tracker.send(&whole[cut..]).await;
        assert_eq!(tracker.receive::<1>().await.unwrap(), [1], "cut at {cut}");
        assert_eq!(tracker.receive::<4>().await.unwrap(), [0, 0, 0, 2], "cut at {cut}");
    }
    service.settled().await;
    assert_eq!(database.positions().await, 2);
    service.stop().await;
}

#[tokio::test]
async fn pings_login_and_frames_glued_into_one_segment_are_answered_in_order() {
    let (database, service) = sqlite().await;
    let frames: Vec<u8> = (0..20_usize).flat_map(|n| frame(&vec![record(T + 1000 * n as u64, 1); n + 1])).collect();
    let glued = [&[0xFF, 0xFF][..], &encode::login(imei(1)), &[0xFF], &frames, &[0xFF]].concat();
    let mut tracker = Tracker::connect(service.trackers).await;
    tracker.send(&glued).await;
    assert_eq!(tracker.receive::<1>().await.unwrap(), [1]);
    for n in 1..=20 {
        assert_eq!(u32::from_be_bytes(tracker.receive().await.unwrap()), n);
    }
    service.settled().await;
    assert_eq!(database.positions().await, 20, "the copies inside one frame are one record");
    service.stop().await;
}

#[tokio::test]
async fn a_tracker_that_ends_its_side_still_gets_its_answer() {
    let (_database, service) = sqlite().await;
    let mut tracker = Tracker::connect(service.trackers).await;
    tracker.send(&[&encode::login(imei(1))[..], &frame(&[record(T, 1)])].concat()).await;
    tracker.0.shutdown().await.unwrap();
    assert_eq!(tracker.receive::<5>().await.unwrap(), [1, 0, 0, 0, 1]);
    assert!(tracker.is_closed_unanswered().await);
    counted(&service, "odograph_connections_closed_total{reason=\"peer_closed\"}").await;
    service.stop().await;
}

#[tokio::test]
async fn a_resend_is_acknowledged_and_stored_once() {
    let (database, service) = sqlite().await;
    let mut tracker = Tracker::login(service.trackers, &imei(1).to_string()).await;
    let (a, b, c) = (record(T, 1), record(T + 1000, 1), record(T + 2000, 0));
    assert_eq!(tracker.deliver(&frame(&[b.clone(), a.clone()])).await, 2);
    assert_eq!(tracker.deliver(&frame(&[b.clone(), a.clone()])).await, 2, "the same frame");
    assert_eq!(tracker.deliver(&frame(&[c, b, a])).await, 3, "repacked with a newer record");
    service.settled().await;
    assert_eq!(database.positions().await, 3);
    let counts = service.registry.tally().read();
    assert_eq!((counts.journaled, counts.committed, counts.duplicate, counts.waiting), (7, 3, 4, 0));
    assert_eq!(count(service.admin, "odograph_records_duplicate_total").await, 4);
    service.stop().await;
}

#[tokio::test]
async fn two_different_records_of_one_millisecond_are_two_rows() {
    for database in [TestDatabase::sqlite(), TestDatabase::postgres().await] {
        let service = Service::start(&database.url(), &[]).await;
        let mut tracker = Tracker::login(service.trackers, &imei(1).to_string()).await;
        assert_eq!(tracker.deliver(&frame(&[record(T, 1), record(T, 0)])).await, 2);
        service.settled().await;
        let rows = database.all_positions().await;
        assert_eq!(rows.len(), 2);
        assert_ne!(rows[0]["fingerprint"], rows[1]["fingerprint"]);
        assert_ne!(rows[0]["ignition"], rows[1]["ignition"]);
        service.stop().await;
    }
}

#[tokio::test]
async fn a_frame_that_cannot_be_read_is_not_acknowledged_and_counted_by_reason() {
    let (database, service) = sqlite().await;
    let mut wrong_crc = frame(&[record(T, 1)]);
    wrong_crc[20] ^= 0x10;
    for (reason, close, bytes) in [
        ("crc_mismatch", "crc_mismatch", wrong_crc),
        ("too_large", "too_large", [&[0; 4][..], &0x4001_u32.to_be_bytes(), &[0x8E]].concat()),
        ("too_large", "too_large", [&[0; 4][..], &u32::MAX.to_be_bytes()].concat()),
        ("bad_preamble", "framing_lost", vec![0, 0, 0, 1, 0, 0]),
        ("too_short", "framing_lost", framed(&[])),
        ("too_short", "framing_lost", framed(&[0x08, 0x00])),
    ] {
        let mut tracker = Tracker::login(service.trackers, &imei(1).to_string()).await;
        tracker.send(&bytes).await;
        assert!(tracker.is_closed_unanswered().await, "{reason}");
        counted(&service, &format!("odograph_frames_total{{codec=\"unknown\",result=\"{reason}\"}}")).await;
        counted(&service, &format!("odograph_connections_closed_total{{reason=\"{close}\"}}")).await;
    }
    service.settled().await;
    assert_eq!(database.positions().await, 0);
    service.stop().await;
}

#[tokio::test]
async fn frames_before_a_broken_frame_are_stored_and_acknowledged() {
    let (database, service) = sqlite().await;
    let mut broken = frame(&[record(T + 1000, 1)]);
    let last = broken.len() - 1;
    broken[last] ^= 1;
    let mut tracker = Tracker::login(service.trackers, &imei(1).to_string()).await;
    tracker.send(&[frame(&[record(T, 1)]), broken].concat()).await;
    assert_eq!(tracker.receive::<4>().await.unwrap(), [0, 0, 0, 1]);
    assert!(tracker.is_closed_unanswered().await);
    service.settled().await;
    assert_eq!(database.positions().await, 1);
    service.stop().await;
}

#[tokio::test]
async fn a_stranger_that_only_pings_is_closed() {
    let (_database, service) = sqlite().await;
    let mut stranger = Tracker::connect(service.trackers).await;
    stranger.send(&[0xFF; 65]).await;
    assert!(stranger.is_closed_unanswered().await);
    counted(&service, "odograph_connections_closed_total{reason=\"not_a_tracker\"}").await;
    // Sixty-four are fine, as is any number after the login.
    let mut tracker = Tracker::connect(service.trackers).await;
    let login = [&[0, 15][..], imei(1).to_string().as_bytes()].concat();
    tracker.send(&[&[0xFF; 64][..], &login, &[0xFF; 1_000], &frame(&[record(T, 1)])].concat()).await;
    assert_eq!(tracker.receive::<5>().await.unwrap(), [1, 0, 0, 0, 1]);
    service.stop().await;
}

#[tokio::test]
async fn zero_padding_behind_a_frame_is_neither_answered_nor_quarantined() {
    let (database, service) = sqlite().await;
    let mut tracker = Tracker::login(service.trackers, &imei(1).to_string()).await;
    let padded = [frame(&[record(T, 1)]), vec![0; 120_000]].concat();
    tracker.send(&padded).await;
    assert_eq!(tracker.receive::<4>().await.unwrap(), [0, 0, 0, 1]);
    assert!(tracker.is_closed_unanswered().await);
    service.settled().await;
    assert_eq!(database.positions().await, 1);
    assert_eq!(database.rows("SELECT * FROM quarantined_records").await.len(), 0);
    counted(&service, "odograph_frames_total{codec=\"unknown\",result=\"too_short\"}").await;
    service.stop().await;
}

#[tokio::test]
async fn peers_that_are_not_trackers_are_closed_unanswered() {
    let (_database, service) = sqlite().await;
    for (peer, reason) in [
        (&b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"[..], "not_a_tracker"),
        (b"\x16\x03\x01\x02\x00\x01\x00", "not_a_tracker"),
        (b"SSH-2.0-OpenSSH_9.2\r\n", "not_a_tracker"),
        (b"\x00\x00\x00\x00\x00\x00\x00\x36", "not_a_tracker"),
        (b"\x00\x10123456789012345", "not_a_tracker"),
        (b"\x00\x0F35630704244101x", "bad_imei"),
    ] {
        let mut tracker = Tracker::connect(service.trackers).await;
        tracker.send(peer).await;
        assert!(tracker.is_closed_unanswered().await, "{peer:?}");
        counted(&service, &format!("odograph_connections_closed_total{{reason=\"{reason}\"}}")).await;
    }
    assert!(metric(service.admin, "odograph_logins_total{result=\"refused\"}").await >= 6.0);
    service.stop().await;
}

#[tokio::test]
async fn a_second_login_must_name_the_same_device() {
    let (_database, service) = sqlite().await;
    let mut tracker = Tracker::login(service.trackers, &imei(1).to_string()).await;
    tracker.send(&encode::login(imei(1))).await;
    assert_eq!(tracker.receive::<1>().await.unwrap(), [1]);
    tracker.send(&encode::login(imei(2))).await;
    assert!(tracker.is_closed_unanswered().await);
    counted(&service, "odograph_connections_closed_total{reason=\"imei_changed\"}").await;
    service.stop().await;
}

#[tokio::test]
async fn slow_peers_are_closed_by_the_timeout_that_they_broke() {
    let database = TestDatabase::sqlite();
    let timeouts =
        [("ODOGRAPH_LOGIN_TIMEOUT", "2s"), ("ODOGRAPH_FRAME_TIMEOUT", "300ms"), ("ODOGRAPH_IDLE_TIMEOUT", "900ms")];
    let service = Service::start(&database.url(), &timeouts).await;
    let mut silent = Tracker::connect(service.trackers).await;
    let mut half_login = Tracker::connect(service.trackers).await;
    half_login.send(b"\x00\x0F3563").await;
    let mut half_frame = Tracker::login(service.trackers, &imei(1).to_string()).await;
    half_frame.send(&frame(&[record(T, 1)])[..40]).await;
    let mut idle = Tracker::login(service.trackers, &imei(2).to_string()).await;
    for tracker in [&mut silent, &mut half_login, &mut half_frame, &mut idle] {
        assert!(tracker.is_closed_unanswered().await);
    }
    assert!(metric(service.admin, "odograph_connections_closed_total{reason=\"login_timeout\"}").await >= 2.0);
    counted(&service, "odograph_connections_closed_total{reason=\"frame_timeout\"}").await;
    counted(&service, "odograph_connections_closed_total{reason=\"idle_timeout\"}").await;
    service.settled().await;
    assert_eq!(database.positions().await, 0);
    service.stop().await;
}

#[tokio::test]
async fn one_address_gets_as_many_connections_as_it_may() {
    let database = TestDatabase::sqlite();
    let service = Service::start(&database.url(), &[("ODOGRAPH_MAX_CONNECTIONS_PER_IP", "2")]).await;
    let first = Tracker::login(service.trackers, &imei(1).to_string()).await;
    let _second = Tracker::login(service.trackers, &imei(2).to_string()).await;
    let mut third = Tracker::connect(service.trackers).await;
    assert!(third.is_closed_unanswered().await);
    counted(&service, "odograph_connections_closed_total{reason=\"address_limit\"}").await;
    drop(first);
    let (admin, series) = (service.admin, "odograph_connections_open");
    eventually("the first connection to close", async || (metric(admin, series).await < 2.0).then_some(())).await;
    let _fourth = Tracker::login(service.trackers, &imei(4).to_string()).await;
    service.stop().await;
}

#[tokio::test]
async fn over_the_limit_in_all_a_tracker_waits_for_its_turn() {
    let database = TestDatabase::sqlite();
    let service = Service::start(&database.url(), &[("ODOGRAPH_MAX_CONNECTIONS", "1")]).await;
    let first = Tracker::login(service.trackers, &imei(1).to_string()).await;
    let mut second = Tracker::connect(service.trackers).await;
    second.send(&encode::login(imei(2))).await;
    let answer = tokio::time::timeout(Duration::from_millis(200), second.receive::<1>()).await;
    assert!(answer.is_err(), "the connection waits in the kernel's queue");
    assert_eq!(readiness(service.admin).await, (200, true, vec!["connection_limit".into()]));
    assert_eq!(count(service.admin, "odograph_connections_max").await, 1);
    drop(first);
    assert_eq!(second.receive::<1>().await.unwrap(), [1]);
    drop(second);
    let admin = service.admin;
    eventually("readiness", async || {
        get(admin, "/metrics").await;
        readiness(admin).await.2.is_empty().then_some(())
    })
    .await;
    service.stop().await;
}

#[tokio::test]
async fn ten_thousand_reconnects_in_a_few_seconds_leave_nothing_behind() {
    let (database, service) = sqlite().await;
    let target = service.trackers;
    let storms = (0..20_u64).map(|storm| {
        tokio::spawn(async move {
            for n in 0..500 {
                let mut tracker = Tracker::login(target, &imei(storm).to_string()).await;
                match n % 3 {
                    0 => assert_eq!(tracker.deliver(&frame(&[record(T + n * 1000, 1)])).await, 1),
                    1 => tracker.send(&frame(&[record(T + n * 1000, 1)])[..20]).await,
                    _ => {}
                }
            }
        })
    });
    for storm in storms.collect::<Vec<_>>() {
        storm.await.unwrap();
    }
    let admin = service.admin;
    eventually("all connections to close", async || {
        (count(admin, "odograph_connections_open").await == 0).then_some(())
    })
    .await;
    assert_eq!(count(admin, "odograph_connections_opened_total").await, 10_000);
    service.settled().await;
    assert_eq!(database.positions().await, 20 * 167);
    service.stop().await;
}

#[tokio::test]
async fn several_sockets_of_one_device_are_served_side_by_side() {
    let (database, service) = sqlite().await;
    let mut older = Tracker::login(service.trackers, &imei(1).to_string()).await;
    let mut newer = Tracker::login(service.trackers, &imei(1).to_string()).await;
    for n in 0..3 {
        assert_eq!(older.deliver(&frame(&[record(T + n * 1000, 1)])).await, 1);
        assert_eq!(newer.deliver(&frame(&[record(T + n * 1000 + 500, 1)])).await, 1);
    }
    service.settled().await;
    assert_eq!(database.positions().await, 6);
    service.stop().await;
}

#[tokio::test]
async fn a_device_has_four_sockets_and_the_newest_stay() {
    let database = TestDatabase::sqlite();
    let service = Service::start(&database.url(), &[]).await;
    let mut sockets = Vec::new();
    for number in 0..6 {
        let mut tracker = Tracker::login(service.trackers, &imei(1).to_string()).await;
        assert_eq!(tracker.deliver(&frame(&[record(T + number, 1)])).await, 1);
        sockets.push(tracker);
    }
    counted(&service, "odograph_connections_closed_total{reason=\"replaced\"}").await;
    for older in sockets.drain(..2) {
        let mut older = older;
        assert!(older.is_closed_unanswered().await);
    }
    for (number, tracker) in (10..).zip(&mut sockets) {
        assert_eq!(tracker.deliver(&frame(&[record(T + number, 1)])).await, 1, "the four newest go on");
    }
    service.stop().await;
}
