//! The metrics of the gateway: connections, logins, frames and answers.

use metrics::{Counter, Gauge, Histogram, counter, gauge, histogram};
use teltonika_codecs::{AvlCodec, MessageCodec, RejectionReason};

use super::close::CloseReason;
use crate::metrics::Registry;

/// Counters of the gateway, all of them with zero from the start.
#[derive(Clone)]
pub struct GatewayMetrics {
    pub(super) open: Gauge,
    pub(super) opened: Counter,
    closed: [Counter; CloseReason::ALL.len()],
    logins: [Counter; LoginResult::ALL.len()],
    pub(super) received_bytes: Counter,
    frames_accepted: [Counter; CODEC_LABELS.len()],
    frames_undecodable: [[Counter; UNDECODABLE.len()]; CODEC_LABELS.len()],
    frames_refused: [Counter; RejectionReason::ALL.len()],
    records_received: [Counter; AvlCodec::ALL.len()],
    messages: [Counter; MessageCodec::ALL.len()],
    pub(super) ack_latency: Histogram,
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

    pub(super) fn closed(&self, reason: CloseReason) {
        self.closed[reason as usize].increment(1);
    }

    pub(super) fn login(&self, result: LoginResult) {
        self.logins[result as usize].increment(1);
    }

    /// Counts a frame that ends its session. Nothing in it can be trusted, including its codec.
    pub(super) fn refused(&self, reason: RejectionReason) {
        self.frames_refused[reason as usize].increment(1);
    }

    /// Counts a frame with a right checksum that goes to quarantine.
    pub(super) fn undecodable(&self, codec: FrameCodec, reason: RejectionReason) {
        let known = codec.0.zip(UNDECODABLE.iter().position(|undecodable| *undecodable == reason));
        match known {
            Some((codec, reason)) => self.frames_undecodable[codec][reason].increment(1),
            None => self.refused(reason),
        }
    }

    pub(super) fn avl_frame(&self, codec: AvlCodec, records: u8) {
        self.frames_accepted[codec as usize].increment(1);
        self.records_received[codec as usize].increment(records.into());
    }

    pub(super) fn message(&self, codec: MessageCodec) {
        self.frames_accepted[AvlCodec::ALL.len() + codec as usize].increment(1);
        self.messages[codec as usize].increment(1);
    }
}

/// The result of a login; also a metric label.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LoginResult {
    /// The tracker may send.
    Accepted,
    /// The first bytes were no login.
    NoLogin,
    /// The device is not registered.
    Unknown,
    /// There has never been a list of registered devices.
    AdmissionUnknown,
}

impl LoginResult {
    /// Every result, in declaration order.
    pub const ALL: [Self; 4] = [Self::Accepted, Self::NoLogin, Self::Unknown, Self::AdmissionUnknown];

    /// The label.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Accepted => "accepted",
            Self::NoLogin => "refused",
            Self::Unknown => "unknown",
            Self::AdmissionUnknown => "admission_unknown",
        }
    }
}

/// The codec of a frame as a label.
#[derive(Clone, Copy, Debug)]
pub(super) struct FrameCodec(Option<usize>);

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
/// Why a frame of a known codec with a right checksum cannot be decoded.
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
