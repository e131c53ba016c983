//! The ledger of faulty flags, and positions that follow it: every order of rows and changes has the same result.

use odograph::store::{Applied, FlagChange, Ledger as _};
use odograph_testkit::{
    IMEI, NOON, OTHER, PostgresFixture, StoreFixture, batch, deleted, faulty_times, flag, full_row, latest_times, row,
    set, shifted, some_lane, until_committed, window,
};

odograph_testkit::for_both_stores! {
    a_flag_marks_what_it_covers_with_both_ends_and_nothing_else
    a_flag_waits_for_its_positions
    the_latest_change_wins_in_any_order
    a_delete_before_its_insert_leaves_a_tombstone
    overlapping_flags_are_withdrawn_in_any_order
    a_flag_that_moves_leaves_nothing_behind
    a_flag_that_moves_to_another_device_leaves_nothing_behind
    the_latest_position_is_the_latest_that_is_not_faulty
    latest_positions_that_were_held_back_are_checked_again
    each_changed_window_is_reported_once
    what_was_before_counts_only_for_a_flag_that_nobody_knows
    a_season_long_flag_finds_positions_far_apart
    two_records_of_one_instant_are_both_marked
    other_columns_stay_as_they_are
    a_ledger_that_was_emptied_is_read_again
}

const CAR: i64 = 17;
const OTHER_CAR: i64 = 999_999_999_999_999;

/// Rows of a device at these times.
async fn arrive(database: &mut impl StoreFixture, imei: &str, times: &[i64]) {
    let rows: Vec<_> = times.iter().map(|at| row(imei, NOON + at, 1)).collect();
    until_committed(database.store(), &batch(&rows)).await;
}

async fn apply(database: &impl StoreFixture, changes: &[FlagChange]) -> Vec<Applied> {
    database.ledger().apply(changes).await.unwrap()
}

fn of(car: i64, times: &[i64]) -> Vec<(i64, i64)> {
    times.iter().map(|at| (car, *at)).collect()
}

async fn a_flag_marks_what_it_covers_with_both_ends_and_nothing_else(mut database: impl StoreFixture) {
    arrive(&mut database, IMEI, &[0, 10, 20, 30]).await;
    arrive(&mut database, OTHER, &[10]).await;
    assert_eq!(apply(&database, &[set(1, 1, window(IMEI, 10, 20))]).await, [Applied::Applied]);
    assert_eq!(faulty_times(&database).await, of(CAR, &[10, 20]));
    assert_eq!(apply(&database, &[set(1, 1, window(IMEI, 10, 20))]).await, [Applied::Stale]);
    assert_eq!(apply(&database, &[set(2, 1, window(OTHER, 10, 10))]).await, [Applied::Applied]);
    assert_eq!(faulty_times(&database).await, [of(CAR, &[10, 20]), of(OTHER_CAR, &[10])].concat());
    let ledger = database.texts("position_flag_ledger", &["seq", "applied_seq"]).await;
    assert_eq!(ledger, [["1", "1"], ["1", "1"]]);
}

async fn a_flag_waits_for_its_positions(mut database: impl StoreFixture) {
    apply(&database, &[set(1, 1, window(IMEI, 10, 20))]).await;
    arrive(&mut database, IMEI, &[0, 10, 11, 20, 21]).await;
    assert_eq!(faulty_times(&database).await, of(CAR, &[10, 11, 20]));
    // Known by now. And one that is new to a store that was already open.
    arrive(&mut database, IMEI, &[12]).await;
    apply(&database, &[set(2, 1, window(IMEI, 30, 40)), deleted(1, 2)]).await;
    arrive(&mut database, IMEI, &[13, 35]).await;
    assert_eq!(faulty_times(&database).await, of(CAR, &[35]));
    let mut another = database.another(some_lane()).await;
    another.commit(&batch(&[row(IMEI, NOON + 36, 1), row(IMEI, NOON + 41, 1)])).await.unwrap();
    assert_eq!(faulty_times(&database).await, of(CAR, &[35, 36]));
}

async fn the_latest_change_wins_in_any_order(mut database: impl StoreFixture) {
    let words = [
        set(1, 1, window(IMEI, 0, 10)),
        set(1, 2, window(IMEI, 10, 30)),
        shifted(1, 3, window(IMEI, 10, 30)),
        set(1, 4, window(IMEI, 20, 20)),
    ];
    arrive(&mut database, IMEI, &[0, 10, 20, 30]).await;
    for (number, order) in
        [[0, 1, 2, 3], [3, 2, 1, 0], [2, 0, 3, 1], [1, 3, 0, 2], [3, 0, 3, 0]].into_iter().enumerate()
    {
        let number = u128::try_from(number).unwrap() + 1;
        for at in order {
            apply(&database, &[FlagChange { flag: flag(number), ..words[at].clone() }]).await;
        }
        assert_eq!(faulty_times(&database).await, of(CAR, &[20]), "{order:?}");
        apply(&database, &[deleted(number, 5)]).await;
        assert_eq!(faulty_times(&database).await, []);
        apply(&database, &[FlagChange { flag: flag(number), ..words[3].clone() }]).await;
        assert_eq!(faulty_times(&database).await, [], "a delete is final");
    }
    // All changes at once, in one group.
    let group: Vec<_> = [1, 3, 0, 2].map(|at: usize| FlagChange { flag: flag(9), ..words[at].clone() }).into();
    let outcomes = apply(&database, &group).await;
    assert_eq!(outcomes, [Applied::Stale, Applied::Applied, Applied::Stale, Applied::Stale]);
    assert_eq!(faulty_times(&database).await, of(CAR, &[20]));
}

async fn a_delete_before_its_insert_leaves_a_tombstone(mut database: impl StoreFixture) {
    arrive(&mut database, IMEI, &[0]).await;
    apply(&database, &[deleted(1, 7)]).await;
    assert_eq!(apply(&database, &[set(1, 6, window(IMEI, 0, 0))]).await, [Applied::Stale]);
    assert_eq!(faulty_times(&database).await, []);
    assert_eq!(database.texts("position_flag_ledger", &["seq", "imei"]).await, [["7", ""]]);
    apply(&database, &[set(1, 8, window(IMEI, 0, 0))]).await;
    assert_eq!(faulty_times(&database).await, of(CAR, &[0]), "the flag was created again");
}

async fn overlapping_flags_are_withdrawn_in_any_order(mut database: impl StoreFixture) {
    arrive(&mut database, IMEI, &[0, 10, 20, 30, 40]).await;
    let windows = [window(IMEI, 0, 20), window(IMEI, 10, 30), window(IMEI, 20, 20)];
    let mut seq = 0;
    for order in [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]] {
        seq += 2;
        let all: Vec<_> = (1..).zip(windows).map(|(number, window)| set(number, seq, window)).collect();
        apply(&database, &all).await;
        assert_eq!(faulty_times(&database).await, of(CAR, &[0, 10, 20, 30]));
        let mut live = vec![0, 1, 2];
        for gone in order {
            let number = u128::try_from(gone).unwrap() + 1;
            let withdraw =
                if seq % 4 == 0 { deleted(number, seq + 1) } else { shifted(number, seq + 1, windows[gone]) };
            apply(&database, &[withdraw]).await;
            live.retain(|flag| *flag != gone);
            let expected: Vec<_> = [0, 10, 20, 30, 40]
                .into_iter()
                .filter(|at| live.iter().any(|flag| windows[*flag].covers(17, NOON + at)))
                .collect();
            assert_eq!(faulty_times(&database).await, of(CAR, &expected), "{order:?}, {gone} withdrawn");
        }
    }
}

async fn a_flag_that_moves_leaves_nothing_behind(mut database: impl StoreFixture) {
    arrive(&mut database, IMEI, &[0, 10, 20, 30]).await;
    apply(&database, &[set(1, 1, window(IMEI, 0, 10))]).await;
    apply(&database, &[set(1, 2, window(IMEI, 10, 20))]).await;
    assert_eq!(faulty_times(&database).await, of(CAR, &[10, 20]));
    // The change in between never arrives: only the state in the ledger counts.
    let late = FlagChange { old: Some(window(IMEI, 25, 25)), ..set(1, 9, window(IMEI, 30, 30)) };
    apply(&database, &[late]).await;
    assert_eq!(faulty_times(&database).await, of(CAR, &[30]));
}

async fn a_flag_that_moves_to_another_device_leaves_nothing_behind(mut database: impl StoreFixture) {
    arrive(&mut database, IMEI, &[0, 10]).await;
    arrive(&mut database, OTHER, &[0, 10]).await;
    apply(&database, &[set(1, 1, window(IMEI, 0, 0))]).await;
    apply(&database, &[set(1, 2, window(OTHER, 10, 10))]).await;
    assert_eq!(faulty_times(&database).await, of(OTHER_CAR, &[10]));
    assert_eq!(latest_times(&database).await, [(CAR, 10), (OTHER_CAR, 0)]);
    arrive(&mut database, IMEI, &[5]).await;
    arrive(&mut database, OTHER, &[5]).await;
    assert_eq!(faulty_times(&database).await, of(OTHER_CAR, &[10]));
}

async fn the_latest_position_is_the_latest_that_is_not_faulty(mut database: impl StoreFixture) {
    arrive(&mut database, IMEI, &[0, 10, 20, 30]).await;
    apply(&database, &[set(1, 1, window(IMEI, 25, 1_000_000))]).await;
    assert_eq!(latest_times(&database).await, of(CAR, &[20]));
    apply(&database, &[set(2, 1, window(IMEI, 10, 20))]).await;
    assert_eq!(latest_times(&database).await, of(CAR, &[0]));
    arrive(&mut database, IMEI, &[24, 40]).await;
    assert_eq!(latest_times(&database).await, of(CAR, &[24]), "a new row is under a flag as well");
    apply(&database, &[set(3, 1, window(IMEI, 0, 24))]).await;
    assert_eq!(latest_times(&database).await, [], "nothing is left");
    arrive(&mut database, IMEI, &[50]).await;
    assert_eq!(latest_times(&database).await, []);
    apply(&database, &[deleted(2, 2), deleted(3, 2)]).await;
    assert_eq!(latest_times(&database).await, of(CAR, &[24]));
    apply(&database, &[deleted(1, 2)]).await;
    assert_eq!(latest_times(&database).await, of(CAR, &[50]));
    apply(&database, &[set(4, 1, window(IMEI, 5, 30))]).await;
    assert_eq!(latest_times(&database).await, of(CAR, &[50]), "an old flag does not cover it");
}

async fn latest_positions_that_were_held_back_are_checked_again(mut database: impl StoreFixture) {
    // A batch without its latest position, which comes with a later one.
    let rows = [row(IMEI, NOON, 1), row(IMEI, NOON + 10, 1)];
    let mut first = batch(&rows);
    let latest = std::mem::take(&mut first.latest);
    database.store().commit(&first).await.unwrap();
    apply(&database, &[set(1, 1, window(IMEI, 10, 10))]).await;
    let mut second = batch(&[row(OTHER, NOON, 1)]);
    second.latest = latest;
    database.store().commit(&second).await.unwrap();
    assert_eq!(latest_times(&database).await, of(CAR, &[0]));
}

/// Only in PostgreSQL is a flag in the ledger for a while before it is applied.
#[tokio::test]
async fn a_latest_position_comes_back_from_under_a_flag_that_was_never_applied() {
    let mut database = PostgresFixture::new().await;
    // A batch without its latest position, which comes with a later one.
    let mut first = batch(&[row(IMEI, NOON, 1)]);
    let latest = std::mem::take(&mut first.latest);
    database.store().commit(&first).await.unwrap();
    let written_down = format!(
        "INSERT INTO position_flag_ledger (flag_id, seq, imei, ts_from, ts_to, faulty) \
         SELECT '{}', 1, imei, ts, ts, true FROM positions",
        flag(1)
    );
    database.execute(&written_down).await;
    let mut second = batch(&[row(OTHER, NOON, 1)]);
    second.latest = latest;
    database.store().commit(&second).await.unwrap();
    assert_eq!(latest_times(&database).await, [], "a live flag covers it");
    assert_eq!(apply(&database, &[deleted(1, 2)]).await, [Applied::Applied]);
    assert_eq!(latest_times(&database).await, of(CAR, &[0]));
}

#[tokio::test]
async fn of_two_records_of_one_instant_the_later_one_is_latest_also_from_under_a_flag() {
    let mut database = PostgresFixture::new().await;
    apply(&database, &[set(1, 1, window(IMEI, 0, 0))]).await;
    until_committed(database.store(), &batch(&[row(IMEI, NOON, 7)])).await;
    // The flag is withdrawn, and the other record arrives before that is applied.
    database.execute("UPDATE position_flag_ledger SET seq = 2, deleted = true, version = version + 1").await;
    until_committed(database.store(), &batch(&[row(IMEI, NOON, 3)])).await;
    let latest = async |database: &PostgresFixture| database.texts("latest_positions", &["fingerprint"]).await;
    assert_eq!(latest(&database).await, [["3"]]);
    assert_eq!(database.ledger().finish(10).await.unwrap(), 1);
    assert_eq!(latest(&database).await, [["7"]]);
}

async fn each_changed_window_is_reported_once(mut database: impl StoreFixture) {
    arrive(&mut database, IMEI, &[0, 10, 20, 30]).await;
    apply(&database, &[set(1, 5, window(IMEI, 0, 10)), set(2, 3, window(IMEI, 100, 200))]).await;
    apply(&database, &[set(1, 5, window(IMEI, 0, 10))]).await;
    apply(&database, &[set(1, 6, window(IMEI, 20, 40))]).await;
    let mut ledger = database.ledger();
    let corrections = ledger.corrections(10).await.unwrap().unwrap();
    let seen: Vec<_> = corrections.iter().map(|one| (one.window, one.positions, one.flag, one.seq)).collect();
    assert_eq!(seen[0], (window(IMEI, 0, 10), 2, flag(1), 5));
    let mut rest = seen[1..].to_vec();
    rest.sort_by_key(|(window, ..)| *window);
    assert_eq!(rest, [(window(IMEI, 0, 10), 2, flag(1), 6), (window(IMEI, 20, 40), 2, flag(1), 6)]);
    assert!(corrections.is_sorted_by(|one, next| one.id < next.id));
    ledger.remove_corrections(&[corrections[0].id, corrections[1].id]).await.unwrap();
    assert_eq!(ledger.corrections(10).await.unwrap().unwrap(), corrections[2..]);
    assert_eq!(ledger.trim_corrections().await.unwrap(), 0);
}

async fn what_was_before_counts_only_for_a_flag_that_nobody_knows(mut database: impl StoreFixture) {
    arrive(&mut database, IMEI, &[0, 10, 20]).await;
    // Marked by a ledger that was lost.
    database.execute("UPDATE positions SET faulty = true").await;
    let move_it = FlagChange { old: Some(window(IMEI, 0, 0)), ..set(1, 4, window(IMEI, 10, 10)) };
    apply(&database, &[move_it]).await;
    assert_eq!(faulty_times(&database).await, of(CAR, &[10, 20]));
    let delete = FlagChange { old: Some(window(IMEI, 20, 20)), ..deleted(2, 4) };
    apply(&database, &[delete]).await;
    assert_eq!(faulty_times(&database).await, of(CAR, &[10]));
}

async fn a_season_long_flag_finds_positions_far_apart(mut database: impl StoreFixture) {
    const DAY: i64 = 86_400_000;
    let times = [-300 * DAY, -299 * DAY - 1, -40 * DAY, -40 * DAY + 5, 0, 30 * DAY];
    arrive(&mut database, IMEI, &times).await;
    apply(&database, &[set(1, 1, window(IMEI, -300 * DAY, 20_000 * DAY))]).await;
    assert_eq!(faulty_times(&database).await, of(CAR, &times));
    apply(&database, &[set(1, 2, window(IMEI, -300 * DAY + 1, 0))]).await;
    assert_eq!(faulty_times(&database).await, of(CAR, &times[1..5]));
    assert_eq!(latest_times(&database).await, of(CAR, &[30 * DAY]));
    apply(&database, &[set(2, 1, window(IMEI, 1, 100 * DAY))]).await;
    assert_eq!(latest_times(&database).await, of(CAR, &[-300 * DAY]), "however far back it is");
}

async fn two_records_of_one_instant_are_both_marked(mut database: impl StoreFixture) {
    let rows = [row(IMEI, NOON, 1), row(IMEI, NOON, -2), row(IMEI, NOON + 1, 1)];
    database.store().commit(&batch(&rows[..1])).await.unwrap();
    apply(&database, &[set(1, 1, window(IMEI, 0, 0))]).await;
    database.store().commit(&batch(&rows[1..])).await.unwrap();
    assert_eq!(faulty_times(&database).await, of(CAR, &[0, 0]));
    apply(&database, &[deleted(1, 2)]).await;
    assert_eq!(faulty_times(&database).await, []);
}

async fn other_columns_stay_as_they_are(mut database: impl StoreFixture) {
    let sample = full_row(IMEI, NOON);
    database.store().commit(&batch([&sample])).await.unwrap();
    let before = (database.rows("positions").await, database.rows("latest_positions").await);
    apply(&database, &[set(1, 1, window(IMEI, 0, 0))]).await;
    assert_eq!(database.count("latest_positions").await, 0);
    apply(&database, &[deleted(1, 2)]).await;
    assert_eq!((database.rows("positions").await, database.rows("latest_positions").await), before);
    assert_eq!(before.0, [sample.cells()]);
}

async fn a_ledger_that_was_emptied_is_read_again(mut database: impl StoreFixture) {
    apply(&database, &[set(1, 1, window(IMEI, 0, 10)), set(2, 1, window(IMEI, 50, 50))]).await;
    arrive(&mut database, IMEI, &[0]).await;
    assert_eq!(faulty_times(&database).await, of(CAR, &[0]));
    database.execute("DELETE FROM position_flag_ledger").await;
    arrive(&mut database, IMEI, &[10]).await;
    assert_eq!(faulty_times(&database).await, of(CAR, &[0]));
    apply(&database, &[set(3, 1, window(IMEI, 20, 30))]).await;
    arrive(&mut database, IMEI, &[25, 50]).await;
    assert_eq!(faulty_times(&database).await, of(CAR, &[0, 25]));
}
