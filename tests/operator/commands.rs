//! The commands as a user runs them: decode, demo, simulate.

use std::io::Write as _;
use std::process::{Command, Output, Stdio};

use odograph_testkit::TestDatabase;
use serde_json::Value as Json;

use crate::ODOGRAPH;

fn odograph(arguments: &[&str], input: &str) -> Output {
    let mut child = Command::new(ODOGRAPH.path())
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let input = input.to_owned();
    let writer = std::thread::spawn(move || stdin.write_all(input.as_bytes()));
    let output = child.wait_with_output().unwrap();
    let _ = writer.join().unwrap();
    output
}

fn lines(output: &Output) -> Vec<Json> {
    let text = std::str::from_utf8(&output.stdout).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}"))).collect()
}

#[test]
fn decode_prints_the_documented_objects() {
    let items = "000f333536333037303432343431303133\nff\nFF\n\
        000000000000004A8E010000016B412CEE000100000000000000000000000000000000010005000100010100010011001D00010010015E2C880002\
        000B000000003544C87A000E000000001DD7E06A00000100002994\n\
        00000000000000370C01060000002F4449313A31204449323A30204449333A302041494E313A302041494E323A313639323420444F313A3020444F\
        323A3101000066E3\n";
    let output = odograph(&["decode"], items);
    assert!(output.status.success());
    let text = String::from_utf8(output.stdout.clone()).unwrap();
    let mut printed = text.lines();
    assert_eq!(printed.next(), Some(r#"{"kind":"login","imei":"356307042441013"}"#));
    assert_eq!(printed.next(), Some(r#"{"kind":"ping"}"#));
    assert_eq!(printed.next(), Some(r#"{"kind":"ping"}"#));
    assert_eq!(
        printed.next(),
        Some(concat!(
            r#"{"kind":"avl","codec":"8E","records":[{"timestamp":"2019-06-10T11:36:32.000Z","timestamp_ms":1560166592000,"#,
            r#""priority":1,"longitude":0.0,"latitude":0.0,"altitude_m":0,"angle_deg":0,"satellites":0,"speed_kmh":0,"#,
            r#""event_io_id":1,"generation_type":null,"io":{"1":1,"17":29,"16":22949000,"11":893700218,"14":500686954}}]}"#
        ))
    );
    let message: Json = serde_json::from_str(printed.next().unwrap()).unwrap();
    assert_eq!(message["text"], "DI1:1 DI2:0 DI3:0 AIN1:0 AIN2:16924 DO1:0 DO2:1");
    assert_eq!((&message["codec"], &message["type"], &message["imei"]), (&"12".into(), &6.into(), &Json::Null));
    assert_eq!(printed.next(), None);
}

#[test]
fn decode_refuses_by_reason_and_goes_on() {
    let cases = [
        ("zz", "not_hex"),
        ("fff", "not_hex"),
        ("", "truncated"),
        ("000f3335", "truncated"),
        ("000f35630x", "not_hex"),
        ("000f333558", "bad_imei"),
        ("00000001", "bad_preamble"),
        ("00000000ffffffff", "too_large"),
        ("0000000000000028080100", "truncated"),
        (
            "000000000000002808010000016b40d9ad80010000000000000000000000000000000103021503010101425e100000010000f22b",
            "crc_mismatch",
        ),
        (
            "000000000000002808010000016b40d9ad80010000000000000000000000000000000103021503010101425e100000010000f22aff",
            "bad_structure",
        ),
        ("ff", ""),
    ];
    let input: String = cases.iter().map(|(hex, _)| format!("{hex}\n")).collect();
    let output = odograph(&["decode"], &input);
    assert_eq!(output.status.code(), Some(1), "at least one item was refused");
    let lines = lines(&output);
    assert_eq!(lines.len(), cases.len(), "one object per item");
    for (line, (hex, reason)) in lines.iter().zip(cases) {
        if reason.is_empty() {
            assert_eq!(line["kind"], "ping");
        } else {
            assert_eq!((line["kind"].as_str(), line["reason"].as_str()), (Some("error"), Some(reason)), "{hex}");
            assert!(line["offset"].is_u64() && line["detail"].is_string());
        }
    }
    let misused = odograph(&["decode", "--nonsense"], "");
    assert_eq!(misused.status.code(), Some(2), "wrong usage");
}

#[test]
fn decode_reads_datagrams() {
    let hex = "003DCAFE0105000F33353230393330383634303336353508010000016B4F815B30010000000000000000000000000000000103021503010101425DBC000001";
    let output = odograph(&["decode", "--udp", hex], "");
    assert!(output.status.success());
    let line = &lines(&output)[0];
    assert_eq!(
        (&line["kind"], &line["packet_id"], &line["avl_packet_id"]),
        (&"datagram".into(), &51966.into(), &5.into())
    );
    assert_eq!((&line["imei"], &line["codec"]), (&"352093086403655".into(), &"8".into()));
    assert_eq!(line["records"][0]["io"]["66"], 23996);
}

#[test]
fn the_demo_ends_with_its_balance() {
    let output = odograph(&["demo", "--for", "2s", "--devices", "8"], "");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let line = lines(&output).pop().unwrap();
    let number = |key: &str| line[key].as_u64().unwrap();
    assert_eq!(number("lost"), 0);
    assert!(number("acknowledged") > 0 && number("acknowledged") <= number("sent"), "{line}");
    assert_eq!(number("stored") + number("duplicates"), number("sent"), "every packet was taken: {line}");
}

#[tokio::test]
async fn a_fleet_of_200_trackers_reaches_the_hypertable_and_the_audit_is_clean() {
    let database = TestDatabase::postgres().await;
    let service = ODOGRAPH.serve(&database.url(), "127.0.0.1:0", &[]);
    let (target, url) = (service.trackers.to_string(), database.url());
    let fleet = ["simulate", "--target", &target, "--devices", "200", "--records", "10", "--packets", "20"];
    let simulate = |more: &[&str]| odograph(&[&fleet[..], &["--verify", &url], more].concat(), "");
    let output = simulate(&[]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let audit = &lines(&output)[0]["audit"];
    assert_eq!(audit["acknowledged"], 40_000);
    assert_eq!(database.positions().await, 40_000);
    let hypertable = "SELECT hypertable_name FROM timescaledb_information.hypertables";
    assert_eq!(database.rows(hypertable).await[0]["hypertable_name"], "positions");
    let latest = database.rows("SELECT count(*) AS n FROM latest_positions").await;
    assert_eq!(latest[0]["n"], 200);
}

#[test]
fn decode_names_elements_with_units_and_scaled_values() {
    let hex =
        "000000000000002808010000016b40d9ad80010000000000000000000000000000000103021503010101425e100000010000f22a";
    let output = odograph(&["decode", "--named", hex], "");
    let record = &lines(&output)[0]["records"][0];
    assert_eq!(record["io"], serde_json::json!({"21": 3, "1": 1, "66": 24080}));
    assert_eq!(
        record["named"],
        serde_json::json!([
            {"id": 21, "name": "GSM Signal", "value": 3, "unit": null},
            {"id": 1, "name": "Digital Input 1", "value": 1, "unit": null},
            {"id": 66, "name": "External Voltage", "value": 24.08, "unit": "V"},
        ])
    );
}

#[test]
fn decode_answers_each_line_before_the_next_is_sent() {
    use std::io::{BufRead as _, BufReader};
    let mut child =
        Command::new(ODOGRAPH.path()).arg("decode").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let (mut input, mut answers) = (child.stdin.take().unwrap(), BufReader::new(child.stdout.take().unwrap()).lines());
    for (item, kind) in [("ff", "ping"), ("000f333536333037303432343431303133", "login"), ("0", "error")] {
        writeln!(input, "{item}").unwrap();
        let answer: Json = serde_json::from_str(&answers.next().unwrap().unwrap()).unwrap();
        assert_eq!(answer["kind"], kind);
    }
    drop(input);
    assert_eq!(child.wait().unwrap().code(), Some(1));
}
