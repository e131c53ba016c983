//! The admin listener: `/metrics`, `/livez`, `/readyz`. It shares nothing with the data path but counters and flags, so
//! it answers when that is stuck.

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use tokio::net::TcpListener;
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

/// Answers until `stop`.
///
/// # Errors
/// When the listener fails for good.
pub async fn serve(listener: TcpListener, admin: Admin, stop: CancellationToken) -> std::io::Result<()> {
    let pages = Router::new()
        .route("/metrics", get(metrics))
        .route("/livez", get(livez))
        .route("/readyz", get(readyz))
        .with_state(admin);
    axum::serve(listener, pages).with_graceful_shutdown(stop.cancelled_owned()).await
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
