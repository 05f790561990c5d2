//! Another Esplora server, asked while this node cannot answer.
//!
//! ```text
//! our answer is "not synced" -> may the question be passed on? -> breaker, slot
//!     -> is it the same chain, and is the other server ahead? -> GET -> does the answer fit?
//!     -> the answer with X-Pulse-Source: fallback; else our own 503
//! ```
//!
//! # Correctness
//! - An answer is either all ours or all of the other server, never put together; the header
//!   says which. What is indexed here is answered from here.
//! - It is asked only while its genesis block is ours, its chain has our tip at our height, and
//!   its tip is not below ours; this is looked at again every [`CHECKED_FOR`]. When this node
//!   takes over, its tip may be behind what clients were told by the two blocks that a synced
//!   node may lack: who must not see that asks with a least height.
//! - A server that says with an answer how far its index had come (`X-Tip-Height`, as this node
//!   does) is held to that, too: nothing older than our tip, or than the client asks for, is
//!   passed on. Of others the height counts that they told when they were looked at.
//! - `/health` and everything else that tells the state of this node knows nothing of it.
//!
//! # Security
//! - The other server learns which addresses and transactions clients ask for; that is why
//!   there is none by default. It learns nothing about the clients: headers and queries are
//!   not passed on, and a question with a query is not passed on at all.
//! - Transactions are never passed on: see docs/decisions/0013-fallback-esplora.md.
//! - Over https its certificate must be of its name, in force, and signed by an authority of
//!   the system or of the operator (`http.fallback_ca`).
//! - Redirects are refused. Answers are read as a whole, must have the form of their route, and
//!   get headers of our own.
//! - A question that another node has passed on is not passed on again, so that two nodes that
//!   name each other do not ask in circles.
//!
//! # Limits
//! [`MAX_ASKED`] questions at a time, [`TIMEOUT`] for each, [`MAX_BODY_BYTES`] per answer. After
//! failures in a row the server is left alone for a while (`breaker`).

mod answer;
mod breaker;
mod roots;
mod url;

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use axum::{
    body::{Body, Bytes},
    http::{HeaderMap, HeaderName, HeaderValue, Method, Request, StatusCode, header},
    response::Response,
};
use http_body_util::{BodyExt, Empty, Limited};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::{TokioExecutor, TokioTimer},
};
use parking_lot::Mutex;
use pulse_primitives::{Height, bitcoin::BlockHash, tip::ChainTip};
use rustls::{ClientConfig, RootCertStore, crypto::ring};
use tokio::{sync::Semaphore, time::timeout};
use tracing::{debug, error, info, warn};

pub use url::FallbackUrl;

use self::{answer::Form, breaker::Breaker};
use crate::{at_height::TIP_HEIGHT, metrics};

/// Blocks that it may have got since it was looked at.
const NEW_BLOCKS: u64 = 3;
/// Says that an answer is not this node's own.
pub(crate) const SOURCE: HeaderName = HeaderName::from_static("x-pulse-source");
/// How it names itself to the other server, and knows its like.
const VIA: HeaderValue = HeaderValue::from_static("1.1 pulse-node");
/// Questions at a time.
const MAX_ASKED: usize = 8;
/// Time for a question, with a look at the other server's chain, to the end of the answer.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Time for a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// Longest answer. A block has at most 4 MB; long lists may have more than fits.
const MAX_BODY_BYTES: usize = 8 << 20;
/// Longest error that is passed on.
const MAX_ERROR_BYTES: usize = 1_000;
/// How a node like this one begins its 503 while it is not synced.
const NOT_SYNCED: &str = "node is not synced yet: ";
/// How long a look at the other server's chain holds.
const CHECKED_FOR: Duration = Duration::from_secs(5);

/// Why the other server cannot be asked at all.
#[derive(Debug, thiserror::Error)]
pub enum FallbackError {
    /// There is nothing to judge its certificate by.
    #[error(
        "no root certificates for https. Hint: install ca-certificates, or set http.fallback_ca"
    )]
    NoRoots,
    /// The file with authorities of the operator's own is not what it should be.
    #[error("{}: {what}", path.display())]
    Authority {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        what: String,
    },
    /// The TLS settings do not fit together.
    #[error("TLS of the fallback")]
    Tls(#[from] rustls::Error),
}

/// Why a question has no answer from there.
#[derive(Debug, thiserror::Error)]
enum AskError {
    #[error("no answer in time")]
    TimedOut,
    #[error("the request failed: {0}")]
    Failed(String),
    #[error("status {0}")]
    Status(StatusCode),
    #[error("the answer to {path} is none")]
    Garbage { path: String },
    #[error("its genesis block is {0}")]
    OtherNetwork(String),
    /// Nothing is wrong with it, but its chain is not one that ours is the beginning of.
    #[error("its chain does not go on from block {height}")]
    OtherChain { height: u32 },
    /// Nor with this: it has not come far enough.
    #[error("its tip is at height {tip}, below {wanted}")]
    Behind { tip: u64, wanted: Height },
    /// Nor with this: a node of its own kind that cannot answer yet either.
    #[error("it is at height {tip} and not synced itself")]
    NotSynced { tip: Height },
}

/// Another Esplora server.
pub struct Fallback {
    client: Client<HttpsConnector<HttpConnector>, Empty<Bytes>>,
    url: FallbackUrl,
    genesis: BlockHash,
    slots: Semaphore,
    breaker: Mutex<Breaker>,
    /// When its chain was looked at, and what was seen. The lock is held while one caller looks.
    checked: tokio::sync::Mutex<Option<(Instant, Seen)>>,
}

/// What a look at its chain has shown.
#[derive(Debug, Clone, Copy)]
struct Seen {
    /// Whether it goes on from ours.
    goes_on: bool,
    /// Height of its tip.
    tip: u64,
}

/// An answer as it came.
struct Raw {
    status: StatusCode,
    content_type: String,
    /// How far its index had come, if it says so.
    tip: Option<Height>,
    body: Bytes,
}

impl Raw {
    /// Why an answer of this status is none. Who says how far its index is, and that it is not
    /// synced yet, is a node like this one: there is no reason to leave it alone. One that is busy
    /// or broken is left alone.
    fn refusal(&self, status: StatusCode) -> AskError {
        let is_not_synced = self.body.starts_with(NOT_SYNCED.as_bytes());
        match self.tip {
            Some(tip) if status == StatusCode::SERVICE_UNAVAILABLE && is_not_synced => {
                AskError::NotSynced { tip }
            }
            _ => AskError::Status(status),
        }
    }
}

impl Fallback {
    /// The server at `url`, for a chain with this genesis block. `ca` is a PEM file with
    /// authorities that may have signed its certificate, besides those of the system.
    ///
    /// # Errors
    /// If its certificate could not be judged.
    pub fn new(
        url: &FallbackUrl,
        ca: Option<&Path>,
        genesis: BlockHash,
    ) -> Result<Self, FallbackError> {
        let roots = match url.is_https() {
            true => roots::roots(ca)?,
            false => RootCertStore::empty(),
        };
        let tls = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth();
        let mut connector = HttpConnector::new();
        connector.enforce_http(false);
        connector.set_nodelay(true);
        connector.set_connect_timeout(Some(CONNECT_TIMEOUT));
        let connector = HttpsConnectorBuilder::new()
            .with_tls_config(tls)
            .https_or_http()
            .enable_http1()
            .wrap_connector(connector);
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(Duration::from_secs(30))
            .pool_max_idle_per_host(MAX_ASKED)
            .build(connector);
        info!(%url, "another server answers while this node cannot");
        Ok(Self {
            client,
            url: url.clone(),
            genesis,
            slots: Semaphore::new(MAX_ASKED),
            breaker: Mutex::default(),
            checked: tokio::sync::Mutex::default(),
        })
    }

    /// Its answer to a GET of `path` (without `/api`), which belongs to a route; `ours` is the
    /// tip of what is indexed here, `wanted` the least height that the client takes. `None` if
    /// it is not to be asked, or has none.
    pub(crate) async fn answer(
        &self,
        template: &str,
        path: &str,
        ours: Option<ChainTip>,
        wanted: Option<Height>,
    ) -> Option<Response> {
        let form = Form::of(template).filter(|_| answer::is_plain(path))?;
        let Ok(_slot) = self.slots.try_acquire() else {
            metrics::fallback("busy");
            return None;
        };
        let since = Instant::now();
        if !self.breaker.lock().admits(since, 2 * TIMEOUT) {
            metrics::fallback("paused");
            return None;
        }
        let asked = async {
            let seen = self.check(ours).await?;
            let wanted = wanted.max(ours.map(|tip| tip.height)).unwrap_or(0);
            let reaches = |tip: u64| match tip < wanted.into() {
                true => Err(AskError::Behind { tip, wanted }),
                false => Ok(()),
            };
            // Not asked in vain for what it cannot have since it was looked at.
            reaches(seen.tip + NEW_BLOCKS)?;
            let raw = self.get(path).await?;
            reaches(raw.tip.map_or(seen.tip, u64::from))?;
            passed_on(form, raw, path)
        };
        let result = timeout(TIMEOUT, asked).await;
        let result = result.unwrap_or(Err(AskError::TimedOut));
        let now = Instant::now();
        match result {
            Ok(response) => {
                self.breaker.lock().succeeded();
                metrics::fallback("answered");
                return Some(response);
            }
            Err(AskError::OtherChain { height }) => {
                self.breaker.lock().succeeded();
                warn!(height, "the other server's chain does not go on from ours");
                metrics::fallback("other_chain");
            }
            Err(err @ (AskError::Behind { .. } | AskError::NotSynced { .. })) => {
                self.breaker.lock().succeeded();
                debug!(%err, "the other server is behind");
                metrics::fallback("behind");
            }
            Err(err @ AskError::OtherNetwork(_)) => {
                self.breaker.lock().refused(now);
                error!(%err, genesis = %self.genesis, "the other server is of another network");
                metrics::fallback("other_network");
            }
            Err(err) => {
                self.breaker.lock().failed(since, now);
                warn!(%err, "the other server has no answer");
                metrics::fallback("failed");
            }
        }
        None
    }

    /// Sees to it that its chain goes on from ours.
    async fn check(&self, ours: Option<ChainTip>) -> Result<Seen, AskError> {
        let height = ours.map_or(0, |tip| tip.height);
        let mut checked = self.checked.lock().await;
        let known = checked.filter(|(at, _)| at.elapsed() < CHECKED_FOR);
        let seen = match known {
            Some((_, seen)) => seen,
            None => {
                *checked = None;
                let seen = self.look(ours).await?;
                *checked = Some((Instant::now(), seen));
                seen
            }
        };
        match seen.goes_on {
            true => Ok(seen),
            false => Err(AskError::OtherChain { height }),
        }
    }

    async fn look(&self, ours: Option<ChainTip>) -> Result<Seen, AskError> {
        let genesis = self.text("/block-height/0", Form::Hash).await?;
        if genesis != Some(self.genesis.to_string()) {
            let genesis = genesis.unwrap_or_else(|| "none".to_owned());
            return Err(AskError::OtherNetwork(genesis));
        }
        let path = "/blocks/tip/height";
        let tip = self.text(path, Form::Number).await?;
        let tip: u64 =
            tip.and_then(|height| height.parse().ok())
                .ok_or_else(|| AskError::Garbage {
                    path: path.to_owned(),
                })?;
        let goes_on = match ours {
            None => true,
            Some(ours) if tip < ours.height.into() => false,
            Some(ours) => {
                let path = format!("/block-height/{}", ours.height);
                let hash = self.text(&path, Form::Hash).await?;
                hash == Some(ours.hash.to_string())
            }
        };
        Ok(Seen { goes_on, tip })
    }

    /// A text; `None` if there is no such thing.
    async fn text(&self, path: &str, form: Form) -> Result<Option<String>, AskError> {
        let raw = self.get(path).await?;
        match raw.status {
            StatusCode::OK if form.fits(&raw.content_type, &raw.body) => {
                Ok(String::from_utf8(raw.body.to_vec()).ok())
            }
            StatusCode::NOT_FOUND => Ok(None),
            StatusCode::OK => Err(AskError::Garbage {
                path: path.to_owned(),
            }),
            status => Err(raw.refusal(status)),
        }
    }

    async fn get(&self, path: &str) -> Result<Raw, AskError> {
        let request = Request::builder()
            .method(Method::GET)
            .uri(self.url.with(path))
            .header(
                header::USER_AGENT,
                concat!("pulse-node/", env!("CARGO_PKG_VERSION")),
            )
            .header(header::ACCEPT_ENCODING, "identity")
            .header(header::VIA, VIA)
            .body(Empty::new())
            .map_err(|err| AskError::Failed(err.to_string()))?;
        let failed = |err: &dyn std::error::Error| AskError::Failed(sources(err));
        let response = self.client.request(request).await;
        let (parts, body) = response.map_err(|err| failed(&err))?.into_parts();
        let body = Limited::new(body, MAX_BODY_BYTES).collect().await;
        Ok(Raw {
            status: parts.status,
            content_type: content_type(&parts.headers),
            tip: tip_height(&parts.headers),
            body: body.map_err(|err| failed(&*err))?.to_bytes(),
        })
    }
}

/// Whether a request comes from a node that could not answer it itself.
pub(crate) fn was_passed_on(headers: &HeaderMap) -> bool {
    let mut via = headers.get_all(header::VIA).iter();
    via.any(|value| value.as_bytes().ends_with(b"pulse-node"))
}

/// An answer from there with headers of ours.
fn passed_on(form: Form, raw: Raw, path: &str) -> Result<Response, AskError> {
    let garbage = || AskError::Garbage {
        path: path.to_owned(),
    };
    let content_type = match raw.status {
        StatusCode::OK if form.fits(&raw.content_type, &raw.body) => form.content_type(),
        StatusCode::BAD_REQUEST | StatusCode::NOT_FOUND
            if raw.content_type.starts_with("text/plain") && raw.body.len() <= MAX_ERROR_BYTES =>
        {
            "text/plain"
        }
        StatusCode::OK | StatusCode::BAD_REQUEST | StatusCode::NOT_FOUND => return Err(garbage()),
        status => return Err(raw.refusal(status)),
    };
    let mut response = Response::new(Body::from(raw.body));
    *response.status_mut() = raw.status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(SOURCE, HeaderValue::from_static("fallback"));
    if let Some(height) = raw.tip {
        headers.insert(TIP_HEIGHT, HeaderValue::from(height));
    }
    if raw.status == StatusCode::OK {
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    }
    Ok(response)
}

fn content_type(headers: &HeaderMap) -> String {
    let value = headers.get(header::CONTENT_TYPE);
    let text = value.and_then(|value| value.to_str().ok());
    text.unwrap_or_default().to_owned()
}

/// What it says of its index, if that is a height.
fn tip_height(headers: &HeaderMap) -> Option<Height> {
    headers.get(TIP_HEIGHT)?.to_str().ok()?.parse().ok()
}

/// An error with what is behind it.
fn sources(err: &dyn std::error::Error) -> String {
    let mut text = err.to_string();
    let mut source = err.source();
    while let Some(err) = source {
        text.push_str(": ");
        text.push_str(&err.to_string());
        source = err.source();
    }
    text
}
