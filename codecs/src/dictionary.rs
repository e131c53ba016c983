//! The element dictionary of FMB920 and FMB003: names, units, scales and signs (section 6).
//!
//! What is on the wire has no sign, unit or name; this table gives them, for reading and for nothing else. Widths always
//! come from the wire: the vendor's are for information.
//!
//! ```
//! use teltonika_codecs::{Value, dictionary::{self, Model}};
//!
//! let voltage = dictionary::element(66).unwrap();
//! assert_eq!((voltage.name, voltage.unit), ("External Voltage", Some("V")));
//! assert_eq!(voltage.scaled(Value::U16(24_079)), Some(24.079));
//!
//! let axis = dictionary::element_of(17, Model::Fmb920).unwrap();
//! assert_eq!(axis.scaled(Value::U16(0xFFFE)), Some(-2.0), "two's complement of the wire's width");
//! ```

use std::fmt;

use crate::element::Value;

/// A tracker model that the dictionary knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Model {
    /// FMB920.
    Fmb920,
    /// FMB003.
    Fmb003,
}

/// Whether a model sends an element.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Support {
    /// The vendor names the model.
    Yes,
    /// The element stands on the model's page and is not the model's.
    No,
    /// The element stands on the model's page without a word on the model.
    Unknown,
}

/// How the bits of a raw value are meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ValueKind {
    /// An unsigned integer.
    Unsigned,
    /// Two's complement of the width on the wire.
    Signed,
    /// An identifier, which people read as hexadecimal digits.
    Id(ByteOrder),
    /// ASCII text.
    Text,
    /// Bytes or an identifier: no number.
    Bytes,
}

/// From which byte on people read an identifier.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ByteOrder {
    /// From the first on the wire.
    First,
    /// From the last on the wire, as it is printed on an iButton.
    Last,
}

/// What a raw value says.
#[derive(Clone, Debug, PartialEq)]
pub enum Reading<'a> {
    /// A number in the element's unit.
    Number(Decimal),
    /// An identifier as people read it: 16 hexadecimal digits.
    Id(String),
    /// Printable text.
    Text(&'a str),
    /// No measurement: an error code of the sensor by its name, or [`OUT_OF_RANGE`]. With the raw number.
    Fault(&'static str, i128),
    /// The dictionary cannot say more than the raw value does.
    Raw,
}

/// The fault of a raw value outside of the vendor's range.
pub const OUT_OF_RANGE: &str = "out of range";

/// An exact decimal number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decimal {
    /// The number without its decimal point.
    digits: i128,
    /// How many of the digits are decimals.
    decimals: u32,
}

impl Decimal {
    /// Whether a reader of JSON may lose digits of it: it is beyond 2^53 in either direction.
    #[must_use]
    pub fn is_beyond_floats(self) -> bool {
        self.digits.unsigned_abs() > (1 << 53) * 10_u128.pow(self.decimals)
    }
}

impl fmt::Display for Decimal {
    /// Without exponent, and without zeros at the end of the decimals.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let one = 10_u128.pow(self.decimals);
        let (whole, rest) = (self.digits.unsigned_abs() / one, self.digits.unsigned_abs() % one);
        let sign = if self.digits < 0 { "-" } else { "" };
        if rest == 0 {
            return write!(f, "{sign}{whole}");
        }
        let decimals = format!("{rest:0width$}", width = self.decimals as usize);
        write!(f, "{sign}{whole}.{}", decimals.trim_end_matches('0'))
    }
}

/// One element of the dictionary.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ElementInfo {
    /// The element id.
    pub id: u16,
    /// The vendor's name.
    pub name: &'static str,
    /// The vendor's width in bytes; `None` for variable length or where the vendor does not say.
    pub vendor_width: Option<u8>,
    /// How to read the bits.
    pub kind: ValueKind,
    /// The unit of the scaled value.
    pub unit: Option<&'static str>,
    /// On FMB920.
    pub fmb920: Support,
    /// On FMB003.
    pub fmb003: Support,
    /// The vendor's group: `permanent`, `eventual`, `obd`, …
    pub group: &'static str,
    /// What it means.
    pub description: &'static str,
    /// The vendor's range of the raw number, both ends included.
    pub range: Option<(i128, i128)>,
    /// Raw numbers that are errors of the sensor, and their names.
    pub faults: &'static [(i128, &'static str)],
    numerator: u32,
    decimals: u32,
}

impl ElementInfo {
    /// Value of one raw step, in [`ElementInfo::unit`].
    #[must_use]
    pub fn multiplier(&self) -> f64 {
        f64::from(self.numerator) / f64::from(10_u32.pow(self.decimals))
    }

    /// Whether a model sends this element.
    #[must_use]
    pub const fn support(&self, model: Model) -> Support {
        match model {
            Model::Fmb920 => self.fmb920,
            Model::Fmb003 => self.fmb003,
        }
    }

    /// The number that a raw value stands for: signed as the dictionary says, scaled, in [`ElementInfo::unit`]. `None`
    /// for text, bytes, and values of variable length. Exact up to 2^53, above that the nearest float.
    #[must_use]
    pub fn scaled(&self, value: Value<'_>) -> Option<f64> {
        #[expect(clippy::cast_precision_loss, reason = "the documented limit of a float")]
        let number = match self.kind {
            ValueKind::Unsigned => value.unsigned()? as f64,
            ValueKind::Signed => value.signed()? as f64,
            ValueKind::Id(_) | ValueKind::Text | ValueKind::Bytes => return None,
        };
        Some(number * f64::from(self.numerator) / f64::from(10_u32.pow(self.decimals)))
    }

    /// What a raw value says. The views of both databases say the same (`tests/store/named_values.rs`).
    #[must_use]
    pub fn reading<'a>(&self, value: Value<'a>) -> Reading<'a> {
        let raw: i128 = match (self.kind, value) {
            (ValueKind::Text, Value::Bytes(bytes)) => return text(bytes).map_or(Reading::Raw, Reading::Text),
            (ValueKind::Text | ValueKind::Bytes, _) | (_, Value::Bytes(_)) => return Reading::Raw,
            (ValueKind::Id(order), value) => {
                let Some(number) = value.unsigned() else { return Reading::Raw };
                let number = if order == ByteOrder::Last { number.swap_bytes() } else { number };
                return Reading::Id(format!("{number:016X}"));
            }
            (ValueKind::Unsigned, value) => value.unsigned().unwrap_or_default().into(),
            (ValueKind::Signed, value) => value.signed().unwrap_or_default().into(),
        };
        if let Some((_, name)) = self.faults.iter().find(|(code, _)| *code == raw) {
            return Reading::Fault(name, raw);
        }
        match self.range {
            Some((least, most)) if raw < least || raw > most => Reading::Fault(OUT_OF_RANGE, raw),
            _ => Reading::Number(Decimal { digits: raw * i128::from(self.numerator), decimals: self.decimals }),
        }
    }
}

/// Printable ASCII, the only text that trackers send; zeros fill it up to its length.
fn text(bytes: &[u8]) -> Option<&str> {
    let end = bytes.iter().rposition(|byte| *byte != 0)? + 1;
    let text = std::str::from_utf8(bytes.get(..end)?).ok()?;
    text.bytes().all(|byte| (b' '..=b'~').contains(&byte)).then_some(text)
}

/// The dictionary's entry for an id, whatever the model.
#[must_use]
pub fn element(id: u16) -> Option<&'static ElementInfo> {
    let at = ELEMENTS.binary_search_by_key(&id, |element| element.id).ok()?;
    ELEMENTS.get(at)
}

/// The entry for an id where the model may send it: the vendor names the model, or does not say.
#[must_use]
pub fn element_of(id: u16, model: Model) -> Option<&'static ElementInfo> {
    element(id).filter(|element| element.support(model) != Support::No)
}

/// Every entry, by ascending id.
#[must_use]
pub fn all() -> &'static [ElementInfo] {
    ELEMENTS
}

#[expect(clippy::unreadable_literal, reason = "made by the build")]
static ELEMENTS: &[ElementInfo] = include!(concat!(env!("OUT_DIR"), "/dictionary.rs"));

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_the_file() {
        let lines = include_str!("../data/avl_ids.csv").lines().skip(1);
        assert_eq!(lines.clone().count(), all().len());
        assert!(all().windows(2).all(|pair| pair[0].id < pair[1].id));
        for line in lines {
            let mut fields = line.split(',');
            let id = fields.next().and_then(|id| id.parse().ok()).unwrap();
            let name = fields.next().unwrap();
            let found = element(id).unwrap();
            assert!(name.starts_with('"') || found.name == name, "{line}");
        }
        let supported = |model| all().iter().filter(|element| element.support(model) == Support::Yes).count();
        assert_eq!(
            (supported(Model::Fmb920), supported(Model::Fmb003)),
            (240, 267),
            "as the protocol notes count them"
        );
    }

    #[test]
    fn values_are_scaled_signed_and_kept_apart_by_model() {
        let scaled = |id, value| element(id).unwrap().scaled(value);
        assert_eq!(scaled(181, Value::U16(11)), Some(1.1));
        assert_eq!(scaled(25, Value::U16(0xFF9C)), Some(-1.0), "BLE temperature, a hundredth of a degree");
        assert_eq!(scaled(17, Value::U8(0xFF)), Some(-1.0), "the sign is that of the wire's width");
        assert_eq!(scaled(256, Value::Bytes(b"WVW")), None, "text");
        assert_eq!(scaled(66, Value::Bytes(&[1, 2])), None, "no number on the wire");
        assert_eq!(element(65_000), None);
        assert!(element_of(1, Model::Fmb920).is_some());
        assert_eq!(element(3).unwrap().support(Model::Fmb920), Support::No);
        assert_eq!(element_of(3, Model::Fmb920), None);
    }
}
