//! What goes wrong in a store, and who must act.

pub(crate) mod classify;
pub(crate) mod convert;
pub(crate) mod remedy;
