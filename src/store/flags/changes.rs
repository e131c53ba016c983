//! Several changes of flags at once: which of them count, and the result of each.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use uuid::Uuid;

use crate::store::model::flag::{Applied, FlagChange, Window};

/// Returns the latest change of each flag, in the order of the flags, so that two writers lock them in the same order.
/// The window before it is that of the flag's oldest change.
pub(crate) fn latest_of_each(changes: &[FlagChange]) -> Vec<FlagChange> {
    let mut latest: HashMap<Uuid, (FlagChange, i64)> = HashMap::new();
    for change in changes {
        match latest.entry(change.flag) {
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
    let mut latest: Vec<_> = latest.into_values().map(|(change, _)| change).collect();
    latest.sort_unstable_by_key(|change| change.flag);
    latest
}

/// Returns the result of each change, given the flags that followed: the latest change of such a flag is applied, all
/// others are stale.
pub(crate) fn outcomes(changes: &[FlagChange], applied: &HashMap<Uuid, i64>) -> Vec<Applied> {
    let mut left = applied.clone();
    changes
        .iter()
        .map(|change| match left.get(&change.flag) {
            // Once: a group may hold the same entry twice.
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
    fn of_several_changes_of_a_flag_the_latest_counts_and_the_oldest_says_what_was_before() {
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
        let latest = latest_of_each(&changes);
        assert_eq!(latest, [change(1, 9, None), change(2, 6, Some(window(1)))]);
        let applied = latest.iter().map(|change| (change.flag, change.seq)).collect();
        assert_eq!(
            outcomes(&changes, &applied),
            [Applied::Stale, Applied::Applied, Applied::Applied, Applied::Stale, Applied::Stale]
        );
    }
}
