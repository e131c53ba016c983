//! The hypertable: how many chunks, whether their interval fits the rate, and whether its background jobs run.

use std::time::Duration;

use super::database::{QueryResult, ServerClient, get};
use super::finding::{Check, Finding, size, span};

/// The chunks of `positions`.
#[derive(Clone, Debug)]
pub(super) struct ChunkFacts {
    chunks: i64,
    interval: Duration,
    /// The newest ones that rows go into.
    recent: Vec<Chunk>,
}

/// A chunk that is not columns yet.
#[derive(Clone, Copy, Debug)]
struct Chunk {
    /// With its indexes.
    bytes: u64,
    /// Rows by the planner's estimate, if it has one.
    rows: Option<f64>,
    /// The part of its interval that has passed, 0 to 1.
    passed: f64,
}

/// A background job on `positions`.
#[derive(Clone, Debug)]
pub(super) struct Job {
    name: String,
    ours: bool,
    retention: bool,
    status: Option<String>,
    failures: i64,
}

pub(super) async fn read(client: &ServerClient) -> QueryResult<ChunkFacts> {
    let row = client.row(HYPERTABLE, &[]).await?;
    let seconds: f64 = get(&row, 1)?;
    let chunk = |row: &tokio_postgres::Row| {
        let rows: f64 = get(row, 1)?;
        let bytes = u64::try_from(get::<i64>(row, 0)?).unwrap_or(0);
        Ok(Chunk { bytes, rows: (rows > 0.0).then_some(rows), passed: get::<f64>(row, 2)?.clamp(0.0, 1.0) })
    };
    let recent = client.rows(RECENT, &[]).await?.iter().map(chunk).collect::<QueryResult<_>>()?;
    Ok(ChunkFacts { chunks: get(&row, 0)?, interval: Duration::from_secs_f64(seconds.clamp(1.0, 1e10)), recent })
}

pub(super) async fn read_jobs(client: &ServerClient) -> QueryResult<Vec<Job>> {
    let job = |row: &tokio_postgres::Row| {
        Ok(Job {
            name: get(row, 0)?,
            ours: get(row, 1)?,
            retention: get(row, 2)?,
            status: get(row, 3)?,
            failures: get(row, 4)?,
        })
    };
    client.rows(JOBS, &[]).await?.iter().map(job).collect()
}

pub(super) fn findings(
    facts: &QueryResult<ChunkFacts>,
    jobs: &QueryResult<Vec<Job>>,
    shared_buffers: i64,
) -> Vec<Finding> {
    let chunks = match facts {
        Ok(facts) => [count(facts), interval(facts, u64::try_from(shared_buffers).unwrap_or(0))],
        Err(error) => [Check::Chunks.unknown(error), Check::ChunkInterval.unknown(error)],
    };
    let jobs = jobs.as_ref().map_or_else(|error| Check::Jobs.unknown(error), |found| self::jobs(found));
    chunks.into_iter().chain([jobs]).collect()
}

/// Where there are no chunks.
pub(super) fn none() -> Vec<Finding> {
    let reason = "positions is no hypertable";
    [Check::Chunks, Check::ChunkInterval, Check::Jobs].map(|check| check.ok(reason)).into()
}

fn count(facts: &ChunkFacts) -> Finding {
    let found = format!("{} chunks of {}", facts.chunks, span(facts.interval));
    let longer = span(facts.interval.saturating_mul(7));
    let remedy = format!(
        "longer chunks from now on: `odograph migrate --chunk-interval \"{longer}\"`; fewer old ones: ODOGRAPH_RETENTION. A stray \
         date makes a chunk of its own: see ODOGRAPH_TIME_WINDOW_PAST"
    );
    match facts.chunks {
        ..=1_000 => Check::Chunks.ok(found),
        1_001..=5_000 => Check::Chunks.note(format!("{found}: planning a query takes longer with each"), remedy),
        _ => Check::Chunks.wrong(format!("{found}: queries over all of them run out of locks and memory"), remedy),
    }
}

/// The chunks that are written to, with their indexes, should take a quarter of the shared buffers at most.
#[expect(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "estimates")]
fn interval(facts: &ChunkFacts, shared_buffers: u64) -> Finding {
    let check = Check::ChunkInterval;
    // A chunk that has just begun says little.
    let told: Vec<_> = facts.recent.iter().filter(|chunk| chunk.passed > 0.1).collect();
    let whole = |chunk: &&Chunk| chunk.bytes as f64 / chunk.passed;
    let Some(largest) = told.iter().map(whole).reduce(f64::max).filter(|bytes| *bytes > 0.0) else {
        return check.ok(format!("{}; there is nothing recent to measure", span(facts.interval)));
    };
    let days = facts.interval.as_secs_f64() / 86_400.0;
    let rows = told.iter().filter_map(|chunk| Some(chunk.rows? / chunk.passed / days)).reduce(f64::max);
    let rate = rows.map_or(String::new(), |rows| format!(" (about {} rows a day)", rounded(rows)));
    let quarter = shared_buffers as f64 / 4.0;
    let found = format!("{}: a recent chunk takes {}{rate}", span(facts.interval), size(largest as u64));
    if quarter < 1.0 || largest <= quarter {
        return check.ok(found);
    }
    let hours = (facts.interval.as_secs_f64() * quarter / largest / 3_600.0).max(1.0) as u64;
    check.note(
        format!("{found}, more than a quarter of shared_buffers ({})", size(shared_buffers)),
        format!(
            "`odograph migrate --chunk-interval {hours}h` for new chunks, or shared_buffers of {} and more",
            size((largest * 4.0) as u64)
        ),
    )
}

/// Two digits that count.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "an estimate above 0")]
fn rounded(number: f64) -> String {
    let step = 10_f64.powf((number.max(1.0).log10().floor() - 1.0).max(0.0));
    ((number / step).round() * step)
        .to_string()
        .parse::<f64>()
        .map_or_else(|_| String::new(), |n| (n as u64).to_string())
}

fn jobs(jobs: &[Job]) -> Finding {
    let failed = |job: &&Job| job.status.as_deref() == Some("Failed");
    let names = |wanted: &dyn Fn(&&Job) -> bool| {
        let named = |job: &Job| format!("{} ({} failures)", job.name, job.failures);
        jobs.iter().filter(wanted).map(named).collect::<Vec<_>>().join(", ")
    };
    let look = "timescaledb_information.job_errors says why; ALTER EXTENSION, free workers (timescaledb.max_background_workers) \
                and disk room are the usual reasons";
    let ours = names(&|job| job.ours && failed(job));
    if !ours.is_empty() {
        return Check::Jobs.wrong(format!("the last run failed: {ours}"), look);
    }
    let policies = names(&|job| job.ours && job.retention);
    if !policies.is_empty() {
        return Check::Jobs.note(
            format!("TimescaleDB itself drops chunks of positions: {policies}"),
            "SELECT remove_retention_policy('positions') and ODOGRAPH_RETENTION instead, which looks what waits in the journal",
        );
    }
    let others = names(&|job| !job.ours && failed(job));
    if !others.is_empty() {
        return Check::Jobs.note(format!("the last run failed, though not for positions: {others}"), look);
    }
    Check::Jobs.ok(format!("{} on positions, none failed", jobs.iter().filter(|job| job.ours).count()))
}

const HYPERTABLE: &str = "SELECT h.num_chunks, extract(epoch FROM d.time_interval)::float8
    FROM timescaledb_information.hypertables h
    JOIN timescaledb_information.dimensions d USING (hypertable_schema, hypertable_name)
    WHERE hypertable_name = 'positions' AND d.dimension_number = 1 AND hypertable_schema =
        (SELECT relnamespace::regnamespace::text FROM pg_class WHERE oid = to_regclass('positions'))";
const RECENT: &str = "SELECT pg_total_relation_size(c.oid), c.reltuples::float8,
        extract(epoch FROM now() - newest.range_start)::float8
            / extract(epoch FROM newest.range_end - newest.range_start)::float8
    FROM (SELECT * FROM timescaledb_information.chunks
        WHERE hypertable_name = 'positions' AND range_start <= now() AND NOT coalesce(is_compressed, false)
            AND hypertable_schema =
                (SELECT relnamespace::regnamespace::text FROM pg_class WHERE oid = to_regclass('positions'))
        ORDER BY range_start DESC LIMIT 5) AS newest
    JOIN pg_class c ON c.oid = to_regclass(format('%I.%I', newest.chunk_schema, newest.chunk_name))";
/// Not those that TimescaleDB makes for itself, below 1000.
const JOBS: &str = "SELECT j.application_name::text, coalesce(j.hypertable_name = 'positions', false),
        j.proc_name = 'policy_retention', s.last_run_status::text, coalesce(s.total_failures, 0)::int8
    FROM timescaledb_information.jobs j LEFT JOIN timescaledb_information.job_stats s USING (job_id)
    WHERE job_id >= 1000";

#[cfg(test)]
mod tests {
    use super::super::CheckStatus::{self, Note, Ok as Fine, Unknown, Wrong};
    use super::*;

    const DAY: Duration = Duration::from_hours(24);
    const MIB: u64 = 1 << 20;

    fn facts(chunks: i64, recent: &[(u64, f64)]) -> ChunkFacts {
        let chunk = |&(mib, passed): &(u64, f64)| Chunk { bytes: mib * MIB, rows: Some(1e6 * passed), passed };
        ChunkFacts { chunks, interval: DAY, recent: recent.iter().map(chunk).collect() }
    }

    #[test]
    fn thousands_of_chunks_are_too_many() {
        for (chunks, status) in [(0, Fine), (1_000, Fine), (1_001, Note), (5_000, Note), (5_001, Wrong)] {
            let found = count(&facts(chunks, &[]));
            assert_eq!(found.status, status, "{chunks}");
            assert_eq!(
                found.remedy.is_some_and(|remedy| remedy.contains("--chunk-interval \"7days\"")),
                status != Fine
            );
        }
    }

    #[test]
    fn recent_chunks_have_to_fit_a_quarter_of_the_buffers() {
        let buffers = 400 * MIB;
        let status = |recent: &[(u64, f64)]| interval(&facts(3, recent), buffers);
        assert_eq!(status(&[]).status, Fine);
        assert_eq!(status(&[(90, 1.0), (40, 0.5)]).status, Fine);
        assert_eq!(status(&[(1, 0.01), (90, 1.0)]).status, Fine, "one that has just begun says nothing");
        let found = status(&[(100, 0.5), (90, 1.0)]);
        assert_eq!(found.status, Note, "{found:?}");
        assert!(found.found.contains("200.0 MiB (about 1000000 rows a day)"), "{found:?}");
        assert!(found.remedy.unwrap().contains("--chunk-interval 12h"));
        assert_eq!(rounded(1_234_567.0), "1200000");
    }

    #[test]
    fn jobs_on_positions_have_to_run() {
        let job = |ours, retention, status: &str| Job {
            name: "Columnstore Policy [1001]".into(),
            ours,
            retention,
            status: Some(status.into()),
            failures: 3,
        };
        let status = |list: &[Job]| -> CheckStatus { jobs(list).status };
        assert_eq!(status(&[]), Fine);
        assert_eq!(status(&[job(true, false, "Success")]), Fine);
        assert_eq!(status(&[job(true, false, "Failed")]), Wrong);
        assert_eq!(status(&[job(false, false, "Failed")]), Note);
        assert_eq!(status(&[job(true, true, "Success")]), Note);
        let away = Err("away".to_owned());
        assert!(findings(&away, &Err("away".into()), 0).iter().all(|finding| finding.status == Unknown));
        assert!(none().iter().all(|finding| finding.status == Fine));
    }
}
