//! The command line's side.

use std::{io::ErrorKind, path::PathBuf};

use anyhow::{Context, Result, anyhow};
use http_body_util::{BodyExt, Full};
use hyper::{
    Method, Request, Response, StatusCode,
    body::{Bytes, Incoming},
    header,
};
use hyper_util::rt::TokioIo;
use serde::{Serialize, de::DeserializeOwned};
use tokio::{net::UnixStream, task::JoinHandle};

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
        let lost = || self.lost();
        let (response, serving) = self.send(method, path, body).await?;
        let status = response.status();
        let body = response.into_body().collect().await.with_context(lost)?.to_bytes();
        serving.abort();
        if !status.is_success() {
            return Err(refusal(status, &body));
        }
        serde_json::from_slice(&body).context(OTHER_LANGUAGE)
    }

    /// Hands every line of an answer that goes on to `take`, for as long as that says true and the daemon
    /// sends; false where the daemon ended it. `begun` is called once the answer has begun.
    pub async fn lines<T: DeserializeOwned>(
        &self,
        path: &str,
        begun: impl FnOnce(),
        mut take: impl FnMut(T) -> Result<bool>,
    ) -> Result<bool> {
        let (response, serving) = self.send(Method::GET, path, None::<&()>).await?;
        let status = response.status();
        let mut body = response.into_body();
        if !status.is_success() {
            let body = body.collect().await.with_context(|| self.lost())?.to_bytes();
            return Err(refusal(status, &body));
        }
        begun();
        let mut rest = Vec::new();
        while let Some(frame) = body.frame().await {
            // A daemon that was killed ends its answer in the middle.
            let Ok(frame) = frame else { break };
            rest.extend_from_slice(&frame.into_data().unwrap_or_default());
            while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = rest.drain(..=end).collect();
                if !take(serde_json::from_slice(&line).context(OTHER_LANGUAGE)?)? {
                    serving.abort();
                    return Ok(true);
                }
            }
        }
        Ok(false)
    }

    async fn send(
        &self,
        method: Method,
        path: &str,
        body: Option<&impl Serialize>,
    ) -> Result<(Response<Incoming>, JoinHandle<hyper::Result<()>>)> {
        let stream = self.connect().await?;
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
        let response = sender.send_request(request).await.with_context(|| self.lost())?;
        Ok((response, serving))
    }

    fn lost(&self) -> String {
        format!("the daemon on {} did not answer", self.socket.display())
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

const OTHER_LANGUAGE: &str = "the daemon speaks another language: are both of one version?";

/// What the daemon says about a request that it does not grant.
fn refusal(status: StatusCode, body: &[u8]) -> anyhow::Error {
    let error = serde_json::from_slice::<ErrorBody>(body);
    anyhow!(error.map_or_else(|_| format!("the daemon answered {status}"), |body| body.error))
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
