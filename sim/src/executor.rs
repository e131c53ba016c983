//! Futures that are polled by hand: only after they were woken, and only when the scheduler chooses them.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

/// Rings when any task was woken.
#[derive(Default)]
pub struct Bell {
    rung: AtomicBool,
    listener: Mutex<Option<Waker>>,
}

impl Bell {
    fn ring(&self) {
        self.rung.store(true, Ordering::Relaxed);
        if let Some(waker) = self.listener.lock().unwrap().take() {
            waker.wake();
        }
    }

    /// Lets time pass until a task wakes up, at most this long.
    pub async fn wait(&self, most: Duration) {
        self.rung.store(false, Ordering::Relaxed);
        let rung = poll_fn(|context| {
            *self.listener.lock().unwrap() = Some(context.waker().clone());
            if self.rung.load(Ordering::Relaxed) { Poll::Ready(()) } else { Poll::Pending }
        });
        tokio::select! {
            biased;
            () = rung => {}
            () = tokio::time::sleep(most) => {}
        }
    }
}

/// One future.
pub struct Task<T> {
    future: Pin<Box<dyn Future<Output = T>>>,
    flag: Arc<Flag>,
    waker: Waker,
}

struct Flag {
    ready: AtomicBool,
    bell: Arc<Bell>,
}

impl Wake for Flag {
    fn wake(self: Arc<Self>) {
        self.ready.store(true, Ordering::Relaxed);
        self.bell.ring();
    }
}

impl<T> Task<T> {
    pub fn new(bell: &Arc<Bell>, future: impl Future<Output = T> + 'static) -> Self {
        let flag = Arc::new(Flag { ready: AtomicBool::new(true), bell: Arc::clone(bell) });
        let waker = Waker::from(Arc::clone(&flag));
        Self { future: Box::pin(future), flag, waker }
    }

    pub fn is_ready(&self) -> bool {
        self.flag.ready.load(Ordering::Relaxed)
    }

    /// Polls the future. Returns its output once it has ended, and must not be called again after that.
    pub fn poll(&mut self) -> Option<T> {
        self.flag.ready.store(false, Ordering::Relaxed);
        match self.future.as_mut().poll(&mut Context::from_waker(&self.waker)) {
            Poll::Ready(ended) => Some(ended),
            Poll::Pending => None,
        }
    }
}
