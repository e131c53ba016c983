//! Several changes of flags at once: which of them count, and what became of each.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use uuid::Uuid;

use crate::store::model::flag::{Applied, FlagChange, Window};

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
    use crate::store::model::flag::FlagState;

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
