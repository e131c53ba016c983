//! Publishes corrections from the outbox to the corrected stream, in order, and removes them only after Redis has them. Of
//! several processes, one publishes.

use std::time::{Duration, SystemTime};

use redis::{Cmd, Pipeline, cmd};

use super::context::{ANSWER_TIMEOUT, FlagContext};
use super::link::{Link, LinkError, RedisUrl};
use crate::backoff::Backoff;
use crate::store::{Correction, Ledger, StoreError};

/// Publishes until the stop.
pub(super) async fn run<L: Ledger>(context: &FlagContext, url: &RedisUrl, mut ledger: L) {
    let (mut backoff, mut link) = (Backoff::default(), None);
    while !context.stop.is_cancelled() {
        let published = tokio::select! {
            published = publish(context, url, &mut ledger, &mut link) => published,
            // Corrections that were sent and not removed are sent again, under the same id.
            () = context.stop.cancelled() => break,
        };
        match published {
            Ok(()) => {
                backoff.reset();
                let due = async {
                    tokio::time::sleep(context.pace.gather).await;
                    tokio::select! {
                        () = context.publish.notified() => {}
                        () = tokio::time::sleep(context.pace.publish_every) => {}
                    }
                };
                tokio::select! {
                    () = due => {}
                    () = context.stop.cancelled() => {}
                }
            }
            Err(error) => {
                link = None;
                tracing::warn!(cause = %error, "cannot publish corrections, trying again");
                backoff.wait(&context.stop).await;
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

/// Publishes all waiting corrections.
async fn publish<L: Ledger>(
    context: &FlagContext,
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
            None => link.insert(Link::open(url, ANSWER_TIMEOUT).await?),
        };
        // All or none: if Redis refused one in the middle, later ones would overtake it.
        let mut add = Pipeline::new();
        add.atomic();
        for correction in &corrections {
            add.add_command(entry(&context.config.corrected, correction)).ignore();
        }
        open.query_all(&add).await?;
        let ids: Vec<_> = corrections.iter().map(|correction| correction.id).collect();
        ledger.remove_corrections(&ids).await?;
        context.metrics.corrections_told.increment(u64::try_from(ids.len()).unwrap_or(u64::MAX));
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

/// RFC 3339 in UTC with milliseconds, the form of the events. Windows lie between 1970 and 9999.
fn rfc3339(ms: i64) -> String {
    let since = Duration::from_millis(u64::try_from(ms).unwrap_or(0));
    humantime::format_rfc3339_millis(SystemTime::UNIX_EPOCH + since).to_string()
}

const AT_ONCE: usize = 500;
/// Corrections that the stream keeps, approximately.
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
