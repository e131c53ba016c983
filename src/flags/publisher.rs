//! Corrections, from the outbox to the corrected stream: in order, and removed only after Redis has them. Of several
//! processes one publishes.

use redis::{Cmd, Pipeline, cmd};
use time::OffsetDateTime;

use super::link::{Link, LinkError, RedisUrl};
use super::tasks::{ANSWER_PATIENCE, Shared};
use crate::backoff::Backoff;
use crate::store::{Correction, Ledger, StoreError};

/// Publishes until the stop.
pub(super) async fn run<L: Ledger>(shared: &Shared, url: &RedisUrl, mut ledger: L) {
    let (mut backoff, mut link) = (Backoff::default(), None);
    while !shared.stop.is_cancelled() {
        let told = tokio::select! {
            told = tell(shared, url, &mut ledger, &mut link) => told,
            // What was sent and not removed is sent once more, under its id.
            () = shared.stop.cancelled() => break,
        };
        match told {
            Ok(()) => {
                backoff.reset();
                let due = async {
                    tokio::time::sleep(shared.pace.gather).await;
                    tokio::select! {
                        () = shared.publish.notified() => {}
                        () = tokio::time::sleep(shared.pace.publish_every) => {}
                    }
                };
                tokio::select! {
                    () = due => {}
                    () = shared.stop.cancelled() => {}
                }
            }
            Err(wrong) => {
                link = None;
                tracing::warn!(cause = %wrong, "corrections wait");
                backoff.wait(&shared.stop).await;
            }
        }
    }
    ledger.close().await;
}

#[derive(Debug, thiserror::Error)]
enum PublishError {
    #[error("{}: {}", .0, .0.source)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Redis(#[from] LinkError),
}

/// Tells all that waits.
async fn tell<L: Ledger>(
    shared: &Shared,
    url: &RedisUrl,
    ledger: &mut L,
    link: &mut Option<Link>,
) -> Result<(), PublishError> {
    loop {
        let corrections = match ledger.corrections(AT_ONCE).await? {
            Some(corrections) if !corrections.is_empty() => corrections,
            _ => return Ok(()),
        };
        let open = match link.take() {
            Some(open) => link.insert(open),
            None => link.insert(Link::open(url, ANSWER_PATIENCE).await?),
        };
        // All or none: were one of them refused in the middle, those behind it would overtake it.
        let mut add = Pipeline::new();
        add.atomic();
        for correction in &corrections {
            add.add_command(entry(&shared.settings.corrected, correction)).ignore();
        }
        open.together(&add).await?;
        let ids: Vec<_> = corrections.iter().map(|correction| correction.id).collect();
        ledger.told(&ids).await?;
        shared.metrics.corrections_told.increment(u64::try_from(ids.len()).unwrap_or(u64::MAX));
    }
}

fn entry(stream: &str, correction: &Correction) -> Cmd {
    let Correction { id, window, positions, flag, seq } = correction;
    let mut add = cmd("XADD");
    add.arg(stream).arg("MAXLEN").arg("~").arg(CORRECTED_MAX).arg("*");
    add.arg("id").arg(id).arg("imei").arg(window.imei().to_string());
    add.arg("ts_from").arg(rfc3339(window.from_ms())).arg("ts_to").arg(rfc3339(window.to_ms()));
    add.arg("positions").arg(positions).arg("flag_id").arg(flag.to_string()).arg("seq").arg(seq);
    add
}

/// With milliseconds and a Z, as the events have it.
fn rfc3339(ms: i64) -> String {
    let time = OffsetDateTime::from_unix_timestamp_nanos(i128::from(ms) * 1_000_000);
    let time = time.unwrap_or(OffsetDateTime::UNIX_EPOCH);
    let (date, (hour, minute, second, milli)) = (time.date(), time.time().as_hms_milli());
    let (year, month, day) = (date.year(), u8::from(date.month()), date.day());
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{milli:03}Z")
}

const AT_ONCE: usize = 500;
/// Corrections that the stream keeps, about.
const CORRECTED_MAX: u64 = 1_000_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_as_events_have_them() {
        assert_eq!(rfc3339(0), "1970-01-01T00:00:00.000Z");
        assert_eq!(rfc3339(1_777_707_690_007), "2026-05-02T07:41:30.007Z");
        assert_eq!(rfc3339(crate::store::MAX_TS_MS), "9999-12-31T23:59:59.999Z");
    }
}
