//! The repository itself: what its documents name exists.

#![expect(clippy::unwrap_used, reason = "a step that fails here is a test that fails")]

mod documents;
