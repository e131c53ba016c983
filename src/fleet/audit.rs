//! The audit: is every record that a tracker was told "accepted" for in the database, exactly once, with the values sent?
//!
//! It makes each record again from the tracker's route and compares it with the row, without the service's own row
//! building. Records that were sent and not answered may be there or not.

use std::collections::HashMap;
use std::error::Error;

use serde_json::Value as Json;
use sqlx::sqlite::{SqliteConnectOptions, SqliteRow};
use sqlx::{AssertSqlSafe, Connection as _, Row as _, SqliteConnection};
use teltonika_codecs::encode::{self, NewRecord, NewValue};

use super::{Route, Told};
use crate::store::{DatabaseUrl, connect};

/// What the audit found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Findings {
    /// Records that were acknowledged, each counted once.
    pub acknowledged: u64,
    /// Of these, not in the database.
    pub missing: u64,
    /// Records that stand there more than once.
    pub twice: u64,
    /// Of the acknowledged, stored with other values than sent.
    pub wrong: u64,
    /// Rows of the fleet's trackers since its start, acknowledged or not.
    pub stored: u64,
}

impl Findings {
    /// Whether the promise was kept.
    #[must_use]
    pub fn clean(&self) -> bool {
        (self.missing, self.twice, self.wrong) == (0, 0, 0)
    }
}

/// Audits what the fleet was told.
///
/// # Errors
/// When the database cannot be read.
pub async fn audit(url: &DatabaseUrl, told: &[Told]) -> Result<Findings, Box<dyn Error + Send + Sync>> {
    let mut findings = Findings::default();
    match url {
        DatabaseUrl::Postgres(target) => {
            let database = connect(target, "connecting to the database for the audit").await?;
            let filter = "$1 AND ts >= to_timestamp($2::bigint::double precision / 1000)";
            let query = database.prepare(&select(PG_TS, PG_INT, PG_IO, filter)).await?;
            for told in told {
                let rows = database.query(&query, &[&key(told.route.imei().get()), &start(&told.route)]).await?;
                findings.tracker(told, rows.iter().map(Observed::of_postgres).collect::<Result<_, _>>()?);
            }
        }
        DatabaseUrl::Sqlite(file) => {
            let options = SqliteConnectOptions::new().filename(file);
            let mut database = SqliteConnection::connect_with(&options).await?;
            for told in told {
                let query = sqlx::query(AssertSqlSafe(select("ts", "", "io", "$1 AND ts >= $2")));
                let rows =
                    query.bind(key(told.route.imei().get())).bind(start(&told.route)).fetch_all(&mut database).await?;
                findings.tracker(told, rows.iter().map(Observed::of_sqlite).collect::<Result<_, _>>()?);
            }
        }
    }
    Ok(findings)
}

impl Findings {
    fn tracker(&mut self, told: &Told, rows: Vec<Observed>) {
        self.stored += rows.len() as u64;
        // A route has one record a device time, so a second row of that time is one too many whatever its fingerprint.
        let mut by_time: HashMap<i64, Vec<Observed>> = HashMap::new();
        for row in rows {
            by_time.entry(row.ts_ms).or_default().push(row);
        }
        self.twice += by_time.values().filter(|rows| rows.len() > 1).count() as u64;
        self.acknowledged += told.acknowledged;
        for n in 0..told.acknowledged {
            let expected = Observed::expected(&told.route, &told.route.record(n));
            match by_time.get(&expected.ts_ms) {
                None => self.missing += 1,
                Some(rows) if rows.iter().any(|row| *row != expected) => self.wrong += 1,
                Some(_) => {}
            }
        }
    }
}

/// A row, or what it must be: numbers as 64-bit integers in the order of [`NUMBERS`].
#[derive(Debug, PartialEq)]
struct Observed {
    ts_ms: i64,
    fingerprint: i64,
    longitude: f64,
    latitude: f64,
    numbers: Vec<Option<i64>>,
    io: Option<Json>,
}

impl Observed {
    fn of_postgres(row: &tokio_postgres::Row) -> Result<Self, Box<dyn Error + Send + Sync>> {
        let io: Option<String> = row.try_get(IO)?;
        Ok(Self {
            ts_ms: row.try_get(0)?,
            fingerprint: row.try_get(1)?,
            longitude: row.try_get(2)?,
            latitude: row.try_get(3)?,
            numbers: (FIRST_NUMBER..IO).map(|at| row.try_get(at)).collect::<Result<_, _>>()?,
            io: io.map(|text| serde_json::from_str(&text)).transpose()?,
        })
    }

    fn of_sqlite(row: &SqliteRow) -> Result<Self, Box<dyn Error + Send + Sync>> {
        let io: Option<String> = row.try_get(IO)?;
        Ok(Self {
            ts_ms: row.try_get(0)?,
            fingerprint: row.try_get(1)?,
            longitude: row.try_get(2)?,
            latitude: row.try_get(3)?,
            numbers: (FIRST_NUMBER..IO).map(|at| row.try_get(at)).collect::<Result<_, _>>()?,
            io: io.map(|text| serde_json::from_str(&text)).transpose()?,
        })
    }

    fn expected(route: &Route, record: &NewRecord) -> Self {
        let mut wire = Vec::new();
        // The tracker sent this very record, so its codec can carry it.
        encode::record(route.codec(), record, &mut wire).expect("the route's own records fit their codec");
        let element = |id: u16| {
            let found = record.elements.iter().find(|element| element.id == id)?;
            found.value.as_value().unsigned().and_then(|value| i64::try_from(value).ok())
        };
        let axis = element(17).and_then(|raw| u16::try_from(raw).ok()).map(|raw| i64::from(raw.cast_signed()));
        let (longitude, latitude) = (f64::from(record.longitude_raw) / 1e7, f64::from(record.latitude_raw) / 1e7);
        Self {
            ts_ms: key(record.timestamp_ms),
            fingerprint: i64::from(crc32fast::hash(&wire).cast_signed()),
            longitude,
            latitude,
            numbers: vec![
                Some(record.altitude_m.into()),
                Some(record.angle_deg.into()),
                Some(record.speed_kmh.into()),
                Some(record.satellites.into()),
                Some(record.priority.into()),
                Some(route.codec().id().into()),
                None,
                Some(record.event_io_id.into()),
                Some(i64::from(record.satellites > 0)),
                Some(0),
                element(239),
                element(240),
                element(66),
                element(16),
                element(241),
                axis,
            ],
            io: io(record),
        }
    }
}

/// The elements of the routes that have no column.
fn io(record: &NewRecord) -> Option<Json> {
    let rest = record.elements.iter().filter(|element| matches!(element.id, 78 | 256));
    let object: serde_json::Map<_, _> = rest
        .map(|element| {
            let value = match &element.value {
                NewValue::Bytes(bytes) => Json::from(bytes.iter().map(|b| format!("{b:02x}")).collect::<String>()),
                value => Json::from(value.as_value().unsigned()),
            };
            (element.id.to_string(), value)
        })
        .collect();
    (!object.is_empty()).then_some(Json::Object(object))
}

fn select(ts: &str, integer: &str, io: &str, filter: &str) -> String {
    let numbers: String = NUMBERS
        .iter()
        .map(|name| match *name {
            // PostgreSQL casts a boolean to integer only.
            "valid" | "faulty" | "ignition" | "movement" if !integer.is_empty() => {
                format!("{name}::integer{integer}, ")
            }
            _ => format!("{name}{integer}, "),
        })
        .collect();
    format!(
        "SELECT {ts}, fingerprint{integer}, longitude, latitude, {numbers}{io} FROM positions WHERE imei = {filter}"
    )
}

fn start(route: &Route) -> i64 {
    key(route.timestamp_ms(0))
}

fn key(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

const NUMBERS: [&str; 16] = [
    "altitude_m",
    "angle_deg",
    "speed_kmh",
    "satellites",
    "priority",
    "codec",
    "generation_type",
    "event_io_id",
    "valid",
    "faulty",
    "ignition",
    "movement",
    "external_voltage_mv",
    "total_odometer_m",
    "gsm_operator",
    "axis_x_mg",
];
/// Where in a row the numbers begin, and where io stands behind them.
const FIRST_NUMBER: usize = 4;
const IO: usize = FIRST_NUMBER + NUMBERS.len();
const PG_TS: &str = "(extract(epoch FROM ts) * 1000)::bigint";
const PG_INT: &str = "::bigint";
const PG_IO: &str = "io::text";
