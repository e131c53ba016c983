//! What the gateway counts.

use metrics::{Counter, Gauge, Histogram, counter, gauge, histogram};
use teltonika_codecs::{AvlCodec, MessageCodec, RejectionReason};

use super::close::CloseReason;
use crate::metrics::Registry;

/// Counters of connections, logins, frames and answers.
#[derive(Clone)]
pub struct GatewayMetrics {
    pub(crate) open: Gauge,
    pub(crate) opened: Counter,
    closed: [Counter; CloseReason::ALL.len()],
    logins: [Counter; LoginResult::ALL.len()],
    pub(crate) received_bytes: Counter,
    frames_accepted: [Counter; CODEC_LABELS.len()],
    frames_undecodable: [[Counter; UNDECODABLE.len()]; CODEC_LABELS.len()],
    frames_refused: [Counter; RejectionReason::ALL.len()],
    records_received: [Counter; AvlCodec::ALL.len()],
    messages: [Counter; MessageCodec::ALL.len()],
    pub(crate) ack_latency: Histogram,
}

impl GatewayMetrics {
    /// Registers them.
    #[must_use]
    pub fn new(registry: &Registry) -> Self {
        registry.register(|| Self {
            open: gauge!("odograph_connections_open"),
            opened: counter!("odograph_connections_opened_total"),
            closed: CloseReason::ALL.map(|r| counter!("odograph_connections_closed_total", "reason" => r.as_str())),
            logins: LoginResult::ALL.map(|r| counter!("odograph_logins_total", "result" => r.as_str())),
            received_bytes: counter!("odograph_received_bytes_total"),
            frames_accepted: CODEC_LABELS
                .map(|codec| counter!("odograph_frames_total", "codec" => codec, "result" => "accepted")),
            frames_undecodable: CODEC_LABELS.map(|codec| {
                UNDECODABLE
                    .map(|reason| counter!("odograph_frames_total", "codec" => codec, "result" => reason.as_str()))
            }),
            frames_refused: RejectionReason::ALL
                .map(|r| counter!("odograph_frames_total", "codec" => "unknown", "result" => r.as_str())),
            records_received: AvlCodec::ALL.map(|c| counter!("odograph_records_received_total", "codec" => c.name())),
            messages: MessageCodec::ALL.map(|c| counter!("odograph_messages_total", "codec" => c.name())),
            ack_latency: histogram!("odograph_ack_latency_seconds"),
        })
    }

    pub(crate) fn closed(&self, reason: CloseReason) {
        self.closed[reason as usize].increment(1);
    }

    pub(crate) fn login(&self, result: LoginResult) {
        self.logins[result as usize].increment(1);
    }

    /// A frame that ends its session: nothing in it can be trusted, its codec included.
    pub(crate) fn refused(&self, reason: RejectionReason) {
        self.frames_refused[reason as usize].increment(1);
    }

    /// A frame with a right checksum that goes to quarantine.
    pub(crate) fn undecodable(&self, codec: FrameCodec, reason: RejectionReason) {
        let known = codec.0.zip(UNDECODABLE.iter().position(|undecodable| *undecodable == reason));
        match known {
            Some((codec, reason)) => self.frames_undecodable[codec][reason].increment(1),
            None => self.refused(reason),
        }
    }

    pub(crate) fn avl_frame(&self, codec: AvlCodec, records: u8) {
        self.frames_accepted[codec as usize].increment(1);
        self.records_received[codec as usize].increment(records.into());
    }

    pub(crate) fn message(&self, codec: MessageCodec) {
        self.frames_accepted[AvlCodec::ALL.len() + codec as usize].increment(1);
        self.messages[codec as usize].increment(1);
    }
}

/// What became of a login; also a metric label.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LoginResult {
    /// The tracker may send.
    Accepted,
    /// It was no login.
    Refused,
    /// Not a registered device.
    Unknown,
    /// Which devices are registered was never known.
    AdmissionUnknown,
}

impl LoginResult {
    /// Every result, in declaration order.
    pub const ALL: [Self; 4] = [Self::Accepted, Self::Refused, Self::Unknown, Self::AdmissionUnknown];

    /// The label.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Accepted => "accepted",
            Self::Refused => "refused",
            Self::Unknown => "unknown",
            Self::AdmissionUnknown => "admission_unknown",
        }
    }
}

/// The codec of a frame as a label.
#[derive(Clone, Copy, Debug)]
pub struct FrameCodec(Option<usize>);

impl FrameCodec {
    /// By the codec id on the wire.
    #[must_use]
    pub fn of(id: Option<u8>) -> Self {
        let avl = || AvlCodec::from_id(id?).map(|codec| codec as usize);
        let message = || MessageCodec::from_id(id?).map(|codec| AvlCodec::ALL.len() + codec as usize);
        Self(avl().or_else(message))
    }
}

/// Codec labels in the order of `AvlCodec::ALL`, then `MessageCodec::ALL`.
const CODEC_LABELS: [&str; 7] = ["8", "8E", "16", "12", "13", "14", "15"];
/// What can be wrong with a frame of a known codec whose checksum is right.
const UNDECODABLE: [RejectionReason; 2] = [RejectionReason::CountMismatch, RejectionReason::BadStructure];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codec_labels_follow_the_codecs() {
        let names = AvlCodec::ALL.map(AvlCodec::name).into_iter().chain(MessageCodec::ALL.map(MessageCodec::name));
        assert!(names.eq(CODEC_LABELS));
        let ids = AvlCodec::ALL.map(AvlCodec::id).into_iter().chain(MessageCodec::ALL.map(MessageCodec::id));
        assert!(ids.enumerate().all(|(at, id)| FrameCodec::of(Some(id)).0 == Some(at)));
        assert_eq!(FrameCodec::of(Some(0x99)).0, None);
        assert!(LoginResult::ALL.iter().enumerate().all(|(at, result)| *result as usize == at));
    }
}
