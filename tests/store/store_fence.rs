//! The checkpoint as a fence: every way in which a lane and its database can differ, with real databases.

use std::time::{Duration, Instant};

use odograph::store::server_of;
use odograph::store::{Batch, BatchSpan, Checkpoint, CommitOutcome, ErrorClass, Lane, PostgresStore, Store};
use odograph_journal::{JournalId, Mark, Position};
use odograph_testkit::{
    Cut, CuttingProxy, IMEI, NOON, OneLane, PostgresFixture, StoreFixture, batch, counts, fleet, row, server_url,
    some_lane,
};

odograph_testkit::for_both_stores! {
    a_lane_begins_at_the_beginning_and_goes_on_where_it_was
    an_empty_span_moves_the_checkpoint
    a_database_that_went_back_takes_the_lane_with_it
    a_database_without_the_row_begins_again
    a_copied_journal_is_stopped_and_writes_nothing
    the_same_position_with_another_tag_is_stopped
    another_number_of_lanes_goes_back_to_the_one_behind
    a_retired_journal_leaves_no_rows
}

fn one(number: i64) -> Batch {
    batch([&row(IMEI, NOON + number, 1)])
}

fn at(position: u64) -> Mark {
    Mark { position: Position(position), tag: if position == 0 { 0 } else { 5 } }
}

async fn a_lane_begins_at_the_beginning_and_goes_on_where_it_was(mut database: impl StoreFixture) {
    let lane = some_lane();
    let mut first = database.another(lane).await;
    assert_eq!(first.store.open_lane().await.unwrap(), Checkpoint::default());
    for number in 0..3 {
        assert_eq!(counts(first.commit(&one(number)).await.unwrap()), (1, 0));
    }
    first.close().await;
    let again = database.another(lane).await.store.open_lane().await.unwrap();
    assert_eq!(again, Checkpoint { mark: at(300), latest: Position(300) });
    assert_eq!(database.store().open().await.unwrap(), at(0), "another journal has its own checkpoint");
}

async fn an_empty_span_moves_the_checkpoint(mut database: impl StoreFixture) {
    assert_eq!(counts(database.store().commit(&Batch::default()).await.unwrap()), (0, 0));
    assert_eq!(database.texts("ingest_checkpoints", &["position", "tag"]).await, [["100", "5"]]);
}

async fn a_database_that_went_back_takes_the_lane_with_it(mut database: impl StoreFixture) {
    for number in 0..3 {
        database.store().commit(&one(number)).await.unwrap();
    }
    // A restored backup has only the first span.
    let ts = database.texts("positions", &["ts"]).await;
    database.execute(&format!("DELETE FROM positions WHERE ts > '{}'", ts[0][0])).await;
    if database.count("positions").await == 3 {
        database.execute(&format!("DELETE FROM positions WHERE ts > {}", ts[0][0])).await;
    }
    database.execute("UPDATE ingest_checkpoints SET position = 100, latest_position = 100").await;
    assert_eq!(database.count("positions").await, 1);

    let went_back = CommitOutcome::WentBack(Checkpoint { mark: at(100), latest: Position(100) });
    assert_eq!(database.store().offer(&one(3)).await.unwrap(), went_back);
    assert_eq!(database.store().offer(&one(3)).await.unwrap(), went_back, "until the lane goes back");
    assert_eq!(database.count("positions").await, 1, "nothing was written");
    assert_eq!(database.store().open().await.unwrap(), at(100));
    for number in 1..4 {
        assert_eq!(counts(database.store().commit(&one(number)).await.unwrap()), (1, 0));
    }
    assert_eq!(database.count("positions").await, 4);
}

async fn a_database_without_the_row_begins_again(mut database: impl StoreFixture) {
    database.store().commit(&one(0)).await.unwrap();
    database.execute("DELETE FROM ingest_checkpoints").await;
    let offered = database.store().offer(&one(1)).await.unwrap();
    assert_eq!(offered, CommitOutcome::WentBack(Checkpoint::default()));
    assert_eq!(database.store().open().await.unwrap(), at(0));
    // Everything is drained again. The keys make that harmless.
    assert_eq!(counts(database.store().commit(&one(0)).await.unwrap()), (0, 1));
    assert_eq!(counts(database.store().commit(&one(1)).await.unwrap()), (1, 0));
}

async fn a_copied_journal_is_stopped_and_writes_nothing(database: impl StoreFixture) {
    let lane = some_lane();
    let mut original = database.another(lane).await;
    original.commit(&one(0)).await.unwrap();
    let before = original.at;
    // The session ends, as when the machine is copied and started elsewhere.
    original.close().await;
    let mut copy = database.another(lane).await;
    copy.commit(&one(1)).await.unwrap();
    copy.close().await;

    original.at = before;
    assert_eq!(original.offer(&one(2)).await.unwrap(), CommitOutcome::Fenced);
    assert_eq!(original.offer(&Batch::default()).await.unwrap(), CommitOutcome::Fenced);
    original.close().await;
    assert_eq!(database.count("positions").await, 2);
    assert_eq!(database.texts("ingest_checkpoints", &["position"]).await, [["200"]]);
    assert_eq!(counts(copy.commit(&one(3)).await.unwrap()), (1, 0), "the other goes on");
}

async fn the_same_position_with_another_tag_is_stopped(mut database: impl StoreFixture) {
    database.store().commit(&one(0)).await.unwrap();
    // A copy that was given other frames since has the same positions and other tags.
    database.execute("UPDATE ingest_checkpoints SET tag = 6").await;
    assert_eq!(database.store().offer(&one(1)).await.unwrap(), CommitOutcome::Fenced);
    assert_eq!(database.count("positions").await, 1);
}

async fn another_number_of_lanes_goes_back_to_the_one_behind(database: impl StoreFixture) {
    let journal = JournalId::random();
    let lane = |number, lanes| Lane { journal, number, lanes };
    let mut two = [database.another(lane(0, 2)).await, database.another(lane(1, 2)).await];
    for (number, lane) in two.iter_mut().enumerate() {
        assert_eq!(lane.open().await.unwrap(), at(0));
        for step in 0..=number {
            lane.commit(&one(i64::try_from(10 * number + step).unwrap())).await.unwrap();
        }
        lane.close().await;
    }
    let rows = database.texts("ingest_checkpoints", &["lane", "lanes", "position"]).await;
    assert_eq!(rows, [["0", "2", "100"], ["1", "2", "200"]]);

    let mut three = database.another(lane(2, 3)).await;
    assert_eq!(three.open().await.unwrap(), at(100));
    let rows = database.texts("ingest_checkpoints", &["lane", "lanes", "position", "tag", "latest_position"]).await;
    assert_eq!(rows, [["0", "3", "100", "5", "100"], ["1", "3", "100", "5", "100"], ["2", "3", "100", "5", "100"]]);
    let mut other = database.another(lane(1, 3)).await;
    assert_eq!(other.open().await.unwrap(), at(100), "the other lanes find it done");
    assert_eq!(counts(other.commit(&one(10)).await.unwrap()), (0, 1));
    assert_eq!(
        two[0].offer(&one(99)).await.unwrap(),
        CommitOutcome::Fenced,
        "a process that still has two lanes must stop"
    );
    two[0].close().await;
    three.close().await;
    other.close().await;
    assert_eq!(database.another(lane(0, 1)).await.open().await.unwrap(), at(100));
    assert_eq!(database.count("ingest_checkpoints").await, 1);
}

async fn a_retired_journal_leaves_no_rows(mut database: impl StoreFixture) {
    let mut other = database.another(some_lane()).await;
    other.commit(&one(0)).await.unwrap();
    database.store().commit(&one(1)).await.unwrap();
    other.store.retire().await.unwrap();
    assert_eq!(database.count("ingest_checkpoints").await, 1);
    assert_eq!(counts(database.store().commit(&one(2)).await.unwrap()), (1, 0));
}

#[tokio::test]
async fn a_commit_whose_answer_is_lost_is_found() {
    let database = PostgresFixture::new().await;
    let proxy = CuttingProxy::of_database(&server_url()).await;
    let mut store = OneLane::new(
        PostgresStore::new(server_of(&database.url_through(proxy.port, "")).unwrap(), some_lane()).unwrap(),
    );
    let batch = batch(&fleet(100, 5));
    store.commit(&one(0)).await.unwrap();

    proxy.cut_commit(Cut::Answer);
    let error = store.offer(&batch).await.unwrap_err();
    assert!(proxy.has_cut() && error.in_doubt() && error.class == ErrorClass::Unavailable, "{error:?}");
    assert_eq!(counts(store.commit(&batch).await.unwrap()), (500, 0), "as the first attempt counted");
    assert_eq!(database.count("positions").await, 501);
    assert_eq!(database.count("latest_positions").await, 101);
    assert_eq!(counts(store.commit(&batch).await.unwrap()), (0, 500), "and the lane goes on");
}

#[tokio::test]
async fn a_commit_dropped_while_its_answer_is_awaited_is_found() {
    let database = PostgresFixture::new().await;
    let proxy = CuttingProxy::of_database(&server_url()).await;
    let mut store = OneLane::new(
        PostgresStore::new(server_of(&database.url_through(proxy.port, "")).unwrap(), some_lane()).unwrap(),
    );
    let batch = batch(&fleet(100, 5));
    store.open().await.unwrap();
    proxy.cut_commit(Cut::Hold);
    let committed_at_the_server = async {
        while database.count("positions").await == 0 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::select! { done = store.offer(&batch) => panic!("{done:?}"), () = committed_at_the_server => {} }
    assert!(proxy.has_cut());
    assert_eq!(counts(store.commit(&batch).await.unwrap()), (500, 0), "as the first attempt counted");
    assert_eq!(database.count("positions").await, 500);
}

#[tokio::test]
async fn a_commit_that_never_arrived_is_done_again() {
    let database = PostgresFixture::new().await;
    let proxy = CuttingProxy::of_database(&server_url()).await;
    let mut store = OneLane::new(
        PostgresStore::new(server_of(&database.url_through(proxy.port, "")).unwrap(), some_lane()).unwrap(),
    );
    let batch = batch(&fleet(100, 5));
    store.open().await.unwrap();
    proxy.cut_commit(Cut::Request);
    let error = store.offer(&batch).await.unwrap_err();
    assert!(proxy.has_cut() && error.in_doubt(), "{error:?}");
    assert_eq!(database.count("positions").await, 0);
    assert_eq!(counts(store.commit(&batch).await.unwrap()), (500, 0));
    assert_eq!(database.count("positions").await, 500);
}

#[tokio::test]
async fn a_lost_commit_that_is_still_running_is_waited_for() {
    let database = PostgresFixture::new().await;
    let proxy = CuttingProxy::of_database(&server_url()).await;
    let mut store = OneLane::new(
        PostgresStore::new(server_of(&database.url_through(proxy.port, "")).unwrap(), some_lane()).unwrap(),
    );
    store.commit(&one(0)).await.unwrap();
    // The commit itself takes two seconds. A plain read in between would still show the old checkpoint.
    database
        .execute(
            "CREATE FUNCTION dawdle() RETURNS trigger LANGUAGE plpgsql AS
             $$ BEGIN PERFORM pg_sleep(2); RETURN NULL; END $$;
             CREATE CONSTRAINT TRIGGER dawdle AFTER UPDATE ON ingest_checkpoints DEFERRABLE INITIALLY DEFERRED
             FOR EACH ROW EXECUTE FUNCTION dawdle()",
        )
        .await;
    let batch = batch(&fleet(10, 5));
    proxy.cut_commit(Cut::Answer);
    let begun = Instant::now();
    assert!(store.offer(&batch).await.unwrap_err().in_doubt());
    assert!(begun.elapsed() < Duration::from_secs(2), "the client was cut off while the server was committing");
    assert_eq!(database.texts("ingest_checkpoints", &["position"]).await, [["100"]]);
    let found = loop {
        match store.offer(&batch).await {
            Ok(outcome) => break outcome,
            Err(error) => assert!(error.in_doubt() && error.class == ErrorClass::Unavailable, "{error:?}"),
        }
    };
    assert!(matches!(&found, CommitOutcome::Committed(committed) if counts(committed) == (50, 0)), "{found:?}");
    assert_eq!(database.texts("ingest_checkpoints", &["position"]).await, [["200"]]);
    assert_eq!(database.count("positions").await, 51);
}

#[tokio::test]
async fn a_lane_belongs_to_one_session_at_a_time() {
    let database = PostgresFixture::new().await;
    let lane = some_lane();
    let mut owner = database.another(lane).await;
    owner.commit(&one(0)).await.unwrap();
    let port = server_url().rsplit_once(':').unwrap().1.split('/').next().unwrap().parse().unwrap();
    let impatient = database.url_through(port, "options=-c%20lock_timeout%3D200ms");
    let mut second = OneLane::new(PostgresStore::new(server_of(&impatient).unwrap(), lane).unwrap());
    let error = second.open().await.unwrap_err();
    assert_eq!((error.class, error.in_doubt()), (ErrorClass::Unavailable, false));
    assert!(error.to_string().contains("the session that holds this journal's lane"), "{error}");
    owner.close().await;
    second.at = None;
    let at_last = loop {
        match second.open().await {
            Ok(at) => break at,
            Err(error) => assert_eq!(error.class, ErrorClass::Unavailable, "{error:?}"),
        }
    };
    assert_eq!(at_last, at(100));
}

#[tokio::test]
async fn two_lanes_write_side_by_side() {
    let database = PostgresFixture::new().await;
    let journal = JournalId::random();
    let samples = fleet(200, 20);
    let of_lane = |number: u64| batch(samples.iter().filter(|sample| sample.row.imei.get() % 2 == number));
    let run = |number: u16| {
        let (lane, mut batch) = (Lane { journal, number, lanes: 2 }, of_lane(number.into()));
        let database = &database;
        async move {
            let mut store = database.another(lane).await.store;
            let from = store.open_lane().await.unwrap().mark;
            let span = BatchSpan { from, to: Checkpoint { mark: at(7), latest: Position(7) } };
            let outcome = store.commit(&mut batch, &span).await.unwrap();
            assert!(
                matches!(&outcome, CommitOutcome::Committed(committed) if counts(committed) == (2000, 0)),
                "{outcome:?}"
            );
        }
    };
    tokio::join!(run(0), run(1));
    assert_eq!(database.count("positions").await, 4000);
}
