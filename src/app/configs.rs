//! The settings, divided among the components: each gets its own configuration and knows nothing of the others.

use super::options::StartOptions;
use super::pipeline::{Acknowledgement, PipelineConfig};
use crate::config::{AckAfter, AdmissionMode, Settings};
use crate::flags::{FlagConfig, consumer_name};
use crate::ingest::admission::AdmissionConfig;
use crate::ingest::drain::{BatchLimits, FilterSizes, TimeWindow};
use crate::ingest::gateway::{Limits, Timeouts};
use crate::retention::RetentionConfig;
use odograph_journal::Options;

pub(super) fn pipeline(settings: &Settings, options: StartOptions) -> PipelineConfig {
    PipelineConfig {
        acknowledgement: match settings.ack_after {
            AckAfter::Journal => Acknowledgement::AfterJournal,
            AckAfter::Commit => Acknowledgement::AfterCommit,
        },
        data_dir: settings.data_dir.clone(),
        database_url: settings.database_url.clone(),
        journal: Options { limits: settings.journal, recovery: options.recovery },
        accept_gap: options.accept_gap,
        accept_clock: options.accept_clock,
        lanes: settings.lanes,
        inflight_max: settings.inflight_max,
        batching: BatchLimits {
            rows: settings.batch_rows,
            linger: settings.batch_linger,
            window: TimeWindow { past: settings.time_window_past, future: settings.time_window_future },
            filter: FilterSizes::default(),
        },
        quarantine_max_per_hour: settings.quarantine_max_per_hour,
    }
}

/// `None` without a list of registered devices: every device may log in.
pub(super) fn admission(settings: &Settings) -> Option<AdmissionConfig> {
    match settings.admission {
        AdmissionMode::Open => None,
        AdmissionMode::Registered => {
            Some(AdmissionConfig { database: settings.database_url.clone(), data_dir: settings.data_dir.clone() })
        }
    }
}

pub(super) fn timeouts(settings: &Settings) -> Timeouts {
    Timeouts { login: settings.login_timeout, frame: settings.frame_timeout, idle: settings.idle_timeout }
}

/// Limits of the listener. `file_limit` gives the number of connections if the settings name none.
pub(super) fn limits(settings: &Settings, file_limit: impl FnOnce() -> usize) -> Limits {
    Limits {
        connections: connections(settings.max_connections, file_limit()),
        per_address: settings.max_connections_per_ip,
    }
}

/// The connections asked for, as far as the file limit has room for them: without a file left, the journal could not go on.
fn connections(asked: Option<usize>, possible: usize) -> usize {
    let connections = asked.unwrap_or(possible).min(possible);
    if let Some(asked) = asked.filter(|asked| *asked > connections) {
        tracing::warn!(
            asked,
            connections,
            "the file limit of this process allows fewer connections than ODOGRAPH_MAX_CONNECTIONS: raise LimitNOFILE"
        );
    }
    connections
}

pub(super) fn flags(settings: &Settings) -> FlagConfig {
    FlagConfig {
        database: settings.database_url.clone(),
        redis: settings.redis_url.clone(),
        stream: settings.flags_stream.clone(),
        group: settings.flags_group.clone(),
        consumer: consumer_name(&settings.data_dir),
        corrected: settings.corrected_stream.clone(),
    }
}

pub(super) fn retention(settings: &Settings) -> RetentionConfig {
    RetentionConfig { database_url: settings.database_url.clone(), ages: settings.retention }
}
