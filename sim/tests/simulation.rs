//! The core under one seeded scheduler: sessions, journal, drain and flags are the service's own, everything around them is made
//! to fail. After every step the promise, the flag rule and the sums must hold; see `docs/simulation.md`.
//!
//! `SIM_SEED` is the first schedule, `SIM_SCHEDULES` their number; each seed repeats itself exactly.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use odograph_sim::database::Flaw;
use odograph_sim::{Mutant, run};

fn set(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{name} is a number")))
}

#[derive(Default)]
struct Total {
    steps: u64,
    items: u64,
    images: u64,
    faults: BTreeMap<&'static str, u64>,
}

#[test]
fn any_schedule_keeps_the_promise() {
    let (first, schedules) = (set("SIM_SEED").unwrap_or(1), set("SIM_SCHEDULES").unwrap_or(300));
    let next = AtomicU64::new(first);
    let begun = Instant::now();
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let totals: Vec<Total> = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads)
            .map(|_| {
                scope.spawn(|| {
                    let mut total = Total::default();
                    loop {
                        let seed = next.fetch_add(1, Ordering::Relaxed);
                        if seed >= first + schedules {
                            return total;
                        }
                        let outcome = run(seed, None);
                        if outcome.failure.is_some() {
                            next.store(u64::MAX / 2, Ordering::Relaxed);
                        }
                        assert!(outcome.failure.is_none(), "{}", outcome.report(seed));
                        total.steps += outcome.steps() as u64;
                        total.items += outcome.items as u64;
                        total.images += outcome.images;
                        for (kind, count) in outcome.faults() {
                            *total.faults.entry(kind).or_default() += count;
                        }
                    }
                })
            })
            .collect();
        workers.into_iter().map(|worker| worker.join().unwrap_or_else(|p| std::panic::resume_unwind(p))).collect()
    });
    let took = begun.elapsed();
    let per_minute = u128::from(schedules) * 60_000 / took.as_millis().max(1);
    let mut all = Total::default();
    for total in totals {
        (all.steps, all.items, all.images) =
            (all.steps + total.steps, all.items + total.items, all.images + total.images);
        total.faults.into_iter().for_each(|(kind, count)| *all.faults.entry(kind).or_default() += count);
    }
    println!(
        "seeds {first} to {}: {} steps, {} records and messages, {} power-cut images opened, in {:.1} s: {per_minute} schedules a minute",
        first + schedules - 1,
        all.steps,
        all.items,
        all.images,
        took.as_secs_f64()
    );
    for (kind, count) in all.faults {
        println!("{count:9} {kind}");
    }
}

#[test]
fn a_seed_gives_the_same_schedule_again() {
    for seed in [3, 1_000, 77_777, u64::MAX / 3] {
        let (one, two) = (run(seed, None), run(seed, None));
        assert!(one.hash() == two.hash(), "seed {seed}:\n{}\n\n{}", one.report(seed), two.report(seed));
        assert!(one.hash() != run(seed ^ 1, None).hash(), "another seed gives another schedule");
    }
}

#[test]
fn the_simulation_finds_what_is_broken_on_purpose() {
    let mutants = [
        Mutant::LyingDisk,
        Mutant::EarlyReceipt,
        Mutant::EarlyRelease,
        Mutant::EmptyCommit,
        Mutant::ForgottenJournal,
        Mutant::DeafConsumer,
        Mutant::Database(Flaw::NoKey),
        Mutant::Database(Flaw::PlainFence),
        Mutant::Database(Flaw::PlainLedger),
        Mutant::Database(Flaw::NoSeq),
        Mutant::Database(Flaw::NoVersion),
        Mutant::Database(Flaw::LatestByArrival),
    ];
    let most = set("SIM_MUTANT_SCHEDULES").unwrap_or(400);
    let mut not_found = Vec::new();
    for mutant in mutants {
        let found = (1..=most).find_map(|seed| Some((seed, run(seed, Some(mutant)).failure?)));
        match found {
            Some((seed, failure)) => println!("{mutant:?}: after {seed} schedules: {failure}"),
            None => not_found.push(mutant),
        }
    }
    assert!(not_found.is_empty(), "not found in {most} schedules: {not_found:?}");
}
