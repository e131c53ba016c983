//! This machine: open files and the clock.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::finding::{Check, Finding, span};
use crate::config::Settings;
use crate::ingest::drain::{ImplausibleClock, check_clock};

/// Judges what can be asked without waiting.
pub(super) fn findings(settings: &Settings, newest_us: Option<i64>) -> Vec<Finding> {
    let files = rlimit::Resource::NOFILE.get().map(|(_, hard)| hard).map_err(|error| error.to_string());
    vec![listen(settings), file_limit(settings.max_connections, files), clock(now_us(), newest_us)]
}

fn listen(settings: &Settings) -> Finding {
    if settings.listen.ip().is_loopback() {
        let remedy = "ODOGRAPH_LISTEN=0.0.0.0:5027 takes trackers from outside, unless a balancer runs on this machine";
        return Check::Listen.note(format!("{} is this machine only", settings.listen), remedy);
    }
    Check::Listen.ok(settings.listen.to_string())
}

/// `hard` is as far as `serve` raises its limit.
fn file_limit(wanted: Option<usize>, hard: Result<u64, String>) -> Finding {
    let hard = match hard {
        Ok(hard) => hard,
        Err(error) => return Check::FileLimit.unknown(error),
    };
    let connections = hard.saturating_sub(OTHER_FILES);
    let found = format!("{hard} open files as this is run, for {connections} connections");
    let raise = |files: u64| {
        format!(
            "raise it where the service is started: LimitNOFILE={files} in its systemd unit, `ulimit -Hn`, or --ulimit nofile"
        )
    };
    match wanted {
        Some(wanted) if wanted as u64 > connections => Check::FileLimit
            .wrong(format!("{found}, and ODOGRAPH_MAX_CONNECTIONS is {wanted}"), raise(wanted as u64 + OTHER_FILES)),
        None if hard < TOO_FEW => Check::FileLimit.wrong(found, raise(USUAL)),
        None if hard < FEW => Check::FileLimit.note(found, raise(USUAL)),
        _ => Check::FileLimit.ok(found),
    }
}

fn clock(now_us: i64, newest_us: Option<i64>) -> Finding {
    let remedy = "set it by the network (systemd-timesyncd, chrony); where the journal is what is wrong, `odograph serve \
                  --accept-clock` goes on";
    match check_clock(now_us, newest_us) {
        None => Check::Clock.ok("after the build of this program and the journal's newest entry"),
        Some(ImplausibleClock::BeforeBuild) => Check::Clock.wrong("before the build of this program", remedy),
        Some(ImplausibleClock::BeforeJournal { behind }) => {
            Check::Clock.wrong(format!("{} before the journal's newest entry", span(behind)), remedy)
        }
    }
}

/// The server's clock against ours, both in microseconds.
pub(super) fn database_clock(server_us: i64, now_us: i64) -> Finding {
    let apart = Duration::from_micros(server_us.abs_diff(now_us));
    let which = if server_us > now_us { "ahead of" } else { "behind" };
    let found = format!("the server's clock is {} {which} this machine's", span(apart));
    let remedy = "set both by the network: receive times and what retention drops depend on them";
    match apart.as_secs() {
        0..=5 => Check::DatabaseClock.ok(found),
        6..=60 => Check::DatabaseClock.note(found, remedy),
        _ => Check::DatabaseClock.wrong(found, remedy),
    }
}

pub(super) fn now_us() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_micros()).unwrap_or(i64::MAX)
}

/// As `serve` leaves for journal, database and logs.
const OTHER_FILES: u64 = 192;
const TOO_FEW: u64 = 1_024;
/// The default of many systems; a fleet of a few thousand needs more.
const FEW: u64 = 4_096;
const USUAL: u64 = 65_536;

#[cfg(test)]
mod tests {
    use super::super::CheckStatus::{Note, Ok as Fine, Unknown, Wrong};
    use super::*;
    use crate::ingest::drain::BUILT_US;

    #[test]
    fn open_files_have_to_allow_the_connections() {
        assert_eq!(file_limit(None, Ok(1 << 20)).status, Fine);
        assert_eq!(file_limit(None, Ok(1_024)).status, Note);
        assert_eq!(file_limit(None, Ok(256)).status, Wrong);
        assert_eq!(file_limit(Some(100), Ok(1_024)).status, Fine);
        let low = file_limit(Some(20_000), Ok(4_096));
        assert_eq!(low.status, Wrong);
        assert!(low.remedy.unwrap().contains("LimitNOFILE=20192"));
        assert_eq!(file_limit(None, Err("no".to_owned())).status, Unknown);
    }

    #[test]
    fn a_clock_before_build_or_journal_is_wrong() {
        assert_eq!(clock(BUILT_US + 1, Some(BUILT_US)).status, Fine);
        assert_eq!(clock(BUILT_US - 1, None).status, Wrong);
        let found = clock(BUILT_US, Some(BUILT_US + 3_600_000_000));
        assert!(found.status == Wrong && found.found.contains("1h before"), "{found:?}");
    }

    #[test]
    fn two_clocks_may_be_seconds_apart_and_not_minutes() {
        let second = 1_000_000;
        assert_eq!(database_clock(5 * second, 0).status, Fine);
        assert_eq!(database_clock(0, 6 * second).status, Note);
        let found = database_clock(61 * second, 0);
        assert!(found.status == Wrong && found.found.contains("1m 1s ahead of"), "{found:?}");
    }

    #[test]
    fn a_listener_on_loopback_is_said() {
        let settings =
            |listen| Settings::load(&crate::config::Lookup::from_variables([("ODOGRAPH_LISTEN", listen)])).unwrap();
        assert_eq!(listen(&settings("127.0.0.1:5027")).status, Note);
        assert_eq!(listen(&settings("0.0.0.0:5027")).status, Fine);
    }
}
