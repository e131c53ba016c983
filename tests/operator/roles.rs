//! The roles of db-init/server/roles.sql are enough for each command, and not more.

use odograph_testkit::{PrivateServer, Tracker, frame, imei, record, until};

use crate::ODOGRAPH;

const NOON: u64 = 1_777_723_200_000;

#[tokio::test]
async fn the_roles_of_the_compose_file_are_enough_and_no_superusers() {
    let server = PrivateServer::new("roles");
    let roles = include_str!("../../db-init/server/roles.sql");
    for _ in 0..2 {
        server.connect().await.batch_execute(roles).await.unwrap();
    }
    let (_, host) = server.url.split_once('@').unwrap();
    let [owner, ingest] = ["odograph_owner", "odograph_ingest"].map(|role| format!("postgres://{role}@{host}"));
    for arguments in [["migrate"].as_slice(), &["migrate", "--standalone-devices"]] {
        let output = ODOGRAPH.run(arguments, &[("DATABASE_URL", &owner)]);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
    let data = tempfile::tempdir().unwrap();
    let own = ("ODOGRAPH_DATA_DIR", data.path().to_str().unwrap());
    let process = ODOGRAPH.serve(&ingest, "127.0.0.1:0", &[own]);
    let mut tracker = Tracker::login(process.trackers, &imei(1).to_string()).await;
    assert_eq!(tracker.deliver(&frame(&[record(NOON, 1)])).await, 1);
    process.is_ready().await;
    let admin = server.connect().await;
    until("the row", async || {
        admin.query_one("SELECT count(*) FROM positions", &[]).await.unwrap().get::<_, i64>(0) == 1
    })
    .await;
    let check = ODOGRAPH.run(&["check"], &[("DATABASE_URL", &ingest), own]);
    let report = String::from_utf8_lossy(&check.stdout).into_owned();
    assert!(report.contains("the role may do what `serve` does"), "{report}");
    assert_eq!(process.terminate(), Some(0));

    let (client, connection) = tokio_postgres::connect(&ingest, tokio_postgres::NoTls).await.unwrap();
    tokio::spawn(connection);
    for forbidden in ["CREATE TABLE own (a int)", "DROP TABLE positions", "ALTER TABLE positions DISABLE TRIGGER ALL"] {
        let error = client.batch_execute(forbidden).await.unwrap_err();
        assert_eq!(error.code().unwrap().code(), "42501", "{forbidden}: {error:?}");
    }
    let superusers = "SELECT count(*) FROM pg_roles WHERE rolname LIKE 'odograph\\_%' AND (rolsuper OR rolcreaterole)";
    assert_eq!(admin.query_one(superusers, &[]).await.unwrap().get::<_, i64>(0), 0);
}
