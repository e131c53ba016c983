//! Why a session ended: the log field and the metric label.

use std::fmt;

use teltonika_codecs::RejectionReason;

/// Why a session ended. Each session has exactly one reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CloseReason {
    /// The tracker closed the connection, as it does when it has nothing more to send.
    PeerClosed,
    /// The connection broke.
    ConnectionLost,
    /// The login was not complete in time.
    LoginTimeout,
    /// A frame began and did not end in time.
    FrameTimeout,
    /// The peer sent nothing for too long.
    IdleTimeout,
    /// The peer does not take our answer.
    WriteTimeout,
    /// The first bytes are no login, but HTTP, TLS or noise.
    NotATracker,
    /// The login does not carry 15 digits.
    BadImei,
    /// Only registered devices are admitted. This one is not registered, and its login was refused.
    UnknownDevice,
    /// Only registered devices are admitted, and there has never been a list of them. The tracker tries again later.
    AdmissionUnknown,
    /// The device was registered at its login and is not any more.
    DeviceRemoved,
    /// A second login named another IMEI.
    ImeiChanged,
    /// The bytes begin neither a ping nor a frame.
    FramingLost,
    /// A frame is longer than the limit.
    TooLarge,
    /// A frame has a wrong CRC. It is not acknowledged, so that the tracker sends it again.
    CrcMismatch,
    /// No receipt came for longer than any tracker waits.
    NoReceipt,
    /// The address has as many connections as it may.
    AddressLimit,
    /// Newer sockets of the same device took its place.
    Replaced,
    /// The service stops, or its journal has failed and takes nothing more.
    Stopping,
}

impl CloseReason {
    /// Every reason, in declaration order.
    pub const ALL: [Self; 19] = [
        Self::PeerClosed,
        Self::ConnectionLost,
        Self::LoginTimeout,
        Self::FrameTimeout,
        Self::IdleTimeout,
        Self::WriteTimeout,
        Self::NotATracker,
        Self::BadImei,
        Self::UnknownDevice,
        Self::AdmissionUnknown,
        Self::DeviceRemoved,
        Self::ImeiChanged,
        Self::FramingLost,
        Self::TooLarge,
        Self::CrcMismatch,
        Self::NoReceipt,
        Self::AddressLimit,
        Self::Replaced,
        Self::Stopping,
    ];

    /// The label.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::PeerClosed => "peer_closed",
            Self::ConnectionLost => "connection_lost",
            Self::LoginTimeout => "login_timeout",
            Self::FrameTimeout => "frame_timeout",
            Self::IdleTimeout => "idle_timeout",
            Self::WriteTimeout => "write_timeout",
            Self::NotATracker => "not_a_tracker",
            Self::BadImei => "bad_imei",
            Self::UnknownDevice => "unknown_device",
            Self::AdmissionUnknown => "admission_unknown",
            Self::DeviceRemoved => "device_removed",
            Self::ImeiChanged => "imei_changed",
            Self::FramingLost => "framing_lost",
            Self::TooLarge => "too_large",
            Self::CrcMismatch => "crc_mismatch",
            Self::NoReceipt => "no_receipt",
            Self::AddressLimit => "address_limit",
            Self::Replaced => "replaced",
            Self::Stopping => "stopping",
        }
    }

    /// Whether the tracker's data was refused, and not only its link lost. Then an operator should know.
    #[must_use]
    pub const fn refuses_data(self) -> bool {
        matches!(self, Self::TooLarge | Self::CrcMismatch | Self::ImeiChanged)
    }

    /// Whether the tracker may have sent more than was read, and must get the last answer nevertheless.
    pub(crate) const fn closes_gracefully(self) -> bool {
        self.refuses_data()
            || matches!(self, Self::Stopping | Self::Replaced | Self::UnknownDevice | Self::DeviceRemoved)
    }

    /// The reason that a refusal of the codec means for a session that is logged in.
    pub(crate) const fn for_rejection(rejection: RejectionReason) -> Self {
        match rejection {
            RejectionReason::BadImei => Self::BadImei,
            RejectionReason::BadPreamble | RejectionReason::TooShort | RejectionReason::Truncated => Self::FramingLost,
            RejectionReason::TooLarge => Self::TooLarge,
            RejectionReason::CrcMismatch => Self::CrcMismatch,
            // Never asked: a frame that cannot be decoded behind a right checksum is kept, and its session goes on.
            RejectionReason::UnsupportedCodec | RejectionReason::CountMismatch | RejectionReason::BadStructure => {
                Self::CrcMismatch
            }
        }
    }
}

impl fmt::Display for CloseReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_is_in_declaration_order() {
        assert!(CloseReason::ALL.iter().enumerate().all(|(at, reason)| *reason as usize == at));
    }
}
