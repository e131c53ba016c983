//! The codecs and their ids on the wire (section 4.1).

/// The codecs that carry records.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum AvlCodec {
    /// 0x08: one-byte ids and counts.
    Codec8,
    /// 0x8E, "8 Extended": two-byte ids and counts, and elements of variable length.
    Codec8E,
    /// 0x10: two-byte ids and a generation type.
    Codec16,
}

impl AvlCodec {
    /// Every codec of this kind.
    pub const ALL: [Self; 3] = [Self::Codec8, Self::Codec8E, Self::Codec16];

    /// The codec of a wire id.
    #[must_use]
    pub const fn from_id(id: u8) -> Option<Self> {
        match id {
            0x08 => Some(Self::Codec8),
            0x8E => Some(Self::Codec8E),
            0x10 => Some(Self::Codec16),
            _ => None,
        }
    }

    /// The id on the wire.
    #[must_use]
    pub const fn id(self) -> u8 {
        match self {
            Self::Codec8 => 0x08,
            Self::Codec8E => 0x8E,
            Self::Codec16 => 0x10,
        }
    }

    /// The vendor's name: "8", "8E" or "16".
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Codec8 => "8",
            Self::Codec8E => "8E",
            Self::Codec16 => "16",
        }
    }
}

/// The codecs that carry messages. None of them is ever answered with a count (section 1.4).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum MessageCodec {
    /// 0x0C: command or response.
    Codec12,
    /// 0x0D: with a timestamp in seconds.
    Codec13,
    /// 0x0E: with the IMEI.
    Codec14,
    /// 0x0F: with both.
    Codec15,
}

impl MessageCodec {
    /// Every codec of this kind.
    pub const ALL: [Self; 4] = [Self::Codec12, Self::Codec13, Self::Codec14, Self::Codec15];

    /// The codec of a wire id.
    #[must_use]
    pub const fn from_id(id: u8) -> Option<Self> {
        match id {
            0x0C => Some(Self::Codec12),
            0x0D => Some(Self::Codec13),
            0x0E => Some(Self::Codec14),
            0x0F => Some(Self::Codec15),
            _ => None,
        }
    }

    /// The id on the wire.
    #[must_use]
    pub const fn id(self) -> u8 {
        match self {
            Self::Codec12 => 0x0C,
            Self::Codec13 => 0x0D,
            Self::Codec14 => 0x0E,
            Self::Codec15 => 0x0F,
        }
    }

    /// The vendor's name: "12" to "15".
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Codec12 => "12",
            Self::Codec13 => "13",
            Self::Codec14 => "14",
            Self::Codec15 => "15",
        }
    }

    /// Whether messages carry a timestamp.
    pub(crate) const fn has_timestamp(self) -> bool {
        matches!(self, Self::Codec13 | Self::Codec15)
    }

    /// Whether messages carry the IMEI of the device.
    pub(crate) const fn has_imei(self) -> bool {
        matches!(self, Self::Codec14 | Self::Codec15)
    }
}
