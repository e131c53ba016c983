//! TLS to a real PostgreSQL: every `sslmode`, the servers it refuses, and the error messages.

use std::path::Path;

use odograph::store::features;
use odograph::store::server_of;
use odograph::store::{
    DatabaseUrl, ErrorClass, MigrateOptions, PostgresStore, Schema, Store, StoreError, connect, migrate,
};
use odograph_testkit::{CertificateAndKey, Certificates, PrivateServer, Properties, open_postgres, some_lane};

/// Returns whether the connections are encrypted. Asserts that it is the same for both clients.
async fn encrypted(url: &DatabaseUrl) -> Result<bool, StoreError> {
    let DatabaseUrl::Postgres(target) = url else { panic!("not PostgreSQL") };
    let client = connect(target, "asking for TLS").await?;
    let query = "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()";
    let encrypted = client.query_one(query, &[]).await.unwrap().get(0);
    let mut store = open_postgres(url);
    store.schema().await?;
    let query = "SELECT ssl FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) \
                 WHERE usename = $1 AND application_name = 'odograph' AND pid <> pg_backend_pid()";
    let user = target.config().get_user().unwrap().to_owned();
    let found = client.query(query, &[&user]).await.unwrap();
    assert!(!found.is_empty() && found.iter().all(|row| row.get::<_, bool>(0) == encrypted), "both clients alike");
    Ok(encrypted)
}

/// Returns the error for the operator, the same for both clients.
async fn refusal(url: &DatabaseUrl) -> String {
    let error = encrypted(url).await.expect_err("it should be refused");
    assert_eq!(error.class, ErrorClass::Refuses, "{error:?}");
    if let Ok(mut store) = PostgresStore::new(server_of(url).unwrap(), some_lane()) {
        let other = store.schema().await.unwrap_err();
        assert_eq!((other.class, other.source.to_string()), (error.class, error.source.to_string()));
    }
    error.source.to_string()
}

async fn install(server: &PrivateServer, pair: &CertificateAndKey) {
    server.write("server.crt", &pair.certificate).await;
    server.write("server.key", &pair.key).await;
    server.connect().await.batch_execute("ALTER SYSTEM SET ssl = on").await.unwrap();
    server.reload().await;
}

fn with_root(mode: &str, file: &Path) -> String {
    format!("sslmode={mode}&sslrootcert={}", file.display())
}

#[tokio::test]
async fn every_mode_does_what_libpq_says() {
    let (server, made) = (PrivateServer::new("schema-tls"), Certificates::new());
    let (ca, other) = (made.file("ca.pem"), made.file("other.pem"));
    let url = |parameters: &str| server.url_with("odograph", parameters);

    // A server without TLS.
    for parameters in ["", "sslmode=disable", "sslmode=allow", "sslmode=prefer"] {
        assert!(!encrypted(&url(parameters)).await.unwrap(), "{parameters}");
    }
    for parameters in ["sslmode=require", &with_root("verify-ca", &ca), &with_root("verify-full", &ca)] {
        let said = refusal(&url(parameters)).await;
        assert!(said.contains("set ssl = on"), "{said}");
    }

    // A certificate for the address that the URL names.
    install(&server, &made.signed(&["127.0.0.1", "localhost"])).await;
    assert!(!encrypted(&url("sslmode=disable")).await.unwrap());
    for parameters in [
        "",
        "sslmode=allow",
        "sslmode=prefer",
        "sslmode=require",
        &with_root("prefer", &ca),
        &with_root("require", &ca),
        &with_root("verify-ca", &ca),
        &with_root("verify-full", &ca),
    ] {
        assert!(encrypted(&url(parameters)).await.unwrap(), "{parameters}");
    }
    let by_address = server.url.replace("127.0.0.1", "");
    let by_address = format!("{by_address}?hostaddr=127.0.0.1&{}", with_root("verify-full", &ca)).replace("@:", "@");
    let (front, back) = by_address.split_once('@').unwrap();
    let (port, rest) = back.split_once('/').unwrap();
    let by_address = DatabaseUrl::parse(&format!("{front}@/{rest}&port={port}")).unwrap();
    assert!(encrypted(&by_address).await.unwrap());
    // With sslrootcert only that authority is trusted, as in libpq.
    for mode in ["prefer", "require", "verify-ca", "verify-full"] {
        let said = refusal(&url(&with_root(mode, &other))).await;
        assert!(said.contains("not trusted: set sslrootcert"), "{mode}: {said}");
    }
    let said = refusal(&url("sslrootcert=system")).await;
    assert!(said.contains("not trusted"), "{said}");
    // Everything works over TLS.
    migrate(&url(&with_root("verify-full", &ca)), &MigrateOptions::default()).await.unwrap();
    let mut store = open_postgres(&url(&with_root("verify-full", &ca)));
    assert_eq!(store.schema().await.unwrap(), Schema::Current);
    assert!(features(&url(&with_root("verify-full", &ca))).await.is_ok());

    // A certificate for another name.
    install(&server, &made.signed(&["db.example"])).await;
    assert!(encrypted(&url(&with_root("verify-ca", &ca))).await.unwrap());
    let said = refusal(&url(&with_root("verify-full", &ca))).await;
    assert!(said.contains("not for this host") && said.contains("subjectAltName"), "{said}");

    // An expired certificate.
    install(&server, &made.expired(&["127.0.0.1"])).await;
    assert!(encrypted(&url("sslmode=require")).await.unwrap());
    let said = refusal(&url(&with_root("verify-ca", &ca))).await;
    assert!(said.contains("not valid at this time"), "{said}");

    // Self-signed, as many are: trusted if sslrootcert names it, and then also only for its host name.
    let itself = Certificates::self_signed(&["127.0.0.1"]);
    install(&server, &itself).await;
    let file = made.write("itself.pem", &itself.certificate);
    for mode in ["verify-ca", "verify-full"] {
        assert!(encrypted(&url(&with_root(mode, &file))).await.unwrap(), "{mode}");
        let said = refusal(&url(&with_root(mode, &ca))).await;
        assert!(said.contains("not trusted"), "{mode}: {said}");
    }
    let itself = Certificates::self_signed(&["db.example"]);
    install(&server, &itself).await;
    let file = made.write("itself.pem", &itself.certificate);
    assert!(encrypted(&url(&with_root("verify-ca", &file))).await.unwrap());
    let said = refusal(&url(&with_root("verify-full", &file))).await;
    assert!(said.contains("not for this host"), "{said}");
}

/// Whether psql, and so libpq, connects.
fn psql_connects(server: &PrivateServer, parameters: &str) -> bool {
    let url = format!("{}?{parameters}", server.url);
    let psql = std::process::Command::new("psql").args(["-X", "-q", "-c", "SELECT 1", &url]).output().unwrap();
    psql.status.success()
}

/// Each certificate in each mode: accepted exactly if libpq accepts it.
#[tokio::test]
async fn a_certificate_is_accepted_where_libpq_accepts_it() {
    let (server, made) = (PrivateServer::new("schema-tls-table"), Certificates::new());
    let (here, elsewhere) = (&["127.0.0.1"][..], &["db.example"][..]);
    let properties = |is_authority, years| Properties { is_authority, years };
    let itself = |is_authority, years| {
        let pair = Certificates::signed_by_itself(here, properties(is_authority, years));
        (pair.certificate.clone(), pair)
    };
    let signed = |is_authority, years| {
        let (pair, root) = Certificates::signed_by(here, properties(is_authority, years));
        (root, pair)
    };
    let authority = made.authority();
    let other = std::fs::read_to_string(made.file("other.pem")).unwrap();
    let (short, intermediate) = made.signed_by_intermediate(here);
    let whole =
        CertificateAndKey { certificate: format!("{}{intermediate}", short.certificate), key: short.key.clone() };
    let cases = [
        ("signed", (authority.clone(), made.signed(here))),
        ("signed, expired", (authority.clone(), made.expired(here))),
        ("signed, not valid yet", (authority.clone(), made.not_yet_valid(here))),
        ("signed for another name", (authority.clone(), made.signed(elsewhere))),
        ("signed by another authority", (other, made.signed(here))),
        ("its own authority", itself(true, None)),
        ("its own authority, expired", itself(true, Some((2020, 2021)))),
        ("its own authority, not valid yet", itself(true, Some((2090, 2095)))),
        ("self-signed, no authority", itself(false, None)),
        ("self-signed, no authority, expired", itself(false, Some((2020, 2021)))),
        ("signed by an expired authority", signed(true, Some((2020, 2021)))),
        ("signed by what is no authority", signed(false, None)),
        ("through an intermediate", (authority.clone(), whole)),
        ("the intermediate is missing", (authority, short)),
    ];
    let mut table = Vec::new();
    for (name, (root, pair)) in cases {
        install(&server, &pair).await;
        let file = made.write("root.pem", &root);
        for mode in ["require", "verify-ca", "verify-full"] {
            for parameters in [format!("sslmode={mode}"), with_root(mode, &file)] {
                if mode != "require" && !parameters.contains("sslrootcert") {
                    continue;
                }
                let ours = encrypted(&server.url_with("odograph", &parameters)).await;
                let (ours, theirs) = (ours.is_ok(), psql_connects(&server, &parameters));
                let rooted = parameters.contains("sslrootcert");
                table.push((name, mode, rooted, ours, theirs));
            }
        }
    }
    let differ: Vec<_> = table.iter().filter(|(_, _, _, ours, theirs)| ours != theirs).collect();
    assert!(differ.is_empty(), "certificate, mode, with a root, odograph, psql: {differ:#?}");
    let accepted = table.iter().filter(|(_, _, _, ours, _)| *ours).count();
    assert!((20..table.len() - 20).contains(&accepted), "{accepted} of {}", table.len());
}

#[tokio::test]
async fn a_client_can_log_in_with_a_certificate_and_reads_why_if_it_cannot() {
    let (server, made) = (PrivateServer::new("schema-cert"), Certificates::new());
    install(&server, &made.signed(&["127.0.0.1"])).await;
    server.write("root.crt", &made.authority()).await;
    let set_up =
        "CREATE ROLE ingest LOGIN; CREATE ROLE clear LOGIN PASSWORD 'p'; ALTER SYSTEM SET ssl_ca_file = 'root.crt'";
    for statement in set_up.split("; ") {
        server.connect().await.batch_execute(statement).await.unwrap();
    }
    server.admit("hostssl all ingest 127.0.0.1/32 cert\nhostssl all clear 127.0.0.1/32 scram-sha-256").await;

    let root = with_root("verify-full", &made.file("ca.pem"));
    let (certificate, key) = made.client("ingest");
    let with =
        |certificate: &Path, key: &Path| format!("{root}&sslcert={}&sslkey={}", certificate.display(), key.display());
    assert!(encrypted(&server.url_with("ingest", &with(&certificate, &key))).await.unwrap());
    // The password is bound to the channel if the server supports it.
    assert!(encrypted(&server.url_with("clear:p", &root)).await.unwrap());

    let said = refusal(&server.url_with("ingest", &root)).await;
    assert!(said.contains("28000") && said.contains("sslcert and sslkey"), "{said}");
    let said = refusal(&server.url_with("clear:p", "sslmode=disable")).await;
    assert!(said.contains("28000") && said.contains("pg_hba.conf"), "{said}");

    let no_file = made.file("none.pem");
    for (parameters, expected) in [
        (with_root("verify-ca", &no_file), "none.pem cannot be used"),
        (with_root("verify-ca", &made.file("empty.pem")), "holds no certificate"),
        (with(&no_file, &key), "sslcert="),
        (with(&certificate, &no_file), "sslkey="),
        (with(&certificate, &certificate), "sslkey="),
        // The authority's certificate does not belong to the client's key.
        (with(&made.file("ca.pem"), &key), "sslkey="),
    ] {
        let url = server.url_with("ingest", &parameters);
        let error = PostgresStore::new(server_of(&url).unwrap(), some_lane()).map(|_| ()).unwrap_err();
        assert_eq!(error.class, ErrorClass::Refuses);
        assert!(error.source.to_string().contains(expected), "{parameters}: {error:?}");
        assert!(migrate(&url, &MigrateOptions::default()).await.is_err());
    }
}
