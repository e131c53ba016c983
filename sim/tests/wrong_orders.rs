//! Every wrong order of the scripts that ship is found by the simulation: see `docs/simulation.md`.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use odograph_sim::{WrongOrder, run, wrong_orders};

#[test]
fn every_wrong_order_of_the_scripts_is_found() {
    let most = std::env::var("SIM_MUTANT_SCHEDULES").ok().map_or(400, |text| text.parse().unwrap());
    let filter = std::env::var("SIM_ORDER").unwrap_or_default();
    let all = wrong_orders().into_iter().filter(|order| order.name.contains(&filter));
    let (equivalent, orders): (Vec<_>, Vec<_>) = all.partition(|order| order.equivalent.is_some());
    println!("{} orders to find, {} equivalent to the shipped one", orders.len(), equivalent.len());
    let (next, missed) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(|| {
                while let Some(order) = orders.get(next.fetch_add(1, Ordering::Relaxed)) {
                    if !is_found(order, most) {
                        missed.lock().unwrap().push(order.name.clone());
                    }
                }
            });
        }
    });
    let missed = missed.into_inner().unwrap();
    assert!(missed.is_empty(), "not found in {most} schedules: {missed:#?}");
}

fn is_found(order: &WrongOrder, most: u64) -> bool {
    let found = (1..=most).find_map(|seed| Some((seed, run(seed, Some(order.mutant)).failure?)));
    match &found {
        Some((seed, failure)) => println!("{}: after {seed} schedules: {failure}", order.name),
        None => println!("{}: NOT FOUND", order.name),
    }
    found.is_some()
}
