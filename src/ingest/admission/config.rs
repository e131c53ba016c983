//! What admission needs to know.

use std::path::PathBuf;

use crate::store::DatabaseUrl;

/// Where the registered devices come from and where their last known list is kept.
#[derive(Clone, Debug)]
pub struct AdmissionConfig {
    /// The database with the table `devices`.
    pub database: DatabaseUrl,
    /// The data directory, for `known-devices` and `unknown-devices.json`.
    pub data_dir: PathBuf,
}
