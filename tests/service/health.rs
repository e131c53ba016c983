//! `health` as a container runs it.

use std::process::Output;

use odograph_testkit::TestDatabase;

use crate::ODOGRAPH;

fn health(arguments: &[&str], variables: &[(&str, &str)]) -> Output {
    ODOGRAPH.run(&[&["health"], arguments].concat(), variables)
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[tokio::test]
async fn a_running_service_answers_for_itself() {
    let database = TestDatabase::sqlite();
    let service = ODOGRAPH.serve(&database.url(), "127.0.0.1:0", &[]);
    let admin = service.admin.to_string();
    let page = |path: &str| format!("http://{admin}/{path}");
    let settings = [("ODOGRAPH_ADMIN_LISTEN", &*admin)];
    let ready = health(&[], &settings);
    assert!(ready.status.success(), "{}", said(&ready));
    let body: serde_json::Value = serde_json::from_slice(&ready.stdout).unwrap();
    assert_eq!(body["ready"], true);
    assert_eq!(health(&["--live"], &settings).stdout, b"ok\n");
    assert_eq!(health(&["--url", &page("readyz")], &[]).status.code(), Some(0));

    let no_page = health(&["--url", &page("nothing")], &[]);
    assert_eq!(no_page.status.code(), Some(1));
    assert!(said(&no_page).contains("answers 404"), "{}", said(&no_page));
    assert_eq!(health(&["--url", "https://127.0.0.1/"], &[]).status.code(), Some(2), "wrong usage");
    service.kill();
    let gone = health(&[], &settings);
    assert_eq!(gone.status.code(), Some(1), "{}", said(&gone));
}
