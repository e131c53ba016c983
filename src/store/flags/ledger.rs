//! The ledger of faulty flags: what marshals said, in the order of their words, and positions that follow it.
//!
//! A position is faulty exactly while a live flag covers it. Changes may come more than once, in any order, from several
//! processes, and before or after the positions that they are about: the outcome is the same.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use uuid::Uuid;

use crate::store::model::flag::{Applied, Correction, FlagChange};
use crate::store::{StoreError, Window};

/// A database that keeps the ledger. Implemented by [`crate::store::PostgresLedger`] and [`crate::store::SqliteLedger`].
pub trait Ledger {
    /// Writes changes down and makes positions follow; says what became of each.
    ///
    /// # Errors
    /// Some of the changes, or all, may be written down or applied then. Offer them again, or only some of them: what is
    /// applied already is stale then, what is written down is taken up again.
    fn apply(&mut self, changes: &[FlagChange]) -> impl Future<Output = Result<Vec<Applied>, StoreError>> + Send;

    /// Makes positions follow what was written down by somebody who did not come to applying it, `most` flags at a time.
    /// Gives their number.
    ///
    /// # Errors
    /// Harmless: it is tried again.
    fn finish(&mut self, most: usize) -> impl Future<Output = Result<usize, StoreError>> + Send;

    /// Changes that Directus' side has and the ledger does not, at most so many, oldest first. Nothing where Directus' side
    /// is not installed, see `odograph migrate --directus`.
    ///
    /// # Errors
    /// Harmless: it is tried again.
    fn behind(&mut self, most: usize) -> impl Future<Output = Result<Vec<FlagChange>, StoreError>> + Send;

    /// The first corrections that nobody was told, in order; `None` while another session publishes them. From then on this
    /// one does, as long as its connection lasts.
    ///
    /// # Errors
    /// Harmless: it is tried again.
    fn corrections(&mut self, most: usize) -> impl Future<Output = Result<Option<Vec<Correction>>, StoreError>> + Send;

    /// Removes corrections that were told.
    ///
    /// # Errors
    /// They are told once more then, under the same ids.
    fn told(&mut self, ids: &[i64]) -> impl Future<Output = Result<(), StoreError>> + Send;

    /// Removes the oldest corrections above [`OUTBOX_MAX`]; gives their number. Those are gone for good.
    ///
    /// # Errors
    /// Harmless: it is tried again.
    fn trim_corrections(&mut self) -> impl Future<Output = Result<u64, StoreError>> + Send;

    /// Closes the connection in good order.
    fn close(&mut self) -> impl Future<Output = ()> + Send;
}

/// Corrections that wait for Redis, at most: as many as the corrected stream holds, which would drop older ones as well.
pub const OUTBOX_MAX: i64 = 1_000_000;

/// The changes that matter: of several about one flag the newest, in the order of their flags, so that two writers meet them
/// in the same order. What it covered before is the oldest one's word.
pub(crate) fn newest_of_each(changes: &[FlagChange]) -> Vec<FlagChange> {
    let mut newest: HashMap<Uuid, (FlagChange, i64)> = HashMap::new();
    for change in changes {
        match newest.entry(change.flag) {
            Entry::Vacant(vacant) => {
                vacant.insert((change.clone(), change.seq));
            }
            Entry::Occupied(mut occupied) => {
                let (held, oldest) = occupied.get_mut();
                let old: Option<Window> = if change.seq < *oldest { change.old } else { held.old };
                *oldest = change.seq.min(*oldest);
                if held.seq < change.seq {
                    *held = change.clone();
                }
                held.old = old;
            }
        }
    }
    let mut newest: Vec<_> = newest.into_values().map(|(change, _)| change).collect();
    newest.sort_unstable_by_key(|change| change.flag);
    newest
}

/// What became of each change, given the flags whose change was news: the newest of a flag is applied, all others are stale.
pub(crate) fn outcomes(changes: &[FlagChange], applied: &HashMap<Uuid, i64>) -> Vec<Applied> {
    let mut left = applied.clone();
    changes
        .iter()
        .map(|change| match left.get(&change.flag) {
            // Once: the same entry may stand twice in a group.
            Some(seq) if *seq == change.seq => {
                left.remove(&change.flag);
                Applied::Applied
            }
            _ => Applied::Stale,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use teltonika_codecs::Imei;

    use super::*;
    use crate::store::FlagState;

    #[test]
    fn of_several_changes_of_a_flag_the_newest_counts_and_the_oldest_says_what_was_before() {
        let window = |at| Window::new(Imei::from_ascii(b"000000000000017").unwrap(), at, at).unwrap();
        let change = |flag, seq, old| FlagChange {
            flag: Uuid::from_u128(flag),
            seq,
            old,
            state: FlagState::Set { window: window(seq), faulty: true, reason: None },
        };
        let changes = [
            change(2, 5, Some(window(3))),
            change(1, 9, None),
            change(2, 6, Some(window(5))),
            change(2, 3, Some(window(1))),
            change(2, 6, Some(window(5))),
        ];
        let newest = newest_of_each(&changes);
        assert_eq!(newest, [change(1, 9, None), change(2, 6, Some(window(1)))]);
        let applied = newest.iter().map(|change| (change.flag, change.seq)).collect();
        assert_eq!(
            outcomes(&changes, &applied),
            [Applied::Stale, Applied::Applied, Applied::Applied, Applied::Stale, Applied::Stale]
        );
    }
}
