//! The parts burst and single: all rows as fast as answers come, in turns with raw COPY.

use serde_json::{Value as Json, json};

use super::bench::{Ingest, IngestBench, median, number};
use super::cpu::thousandths;

pub fn run(bench: &mut IngestBench, records: u8) -> Json {
    bench.forget_copies();
    let runs = number("BENCH_RUNS", if records == 1 { 3 } else { 5 });
    let (mut ingests, mut raw, mut raw_cpu): (Vec<Ingest>, Vec<[f64; 2]>, _) = (Vec::new(), Vec::new(), None);
    for run in 0..runs {
        // The two take turns at going first.
        for half in 0..2 {
            if (run + half) % 2 == 0 {
                ingests.push(bench.ingest(records));
            } else {
                let (rates, cpu) = bench.copy();
                raw.push(rates);
                raw_cpu = cpu;
            }
        }
    }
    let of = |figure: fn(&Ingest) -> f64| median(&ingests.iter().map(figure).collect::<Vec<_>>());
    let copy = |order: usize| median(&raw.iter().map(|rates| rates[order]).collect::<Vec<_>>());
    let ratio = |order: usize| {
        let ratios: Vec<f64> =
            ingests.iter().zip(&raw).map(|(ingest, rates)| ingest.rows_per_s / rates[order]).collect();
        thousandths(median(&ratios))
    };
    let last = ingests.last().unwrap();
    if records > 1 {
        bench.measured(of(|ingest| ingest.rows_per_s));
    }
    json!({
        "rows": last.load.distinct, "devices": bench.devices, "records_per_packet": records, "runs": runs,
        "copy_rows_per_s": copy(0).round(), "ingest_rows_per_s": of(|ingest| ingest.rows_per_s).round(),
        "ratio": ratio(0), "ratios": ingests.iter().zip(&raw).map(|(i, r)| thousandths(i.rows_per_s / r[0])).collect::<Vec<_>>(),
        "copy_as_arrived_rows_per_s": copy(1).round(), "ratio_as_arrived": ratio(1),
        "while_loading_rows_per_s": of(|ingest| ingest.while_loading).round(),
        "rss_mib": of(|ingest| ingest.rss_mib),
        "client_ack_ms_p50": thousandths(of(|ingest| ingest.load.ack_ms.p50)),
        "client_ack_ms_p99": thousandths(of(|ingest| ingest.load.ack_ms.p99)),
        "cpu_s_per_million": last.cpu, "copy_database_cpu_s_per_million": raw_cpu, "frame_bytes": last.load.frame_bytes.round(),
    })
}
