//! The start of the service, top to bottom.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::interval;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use super::error::StartError;
use super::options::StartOptions;
use super::service::Service;
use super::stop::Tasks;
use super::{configs, database, pipeline, sockets};
use crate::admin::{self, Admin};
use crate::config::{AckAfter, Settings};
use crate::flags::{self, FlagMetrics};
use crate::health::{self, Health, Reason};
use crate::ingest::admission;
use crate::ingest::gateway::{self, ConnectionSlots, CrcDump, Gateway, GatewayMetrics};
use crate::metrics::Registry;
use crate::retention::{Retainer, RetentionMetrics};
use odograph_journal::unix_now_us;

/// Starts everything. An absent database is no reason not to accept positions.
///
/// # Errors
/// [`StartError`]. Nothing is left running then.
pub async fn start(settings: &Settings, options: StartOptions) -> Result<Service, StartError> {
    let registry = Arc::new(Registry::new());
    let health = Arc::new(Health::default());
    health::publish(&registry, &health);
    if settings.ack_after == AckAfter::Commit {
        health.has_no_journal();
    }

    // Whatever can be wrong with this machine shows first. From here on the admin listener reports how the start goes on.
    let (tracker_listener, trackers) = sockets::listen(settings.listen)?;
    let (admin_listener, admin) = sockets::listen(settings.admin_listen)?;
    let stop_admin = CancellationToken::new();
    let pages = Admin { registry: Arc::clone(&registry), health: Arc::clone(&health) };
    let admin_task = spawn(admin::serve(admin_listener, pages, stop_admin.clone()));

    let limits = configs::limits(settings, sockets::connections_from_file_limit);
    let gateway_metrics = GatewayMetrics::new(&registry);

    // From the intake to the database, back to front: what a tracker sends has somewhere to go before it is accepted.
    database::inspect(&settings.database_url, &health).await?;
    let (intake, pipeline) = pipeline::start(configs::pipeline(settings, options), &registry, &health).await?;

    let flag_metrics = FlagMetrics::new(&registry);
    let flags = flags::spawn(configs::flags(settings), flag_metrics, Arc::clone(&health), CancellationToken::new())?;

    let admission =
        admission::spawn(configs::admission(settings), &registry, &health).await.map_err(StartError::Thread)?;
    let (admission, admission_task) = admission.unzip();

    let crc_dump = CrcDump::start(settings.data_dir.join("wrong-checksum")).map_err(StartError::Thread)?;
    let gateway = Arc::new(Gateway::new(
        intake,
        configs::timeouts(settings),
        gateway_metrics,
        registry.tally(),
        Some(crc_dump),
        admission,
        unix_now_us,
    ));
    let stop_sessions = CancellationToken::new();
    let slots = ConnectionSlots::new(limits.connections, &registry, &health);
    let gateway_task = spawn(gateway::run(tracker_listener, gateway, slots, limits.per_address, stop_sessions.clone()));

    let upkeep = spawn(upkeep(Arc::clone(&registry)));
    let retention_metrics = RetentionMetrics::new(&registry);
    let retainer = Arc::new(Retainer::new(configs::retention(settings), pipeline.progress(), retention_metrics));
    let retention = spawn(Arc::clone(&retainer).run());

    health.clear(Reason::Starting);
    tracing::info!(
        %trackers, %admin, database = %settings.database_url, lanes = settings.lanes, connections = limits.connections,
        "odograph {} is up", env!("CARGO_PKG_VERSION")
    );
    let tasks = Tasks {
        shutdown_grace: settings.shutdown_grace,
        stop_sessions,
        gateway: gateway_task,
        pipeline,
        stop_admin,
        admin: admin_task,
        upkeep,
        retention,
        flags,
        admission: admission_task,
    };
    Ok(Service { trackers, admin, health, registry, retainer, tasks })
}

/// A task that ends with its handle, so that a start that fails leaves nothing running.
fn spawn<F>(task: F) -> AbortOnDropHandle<F::Output>
where
    F: Future<Output: Send> + Send + 'static,
{
    AbortOnDropHandle::new(tokio::spawn(task))
}

/// Keeps the histograms small and readiness up to date, even if nobody scrapes.
async fn upkeep(registry: Arc<Registry>) {
    let mut every = interval(UPKEEP_EVERY);
    loop {
        every.tick().await;
        registry.upkeep();
    }
}

const UPKEEP_EVERY: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ingest::admission::AdmissionMetrics;
    use crate::ingest::drain::{DrainMetrics, JournalMetrics};

    #[test]
    fn everything_is_there_with_zero_from_the_start() {
        let registry = Registry::new();
        let _gateway = GatewayMetrics::new(&registry);
        let _drain = DrainMetrics::new(&registry);
        let _journal = JournalMetrics::new(&registry);
        let _admission = AdmissionMetrics::new(&registry);
        let text = registry.render();
        for line in [
            "odograph_connections_open 0",
            "odograph_connections_closed_total{reason=\"idle_timeout\"} 0",
            "odograph_logins_total{result=\"unknown\"} 0",
            "odograph_admission_reloads_total{result=\"changed\"} 0",
            "odograph_admission_list_age_seconds 0",
            "odograph_frames_total{codec=\"8E\",result=\"accepted\"} 0",
            "odograph_frames_total{codec=\"unknown\",result=\"crc_mismatch\"} 0",
            "odograph_frames_total{codec=\"8\",result=\"count_mismatch\"} 0",
            "odograph_records_recovered_total 0",
            "odograph_records_committed_total 0",
            "odograph_journal_bytes{state=\"kept\"} 0",
            "odograph_journal_gap_bytes_total 0",
            "odograph_records_waiting 0",
            "odograph_quarantine_capped_total 0",
            "odograph_store_errors_total{class=\"refuses\"} 0",
        ] {
            assert!(text.contains(line), "{line} is missing in\n{text}");
        }
        assert!(text.contains("process_resident_memory_bytes"));
    }
}
