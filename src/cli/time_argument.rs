//! Times on the command line: a date, a date with a time, or a duration that means that long ago.

use std::time::{Duration, SystemTime};

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// Parses a time to microseconds since 1970-01-01 UTC: `2026-05-02`, `2026-05-02T07:41Z`, `2026-05-02T07:41:30+02:00`, or a
/// duration such as `24h` for that long ago. A time without an offset is UTC.
pub(super) fn parse_time(text: &str) -> Result<i64, String> {
    let error =
        || format!("expected a time such as 2026-05-02, 2026-05-02T07:41Z or 24h (that long ago), not \"{text}\"");
    let ago = text.trim().trim_end_matches("ago").trim_end();
    if let Ok(ago) = humantime::parse_duration(ago) {
        return SystemTime::now().checked_sub(ago).and_then(micros).ok_or_else(error);
    }
    let whole = completed(text.trim()).ok_or_else(error)?;
    let time = OffsetDateTime::parse(&whole, &Rfc3339).map_err(|_| error())?;
    i64::try_from(time.unix_timestamp_nanos() / 1000).map_err(|_| error())
}

/// Adds what the text leaves out: seconds, time, offset.
fn completed(text: &str) -> Option<String> {
    let (date, rest) = text.split_at_checked("2026-05-02".len())?;
    let rest = rest.strip_prefix(['T', 't', ' ']).unwrap_or(rest);
    let zone = rest.find(['Z', 'z', '+', '-']);
    let (clock, zone) = zone.map_or((rest, "Z"), |at| rest.split_at(at));
    let clock = match clock.len() {
        0 if zone == "Z" => "00:00:00".to_owned(),
        5 => format!("{clock}:00"),
        _ => clock.to_owned(),
    };
    Some(format!("{date}T{clock}{}", zone.to_ascii_uppercase()))
}

fn micros(time: SystemTime) -> Option<i64> {
    i64::try_from(time.duration_since(SystemTime::UNIX_EPOCH).ok()?.as_micros()).ok()
}

/// A time for people, to the millisecond.
pub(super) fn format_time(us: i64) -> String {
    match u64::try_from(us) {
        Ok(us) if us < LAST_SHOWN_US => {
            humantime::format_rfc3339_millis(SystemTime::UNIX_EPOCH + Duration::from_micros(us)).to_string()
        }
        _ => format!("{us} us"),
    }
}

/// The end of the year 9999: the formatter refuses later times.
const LAST_SHOWN_US: u64 = 253_402_300_800_000_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_may_leave_out_seconds_time_and_offset() {
        for (text, shows) in [
            ("2026-05-02", "2026-05-02T00:00:00.000Z"),
            ("2026-05-02T07:41", "2026-05-02T07:41:00.000Z"),
            ("2026-05-02 07:41", "2026-05-02T07:41:00.000Z"),
            ("2026-05-02T07:41Z", "2026-05-02T07:41:00.000Z"),
            ("2026-05-02T07:41:30.5z", "2026-05-02T07:41:30.500Z"),
            ("2026-05-02T07:41:30+02:00", "2026-05-02T05:41:30.000Z"),
            ("2026-05-02T07:41-02:00", "2026-05-02T09:41:00.000Z"),
        ] {
            assert_eq!(parse_time(text).map(format_time).as_deref(), Ok(shows), "{text}");
        }
        for text in ["", "yesterday", "2026-05", "2026-13-01", "2026-05-02T25:00", "2026-05-02+02:00", "24", "-3h"] {
            assert!(parse_time(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_duration_is_that_long_ago() {
        let now = micros(SystemTime::now()).unwrap();
        for text in ["2h", "2h ago", "120m"] {
            let ago = now - parse_time(text).unwrap();
            assert!((7_199_000_000..7_260_000_000).contains(&ago), "{text}: {ago}");
        }
    }
}
