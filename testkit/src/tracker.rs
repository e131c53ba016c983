//! A tracker that a test controls: it sends given bytes and reads answers.

use std::io;
use std::net::SocketAddr;

use teltonika_codecs::encode::{self, NewElement, NewRecord, NewValue};
use teltonika_codecs::{AvlCodec, Imei, crc16};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::wait::PATIENCE;

/// A tracker's connection to the service.
#[derive(Debug)]
pub struct Tracker(pub TcpStream);

impl Tracker {
    /// Connects, and sends nothing.
    pub async fn connect(target: SocketAddr) -> Self {
        let stream = TcpStream::connect(target).await.unwrap();
        stream.set_nodelay(true).unwrap();
        Self(stream)
    }

    /// Connects and logs in.
    pub async fn login(target: SocketAddr, imei: &str) -> Self {
        let mut tracker = Self::connect(target).await;
        tracker.send(&encode::login(imei.parse().unwrap())).await;
        assert_eq!(tracker.receive::<1>().await.unwrap(), [1]);
        tracker
    }

    /// Sends bytes.
    pub async fn send(&mut self, bytes: &[u8]) {
        self.0.write_all(bytes).await.unwrap();
    }

    /// Waits for an answer of this length.
    pub async fn receive<const N: usize>(&mut self) -> io::Result<[u8; N]> {
        let mut answer = [0; N];
        timeout(PATIENCE, self.0.read_exact(&mut answer)).await.expect("an answer or the end in time")?;
        Ok(answer)
    }

    /// Sends a frame. Returns the number of records that the service acknowledges.
    pub async fn deliver(&mut self, frame: &[u8]) -> u32 {
        self.send(frame).await;
        u32::from_be_bytes(self.receive().await.unwrap())
    }

    /// Whether the service closes the connection without another byte.
    pub async fn is_closed_unanswered(&mut self) -> bool {
        matches!(self.receive::<1>().await, Err(e) if matches!(e.kind(),
            io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset))
    }
}

/// A record with a position and one element.
#[must_use]
pub fn record(timestamp_ms: u64, ignition: u8) -> NewRecord {
    NewRecord {
        timestamp_ms,
        longitude_raw: 252_791_234,
        latitude_raw: 546_871_234,
        altitude_m: 120,
        angle_deg: 90,
        satellites: 9,
        speed_kmh: 54,
        elements: vec![NewElement { id: 239, value: NewValue::U8(ignition) }],
        ..NewRecord::default()
    }
}

/// A frame of Codec 8 Extended.
#[must_use]
pub fn frame(records: &[NewRecord]) -> Vec<u8> {
    encode::frame(AvlCodec::Codec8E, records).unwrap()
}

/// A frame around any data field, with a correct CRC.
#[must_use]
pub fn framed(data: &[u8]) -> Vec<u8> {
    let length = u32::try_from(data.len()).unwrap();
    [&[0; 4], &length.to_be_bytes()[..], data, &u32::from(crc16(data)).to_be_bytes()].concat()
}

/// An IMEI by its number.
#[must_use]
pub fn imei(number: u64) -> Imei {
    Imei::try_from(490_000_000_000_000 + number).unwrap()
}
