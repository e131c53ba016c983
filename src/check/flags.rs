//! Faulty flags in the database: Directus' side, the ledger, and what timing services were not told yet.

use super::database::{QueryResult, ServerClient, ago, get};
use super::finding::{Check, Finding};

/// What is on its way.
#[derive(Clone, Debug, Default)]
pub(super) struct FlagFacts {
    /// Tables and trigger of `migrate --directus`; `None` where Directus' collections are not there either.
    installed: Option<bool>,
    /// Flags on Directus' side.
    pub(super) flags: i64,
    /// Rows of the outbox, and seconds since the oldest; `None` where it may not be read.
    outbox: Option<(i64, f64)>,
    /// Flags that positions do not follow yet.
    unapplied: i64,
    corrections: i64,
}

pub(super) async fn read(client: &ServerClient) -> QueryResult<FlagFacts> {
    let present = client.row(THERE, &[]).await?;
    let there = |column| get::<bool>(&present, column);
    let (collection, state, outbox) = (there(0)?, there(1)?, there(2)?);
    let row = client.row(LEDGER, &[]).await?;
    let (unapplied, corrections) = (get(&row, 0)?, get(&row, 1)?);
    let mut facts = FlagFacts { unapplied, corrections, ..FlagFacts::default() };
    if collection || state {
        facts.installed = Some(state && outbox && get(&client.row(TRIGGERED, &[]).await?, 0)?);
    }
    if there(3)? {
        facts.flags = get(&client.row("SELECT count(*) FROM position_flag_state", &[]).await?, 0)?;
    }
    if there(4)? {
        let row = client.row(OUTBOX, &[]).await?;
        facts.outbox = Some((get(&row, 0)?, get(&row, 1)?));
    } else if !outbox {
        facts.outbox = Some((0, 0.0));
    }
    Ok(facts)
}

/// `stream` says that there is a Redis.
pub(super) fn findings(facts: &QueryResult<FlagFacts>, stream: bool, service: bool) -> Vec<Finding> {
    let facts = match facts {
        Ok(facts) => facts,
        Err(error) => {
            let checks = [Check::FlagTables, Check::FlagOutbox, Check::FlagLedger, Check::Corrections];
            return checks.map(|check| check.unknown(error)).into();
        }
    };
    vec![tables(facts), outbox(facts), ledger(facts, service), corrections(facts, stream, service)]
}

fn tables(facts: &FlagFacts) -> Finding {
    let check = Check::FlagTables;
    match facts.installed {
        None => check.ok("no collection position_flags: flags come by the stream alone"),
        Some(true) => check.ok(format!("installed; {} flags", facts.flags)),
        Some(false) => check.wrong(
            "Directus' collections are here, but the triggers that publish flags are missing, incomplete or of an older version",
            "run `odograph migrate --directus`",
        ),
    }
}

fn outbox(facts: &FlagFacts) -> Finding {
    let check = Check::FlagOutbox;
    let Some((rows, age)) = facts.outbox else {
        return check.unknown("this role may not read flag_outbox (it needs to for this alone: GRANT SELECT)");
    };
    let found = format!("{rows} edits wait for the relay, the oldest for {}", ago(age));
    let remedy = "see that Directus runs with the relay's hook and reaches Redis; meanwhile reconciliation brings flags every few minutes";
    match (rows, age) {
        (0, _) => check.ok("empty"),
        (_, ..=60.0) => check.ok(found),
        (_, ..=600.0) => check.note(found, remedy),
        _ => check.wrong(found, remedy),
    }
}

fn ledger(facts: &FlagFacts, service: bool) -> Finding {
    let check = Check::FlagLedger;
    match facts.unapplied {
        0 => check.ok("positions follow every flag"),
        unapplied => check.note(
            format!("positions do not follow {unapplied} flags yet"),
            if service {
                "a moment later it should be none; else the service's log says why"
            } else {
                "start `odograph serve`, which goes on with them"
            },
        ),
    }
}

fn corrections(facts: &FlagFacts, stream: bool, service: bool) -> Finding {
    let (check, waiting) = (Check::Corrections, facts.corrections);
    let found = format!("{waiting} windows wait to be told to timing services");
    match (waiting, stream) {
        (0, _) => check.ok("none wait"),
        (_, false) => check.note(found, "there is no stream to tell them on: set REDIS_URL"),
        (1_000.., true) => check.wrong(found, "see `redis`, and the service's log"),
        (_, true) if service => check.note(found, "a moment later it should be none; else see `redis`"),
        (_, true) => check.note(found, "start `odograph serve`, which tells them"),
    }
}

const THERE: &str = "SELECT to_regclass('position_flags') IS NOT NULL, to_regclass('position_flag_state') IS NOT NULL,
    to_regclass('flag_outbox') IS NOT NULL,
    coalesce(has_table_privilege(to_regclass('position_flag_state'), 'SELECT'), false),
    coalesce(has_table_privilege(to_regclass('flag_outbox'), 'SELECT'), false)";
const LEDGER: &str = "SELECT (SELECT count(*) FROM position_flag_ledger WHERE applied_seq < seq),
    (SELECT count(*) FROM (SELECT FROM position_corrections LIMIT 100000) AS waiting)";
/// The trigger is there, and its function neither searches a caller's temporary objects nor may be put on other tables.
const TRIGGERED: &str = "SELECT to_regclass('position_flags') IS NULL OR EXISTS (SELECT FROM pg_trigger t
    JOIN pg_proc p ON p.oid = t.tgfoid
    WHERE t.tgrelid = to_regclass('position_flags') AND t.tgname = 'odograph_flag_changed' AND t.tgenabled <> 'D'
        AND array_to_string(p.proconfig, ';') ~ 'search_path=pg_catalog, .+, pg_temp'
        AND NOT has_function_privilege('public', p.oid, 'EXECUTE'))";
const OUTBOX: &str = "SELECT count(*), coalesce(extract(epoch FROM now() - min(at)), 0)::float8
    FROM (SELECT at FROM flag_outbox ORDER BY id LIMIT 100000) AS oldest";

#[cfg(test)]
mod tests {
    use super::super::CheckStatus::{Note, Ok as Fine, Unknown, Wrong};
    use super::*;

    #[test]
    fn directus_side_is_whole_or_not_there() {
        let status_of = |installed| tables(&FlagFacts { installed, ..FlagFacts::default() }).status;
        assert_eq!((status_of(None), status_of(Some(true)), status_of(Some(false))), (Fine, Fine, Wrong));
        assert!(findings(&Err("away".into()), true, true).iter().all(|finding| finding.status == Unknown));
    }

    #[test]
    fn a_relay_that_stands_still_is_seen_by_the_outbox() {
        let status_of = |rows, age| outbox(&FlagFacts { outbox: Some((rows, age)), ..FlagFacts::default() }).status;
        assert_eq!(
            (status_of(0, 0.0), status_of(3, 5.0), status_of(3, 61.0), status_of(3, 601.0)),
            (Fine, Fine, Note, Wrong)
        );
        assert_eq!(outbox(&FlagFacts::default()).status, Unknown, "it may not be read");
    }

    #[test]
    fn flags_and_corrections_pass_in_a_moment() {
        let facts = |unapplied, corrections| FlagFacts { unapplied, corrections, ..FlagFacts::default() };
        assert_eq!((ledger(&facts(0, 0), true).status, ledger(&facts(2, 0), false).status), (Fine, Note));
        let status_of = |waiting, stream| corrections(&facts(0, waiting), stream, true).status;
        assert_eq!(
            (status_of(0, true), status_of(3, true), status_of(3, false), status_of(5_000, true)),
            (Fine, Note, Note, Wrong)
        );
    }
}
