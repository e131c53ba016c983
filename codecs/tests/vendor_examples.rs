//! Every example that the vendor published, every field; the known wrong ones are refused for the right reason.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use support::{assert_records, bytes, example, examples, hex, unhex};
use teltonika_codecs::{
    AvlData, Datagram, Frame, Imei, NextItem, RejectionReason, StreamItem, StreamPhase, next_item, reply,
};

#[test]
fn logins_are_read() {
    for name in ["login-imei", "login-imei-fmxxxx"] {
        let example = example(name);
        let NextItem::Item { item: StreamItem::Login(imei), consumed: 17 } =
            next_item(&bytes(&example), StreamPhase::Login)
        else {
            panic!("{name} is a login");
        };
        assert_eq!(imei.to_string(), example["expected"]["imei"].as_str().unwrap());
    }
}

#[test]
fn every_valid_frame_gives_every_field() {
    let mut seen = 0;
    for example in examples().iter().filter(|e| e["valid"] == true && e["transport"] == "tcp") {
        let (name, expected) = (example["name"].as_str().unwrap(), &example["expected"]);
        let bytes = bytes(example);
        if example["codec"].is_null() {
            continue;
        }
        seen += 1;
        match Frame::open(&bytes).unwrap_or_else(|wrong| panic!("{name}: {wrong}")) {
            Frame::Avl(avl) => {
                assert_records(&avl, expected, name);
                assert_eq!(hex(&reply::tcp_ack(avl.count())), expected["server_ack_hex"].as_str().unwrap());
            }
            Frame::Message(message) => {
                assert_eq!(u64::from(message.codec.id()), expected["codec_id"].as_u64().unwrap(), "{name}");
                assert_eq!(u64::from(message.kind), expected["type"].as_u64().unwrap(), "{name}");
                assert_eq!(hex(message.payload), expected["payload_hex"].as_str().unwrap(), "{name}");
                assert_eq!(message.text(), expected["payload_text"].as_str(), "{name}");
                assert_eq!(message.timestamp_s.map(u64::from), expected["timestamp_s"].as_u64(), "{name}");
                assert_eq!(message.imei.map(|imei| imei.to_string()).as_deref(), expected["imei"].as_str(), "{name}");
            }
            Frame::EmptyMessage(_) => panic!("{name} is not empty"),
        }
    }
    assert_eq!(seen, 16, "frames of all kinds are among the examples");
}

#[test]
fn the_bare_array_gives_every_field() {
    let example = example("codec8-array-4-records");
    assert_records(&AvlData::open(&bytes(&example)).unwrap(), &example["expected"], "codec8-array-4-records");
}

#[test]
fn every_valid_datagram_gives_every_field() {
    for name in ["codec8-udp-1", "codec8-udp-30-io", "codec8e-udp-1"] {
        let example = example(name);
        let (bytes, expected) = (bytes(&example), &example["expected"]);
        let datagram = Datagram::open(&bytes).unwrap();
        assert_eq!(u64::from(datagram.packet_id), expected["packet_id"].as_u64().unwrap());
        assert_eq!(u64::from(datagram.avl_packet_id), expected["avl_packet_id"].as_u64().unwrap());
        assert_eq!(datagram.imei.to_string(), expected["imei"].as_str().unwrap());
        assert_records(&datagram.avl, expected, name);
        let ack = reply::udp_ack(datagram.packet_id, datagram.avl_packet_id, datagram.avl.count());
        assert_eq!(hex(&ack), expected["server_ack_hex"].as_str().unwrap());
    }
}

#[test]
fn the_known_wrong_ones_are_refused_for_the_right_reason() {
    let wrong = Frame::open(&bytes(&example("codec14-nack"))).unwrap_err();
    assert_eq!((wrong.reason, wrong.offset), (RejectionReason::CrcMismatch, 8));
    let wrong = Datagram::open(&bytes(&example("codec16-udp-1-as-published"))).unwrap_err();
    assert_eq!((wrong.reason, wrong.offset), (RejectionReason::Truncated, 74));
    let wrong = Datagram::open(&bytes(&example("codec8e-udp-30-io-as-published"))).unwrap_err();
    assert_eq!(wrong.reason, RejectionReason::BadStructure);
    let repaired = example("codec16-udp-1-as-published")["expected"]["repaired_hex"].as_str().unwrap().to_owned();
    assert_eq!(Datagram::open(&unhex(&repaired)).unwrap().avl.count(), 1);
}

#[test]
fn commands_are_encoded_as_the_vendor_shows_them() {
    assert_eq!(reply::codec12_command(b"getinfo"), bytes(&example("codec12-getinfo-command")));
    assert_eq!(reply::codec12_command(b"getio"), bytes(&example("codec12-getio-command")));
    let imei: Imei = "352093081452251".parse().unwrap();
    assert_eq!(reply::codec14_command(imei, b"getver"), bytes(&example("codec14-getver-command")));
    assert_eq!(reply::udp_ack(0xCAFE, 5, 1).to_vec(), bytes(&example("udp-ack-codec8")));
}
