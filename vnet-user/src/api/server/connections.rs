//! Connections and bindings.

use axum::{
    Json,
    body::{Body, Bytes},
    extract::{Path, State},
    http::header,
    response::{IntoResponse, Response},
};
use futures::StreamExt;

use super::{Answer, ApiError, Daemon, Words, carry_through};
use crate::api::types::{Binding, Connection, ConnectionQuery, Count, Group};

pub(super) async fn list(State(switch): Daemon, Words(query): Words<ConnectionQuery>) -> Answer<Vec<Connection>> {
    Ok(Json(switch.connections(&query).await?))
}

pub(super) async fn count(State(switch): Daemon, Words(query): Words<ConnectionQuery>) -> Answer<Count> {
    Ok(Json(Count { count: switch.connection_count(&query).await? }))
}

pub(super) async fn groups(
    State(switch): Daemon,
    Path(by): Path<String>,
    Words(query): Words<ConnectionQuery>,
) -> Answer<Vec<Group>> {
    Ok(Json(switch.connection_groups(&by, &query).await?))
}

pub(super) async fn flush(State(switch): Daemon, Words(query): Words<ConnectionQuery>) -> Answer<Count> {
    let count = carry_through(async move { switch.flush_connections(&query).await }).await?;
    Ok(Json(Count { count }))
}

pub(super) async fn bindings(State(switch): Daemon, Words(query): Words<ConnectionQuery>) -> Answer<Vec<Binding>> {
    Ok(Json(switch.bindings(&query).await?))
}

/// One JSON object a line, for as long as the client listens.
pub(super) async fn events(State(switch): Daemon, Words(query): Words<ConnectionQuery>) -> Result<Response, ApiError> {
    let lines = switch.follow_connections(&query).await?.map(|event| {
        serde_json::to_vec(&event).map(|mut line| {
            line.push(b'\n');
            Bytes::from(line)
        })
    });
    Ok(([(header::CONTENT_TYPE, "application/x-ndjson")], Body::from_stream(lines)).into_response())
}
