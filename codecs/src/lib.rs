//! Teltonika tracker codecs: bytes to values and back.
//!
//! The crate knows no clock, socket, log or database. Decoding borrows: a [`Frame`] is a view of the bytes that it was
//! given, and iterating its records and elements allocates nothing. Nothing here panics on any input.
//!
//! ```text
//! bytes ── next_item ──► StreamItem::Login │ StreamItem::Ping │ StreamItem::Frame ──► Frame::Avl ──► Record ──► Element
//!              │                                                    Frame::Message
//!              └─ three answers: incomplete (wait), item (maybe a rejected frame: skip it), fatal (close)
//! ```
//!
//! - [`next_item`]: the incremental front for stream readers; it keeps no buffer of its own.
//! - [`Frame::open`]: one whole TCP frame; [`Datagram::open`]: one UDP datagram.
//! - [`AvlData`], [`Record`], [`Element`]: borrowed views of Codec 8, 8E and 16 data.
//! - [`Message`]: Codec 12, 13, 14 and 15, bytes first and text second.
//! - [`dictionary`]: what the elements of FMB920 and FMB003 are called, and how their values scale.
//! - [`reply`] and [`encode`]: answers of a server, and whole frames as a tracker sends them.
//!
//! With the feature `serde`, records, elements, messages, datagrams and rejections implement `Serialize`.
//!
//! Section numbers in these pages are those of the protocol notes that the project was built from: 1 is the TCP session,
//! 2 the record, 3 UDP, 4 the message codecs.
//!
//! # Example
//! ```
//! use teltonika_codecs::{next_item, Frame, StreamItem, NextItem, StreamPhase};
//!
//! // A vendor example: Codec 8, one record (section 7).
//! let hex = "000000000000002808010000016b40d9ad80010000000000000000000000000000000103021503010101425e100000010000f22a";
//! let bytes: Vec<u8> = (0..hex.len()).step_by(2).map(|i| u8::from_str_radix(&hex[i..i + 2], 16).unwrap()).collect();
//!
//! let NextItem::Item { item: StreamItem::Frame(Frame::Avl(avl)), consumed } = next_item(&bytes, StreamPhase::Frames) else { panic!() };
//! assert_eq!(consumed, bytes.len());
//! let record = avl.records().next().unwrap();
//! assert_eq!(record.timestamp_ms, 1_560_161_136_000);
//! assert_eq!(record.elements().map(|e| e.id).collect::<Vec<_>>(), [21, 1, 66]);
//! ```

mod avl;
mod codec;
mod crc;
mod datagram;
pub mod dictionary;
mod element;
pub mod encode;
mod envelope;
mod imei;
mod layout;
mod message;
mod parse;
mod record;
mod rejection;
pub mod reply;
#[cfg(feature = "serde")]
mod serialize;
mod stream;

pub use avl::{AvlData, Records};
pub use codec::{AvlCodec, MessageCodec};
pub use crc::crc16;
pub use datagram::Datagram;
pub use element::{Element, Elements, Value};
pub use envelope::{ENVELOPE_LEN, Frame, MAX_AVL_DATA, MAX_MESSAGE_DATA, MIN_DATA};
pub use imei::{Imei, InvalidImei};
pub use message::Message;
pub use record::Record;
pub use rejection::{Rejection, RejectionReason};
pub use stream::{LOGIN_LEN, NextItem, StreamItem, StreamPhase, next_item};

/// The README's example, tested.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
