//! Wrong orders of the scripts that ship: each step left out, and every two steps swapped.

use odograph::store::{APPLY_ORDER, COMMIT_ORDER, CommitStep, FLAG_ORDER, FlagOrder, FlagStep, RECORD_ORDER};

use crate::plan::Mutant;

/// A change of an order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change<S> {
    Without(S),
    Swapped(S, S),
}

/// A wrong order.
#[derive(Clone, Debug)]
pub struct WrongOrder {
    /// The script, and the change of its order.
    pub name: String,
    /// The order as a mutant of the simulation.
    pub mutant: Mutant,
    /// Why it is as good as the order that ships, if it is. The simulation has nothing to find then.
    pub equivalent: Option<&'static str>,
}

/// Every wrong order of both scripts.
#[must_use]
pub fn wrong_orders() -> Vec<WrongOrder> {
    let mut orders = Vec::new();
    for (change, order) in changes(&COMMIT_ORDER) {
        let name = format!("batch: {change:?}");
        orders.push(WrongOrder { name, mutant: Mutant::CommitOrder(order), equivalent: batch_equivalent(change) });
    }
    for (change, record) in changes(&RECORD_ORDER) {
        let mutant = Mutant::FlagOrder(FlagOrder { record, ..FLAG_ORDER });
        orders.push(WrongOrder { name: format!("record: {change:?}"), mutant, equivalent: None });
    }
    for (change, apply) in changes(&APPLY_ORDER) {
        let mutant = Mutant::FlagOrder(FlagOrder { apply, ..FLAG_ORDER });
        orders.push(WrongOrder { name: format!("apply: {change:?}"), mutant, equivalent: apply_equivalent(change) });
    }
    orders
}

fn changes<S: Copy>(order: &[S]) -> Vec<(Change<S>, &'static [S])> {
    let mut changes = Vec::new();
    for (at, step) in order.iter().enumerate() {
        let mut without = order.to_vec();
        without.remove(at);
        changes.push((Change::Without(*step), leaked(without)));
        for (other_at, other) in order.iter().enumerate().skip(at + 1) {
            let mut swapped = order.to_vec();
            swapped.swap(at, other_at);
            changes.push((Change::Swapped(*step, *other), leaked(swapped)));
        }
    }
    changes
}

/// A few bytes for each order, for as long as the test runs.
fn leaked<S>(order: Vec<S>) -> &'static [S] {
    Box::leak(order.into_boxed_slice())
}

fn batch_equivalent(change: Change<CommitStep>) -> Option<&'static str> {
    use CommitStep::{
        Begin, Checkpoint, Claim, Fence, FlagRows, Guard, Latest, Messages, Quarantine, RepairLatest, Rows,
    };
    let Change::Swapped(one, other) = change else { return None };
    match (one, other) {
        (Claim, Begin) => Some("the session owns the lane, with a transaction or without"),
        (Fence, Guard) => Some("the guard only reads"),
        (Guard, Rows | Messages | Checkpoint | Latest) => {
            Some("a guard that comes later in the transaction sees at least as much, and refuses the whole of it")
        }
        (Quarantine, Messages) => Some("independent tables in one transaction"),
        (FlagRows, Latest | RepairLatest) => {
            Some("what live flags cover is never found as a latest position, marked or not")
        }
        (Latest, RepairLatest) => Some("a device has its latest position in one of the two, never in both"),
        (FlagRows | Latest | RepairLatest, Checkpoint) => {
            Some("the fence holds the lock of the checkpoint, and no session sees it before the commit")
        }
        _ => None,
    }
}

fn apply_equivalent(change: Change<FlagStep>) -> Option<&'static str> {
    use FlagStep::{Applied, Correct, ForgetWindows, RepairLatest};
    let Change::Swapped(one, other) = change else { return None };
    match (one, other) {
        (Correct, RepairLatest | Applied | ForgetWindows)
        | (RepairLatest, Applied | ForgetWindows)
        | (Applied, ForgetWindows) => Some("independent tables in one transaction"),
        _ => None,
    }
}
