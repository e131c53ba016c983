//! The service in this process.

use odograph::app::{self, StartOptions};
use odograph::config::{Lookup, Settings};
use odograph::metrics::Counts;
use tempfile::TempDir;

use crate::wait::eventually;

/// Wide time windows: most tests send records of a fixed day, and the vendor's examples are from 2007 to 2020.
pub const ANY_TIME: [(&str, &str); 2] =
    [("ODOGRAPH_TIME_WINDOW_PAST", "20000d"), ("ODOGRAPH_TIME_WINDOW_FUTURE", "20000d")];

/// Acknowledges after the commit, not after the journal's sync.
pub const AFTER_COMMIT: (&str, &str) = ("ODOGRAPH_ACK_AFTER", "commit");

/// A service in this process, with its own data directory.
pub struct Service {
    running: app::Service,
    _directory: TempDir,
}

impl std::ops::Deref for Service {
    type Target = app::Service;

    fn deref(&self) -> &app::Service {
        &self.running
    }
}

impl Service {
    /// Starts one on free ports.
    pub async fn start(database_url: &str, variables: &[(&str, &str)]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let own = [&[("ODOGRAPH_DATA_DIR", directory.path().to_str().unwrap())], variables].concat();
        let running = app::start(&settings(database_url, &own), StartOptions::default()).await;
        let running = running.unwrap_or_else(|e| panic!("{e}: {:?}", std::error::Error::source(&e)));
        Self { running, _directory: directory }
    }

    /// Waits until the database holds every record that the service accepted.
    pub async fn settled(&self) {
        eventually("everything to be stored", async || {
            (self.running.registry.tally().read().waiting == 0).then_some(())
        })
        .await;
    }

    /// Waits until the service fails, and returns the error.
    pub async fn failed(&mut self) -> &'static str {
        self.running.failed().await
    }

    /// Stops it cleanly.
    pub async fn stop(self) -> Counts {
        self.running.stop().await
    }
}

fn settings(database_url: &str, variables: &[(&str, &str)]) -> Settings {
    let mut all = vec![
        ("DATABASE_URL", database_url),
        ("ODOGRAPH_LISTEN", "127.0.0.1:0"),
        ("ODOGRAPH_ADMIN_LISTEN", "127.0.0.1:0"),
        ("ODOGRAPH_SHUTDOWN_GRACE", "5s"),
    ];
    all.extend(ANY_TIME);
    all.extend(variables);
    Settings::load(&Lookup::from_variables(all)).unwrap()
}
