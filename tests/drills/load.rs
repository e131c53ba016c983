//! The running fleet, on its own thread: a drill that waits for a server must not hold up the trackers.

use std::sync::Arc;
use std::thread::JoinHandle;

use odograph_fleet::{Plan, Progress, TrackerReport};
use odograph_testkit::eventually;
use tokio_util::sync::CancellationToken;

pub(crate) struct Load {
    pub(crate) plan: Plan,
    progress: Arc<Progress>,
    stop: CancellationToken,
    fleet: Option<JoinHandle<Vec<TrackerReport>>>,
}

impl Load {
    pub(crate) fn start(plan: Plan) -> Self {
        let (progress, stop) = (Arc::new(Progress::default()), CancellationToken::new());
        let fleet = odograph_fleet::run(plan, Arc::clone(&progress), stop.clone());
        let fleet = std::thread::spawn(|| runtime().block_on(fleet));
        Self { plan, progress, stop, fleet: Some(fleet) }
    }

    pub(crate) fn acknowledged(&self) -> u64 {
        self.progress.read().1
    }

    pub(crate) fn reconnects(&self) -> u64 {
        self.progress.read().2
    }

    /// Waits until this many more records are acknowledged.
    pub(crate) async fn goes_on(&self, more: u64) {
        let from = self.acknowledged();
        eventually("the fleet to go on", async || (self.acknowledged() >= from + more).then_some(())).await;
    }

    /// Stops the fleet and returns what the service acknowledged to each tracker.
    pub(crate) async fn stop(mut self) -> Vec<TrackerReport> {
        self.stop.cancel();
        let fleet = self.fleet.take().unwrap();
        eventually("the fleet to stop", async || fleet.is_finished().then_some(())).await;
        fleet.join().unwrap()
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

pub(crate) fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

/// Runs work on its own thread and runtime until the program ends. Returns the first value that the work sends.
pub(crate) fn run_in_background<T, F>(work: impl FnOnce(std::sync::mpsc::Sender<T>) -> F + Send + 'static) -> T
where
    T: Send + 'static,
    F: Future<Output = ()>,
{
    let (say, said) = std::sync::mpsc::channel();
    std::thread::spawn(move || runtime().block_on(work(say)));
    said.recv().unwrap()
}
