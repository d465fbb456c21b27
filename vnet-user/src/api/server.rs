//! The daemon's side.

mod connections;

use std::sync::Arc;

use axum::{
    Json, Router,
    extract::{FromRequest, FromRequestParts, Path, Query, Request, State, rejection::JsonRejection},
    http::{StatusCode, request::Parts},
    response::{IntoResponse, Response},
    routing::{delete, get, post},
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::types::{Count, ErrorBody, ForwardRequest, NetworkRequest, Version};
use crate::{
    Refusal,
    config::{
        DeviceName, FdbConfig, ForwardKeyText, Listen, MacAddress, NatChange, NetworkName, PortConfig, Protocol, Vlan,
    },
    daemon::Switch,
    error::{Error, Result},
};

type Daemon = State<Arc<Switch>>;
type Answer<T> = Result<Json<T>, ApiError>;

pub fn router(switch: Arc<Switch>) -> Router {
    Router::new()
        .route("/v1/version", get(version))
        .route("/v1/show", get(show))
        .route("/v1/stats", get(stats))
        .route("/v1/networks", get(list_networks).post(add_network))
        .route("/v1/networks/{name}", get(show_network).patch(set_network).delete(delete_network))
        .route("/v1/ports", get(list_ports))
        .route("/v1/ports/{device}", get(show_port))
        .route("/v1/networks/{name}/ports", post(add_port))
        .route("/v1/networks/{name}/ports/{device}", delete(delete_port))
        .route("/v1/forwards", get(list_forwards))
        .route("/v1/networks/{name}/forwards", post(add_forward))
        .route("/v1/networks/{name}/forwards/{protocol}/{listen}", delete(delete_forward))
        .route("/v1/networks/{name}/fdb", get(list_fdb).post(add_fdb_entry).delete(flush_fdb))
        .route("/v1/networks/{name}/fdb/{mac}", delete(delete_fdb_entry))
        .route("/v1/connections", get(connections::list).delete(connections::flush))
        .route("/v1/connections/count", get(connections::count))
        .route("/v1/connections/count/{by}", get(connections::groups))
        .route("/v1/connections/events", get(connections::events))
        .route("/v1/bindings", get(connections::bindings))
        .fallback(async || ApiError(Refusal::NoPath.into()))
        .with_state(switch)
}

/// An error as an answer.
struct ApiError(Error);

impl<E: Into<Error>> From<E> for ApiError {
    fn from(error: E) -> Self {
        Self(error.into())
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.0.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        (status, Json(ErrorBody { error: self.0.to_string() })).into_response()
    }
}

/// A JSON body, whose faults are answered as ours.
struct Body<T>(T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Body<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &S) -> Result<Self, ApiError> {
        match Json::<T>::from_request(request, state).await {
            Ok(Json(body)) => Ok(Self(body)),
            Err(JsonRejection::JsonDataError(error)) => {
                // "Failed to deserialize …: subnet[0]: 'x' is not a subnet …": ours is the cause.
                let cause = std::error::Error::source(&error).map_or_else(|| error.body_text(), ToString::to_string);
                // The parser adds where in the text, which is one line here.
                let cause = cause.split(" at line ").next().unwrap_or(&cause).to_owned();
                Err(Refusal::BadRequest(cause).into())
            }
            Err(error) => Err(Refusal::BadRequest(error.body_text()).into()),
        }
    }
}

/// A query string, whose faults are answered as ours.
struct Words<T>(T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for Words<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        match Query::from_request_parts(parts, state).await {
            Ok(Query(words)) => Ok(Self(words)),
            Err(error) => Err(Refusal::BadRequest(error.body_text()).into()),
        }
    }
}

/// Carries a change through even when the client goes away in the middle.
async fn carry_through<T: Send + 'static>(change: impl Future<Output = Result<T>> + Send + 'static) -> Result<T> {
    match tokio::spawn(change).await {
        Ok(result) => result,
        Err(error) => Err(Error::Setup(format!("the change was broken off: {error}"))),
    }
}

#[derive(Serialize)]
struct Done {}

/// Runs a change of the switch.
macro_rules! change {
    ($switch:expr, $method:ident($($argument:expr),*)) => {{
        carry_through(async move { $switch.$method($($argument),*).await }).await?;
        Ok(Json(Done {}))
    }};
}

/// A name in a path.
fn word<T: std::str::FromStr<Err = Refusal>>(text: &str) -> Result<T, ApiError> {
    Ok(text.parse::<T>()?)
}

#[derive(Deserialize)]
struct OfNetwork {
    network: Option<String>,
}

impl OfNetwork {
    fn name(&self) -> Result<Option<NetworkName>, ApiError> {
        self.network.as_deref().map(word).transpose()
    }
}

async fn version() -> Json<Version> {
    Json(Version { version: env!("CARGO_PKG_VERSION").into(), pid: std::process::id() })
}

async fn show(State(switch): Daemon) -> Answer<Vec<super::types::NetworkDetail>> {
    Ok(Json(switch.network_details(None).await?))
}

async fn stats(State(switch): Daemon) -> Answer<super::types::Stats> {
    Ok(Json(switch.stats().await?))
}

async fn list_networks(State(switch): Daemon) -> Json<Vec<super::types::Network>> {
    Json(switch.networks().await)
}

async fn add_network(State(switch): Daemon, Body(request): Body<NetworkRequest>) -> Answer<Done> {
    change!(switch, add_network(request))
}

async fn show_network(State(switch): Daemon, Path(name): Path<String>) -> Answer<super::types::NetworkDetail> {
    Ok(Json(switch.network(&word(&name)?).await?))
}

async fn set_network(State(switch): Daemon, Path(name): Path<String>, Body(change): Body<NatChange>) -> Answer<Done> {
    let name: NetworkName = word(&name)?;
    change!(switch, set_network(&name, change))
}

async fn delete_network(State(switch): Daemon, Path(name): Path<String>) -> Answer<Done> {
    let name: NetworkName = word(&name)?;
    change!(switch, delete_network(&name))
}

async fn list_ports(State(switch): Daemon, Words(of): Words<OfNetwork>) -> Answer<Vec<super::types::Port>> {
    Ok(Json(switch.ports(of.name()?.as_ref()).await?))
}

async fn show_port(State(switch): Daemon, Path(device): Path<String>) -> Answer<super::types::PortDetail> {
    Ok(Json(switch.port(&word(&device)?).await?))
}

async fn add_port(State(switch): Daemon, Path(name): Path<String>, Body(port): Body<PortConfig>) -> Answer<Done> {
    let name: NetworkName = word(&name)?;
    change!(switch, add_port(&name, port))
}

async fn delete_port(State(switch): Daemon, Path((name, device)): Path<(String, String)>) -> Answer<Done> {
    let (name, device): (NetworkName, DeviceName) = (word(&name)?, word(&device)?);
    change!(switch, delete_port(&name, &device))
}

async fn list_forwards(State(switch): Daemon, Words(of): Words<OfNetwork>) -> Answer<Vec<super::types::Forward>> {
    Ok(Json(switch.forwards(of.name()?.as_ref()).await?))
}

async fn add_forward(
    State(switch): Daemon,
    Path(name): Path<String>,
    Body(request): Body<ForwardRequest>,
) -> Answer<Done> {
    let name: NetworkName = word(&name)?;
    change!(switch, add_forward(&name, request))
}

async fn delete_forward(
    State(switch): Daemon,
    Path((name, protocol, listen)): Path<(String, String, String)>,
) -> Answer<Done> {
    let (name, protocol, listen): (NetworkName, Protocol, Listen) = (word(&name)?, word(&protocol)?, word(&listen)?);
    let key = ForwardKeyText { protocol, listen };
    change!(switch, delete_forward(&name, &key))
}

async fn list_fdb(State(switch): Daemon, Path(name): Path<String>) -> Answer<Vec<super::types::FdbEntry>> {
    Ok(Json(switch.fdb(&word(&name)?).await?))
}

async fn add_fdb_entry(State(switch): Daemon, Path(name): Path<String>, Body(entry): Body<FdbConfig>) -> Answer<Done> {
    let name: NetworkName = word(&name)?;
    change!(switch, add_fdb_entry(&name, entry))
}

async fn flush_fdb(State(switch): Daemon, Path(name): Path<String>) -> Answer<Count> {
    let count = switch.flush_fdb(&word(&name)?).await? as u64;
    Ok(Json(Count { count }))
}

#[derive(Deserialize)]
struct OfVlan {
    vlan: Option<u16>,
}

async fn delete_fdb_entry(
    State(switch): Daemon,
    Path((name, mac)): Path<(String, String)>,
    Words(of): Words<OfVlan>,
) -> Answer<Done> {
    let (name, mac): (NetworkName, MacAddress) = (word(&name)?, word(&mac)?);
    let vlan = Vlan::from_id(of.vlan)?;
    change!(switch, delete_fdb_entry(&name, mac, vlan))
}
