//! The simulation finds every wrong order of the scripts that ship, and nothing in the orders that are as good: see
//! `docs/simulation.md`.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use odograph_sim::{WrongOrder, run, wrong_orders};

#[test]
fn every_wrong_order_of_the_scripts_is_found() {
    let most = std::env::var("SIM_MUTANT_SCHEDULES").ok().map_or(400, |text| text.parse().unwrap());
    let missed = select(|order| order.equivalent.is_none(), |order| failure_in(order, most).is_none());
    assert!(missed.is_empty(), "not found in {most} schedules: {missed:#?}");
}

#[test]
fn every_equivalent_order_of_the_scripts_holds() {
    let found = select(|order| order.equivalent.is_some(), |order| failure_in(order, 60).is_some());
    assert!(found.is_empty(), "not as good as the order that ships: {found:#?}");
}

/// Returns the orders of a kind that pass a test, on as many threads as the machine has.
fn select(kind: impl Fn(&WrongOrder) -> bool, test: impl Fn(&WrongOrder) -> bool + Sync) -> Vec<String> {
    let filter = std::env::var("SIM_ORDER").unwrap_or_default();
    let orders: Vec<_> =
        wrong_orders().into_iter().filter(|order| kind(order) && order.name.contains(&filter)).collect();
    let (next, selected) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(|| {
                while let Some(order) = orders.get(next.fetch_add(1, Ordering::Relaxed)) {
                    if test(order) {
                        selected.lock().unwrap().push(order.name.clone());
                    }
                }
            });
        }
    });
    println!("{} orders run", orders.len());
    selected.into_inner().unwrap()
}

fn failure_in(order: &WrongOrder, schedules: u64) -> Option<String> {
    let found = (1..=schedules).find_map(|seed| Some((seed, run(seed, Some(order.mutant)).failure?)));
    match &found {
        Some((seed, failure)) => println!("{}: after {seed} schedules: {failure}", order.name),
        None => println!("{}: nothing found in {schedules} schedules", order.name),
    }
    found.map(|(_, failure)| failure)
}
