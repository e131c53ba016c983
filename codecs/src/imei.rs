//! The device identity: exactly 15 ASCII digits, leading zeros included. No checksum rule (section 1.1).

use std::fmt;
use std::str::FromStr;

/// An IMEI: a number of exactly 15 decimal digits, kept as that number.
///
/// `Display` writes all 15 digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Imei(u64);

impl Imei {
    /// Digits of an IMEI.
    pub const LEN: usize = 15;
    const END: u64 = 1_000_000_000_000_000;

    /// Reads 15 ASCII digits; anything else gives the index of the first byte that is not one.
    ///
    /// # Errors
    /// [`InvalidImei`] with the index of the offending byte, or the length where that is not 15.
    pub fn from_ascii(digits: &[u8]) -> Result<Self, InvalidImei> {
        let mut number = 0_u64;
        for (at, byte) in digits.iter().take(Self::LEN).enumerate() {
            if !byte.is_ascii_digit() {
                return Err(InvalidImei { at });
            }
            number = number * 10 + u64::from(byte - b'0');
        }
        if digits.len() == Self::LEN { Ok(Self(number)) } else { Err(InvalidImei { at: digits.len().min(Self::LEN) }) }
    }

    /// Reads the eight bytes of packed decimal that Codec 14 and 15 carry: a zero nibble, then 15 digits (section 4).
    #[must_use]
    pub fn from_packed(packed: [u8; 8]) -> Option<Self> {
        let number = u64::from_be_bytes(packed);
        let mut value = 0_u64;
        for shift in (0..16).rev() {
            let digit = (number >> (4 * shift)) & 0xF;
            if digit > 9 {
                return None;
            }
            value = value * 10 + digit;
        }
        Self::try_from(value).ok()
    }

    /// The eight bytes of packed decimal that Codec 14 and 15 carry.
    #[must_use]
    pub fn to_packed(self) -> [u8; 8] {
        let (mut rest, mut packed) = (self.0, 0_u64);
        for nibble in 0..Self::LEN {
            packed |= (rest % 10) << (4 * nibble);
            rest /= 10;
        }
        packed.to_be_bytes()
    }

    /// The 15 ASCII digits as a login carries them.
    #[must_use]
    pub fn to_ascii(self) -> [u8; Self::LEN] {
        let (mut rest, mut digits) = (self.0, [b'0'; Self::LEN]);
        for digit in digits.iter_mut().rev() {
            *digit = b'0' + u8::try_from(rest % 10).unwrap_or(0);
            rest /= 10;
        }
        digits
    }

    /// The number, below 10^15: it fits a signed 64-bit column.
    #[must_use]
    pub const fn get(self) -> u64 {
        self.0
    }
}

/// Not an IMEI: the index of the first byte that cannot belong to one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("an IMEI is exactly 15 digits; wrong at index {at}")]
pub struct InvalidImei {
    /// Index of the offending byte.
    pub at: usize,
}

impl TryFrom<u64> for Imei {
    type Error = InvalidImei;

    fn try_from(number: u64) -> Result<Self, InvalidImei> {
        if number < Self::END { Ok(Self(number)) } else { Err(InvalidImei { at: Self::LEN }) }
    }
}

impl From<Imei> for u64 {
    fn from(imei: Imei) -> Self {
        imei.0
    }
}

impl FromStr for Imei {
    type Err = InvalidImei;

    fn from_str(text: &str) -> Result<Self, InvalidImei> {
        Self::from_ascii(text.as_bytes())
    }
}

impl fmt::Display for Imei {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:015}", self.0)
    }
}

impl fmt::Debug for Imei {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Imei({:015})", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn leading_zeros_survive_every_form() {
        let imei: Imei = "001000000000042".parse().expect("15 digits");
        assert_eq!(imei.get(), 1_000_000_000_042);
        assert_eq!(imei.to_string(), "001000000000042");
        assert_eq!(&imei.to_ascii(), b"001000000000042");
        assert_eq!(Imei::from_packed(imei.to_packed()), Some(imei));
        assert_eq!(Imei::try_from(imei.get()), Ok(imei));
    }

    #[test]
    fn everything_but_15_digits_is_refused_where_it_goes_wrong() {
        assert_eq!("35630704244101".parse::<Imei>(), Err(InvalidImei { at: 14 }));
        assert_eq!("3563070424410133".parse::<Imei>(), Err(InvalidImei { at: 15 }));
        assert_eq!("35630704a441013".parse::<Imei>(), Err(InvalidImei { at: 8 }));
        assert_eq!(Imei::from_packed([0x13, 0x52, 0x09, 0x30, 0x81, 0x45, 0x22, 0x51]), None, "16 digits");
        assert_eq!(Imei::from_packed([0x0A, 0x52, 0x09, 0x30, 0x81, 0x45, 0x22, 0x51]), None, "not a digit");
        assert!(Imei::try_from(1_000_000_000_000_000).is_err());
    }
}
