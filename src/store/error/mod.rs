//! What goes wrong in a store, and who must act. Codes decide, never the text of a message.
//!
//! - `class`: the two answers that leave the store.
//! - `classify`: from a database's code to what a transaction does about it.
//! - `remedy`: what an operator can do about a code.
//! - `store_error`: the error itself, made from the errors of the clients.

pub(crate) mod class;
pub(crate) mod classify;
pub(crate) mod remedy;
pub(crate) mod store_error;
