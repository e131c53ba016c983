//! The typed columns of I/O elements: the only table from element id to column. Tests check SQL and documentation against
//! it.

use teltonika_codecs::Value;

/// The SQL type of a typed column.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ColumnType {
    /// `boolean`: wire 0 or 1.
    Boolean,
    /// `smallint`.
    SmallInt,
    /// `integer`.
    Integer,
    /// `bigint`.
    BigInt,
    /// `real`, a tenth of the wire integer (dilution of precision, element table).
    RealTenths,
}

/// One I/O element with a column of its own.
#[derive(Clone, Copy, Debug)]
pub struct ElementColumn {
    /// The element id.
    pub id: u16,
    /// The column.
    pub name: &'static str,
    /// Its type.
    pub column_type: ColumnType,
    /// Bytes on the wire by the vendor's element table. Another width means another element (of another model or
    /// firmware), so its raw value goes to `io`.
    pub width: u8,
    /// Whether the wire integer is two's complement.
    pub signed: bool,
}

impl ElementColumn {
    const fn new(id: u16, name: &'static str, column_type: ColumnType, width: u8) -> Self {
        Self { id, name, column_type, width, signed: false }
    }

    const fn signed(id: u16, name: &'static str, column_type: ColumnType, width: u8) -> Self {
        Self { id, name, column_type, width, signed: true }
    }

    /// Converts a raw value to the column's: an integer, tenths for a `real`, 0 or 1 for a `boolean`. `None` if value or
    /// width does not fit the column.
    #[must_use]
    #[inline]
    pub fn fit(&self, value: Value<'_>) -> Option<i64> {
        if matches!(value, Value::Bytes(_)) || value.width() != usize::from(self.width) {
            return None;
        }
        let number = if self.signed { value.signed()? } else { i64::try_from(value.unsigned()?).ok()? };
        self.holds(number).then_some(number)
    }

    /// Whether the column can hold the value. No typed element has more than four bytes.
    #[must_use]
    #[inline]
    pub fn holds(&self, number: i64) -> bool {
        if number < 0 && !self.signed {
            return false;
        }
        match self.column_type {
            ColumnType::Boolean => (0..=1).contains(&number),
            ColumnType::SmallInt => i16::try_from(number).is_ok(),
            ColumnType::Integer => i32::try_from(number).is_ok(),
            ColumnType::RealTenths => u16::try_from(number).is_ok(),
            ColumnType::BigInt => u32::try_from(number).is_ok(),
        }
    }
}

/// Number of typed columns.
pub const ELEMENT_COLUMNS: usize = 26;

/// Every typed element, in the order of the columns.
pub const ELEMENTS: [ElementColumn; ELEMENT_COLUMNS] = [
    ElementColumn::new(239, "ignition", ColumnType::Boolean, 1),
    ElementColumn::new(240, "movement", ColumnType::Boolean, 1),
    ElementColumn::new(303, "instant_movement", ColumnType::Boolean, 1),
    ElementColumn::new(1, "digital_input_1", ColumnType::Boolean, 1),
    ElementColumn::new(2, "digital_input_2", ColumnType::Boolean, 1),
    ElementColumn::new(179, "digital_output_1", ColumnType::Boolean, 1),
    ElementColumn::new(9, "analog_input_1_mv", ColumnType::Integer, 2),
    ElementColumn::new(66, "external_voltage_mv", ColumnType::Integer, 2),
    ElementColumn::new(67, "battery_voltage_mv", ColumnType::Integer, 2),
    ElementColumn::new(68, "battery_current_ma", ColumnType::Integer, 2),
    ElementColumn::new(113, "battery_level_pct", ColumnType::SmallInt, 1),
    ElementColumn::new(16, "total_odometer_m", ColumnType::BigInt, 4),
    ElementColumn::new(199, "trip_odometer_m", ColumnType::BigInt, 4),
    ElementColumn::new(24, "io_speed_kmh", ColumnType::Integer, 2),
    ElementColumn::new(21, "gsm_signal", ColumnType::SmallInt, 1),
    ElementColumn::new(241, "gsm_operator", ColumnType::BigInt, 4),
    ElementColumn::new(205, "gsm_cell_id", ColumnType::Integer, 2),
    ElementColumn::new(206, "gsm_area_code", ColumnType::Integer, 2),
    ElementColumn::new(69, "gnss_status", ColumnType::SmallInt, 1),
    ElementColumn::new(181, "pdop", ColumnType::RealTenths, 2),
    ElementColumn::new(182, "hdop", ColumnType::RealTenths, 2),
    ElementColumn::new(80, "data_mode", ColumnType::SmallInt, 1),
    ElementColumn::new(200, "sleep_mode", ColumnType::SmallInt, 1),
    ElementColumn::signed(17, "axis_x_mg", ColumnType::SmallInt, 2),
    ElementColumn::signed(18, "axis_y_mg", ColumnType::SmallInt, 2),
    ElementColumn::signed(19, "axis_z_mg", ColumnType::SmallInt, 2),
];

/// The index in [`ELEMENTS`] of an element id.
#[must_use]
#[inline]
pub fn column_of(id: u16) -> Option<usize> {
    let index = *INDEX.get(usize::from(id))?;
    (index != NO_COLUMN).then_some(usize::from(index))
}

const NO_COLUMN: u8 = u8::MAX;
const INDEX_LEN: usize = 304;
/// From element id to index, so that a record's elements find their columns without a search.
const INDEX: [u8; INDEX_LEN] = {
    let mut index = [NO_COLUMN; INDEX_LEN];
    let mut column = 0_u8;
    while (column as usize) < ELEMENT_COLUMNS {
        index[ELEMENTS[column as usize].id as usize] = column;
        column += 1;
    }
    index
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_element_finds_its_column_and_no_other_id_does() {
        let found: Vec<_> = (0..=u16::MAX).filter_map(|id| column_of(id).map(|at| (id, at))).collect();
        assert_eq!(found.len(), ELEMENT_COLUMNS);
        assert!(found.iter().all(|(id, at)| ELEMENTS[*at].id == *id));
    }

    #[test]
    fn a_value_or_width_that_does_not_fit_stays_out_of_the_column() {
        let fit = |id, value| ELEMENTS[column_of(id).unwrap()].fit(value);
        assert_eq!(fit(239, Value::U8(1)), Some(1));
        assert_eq!(fit(239, Value::U8(2)), None, "not a boolean");
        assert_eq!(fit(66, Value::U16(65535)), Some(65535));
        assert_eq!(fit(66, Value::U32(12000)), None, "another width");
        assert_eq!(fit(66, Value::Bytes(&[1, 2])), None, "variable length, even of the right width");
        assert_eq!(fit(17, Value::U16(0xFFFE)), Some(-2));
        assert_eq!(fit(16, Value::U32(u32::MAX)), Some(4_294_967_295));
    }
}
