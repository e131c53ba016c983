//! The list of devices: Directus' table, and what of it a service remembers for an outage.

use std::path::Path;
use std::time::Duration;

use super::database::{QueryResult, ServerClient, get};
use super::finding::{Check, Finding, span};
use crate::config::AdmissionMode;

/// The table `devices`, where there is one.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Table {
    rows: i64,
    /// Rows without an IMEI: not given out yet.
    bare: i64,
    /// Rows whose IMEI is none.
    no_imei: i64,
    twice: i64,
    /// Trackers that sent positions and are not in it.
    strangers: i64,
}

pub(super) async fn read(client: &ServerClient) -> QueryResult<Option<Table>> {
    if !get(&client.row("SELECT to_regclass('devices') IS NOT NULL", &[]).await?, 0)? {
        return Ok(None);
    }
    let row = client.row(COUNT, &[]).await?;
    let (no_imei, twice, strangers, bare) = (get(&row, 1)?, get(&row, 2)?, get(&row, 3)?, get(&row, 4)?);
    Ok(Some(Table { rows: get(&row, 0)?, bare, no_imei, twice, strangers }))
}

/// How old the list is that a service keeps beside its journal, if it does.
pub(super) fn remembered(data_dir: &Path) -> Option<Duration> {
    let list = std::fs::metadata(data_dir.join("known-devices")).ok()?;
    Some(list.modified().ok()?.elapsed().unwrap_or_default())
}

pub(super) fn findings(
    table: &QueryResult<Option<Table>>,
    remembered: Option<Duration>,
    admission: AdmissionMode,
) -> Finding {
    let check = Check::Devices;
    let registered = admission == AdmissionMode::Registered;
    let kept = remembered.map_or(String::new(), |age| format!("; a list for outages is {} old", span(age)));
    let table = match table {
        Err(error) if error.starts_with("42703") => {
            return check
                .wrong("the table devices has no column imei", "add it in Directus: type String, unique, 15 digits");
        }
        Err(error) if error.starts_with("42501") => {
            return check.wrong(error, "GRANT SELECT ON devices TO …: it is only read");
        }
        Err(error) => return check.unknown(error),
        Ok(None) if registered => {
            return check.wrong(
                format!("no table devices{kept}, and only registered devices are admitted"),
                "make it with Directus or `odograph migrate --standalone-devices`, or set ODOGRAPH_ADMISSION=open",
            );
        }
        Ok(None) => return check.ok(format!("no table devices{kept}")),
        Ok(Some(table)) => table,
    };
    let Table { rows, bare, no_imei, twice, strangers } = *table;
    let nobody = rows == bare;
    let bare = if bare == 0 { String::new() } else { format!(", {bare} of them without an IMEI") };
    let found = format!("{rows} devices{bare}{kept}");
    if no_imei + twice > 0 {
        return check.wrong(
            format!("{found}; {no_imei} rows have no IMEI of 15 digits, {twice} one that another row has"),
            "correct them in Directus (SELECT * FROM devices WHERE imei !~ '^[0-9]{15}$'): such a device is never found",
        );
    }
    if registered && nobody {
        return check.wrong(
            format!("{found}, and only registered devices are admitted: nobody is"),
            "add the trackers; `odograph devices unknown` lists those that were refused",
        );
    }
    if strangers > 0 && registered {
        return check.note(
            format!("{found}; {strangers} trackers sent positions and are refused now"),
            "`odograph devices unknown` lists those that still come",
        );
    }
    if strangers > 0 {
        return check.note(
            format!("{found}; {strangers} trackers sent positions and are not in the list"),
            "add them (SELECT lpad(imei::text, 15, '0') FROM latest_positions), or see whose they are",
        );
    }
    check.ok(found)
}

const COUNT: &str = "SELECT count(*), count(*) FILTER (WHERE imei::text !~ '^[0-9]{15}$'),
    count(imei) - count(DISTINCT imei::text), (SELECT count(*) FROM latest_positions AS l
        WHERE NOT EXISTS (SELECT FROM devices AS d WHERE d.imei::text = lpad(l.imei::text, 15, '0'))),
    count(*) FILTER (WHERE imei IS NULL)
    FROM devices";

#[cfg(test)]
mod tests {
    use super::super::CheckStatus::{Note, Ok as Fine, Unknown, Wrong};
    use super::*;
    use AdmissionMode::{Open, Registered};

    #[test]
    fn every_row_has_an_imei_of_its_own() {
        let status_of = |rows, no_imei, twice, strangers| {
            findings(&Ok(Some(Table { rows, bare: 1, no_imei, twice, strangers })), None, Open).status
        };
        assert_eq!(
            (status_of(5, 0, 0, 0), status_of(5, 0, 0, 2), status_of(5, 1, 0, 0), status_of(5, 0, 1, 0)),
            (Fine, Note, Wrong, Wrong)
        );
        assert_eq!(
            findings(&Ok(None), Some(Duration::from_mins(1)), Open).found,
            "no table devices; a list for outages is 1m old"
        );
        assert_eq!(findings(&Err("42703: column".into()), None, Open).status, Wrong);
        let admitted = |rows| findings(&Ok(Some(Table { rows, ..Table::default() })), None, Registered).status;
        assert_eq!((admitted(0), admitted(1)), (Wrong, Fine));
        assert_eq!(findings(&Ok(None), None, Registered).status, Wrong);
        assert_eq!(findings(&Err("slow".into()), None, Open).status, Unknown);
    }
}
