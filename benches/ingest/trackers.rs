//! The part trackers: the burst's rows sent by few and by many trackers, one table each, and raw COPY of the same rows.

use serde_json::{Value as Json, json};

use super::bench::IngestBench;
use super::cpu::thousandths;
use super::plot::{Axis, Chart, Curve, draw};

pub fn run(bench: &mut IngestBench) -> Json {
    let usual = bench.devices;
    let mut lines = Vec::new();
    for devices in [20, 100, 500, 2_000, 10_000] {
        bench.devices = devices;
        bench.forget_copies();
        let ingest = bench.ingest(10);
        let ([_, copy], _) = bench.copy();
        eprintln!("{devices} trackers: {:.0} rows/s, COPY as they arrive {copy:.0}", ingest.rows_per_s);
        lines.push(json!({
            "devices": devices, "rows": ingest.load.distinct, "rows_per_s": ingest.rows_per_s.round(),
            "copy_as_arrived_rows_per_s": copy.round(), "ratio_as_arrived": thousandths(ingest.rows_per_s / copy),
            "client_ack_ms": ingest.load.ack_ms, "rss_mib": ingest.rss_mib, "cpu_s_per_million": ingest.cpu,
        }));
    }
    bench.devices = usual;
    bench.forget_copies();
    plot(&lines);
    json!({ "by_devices": lines })
}

fn plot(lines: &[Json]) {
    let curve = |label: &str, field: &str| {
        Curve::new(label, lines.iter().map(|line| (line["devices"].as_f64().unwrap(), line[field].as_f64().unwrap())))
    };
    let curves = vec![
        curve("socket to committed rows", "rows_per_s"),
        curve("binary COPY of the same rows", "copy_as_arrived_rows_per_s"),
    ];
    let most = curves.iter().flat_map(|curve| curve.points.iter().map(|(_, rows)| *rows)).collect::<Vec<_>>();
    draw(
        "rate",
        &[Chart {
            title: "Rows as fast as answers come, by the number of trackers",
            x: Axis { label: "trackers, each waiting for its answers", range: 20.0..10_000.0 },
            y: Axis::from_zero("rows a second", most.into_iter().map(|rows| rows * 1.2)),
            x_log: true,
            curves,
        }],
    );
}
