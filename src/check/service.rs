//! The running service, asked at its admin listener.

use std::io::ErrorKind;
use std::net::SocketAddr;

use super::finding::{Check, Finding};
use crate::admin_client::{AdminClient, AdminError};
use crate::health::Reason;

/// What the admin listener said.
#[derive(Debug)]
pub(super) enum ServiceFacts {
    /// Nobody listens there.
    Away,
    /// Somebody does, and is no service that could be understood.
    Strange(String),
    /// A service.
    Up(RunningService),
}

/// A service that answers.
#[derive(Debug, Default)]
pub(super) struct RunningService {
    pub(super) ready: bool,
    pub(super) reasons: Vec<String>,
    /// Trackers that are connected.
    pub(super) connections: Option<f64>,
    open_files: Option<f64>,
    most_files: Option<f64>,
}

impl ServiceFacts {
    /// Whether a service runs here.
    pub(super) fn is_up(&self) -> bool {
        matches!(self, Self::Up(_))
    }
}

/// Asks for both pages. Their status does not matter: the body of `/readyz` says more.
pub(super) async fn read(listen: SocketAddr) -> ServiceFacts {
    let client = AdminClient::new(listen);
    let host = client.host();
    match tokio::try_join!(client.get("/readyz"), client.get("/metrics")) {
        Ok((ready, metrics)) => understand(&ready.body, &metrics.body)
            .unwrap_or_else(|| ServiceFacts::Strange(format!("{host} is another program"))),
        Err(AdminError::Connect(error)) if error.kind() == ErrorKind::ConnectionRefused => ServiceFacts::Away,
        Err(error) => ServiceFacts::Strange(format!("{host}: {error}")),
    }
}

fn understand(ready: &str, metrics: &str) -> Option<ServiceFacts> {
    let ready: serde_json::Value = serde_json::from_str(ready).ok()?;
    let reasons = ready.get("reasons")?.as_array()?.iter().filter_map(|reason| reason.as_str()).map(str::to_owned);
    let value = |name: &str| metrics.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok());
    metrics.contains("odograph_build_info").then_some(())?;
    Some(ServiceFacts::Up(RunningService {
        ready: ready.get("ready")?.as_bool()?,
        reasons: reasons.collect(),
        connections: value("odograph_connections_open"),
        open_files: value("process_open_fds"),
        most_files: value("process_max_fds"),
    }))
}

pub(super) fn findings(facts: &ServiceFacts) -> Vec<Finding> {
    match facts {
        ServiceFacts::Away => vec![
            Check::Service.note(
                "no service runs here",
                "start `odograph serve` with the same settings; if it runs elsewhere, run this there, or name it in ODOGRAPH_ADMIN_LISTEN",
            ),
            Check::ServiceFiles.unknown("no service runs here"),
        ],
        ServiceFacts::Strange(what) => vec![
            Check::Service.wrong(
                what,
                "see which program listens there (`ss -ltnp`); if it is odograph, it hangs: its log says more",
            ),
            Check::ServiceFiles.unknown("the service does not answer"),
        ],
        ServiceFacts::Up(up) => vec![service(up), files(up)],
    }
}

fn service(up: &RunningService) -> Finding {
    let trackers = up.connections.map_or(String::new(), |open| format!(", {open:.0} trackers connected"));
    if up.reasons.is_empty() && up.ready {
        return Check::Service.ok(format!("ready{trackers}"));
    }
    let found = format!("{}: {}{trackers}", if up.ready { "ready" } else { "not ready" }, up.reasons.join(", "));
    let remedies = Reason::ALL.into_iter().filter(|reason| up.reasons.iter().any(|r| r == reason.as_str()));
    let remedy = remedies.map(remedy).collect::<Vec<_>>().join("; ");
    let remedy = if remedy.is_empty() { "the service's log says more" } else { &remedy };
    let passes = |reason: &String| PASSING.iter().any(|passing| passing.as_str() == reason);
    if up.ready && up.reasons.iter().all(passes) {
        Check::Service.note(found, remedy)
    } else {
        Check::Service.wrong(found, remedy)
    }
}

/// Reasons that end by themselves once the peer is back. Others need the operator, even if trackers are served meanwhile.
const PASSING: [Reason; 3] = [Reason::StoreDown, Reason::Backlog, Reason::RedisDown];

/// What helps against a reason of `/readyz`.
fn remedy(reason: Reason) -> &'static str {
    match reason {
        Reason::Starting | Reason::Stopping => "wait a moment",
        Reason::JournalFull => "the database or the disk has to take what waits: see the findings below",
        Reason::JournalPoisoned => "the disk failed: the service ends and finds out at its next start what is there",
        Reason::JournalGap => "once you know what happened, `odograph serve --accept-gap`",
        Reason::JournalFenced => {
            "another process writes under this journal's id: end it, or give it a data directory of its own"
        }
        Reason::Clock => "set the clock, or `odograph serve --accept-clock`",
        Reason::SchemaOutdated => "run `odograph migrate`",
        Reason::StoreRefuses | Reason::StoreDown => "see `database` and `privileges` below",
        Reason::AdmissionUnknown => "the table `devices` was never read: see `database` and `devices` below",
        Reason::Backlog => "see `last-commit` below",
        Reason::RedisDown | Reason::RedisRefuses => "see `redis` below",
        Reason::ConnectionLimit => "raise ODOGRAPH_MAX_CONNECTIONS and the file limit, or add an instance",
        Reason::FlagsStuck => "the log names the flag and the SQLSTATE; it is tried again every few minutes",
    }
}

fn files(up: &RunningService) -> Finding {
    let check = Check::ServiceFiles;
    let (Some(open), Some(most)) = (up.open_files, up.most_files.filter(|most| *most > 0.0)) else {
        return check.unknown("the service does not say");
    };
    let found = format!("{open:.0} of {most:.0} files are open");
    let remedy =
        "raise the file limit where the service is started (LimitNOFILE), and look for a fleet that never hangs up";
    match open / most {
        used if used > 0.95 => check.wrong(found, remedy),
        used if used > 0.8 => check.note(found, remedy),
        _ => check.ok(found),
    }
}

/// A service that is well.
#[cfg(test)]
pub(super) fn sample(connections: f64) -> ServiceFacts {
    ServiceFacts::Up(RunningService { ready: true, connections: Some(connections), ..RunningService::default() })
}

#[cfg(test)]
mod tests {
    use super::super::CheckStatus::{self, Note, Ok as Fine, Unknown, Wrong};
    use super::*;

    fn statuses(facts: &ServiceFacts) -> Vec<CheckStatus> {
        findings(facts).into_iter().map(|finding| finding.status).collect()
    }

    #[test]
    fn a_service_says_itself_how_it_is() {
        let metrics = "odograph_build_info{version=\"1\"} 1\nprocess_open_fds 90\nprocess_max_fds 100\nodograph_connections_open 7\n";
        let facts = |ready: &str| understand(ready, metrics).unwrap();
        let fine = facts(r#"{"ready":true,"reasons":[]}"#);
        assert_eq!(statuses(&fine), [Fine, Note]);
        assert!(findings(&fine)[0].found.contains("7 trackers"));
        assert_eq!(statuses(&facts(r#"{"ready":true,"reasons":["redis_down"]}"#))[0], Note);
        assert_eq!(statuses(&facts(r#"{"ready":true,"reasons":["store_refuses"]}"#))[0], Wrong);
        let wrong = findings(&facts(r#"{"ready":false,"reasons":["schema_outdated","of_tomorrow"]}"#)).remove(0);
        assert_eq!(wrong.status, Wrong);
        assert!(wrong.found.contains("of_tomorrow") && wrong.remedy.unwrap().contains("odograph migrate"));
        assert!(understand("<html>", metrics).is_none() && understand(r#"{"ready":true,"reasons":[]}"#, "").is_none());
    }

    #[test]
    fn no_service_is_a_note_and_another_program_is_wrong() {
        assert_eq!(statuses(&ServiceFacts::Away), [Note, Unknown]);
        assert_eq!(statuses(&ServiceFacts::Strange("x".into())), [Wrong, Unknown]);
    }

    #[test]
    fn every_reason_has_a_remedy_of_its_own() {
        assert!(Reason::ALL.into_iter().all(|reason| !remedy(reason).is_empty()));
    }
}
