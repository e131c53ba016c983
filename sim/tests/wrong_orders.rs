//! Every wrong order of the scripts that ship is found by the simulation: see `docs/simulation.md`.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use odograph_sim::orders::wrong_orders;
use odograph_sim::run;

#[test]
fn every_wrong_order_of_the_scripts_is_found() {
    let most = std::env::var("SIM_MUTANT_SCHEDULES").ok().map_or(400, |text| text.parse().unwrap());
    let orders: Vec<_> = wrong_orders().into_iter().filter(|order| order.not_run.is_none()).collect();
    let (next, missed, found) = (AtomicUsize::new(0), Mutex::new(Vec::new()), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(|| {
                while let Some(order) = orders.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let wrong = (1..=most).find_map(|seed| Some((seed, run(seed, Some(order.mutant)).wrong?)));
                    if let Some((seed, wrong)) = wrong {
                        println!("{}: after {seed} schedules: {wrong}", order.name);
                        found.fetch_add(1, Ordering::Relaxed);
                    } else {
                        println!("{}: NOT FOUND", order.name);
                        missed.lock().unwrap().push(order.name.clone());
                    }
                }
            });
        }
    });
    let missed = missed.into_inner().unwrap();
    println!("{} wrong orders found", found.into_inner());
    assert!(missed.is_empty(), "not found in {most} schedules: {missed:#?}");
}
