//! Who may log in: with `admission = registered`, only the devices in the table `devices`.
//!
//! ```text
//! devices ──NOTIFY, timer──► loader ──► Admission ◄──decide── gateway
//!              known-devices ◄──┘          └──► unknown-devices.json, for the operator
//! ```
//!
//! - `registered`: [`Admission`] answers sessions from memory, so a login costs no query, however many strangers try.
//! - `registered_session`: an open session of a registered device; `session_wakers` wakes it when the device is removed.
//! - `loader`: reads the table on a thread of its own. Whatever goes wrong there, the last list stays in force.
//! - `known_file`: that list on disk. A restart during a database outage still knows its trackers.
//! - `unknown_devices`: the devices refused recently, a bounded list.
//! - `tasks`: starts and stops the thread; `config` is what it needs to know.

mod config;
mod known_file;
mod list;
mod loader;
mod metrics;
mod registered;
mod registered_session;
mod replace;
mod session_wakers;
mod tasks;
mod unknown_devices;

pub use config::AdmissionConfig;
pub use known_file::{KnownFile, RememberedList};
pub use list::DeviceList;
pub use metrics::AdmissionMetrics;
pub use registered::{Admission, LoginDecision};
pub use registered_session::RegisteredSession;
pub use replace::FileError;
pub use tasks::{AdmissionTask, spawn};
pub use unknown_devices::{UnknownDevice, UnknownDeviceFile, UnknownDevices, time};
