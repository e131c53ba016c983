//! Flags from the Redis stream to positions, and corrections back, with a real Redis and both stores.

use odograph::store::FlagChange;
use odograph_testkit::{
    IMEI, NOON, OTHER, StoreFixture, batch, deleted, faulty_times, flag, row, set, until, until_committed, window,
};

use crate::tasks::{Flags, PACE, Stream, fields, new, shared_redis};

odograph_testkit::for_both_stores! {
    flags_reach_positions_and_corrections_come_back
    entries_from_before_the_group_count_too
    poison_goes_to_the_dead_letters_and_holds_up_nothing
    what_another_consumer_left_behind_is_claimed
    silent_consumers_without_entries_are_removed
    entries_gone_from_a_trimmed_stream_are_acknowledged_and_counted
    repeats_and_another_order_change_nothing
}

const CAR: i64 = 17;

async fn arrive(database: &mut impl StoreFixture, times: &[i64]) {
    let rows: Vec<_> = times.iter().map(|at| row(IMEI, NOON + at, 1)).collect();
    until_committed(database.store(), &batch(&rows)).await;
}

async fn until_faulty(database: &impl StoreFixture, times: &[i64]) {
    let expected: Vec<_> = times.iter().map(|at| (CAR, *at)).collect();
    until(&format!("faulty positions at {times:?}"), async || faulty_times(database).await == expected).await;
}

async fn flags_reach_positions_and_corrections_come_back(mut database: impl StoreFixture) {
    let redis = shared_redis();
    let mut stream = Stream::new(&redis);
    arrive(&mut database, &[0, 10, 20]).await;
    let flags = Flags::start(&database.url(), Some(&redis), &stream, "one");
    stream.add(&set(1, 5, window(IMEI, 0, 10))).await;
    until_faulty(&database, &[0, 10]).await;
    stream.add(&set(1, 6, window(IMEI, 20, 90))).await;
    stream.add(&set(2, 1, window(OTHER, 0, 90))).await;
    until_faulty(&database, &[20]).await;
    stream.until_done().await;
    let corrected = stream.corrected();
    until("three corrections", async || stream.entries(&corrected).await.len() == 3).await;
    let entries = stream.entries(&corrected).await;
    let entry = |at: usize, name: &str| entries[at].iter().find(|(field, _)| field == name).unwrap().1.clone();
    let names: Vec<_> = entries[0].iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["id", "imei", "ts_from", "ts_to", "positions", "flag_id", "seq"]);
    assert_eq!((entry(0, "imei"), entry(0, "positions"), entry(0, "seq")), (IMEI.into(), "2".into(), "5".into()));
    assert_eq!(entry(0, "ts_from"), "2026-05-02T12:00:00.123Z");
    assert_eq!(entry(0, "flag_id"), flag(1).to_string());
    until("an empty outbox", async || database.count("position_corrections").await == 0).await;
    flags.until_metric("flag_stream_pending", 0.0).await;
    flags.until_metric("flag_stream_lag_entries", 0.0).await;
    // A busy database may end the second step with an error. The repeat finds the change written down, which is "stale".
    let (applied, stale) =
        (flags.metric("flag_events_total{result=\"applied\"}"), flags.metric("flag_events_total{result=\"stale\"}"));
    let retries = flags.metric("flag_retries_total");
    assert!(applied + stale > 2.5 && (applied > 2.5 || retries > 0.5), "{applied} {stale} {retries}");
    assert!(flags.metric("flag_apply_latency_seconds_count") > 2.5);
    assert!(flags.metric("redis_up") > 0.5);
    flags.stop().await;
}

async fn entries_from_before_the_group_count_too(mut database: impl StoreFixture) {
    let redis = shared_redis();
    let mut stream = Stream::new(&redis);
    for number in 1..=200 {
        stream.add(&set(number, 1, window(IMEI, i64::try_from(number).unwrap(), i64::try_from(number).unwrap()))).await;
    }
    let flags = Flags::start(&database.url(), Some(&redis), &stream, "one");
    stream.until_done().await;
    arrive(&mut database, &[0, 1, 200, 201]).await;
    until_faulty(&database, &[1, 200]).await;
    assert_eq!(database.count("position_flag_ledger").await, 200);
    flags.stop().await;
}

async fn poison_goes_to_the_dead_letters_and_holds_up_nothing(mut database: impl StoreFixture) {
    let redis = shared_redis();
    let mut stream = Stream::new(&redis);
    arrive(&mut database, &[0, 10, 20]).await;
    let flags = Flags::start(&database.url(), Some(&redis), &stream, "one");
    let good = fields(&set(1, 1, window(IMEI, 0, 0)));
    let with = |name: &str, value: &str| -> Vec<(&'static str, String)> {
        let value = |field: &str, was: &String| if field == name { value.to_owned() } else { was.clone() };
        good.iter().map(|(field, was)| (*field, value(field, was))).collect()
    };
    stream.add_fields(&good).await;
    let mut ids = vec![stream.add_fields(&with("v", "2")).await];
    ids.push(stream.add_fields(&with("new", &new(&window(IMEI, 0, 0), true, None).replace(IMEI, "7"))).await);
    ids.push(stream.add_fields(&with("flag_id", &"\u{0}\u{1F6A9}".repeat(4_000))).await);
    ids.push(stream.add_fields(&[("hello", "world".into())]).await);
    ids.push(stream.add_fields(&with("old", &"[".repeat(60_000))).await);
    ids.push(stream.add_fields(&with("seq", &i64::MAX.to_string())).await);
    stream.add(&set(2, 1, window(IMEI, 20, 20))).await;
    until_faulty(&database, &[0, 20]).await;
    stream.until_done().await;
    let dead = stream.dead();
    let letters = stream.entries(&dead).await;
    let reasons: Vec<_> = letters.iter().map(|letter| (letter[0].clone(), letter[1].clone())).collect();
    let expected = ["unknown_version", "bad_imei", "bad_flag_id", "missing_field", "bad_json", "future_seq"];
    let expected: Vec<_> = expected
        .into_iter()
        .zip(ids)
        .map(|(reason, id)| (("reason".to_owned(), reason.to_owned()), ("id".to_owned(), id)))
        .collect();
    assert_eq!(reasons, expected);
    assert_eq!(letters[3][2], ("hello".into(), "world".into()), "the entry's own fields are kept");
    assert!(letters[4].iter().all(|(_, value)| value.len() <= 4096));
    flags.until_metric("flag_events_total{result=\"dead_letter\"}", 6.0).await;
    flags.until_metric("flag_faults_total{reason=\"bad_imei\"}", 1.0).await;
    flags.stop().await;
}

async fn what_another_consumer_left_behind_is_claimed(mut database: impl StoreFixture) {
    let redis = shared_redis();
    let mut stream = Stream::new(&redis);
    arrive(&mut database, &[0, 10]).await;
    let name = stream.name.clone();
    stream.ask(redis::cmd("XGROUP").arg("CREATE").arg(&name).arg("odograph").arg("0").arg("MKSTREAM")).await;
    stream.add(&set(1, 1, window(IMEI, 10, 10))).await;
    // Read by a process that then ended for good.
    let mut read = redis::cmd("XREADGROUP");
    read.arg("GROUP").arg("odograph").arg("dead-host").arg("STREAMS").arg(&name).arg(">");
    stream.ask(&read).await;
    assert_eq!(stream.pending().await, 1);
    let flags = Flags::start(&database.url(), Some(&redis), &stream, "one");
    until_faulty(&database, &[10]).await;
    stream.until_done().await;
    flags.stop().await;
}

async fn silent_consumers_without_entries_are_removed(database: impl StoreFixture) {
    let redis = shared_redis();
    let mut stream = Stream::new(&redis);
    let name = stream.name.clone();
    stream.ask(redis::cmd("XGROUP").arg("CREATE").arg(&name).arg("odograph").arg("0").arg("MKSTREAM")).await;
    for consumer in ["gone", "one"] {
        let mut make = redis::cmd("XGROUP");
        stream.ask(make.arg("CREATECONSUMER").arg(&name).arg("odograph").arg(consumer)).await;
    }
    let pace = odograph::flags::Pace { forget_after: std::time::Duration::ZERO, ..PACE };
    let flags = Flags::start_at(pace, &database.url(), Some(&redis), &stream, "one");
    until("the other consumer to be gone", async || {
        let answer = stream.ask(redis::cmd("XINFO").arg("CONSUMERS").arg(&name).arg("odograph")).await;
        let consumers: Vec<std::collections::HashMap<String, redis::Value>> = redis::from_redis_value(answer).unwrap();
        let names: Vec<String> =
            consumers.iter().map(|consumer| redis::from_redis_value(consumer["name"].clone()).unwrap()).collect();
        names == ["one"]
    })
    .await;
    flags.stop().await;
}

async fn entries_gone_from_a_trimmed_stream_are_acknowledged_and_counted(mut database: impl StoreFixture) {
    let redis = shared_redis();
    let mut stream = Stream::new(&redis);
    arrive(&mut database, &[0, 10, 20]).await;
    let name = stream.name.clone();
    stream.ask(redis::cmd("XGROUP").arg("CREATE").arg(&name).arg("odograph").arg("0").arg("MKSTREAM")).await;
    for (number, consumer) in [(1, "one"), (2, "other")] {
        stream.add(&set(number, 1, window(IMEI, 0, 10))).await;
        let mut read = redis::cmd("XREADGROUP");
        stream.ask(read.arg("GROUP").arg("odograph").arg(consumer).arg("STREAMS").arg(&name).arg(">")).await;
    }
    assert_eq!(stream.pending().await, 2);
    stream.ask(redis::cmd("XTRIM").arg(&name).arg("MAXLEN").arg(0)).await;
    let flags = Flags::start(&database.url(), Some(&redis), &stream, "one");
    flags.until_metric("flag_events_total{result=\"gone\"}", 2.0).await;
    stream.add(&set(3, 1, window(IMEI, 20, 20))).await;
    until_faulty(&database, &[20]).await;
    stream.until_done().await;
    flags.stop().await;
}

async fn repeats_and_another_order_change_nothing(mut database: impl StoreFixture) {
    let redis = shared_redis();
    let mut stream = Stream::new(&redis);
    arrive(&mut database, &[0, 10, 20, 30]).await;
    let flags = Flags::start(&database.url(), Some(&redis), &stream, "one");
    let words: Vec<FlagChange> = vec![
        deleted(3, 9),
        set(1, 2, window(IMEI, 10, 10)),
        set(1, 1, window(IMEI, 0, 0)),
        set(2, 4, window(IMEI, 20, 30)),
        set(3, 8, window(IMEI, 0, 30)),
        set(2, 5, window(IMEI, 30, 30)),
        set(2, 4, window(IMEI, 20, 30)),
        set(1, 2, window(IMEI, 10, 10)),
    ];
    for word in &words {
        stream.add(word).await;
    }
    stream.until_done().await;
    until_faulty(&database, &[10, 30]).await;
    flags
        .until_metric(
            "flag_events_total{result=\"stale\"}",
            8.0 - flags.metric("flag_events_total{result=\"applied\"}"),
        )
        .await;
    flags.stop().await;
}
