//! The admin listener: `/metrics`, `/livez`, `/readyz`. It shares nothing with the data path but counters and flags, so
//! it answers when that is stuck.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::health::{Health, Reason};
use crate::metrics::Registry;

/// What the pages show.
#[derive(Clone)]
pub struct Admin {
    /// Counters.
    pub registry: Arc<Registry>,
    /// Readiness.
    pub health: Arc<Health>,
}

/// Answers until `stop`. A peer that sends nothing, or without end, has a bounded time, and all of them a bounded number.
pub async fn serve(listener: TcpListener, admin: Admin, stop: CancellationToken) {
    let pages = Router::new()
        .route("/metrics", get(metrics))
        .route("/livez", get(livez))
        .route("/readyz", get(readyz))
        .with_state(admin);
    let mut connections = JoinSet::new();
    loop {
        // What is answered now still ends.
        let accepted = tokio::select! {
            () = stop.cancelled() => break,
            Some(_) = connections.join_next() => continue,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            // The newest goes: one of the others is the scraper that comes every few seconds.
            Ok((stream, _)) if connections.len() >= CONNECTIONS_MAX => drop(stream),
            Ok((stream, _)) => drop(connections.spawn(answer(stream, pages.clone()))),
            // No room for another file: sessions and the journal go first.
            Err(_) => sleep(ACCEPT_PAUSE).await,
        }
    }
    let _ = timeout(LAST_ANSWERS, async { while connections.join_next().await.is_some() {} }).await;
}

/// Answers one connection.
async fn answer(stream: TcpStream, pages: Router) {
    let mut connection = pin!(
        http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEADER_TIMEOUT)
            .serve_connection(TokioIo::new(stream), TowerToHyperService::new(pages))
    );
    if timeout(CONNECTION_TIME, connection.as_mut()).await.is_err() {
        // The request under way still gets its answer. Its peer opens another connection.
        connection.as_mut().graceful_shutdown();
        let _ = timeout(HEADER_TIMEOUT, connection).await;
    }
}

async fn metrics(State(admin): State<Admin>) -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], admin.registry.render())
}

/// The runtime that answers is the one that serves the sessions: answering is the proof.
async fn livez() -> &'static str {
    "ok\n"
}

async fn readyz(State(admin): State<Admin>) -> impl IntoResponse {
    let ready = admin.health.is_ready();
    let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let names: Vec<&str> = admin.health.reasons().map(Reason::as_str).collect();
    let body = serde_json::json!({ "ready": ready, "reasons": names }).to_string();
    (status, [(header::CONTENT_TYPE, "application/json")], body)
}

/// A few scrapers and probes need a tenth of them.
const CONNECTIONS_MAX: usize = 64;
/// From the beginning of a connection, or from the last answer, to the end of a request's headers.
const HEADER_TIMEOUT: Duration = Duration::from_secs(10);
const CONNECTION_TIME: Duration = Duration::from_mins(5);
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// At the stop.
const LAST_ANSWERS: Duration = Duration::from_millis(500);
