//! What reached the database: the last commit of each journal, what was quarantined, how long positions stay.

use super::database::{QueryResult, ServerClient, ago, get};
use super::finding::{Check, Finding, size, span};
use super::journal;
use super::service;
use crate::config::Settings;
use odograph_journal::JournalId;

/// How far a journal is written.
#[derive(Clone, Copy, Debug)]
pub(super) struct JournalCheckpoint {
    pub(super) journal: JournalId,
    /// Of its slowest lane.
    pub(super) position: u64,
    /// Seconds since its last commit.
    pub(super) age: f64,
}

/// Quarantined records of the last day, by reason, most first. Counting stops at [`COUNTED`].
pub(super) type QuarantineCounts = Vec<(String, i64)>;

pub(super) async fn read_checkpoints(client: &ServerClient) -> QueryResult<Vec<JournalCheckpoint>> {
    let checkpoint = |row: &tokio_postgres::Row| {
        let journal: uuid::Uuid = get(row, 0)?;
        let position = u64::try_from(get::<i64>(row, 1)?).unwrap_or(0);
        Ok(JournalCheckpoint { journal: JournalId::from_bytes(journal.into_bytes()), position, age: get(row, 2)? })
    };
    client.rows(CHECKPOINTS, &[]).await?.iter().map(checkpoint).collect()
}

pub(super) async fn read_quarantined(client: &ServerClient) -> QueryResult<QuarantineCounts> {
    let counted = |row: &tokio_postgres::Row| Ok((get(row, 0)?, get(row, 1)?));
    client.rows(QUARANTINED, &[]).await?.iter().map(counted).collect()
}

/// How far the database has the journal of this data directory, where it knows it.
pub(super) fn committed(
    kept: &journal::JournalFacts,
    known: &QueryResult<Vec<JournalCheckpoint>>,
) -> Option<QueryResult<u64>> {
    let id = kept.kept.as_ref()?.id;
    match known {
        Ok(known) => known.iter().find(|checkpoint| checkpoint.journal == id).map(|at| Ok(at.position)),
        Err(error) => Some(Err(error.clone())),
    }
}

pub(super) fn last_commit(
    kept: &journal::JournalFacts,
    known: &QueryResult<Vec<JournalCheckpoint>>,
    service: &service::ServiceFacts,
) -> Finding {
    let check = Check::LastCommit;
    let known = match known {
        Ok(known) => known,
        Err(error) => return check.unknown(error),
    };
    let ours = kept.kept.as_ref().map(|kept| (kept.end, known.iter().find(|at| at.journal == kept.id)));
    let others = known.iter().filter(|at| kept.kept.as_ref().is_none_or(|kept| kept.id != at.journal));
    let others: Vec<_> = others.filter(|at| at.age < DAY).map(|at| ago(at.age)).collect();
    let others = match others.as_slice() {
        [] => String::new(),
        some => format!("; other journals committed {} ago", some.join(", ")),
    };
    let (end, age, behind) = match ours {
        None | Some((0, None)) => return check.ok(format!("nothing came in here yet{others}")),
        Some((end, None)) => (end, None, end),
        Some((end, Some(at))) => (end, Some(at.age), end.saturating_sub(at.position)),
    };
    let when = age.map_or("never committed".to_owned(), |age| format!("last commit {} ago", ago(age)));
    if behind == 0 {
        let trackers = match service {
            service::ServiceFacts::Up(up) => up.connections.unwrap_or(0.0),
            service::ServiceFacts::Away | service::ServiceFacts::Strange(_) => 0.0,
        };
        if trackers > 0.0 && age.is_some_and(|age| age > SILENT) {
            return check.note(
                format!("{when}, though {trackers:.0} trackers are connected{others}"),
                "see whether they send (`odograph_records_received_total`): parked ones may be silent for an hour",
            );
        }
        return check.ok(format!("{when}, and everything is in the database{others}"));
    }
    let found = format!("{when}, and {} of {} received are not in the database{others}", size(behind), size(end));
    if !service.is_up() {
        return check.note(found, "start `odograph serve`: it goes on where it stopped, and nothing is lost");
    }
    if age.is_none_or(|age| age > LATE) {
        let remedy = "the service runs and does not commit: its log and `/readyz` say why; see `database`, `schema` and `privileges`";
        return check.wrong(found, remedy);
    }
    check.ok(found)
}

pub(super) fn quarantine(counted: &QueryResult<QuarantineCounts>) -> Finding {
    let check = Check::Quarantine;
    let counted = match counted {
        Ok(counted) => counted,
        Err(error) => return check.unknown(error),
    };
    let total: i64 = counted.iter().map(|(_, count)| count).sum();
    if total == 0 {
        return check.ok("nothing within a day");
    }
    let reasons: Vec<_> = counted.iter().map(|(reason, count)| format!("{reason} {count}")).collect();
    let many = if total >= COUNTED { " or more" } else { "" };
    check.note(
        format!("{total}{many} records within a day: {}", reasons.join(", ")),
        "look at them in quarantined_records: trackers with a wrong clock (`time`), or a frame that this version does not know",
    )
}

pub(super) fn retention(settings: &Settings) -> Finding {
    let check = Check::Retention;
    let Some(age) = settings.retention.positions else {
        return check.ok("positions are kept for ever");
    };
    let found = format!("positions are kept for {}", span(age));
    if age < settings.time_window_past {
        let remedy = "ODOGRAPH_TIME_WINDOW_PAST no longer than ODOGRAPH_RETENTION sends such records to quarantine";
        let late = span(settings.time_window_past);
        return check
            .note(format!("{found}, but records up to {late} old are taken: they stay for an hour at most"), remedy);
    }
    if age < settings.journal.keep() {
        let keep = span(settings.journal.keep());
        let remedy = "ODOGRAPH_RETENTION longer than ODOGRAPH_JOURNAL_KEEP: what is drained again after a restore is dropped otherwise";
        return check.note(format!("{found}, the journal for {keep}"), remedy);
    }
    check.ok(found)
}

/// Seconds after which a running service should have committed what came.
const LATE: f64 = 60.0;
const SILENT: f64 = 3_600.0;
const DAY: f64 = 86_400.0;
const COUNTED: i64 = 100_000;
const CHECKPOINTS: &str = "SELECT journal_id, min(position), extract(epoch FROM now() - max(updated_at))::float8
    FROM ingest_checkpoints GROUP BY journal_id ORDER BY max(updated_at) DESC LIMIT 1000";
const QUARANTINED: &str = "SELECT reason, count(*) FROM (SELECT reason FROM quarantined_records
        WHERE received_at > now() - interval '1 day' LIMIT 100000) AS lately
    GROUP BY reason ORDER BY count(*) DESC LIMIT 20";

#[cfg(test)]
mod tests {
    use super::super::CheckStatus::{Note, Ok as Fine, Unknown, Wrong};
    use super::*;
    use crate::config::Lookup;

    #[test]
    fn a_running_service_has_to_commit_what_came() {
        let (kept, id) = journal::sample(100);
        let up = || service::sample(5.0);
        let at = |journal, position, age| Ok(vec![JournalCheckpoint { journal, position, age }]);
        let away = service::ServiceFacts::Away;
        for (known, service, status) in [
            (at(id, 100, 5.0), up(), Fine),
            (at(id, 100, 7_200.0), up(), Note),
            (at(id, 90, 5.0), up(), Fine),
            (at(id, 90, 90.0), up(), Wrong),
            (at(JournalId::random(), 90, 5.0), up(), Wrong),
            (at(id, 90, 90.0), service::ServiceFacts::Away, Note),
            (Err("away".to_owned()), up(), Unknown),
        ] {
            let found = last_commit(&kept, &known, &service);
            assert_eq!(found.status, status, "{found:?}");
        }
        let nothing = last_commit(&journal::JournalFacts::default(), &at(id, 5, 60.0), &away);
        assert!(nothing.status == Fine && nothing.found.contains("other journals committed 1m ago"), "{nothing:?}");
        assert_eq!(committed(&kept, &at(id, 90, 1.0)), Some(Ok(90)));
        assert_eq!(committed(&kept, &Ok(Vec::new())), None);
    }

    #[test]
    fn what_is_quarantined_is_said_by_reason() {
        assert_eq!(quarantine(&Ok(Vec::new())).status, Fine);
        let found = quarantine(&Ok(vec![("time".into(), 7), ("structure".into(), 1)]));
        assert!(found.status == Note && found.found.contains("8 records within a day: time 7, structure 1"));
    }

    #[test]
    fn a_retention_shorter_than_what_is_taken_is_said() {
        let status_of = |past, kept| {
            let variables = [("ODOGRAPH_TIME_WINDOW_PAST", past), ("ODOGRAPH_RETENTION", kept)];
            retention(&Settings::load(&Lookup::from_variables(variables)).unwrap()).status
        };
        assert_eq!(
            (status_of("400d", "none"), status_of("400d", "500d"), status_of("400d", "30d")),
            (Fine, Fine, Note)
        );
        assert_eq!(status_of("1h", "2h"), Note, "the journal keeps a day");
    }
}
