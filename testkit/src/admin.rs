//! Requests to a service's admin listener.

use std::net::SocketAddr;

use odograph::admin_client::AdminClient;
use serde_json::Value as Json;

use crate::wait::PATIENCE;

/// Sends a GET request for a path. Returns the status and the body.
pub async fn get(admin: SocketAddr, path: &str) -> (u16, String) {
    let answer = AdminClient::new(admin).with_timeout(PATIENCE).get(path).await.unwrap();
    (answer.status, answer.body)
}

/// Returns one value of `/metrics`. `series` is the name with its labels.
pub async fn metric(admin: SocketAddr, series: &str) -> f64 {
    let (status, text) = get(admin, "/metrics").await;
    assert_eq!(status, 200);
    text.lines()
        .find_map(|line| line.strip_prefix(series)?.strip_prefix(' '))
        .unwrap_or_else(|| panic!("no {series} in\n{text}"))
        .parse()
        .unwrap()
}

/// Returns one whole number of `/metrics`.
pub async fn count(admin: SocketAddr, series: &str) -> u64 {
    format!("{:.0}", metric(admin, series).await).parse().unwrap()
}

/// Reads `/readyz`: the status, whether the service is ready, and the reasons.
pub async fn readiness(admin: SocketAddr) -> (u16, bool, Vec<String>) {
    let (status, body) = get(admin, "/readyz").await;
    let body: Json = serde_json::from_str(&body).unwrap();
    let reasons = body["reasons"].as_array().unwrap().iter().map(|r| r.as_str().unwrap().to_owned()).collect();
    (status, body["ready"].as_bool().unwrap(), reasons)
}
