//! The command line's side.

use std::{io::ErrorKind, path::PathBuf};

use anyhow::{Context, Result, anyhow, bail};
use http_body_util::{BodyExt, Full};
use hyper::{Method, Request, body::Bytes, header};
use hyper_util::rt::TokioIo;
use serde::{Serialize, de::DeserializeOwned};
use tokio::net::UnixStream;

use super::types::ErrorBody;

/// Speaks to the daemon, one connection a request.
pub struct Client {
    socket: PathBuf,
}

impl Client {
    pub fn new(socket: PathBuf) -> Self {
        Self { socket }
    }

    pub async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T> {
        self.request(Method::GET, path, None::<&()>).await
    }

    pub async fn post<T: DeserializeOwned>(&self, path: &str, body: &impl Serialize) -> Result<T> {
        self.request(Method::POST, path, Some(body)).await
    }

    pub async fn patch<T: DeserializeOwned>(&self, path: &str, body: &impl Serialize) -> Result<T> {
        self.request(Method::PATCH, path, Some(body)).await
    }

    pub async fn delete<T: DeserializeOwned>(&self, path: &str) -> Result<T> {
        self.request(Method::DELETE, path, None::<&()>).await
    }

    async fn request<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Option<&impl Serialize>,
    ) -> Result<T> {
        let stream = self.connect().await?;
        let lost = || format!("the daemon on {} did not answer", self.socket.display());
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        let serving = tokio::spawn(connection);
        let bytes = body.map(serde_json::to_vec).transpose()?.unwrap_or_default();
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::HOST, "vnet")
            .header(header::CONTENT_TYPE, "application/json")
            .header(header::CONNECTION, "close")
            .body(Full::new(Bytes::from(bytes)))?;
        let response = sender.send_request(request).await.with_context(lost)?;
        let status = response.status();
        let body = response.into_body().collect().await.with_context(lost)?.to_bytes();
        serving.abort();
        if !status.is_success() {
            let error = serde_json::from_slice::<ErrorBody>(&body);
            bail!(error.map_or_else(|_| format!("the daemon answered {status}"), |body| body.error));
        }
        serde_json::from_slice(&body).context("the daemon speaks another language: are both of one version?")
    }

    async fn connect(&self) -> Result<UnixStream> {
        let socket = self.socket.display();
        UnixStream::connect(&self.socket).await.map_err(|error| match error.kind() {
            ErrorKind::NotFound | ErrorKind::ConnectionRefused => {
                anyhow!("no daemon answers on {socket}: start one with 'vnet daemon', or name its socket with --socket")
            }
            ErrorKind::PermissionDenied => {
                anyhow!(
                    "no permission to speak to the daemon on {socket}: run this as root, or as a member of its group"
                )
            }
            _ => anyhow!("cannot speak to the daemon on {socket}: {error}"),
        })
    }
}

/// A word as it stands in a path or query.
pub fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' | b':' => escaped.push(byte.into()),
            _ => escaped.push_str(&format!("%{byte:02X}")),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_escaped_for_paths() {
        assert_eq!(escape("192.0.2.1:80-90"), "192.0.2.1:80-90");
        assert_eq!(escape("10.0.0.0/8"), "10.0.0.0%2F8");
        assert_eq!(escape("tap é"), "tap%20%C3%A9");
    }
}
