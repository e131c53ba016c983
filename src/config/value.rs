//! Parses values of settings: durations and sizes with units, numbers, all with a range.

use std::time::Duration;

/// Parses a duration such as `15s`, `500ms` or `45m`, inside `min..=max`.
pub(super) fn duration(text: &str, min: Duration, max: Duration) -> Result<Duration, String> {
    let duration =
        humantime::parse_duration(text).map_err(|e| format!("expected a duration such as 15s or 500ms: {e}"))?;
    if (min..=max).contains(&duration) {
        Ok(duration)
    } else {
        Err(format!("must be between {} and {}", humantime::format_duration(min), humantime::format_duration(max)))
    }
}

/// Parses a size in bytes such as `64MiB`, `512KiB` or `1048576`, inside `min..=max`.
pub(super) fn size(text: &str, min: u64, max: u64) -> Result<u64, String> {
    let text = text.trim();
    let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let (number, unit) = text.split_at(digits);
    let factor = UNITS
        .iter()
        .find(|(name, _)| name.eq_ignore_ascii_case(unit.trim()))
        .map(|(_, factor)| *factor)
        .ok_or_else(|| format!("expected a size in B, KiB, MiB, GiB or TiB, not \"{text}\""))?;
    let bytes =
        number.parse::<u64>().ok().and_then(|n| n.checked_mul(factor)).ok_or("expected a size such as 64MiB")?;
    if (min..=max).contains(&bytes) {
        Ok(bytes)
    } else {
        Err(format!("must be between {} and {}", show_size(min), show_size(max)))
    }
}

/// Formats a size with the largest unit that gives a whole number.
pub(super) fn show_size(bytes: u64) -> String {
    let (unit, factor) = UNITS
        .iter()
        .rev()
        .find(|(_, factor)| bytes >= *factor && bytes.is_multiple_of(*factor))
        .map_or(("B", 1), |(unit, factor)| (*unit, *factor));
    format!("{}{unit}", bytes / factor)
}

/// Parses a whole number inside `min..=max`.
pub(super) fn number(text: &str, min: usize, max: usize) -> Result<usize, String> {
    let number = text.trim().parse::<usize>().map_err(|_| "expected a whole number".to_owned())?;
    if (min..=max).contains(&number) { Ok(number) } else { Err(format!("must be between {min} and {max}")) }
}

/// Ascending; the empty unit is bytes.
const UNITS: [(&str, u64); 6] =
    [("", 1), ("B", 1), ("KiB", 1 << 10), ("MiB", 1 << 20), ("GiB", 1 << 30), ("TiB", 1 << 40)];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_carry_binary_units() {
        assert_eq!(size("256MiB", 1, u64::MAX), Ok(256 << 20));
        assert_eq!(size("7", 1, 10), Ok(7));
        assert_eq!(size("1 gib", 1, u64::MAX), Ok(1 << 30));
        for wrong in ["", "MiB", "12MB", "-1KiB", "99999999999TiB", "1.5GiB"] {
            assert!(size(wrong, 0, u64::MAX).is_err(), "{wrong}");
        }
        assert_eq!(size("1KiB", 2048, 1 << 20), Err("must be between 2KiB and 1MiB".to_owned()));
        assert_eq!(show_size(1500), "1500B");
    }

    #[test]
    fn durations_carry_units_and_keep_their_range() {
        let (min, max) = (Duration::from_secs(1), Duration::from_hours(1));
        assert_eq!(duration("45m", min, max), Ok(Duration::from_mins(45)));
        assert!(duration("45", min, max).is_err());
        assert_eq!(duration("2h", min, max), Err("must be between 1s and 1h".to_owned()));
    }
}
