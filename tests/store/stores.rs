//! One suite for the guarantees of both stores, with real databases.
//!
//! Needs `DATABASE_URL` (TimescaleDB, and a user who may create databases), which `scripts/test` exports.

use odograph::store::{Batch, ELEMENTS, MAX_TS_MS, MIN_TS_MS, Schema};
use odograph_testkit::{
    IMEI, NOON, OTHER, StoreFixture, batch, columns, counts, fleet, full_row, row, until_committed,
};

odograph_testkit::for_both_stores! {
    every_column_comes_back_as_it_was
    columns_that_a_batch_lacks_are_null
    the_ends_of_the_calendar_are_kept
    a_batch_committed_twice_is_stored_once
    a_record_twice_in_a_batch_is_stored_once
    two_records_of_one_millisecond_are_both_stored
    the_latest_position_goes_by_device_time_and_only_forward
    a_position_without_fix_faulty_or_ahead_of_time_is_never_the_newest
    the_latest_position_is_replaced_in_every_column
    a_large_batch_of_many_devices_is_stored_whole
    changing_column_sets_keep_working
    a_commit_cancelled_at_any_moment_is_harmless
    an_empty_batch_does_nothing
    the_schema_is_current_and_stays_so
}

async fn every_column_comes_back_as_it_was(mut database: impl StoreFixture) {
    let mut absent = row(IMEI, NOON + 1, i32::MAX);
    absent.row.elements.set(0, 0);
    absent.row.valid = false;
    absent.row.faulty = true;
    let samples = [full_row(IMEI, NOON), absent];
    assert_eq!(counts(database.store().commit(&batch(&samples)).await.unwrap()), (2, 0));
    let stored = database.rows("positions").await;
    for (stored, sample) in stored.iter().zip(&samples) {
        for ((cell, expected), column) in stored.iter().zip(&sample.cells()).zip(columns()) {
            assert_eq!(cell, expected, "{}", column.0);
        }
    }
    assert_eq!(stored.len(), 2);
    assert_eq!(database.rows("latest_positions").await, [samples[0].cells()]);
}

async fn columns_that_a_batch_lacks_are_null(mut database: impl StoreFixture) {
    let samples = [row(IMEI, NOON, 1), row(IMEI, NOON + 1000, 2)];
    database.store().commit(&batch(&samples)).await.unwrap();
    assert_eq!(database.rows("positions").await, samples.map(|sample| sample.cells()));
}

async fn the_ends_of_the_calendar_are_kept(mut database: impl StoreFixture) {
    let samples = [row(IMEI, MIN_TS_MS, 1), row(IMEI, MAX_TS_MS, 1)];
    assert_eq!(counts(database.store().commit(&batch(&samples)).await.unwrap()), (2, 0));
    assert_eq!(database.rows("positions").await, samples.map(|sample| sample.cells()));
}

async fn a_batch_committed_twice_is_stored_once(mut database: impl StoreFixture) {
    let samples = [full_row(IMEI, NOON), row(OTHER, NOON, 5)];
    assert_eq!(counts(database.store().commit(&batch(&samples)).await.unwrap()), (2, 0));
    assert_eq!(counts(database.store().commit(&batch(&samples)).await.unwrap()), (0, 2));
    // Resent records come later, in other packets, together with new records.
    let mut resent = samples[1].clone();
    resent.row.received_at_us += 60_000_000;
    let repacked = [resent, row(OTHER, NOON + 1, 6)];
    assert_eq!(counts(database.store().commit(&batch(&repacked)).await.unwrap()), (1, 1));
    let expected = [samples[0].cells(), samples[1].cells(), repacked[1].cells()];
    assert_eq!(database.rows("positions").await, expected);
}

async fn a_record_twice_in_a_batch_is_stored_once(mut database: impl StoreFixture) {
    let first = row(IMEI, NOON, 1);
    let mut second = first.clone();
    second.row.received_at_us += 1;
    let done = database.store().commit(&batch([&first, &row(IMEI, NOON + 1, 1), &second])).await.unwrap();
    assert_eq!(counts(done), (2, 1));
    assert_eq!(database.rows("positions").await[0], first.cells(), "the first one is kept");
}

async fn two_records_of_one_millisecond_are_both_stored(mut database: impl StoreFixture) {
    let samples = [row(IMEI, NOON, -2), row(IMEI, NOON, 1)];
    assert_eq!(counts(database.store().commit(&batch(&samples)).await.unwrap()), (2, 0));
    assert_eq!(database.rows("latest_positions").await, [samples[1].cells()], "the fingerprint decides");
    assert_eq!(database.rows("positions").await, samples.map(|sample| sample.cells()));
}

async fn the_latest_position_goes_by_device_time_and_only_forward(mut database: impl StoreFixture) {
    // Newest first is the trackers' default order.
    let backlog = [row(IMEI, NOON, 1), row(OTHER, NOON, 9), row(IMEI, NOON - 1000, 2), row(IMEI, NOON - 2000, 3)];
    database.store().commit(&batch(&backlog)).await.unwrap();
    let older = [row(IMEI, NOON - 500, 4), row(IMEI, NOON - 100, 5)];
    database.store().commit(&batch(&older)).await.unwrap();
    assert_eq!(database.rows("latest_positions").await, [backlog[0].cells(), backlog[1].cells()]);
    let newer = row(IMEI, NOON + 1000, 0);
    database.store().commit(&batch([&newer])).await.unwrap();
    assert_eq!(database.rows("latest_positions").await, [newer.cells(), backlog[1].cells()]);
}

async fn a_position_without_fix_faulty_or_ahead_of_time_is_never_the_newest(mut database: impl StoreFixture) {
    let five_minutes = 300_000;
    let mut samples = [1, 2, 3, 4].map(|at| row(IMEI, NOON + at, 1));
    samples[1].row.valid = false;
    samples[2].row.faulty = true;
    samples[3].row.received_at_us = (samples[3].row.ts_ms - five_minutes) * 1000 - 1;
    database.store().commit(&batch(&samples)).await.unwrap();
    assert_eq!(database.rows("latest_positions").await, [samples[0].cells()]);
    let mut just_in_time = row(IMEI, NOON + 5, 1);
    just_in_time.row.received_at_us = (just_in_time.row.ts_ms - five_minutes) * 1000;
    database.store().commit(&batch([&just_in_time])).await.unwrap();
    assert_eq!(database.rows("latest_positions").await, [just_in_time.cells()]);
    assert_eq!(database.count("positions").await, 5);
}

async fn the_latest_position_is_replaced_in_every_column(mut database: impl StoreFixture) {
    database.store().commit(&batch([&full_row(IMEI, NOON)])).await.unwrap();
    let mut bare = row(IMEI, NOON + 1, 1);
    bare.row.longitude = -70.0;
    database.store().commit(&batch([&bare])).await.unwrap();
    assert_eq!(database.rows("latest_positions").await, [bare.cells()]);
    let full = full_row(IMEI, NOON + 2);
    database.store().commit(&batch([&full])).await.unwrap();
    assert_eq!(database.rows("latest_positions").await, [full.cells()]);
}

async fn a_large_batch_of_many_devices_is_stored_whole(mut database: impl StoreFixture) {
    let samples = fleet(2000, 10);
    let (batch, rows) = (batch(&samples), samples.len());
    assert_eq!(counts(database.store().commit(&batch).await.unwrap()), (20_000, 0));
    assert_eq!(counts(database.store().commit(&batch).await.unwrap()), (0, 20_000));
    let mut expected: Vec<_> = samples.iter().collect();
    expected.sort_by_key(|sample| (sample.row.imei, sample.row.ts_ms));
    let stored = database.rows("positions").await;
    assert_eq!(stored.len(), rows);
    assert!(stored.iter().zip(expected).all(|(stored, sample)| *stored == sample.cells()));
    assert_eq!(database.count("latest_positions").await, 2000);
}

async fn changing_column_sets_keep_working(mut database: impl StoreFixture) {
    // More sets than the statement cache holds, and then the first one again.
    for round in 0..40_i32 {
        let mut sample = row(IMEI, NOON + i64::from(round), round);
        for column in 0..ELEMENTS.len() {
            if (round >> (column % 6)) & 1 == 1 {
                sample.row.elements.set(column, 1);
            }
        }
        assert_eq!(counts(database.store().commit(&batch([&sample])).await.unwrap()), (1, 0));
    }
    let again = row(IMEI, NOON + 100, 1);
    assert_eq!(counts(database.store().commit(&batch([&again])).await.unwrap()), (1, 0));
    assert_eq!(database.rows("latest_positions").await, [again.cells()]);
}

async fn a_commit_cancelled_at_any_moment_is_harmless(mut database: impl StoreFixture) {
    let samples = fleet(100, 5);
    let batch = batch(&samples);
    for yields in [0, 1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024] {
        let pause = async {
            for _ in 0..yields {
                tokio::task::yield_now().await;
            }
        };
        tokio::select! { biased; done = database.store().commit(&batch) => drop(done.unwrap()), () = pause => {} }
    }
    let done = until_committed(database.store(), &batch).await;
    assert_eq!(done.0 + done.1, 500);
    assert_eq!(database.count("positions").await, 500);
    assert_eq!(database.count("latest_positions").await, 100);
}

async fn an_empty_batch_does_nothing(mut database: impl StoreFixture) {
    assert_eq!(counts(database.store().commit(&Batch::default()).await.unwrap()), (0, 0));
}

async fn the_schema_is_current_and_stays_so(mut database: impl StoreFixture) {
    assert_eq!(database.store().schema().await.unwrap(), Schema::Current);
    database.store().commit(&batch([&row(IMEI, NOON, 1)])).await.unwrap();
    assert_eq!(database.store().schema().await.unwrap(), Schema::Current);
    database.store().close().await;
}
