//! Read buffers, lent only while bytes are incomplete: an idle connection holds none.

use std::sync::{Mutex, PoisonError};

use super::session::READ_LEN;

/// Buffers waiting for their next use.
#[derive(Debug, Default)]
pub(crate) struct Buffers(Mutex<Vec<Vec<u8>>>);

impl Buffers {
    /// An empty buffer with room for one read.
    pub(crate) fn take(&self) -> Vec<u8> {
        let kept = self.0.lock().unwrap_or_else(PoisonError::into_inner).pop();
        kept.unwrap_or_else(|| Vec::with_capacity(READ_LEN))
    }

    /// Gives one back. A buffer that grew for a large frame, or one too many, is freed instead.
    pub(crate) fn give(&self, mut buffer: Vec<u8>) {
        if buffer.capacity() == 0 || buffer.capacity() > KEPT_LEN {
            return;
        }
        buffer.clear();
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.len() < KEPT {
            kept.push(buffer);
        }
    }
}

/// Most buffers kept: with [`KEPT_LEN`] at most 4 MiB.
const KEPT: usize = 1024;
const KEPT_LEN: usize = 2 * READ_LEN;
