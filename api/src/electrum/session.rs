//! One client: its requests, one after the other, and what it has subscribed to.
//!
//! ```text
//! transport -> rpc -> session's own methods, or methods (on threads that may block) -> transport
//! outbox -> what differs from what the client was told last -> transport
//! ```
//!
//! # Correctness
//! A topic is registered before its state is computed, so no change falls between. The
//! notifier and a request may compute a state at the same time; whichever is told last
//! may be the older one, but then the notifier tells the newer one next.
//!
//! # Limits
//! While an answer is computed, waited for or written nothing more is read, so a client has
//! one request or batch at work. A client that takes nothing for the write time-out, or that
//! asks nothing for the idle time-out, is disconnected. Neither holds up anybody else.

use std::{
    collections::HashMap,
    io,
    sync::Arc,
    time::{Duration, Instant},
};

use serde_json::Value;
use tokio::time::sleep_until;
use tokio_util::sync::CancellationToken;
use tracing::debug;

use super::{
    ElectrumState, Inner, Outbox, SOFTWARE, Told, Topic,
    error::{ElectrumError, reply},
    limits::Admission,
    methods::{self, Answer, Method},
    name_of,
    patience::Patience,
    rpc::{self, BadCall, Call, Message, Params, json},
    transport::{Incoming, Transport},
    version::{OLDEST, Version},
    view,
};
use crate::metrics;

const SUBSCRIBE_SCRIPT: &str = "blockchain.scripthash.subscribe";
const SUBSCRIBE_TX: &str = "blockchain.transaction.subscribe";
/// Longest part of what a client sent that is sent back in an error.
const ECHO_CHARS: usize = 64;

/// One client.
struct Session {
    state: ElectrumState,
    admission: Admission,
    outbox: Arc<Outbox>,
    /// What is spoken, once the client has asked.
    version: Option<Version>,
    /// What the client was told last of each topic that it subscribed to.
    topics: HashMap<Topic, Told>,
    /// The tip that it was told last, if it subscribed to tips.
    header: Option<Arc<str>>,
    /// Whether it asked for a version that is not spoken, after which it has to go.
    is_refused: bool,
    /// How long the message in hand may wait.
    patience: Patience,
}

/// What happened.
enum Event {
    Stop,
    Idle,
    News,
    Incoming(io::Result<Incoming>),
}

/// Serves a client until it leaves, is too slow, asks nothing for too long, or `stop`.
pub(super) async fn run(
    mut transport: impl Transport,
    state: ElectrumState,
    admission: Admission,
    stop: CancellationToken,
) {
    let outbox = state.0.registry.outbox();
    let mut session = Session {
        outbox,
        state,
        admission,
        version: None,
        topics: HashMap::new(),
        header: None,
        is_refused: false,
        patience: Patience::new(&stop),
    };
    if let Err(err) = session.serve(&mut transport, &stop).await {
        debug!(%err, "electrum connection ended");
    }
    transport.close().await;
}

impl Session {
    async fn serve(
        &mut self,
        transport: &mut impl Transport,
        stop: &CancellationToken,
    ) -> io::Result<()> {
        let idle = Duration::from_secs(self.state.0.config.idle_timeout_secs.get());
        let mut asked = tokio::time::Instant::now();
        loop {
            let outbox = Arc::clone(&self.outbox);
            let event = tokio::select! {
                biased;
                () = stop.cancelled() => Event::Stop,
                () = outbox.wake.notified() => Event::News,
                incoming = transport.receive() => Event::Incoming(incoming),
                () = sleep_until(asked + idle) => Event::Idle,
            };
            match event {
                Event::Stop => return self.tell_news(transport).await,
                Event::Idle => return Ok(()),
                Event::News => self.tell_news(transport).await?,
                Event::Incoming(incoming) => {
                    let reply = match incoming? {
                        Incoming::Closed => return Ok(()),
                        Incoming::TooLong => Some(self.too_long()),
                        Incoming::Text(line) => {
                            self.patience = Patience::new(stop);
                            self.answer(&line).await
                        }
                    };
                    asked = tokio::time::Instant::now();
                    if let Some(reply) = reply {
                        transport.send(reply).await?;
                    }
                    if self.is_refused {
                        return Ok(());
                    }
                }
            }
        }
    }

    /// Tells what has changed since the client was told last.
    async fn tell_news(&mut self, transport: &mut impl Transport) -> io::Result<()> {
        let news = self.outbox.take();
        if let Some(header) = news.header
            && let Some(told) = &mut self.header
            && *told != header
        {
            let params = format!("[{header}]");
            *told = header;
            metrics::electrum_notified();
            transport
                .send(rpc::notification("blockchain.headers.subscribe", &params))
                .await?;
        }
        for (topic, now) in news.states {
            match self.topics.get_mut(&topic) {
                Some(told) if *told != now => *told = now,
                _ => continue,
            }
            let (method, name) = match topic {
                Topic::Script(script) => (SUBSCRIBE_SCRIPT, name_of(&script)),
                Topic::Tx(txid) => (SUBSCRIBE_TX, txid.to_string()),
            };
            let params = format!(r#"["{name}",{}]"#, now.json());
            metrics::electrum_notified();
            transport.send(rpc::notification(method, &params)).await?;
        }
        Ok(())
    }

    fn too_long(&self) -> String {
        let limit = self.state.0.config.max_request_kib.get() << 10;
        failed(&Value::Null, ElectrumError::LineTooLong { limit })
    }

    /// The answer to a line.
    async fn answer(&mut self, line: &[u8]) -> Option<String> {
        match rpc::parse(line, self.state.0.config.max_batch) {
            Err(error) => Some(failed(&Value::Null, error.into())),
            Ok(Message::One(call)) => Some(self.answer_one(call).await),
            Ok(Message::Batch(calls)) => {
                let limit = self.state.0.config.max_response_kib.get() << 10;
                let mut replies = String::from("[");
                for call in calls {
                    if replies.len() > 1 {
                        replies.push(',');
                    }
                    if replies.len() > limit {
                        let id = match call {
                            Ok(call) => call.id,
                            Err(bad) => bad.id,
                        };
                        replies.push_str(&failed(&id, ElectrumError::ReplyTooLong { limit }));
                        continue;
                    }
                    replies.push_str(&self.answer_one(call).await);
                }
                replies.push(']');
                Some(replies)
            }
        }
    }

    async fn answer_one(&mut self, call: Result<Call, BadCall>) -> String {
        let Call { id, method, params } = match call {
            Ok(call) => call,
            Err(BadCall { id }) => return failed(&id, ElectrumError::InvalidRequest),
        };
        let started = Instant::now();
        let allowed = (self.admission).request(&self.state.0.config, started);
        let (name, result) = match allowed {
            Err(error) => ("refused", Err(error)),
            Ok(()) => self.call(&method, params).await,
        };
        let limit = self.state.0.config.max_response_kib.get() << 10;
        let result = match result {
            Ok(result) if result.len() > limit => Err(ElectrumError::ReplyTooLong { limit }),
            result => result,
        };
        metrics::electrum_request(name, result.is_ok(), started.elapsed());
        if let Err(error) = &result {
            error.log(name);
            if let Some(limit) = error.limit() {
                metrics::electrum_refused(limit);
            }
        }
        reply(&id, &result)
    }

    /// The result of a method, and its name for the metrics.
    async fn call(&mut self, method: &str, params: Params) -> (&'static str, Answer) {
        let version = self.version.unwrap_or(OLDEST);
        match method {
            "server.version" => ("server.version", self.negotiate(&params)),
            "blockchain.headers.subscribe" => (
                "blockchain.headers.subscribe",
                self.subscribe_headers().await,
            ),
            "blockchain.headers.unsubscribe" => (
                "blockchain.headers.unsubscribe",
                Ok(self.unsubscribe_headers()),
            ),
            SUBSCRIBE_SCRIPT => (SUBSCRIBE_SCRIPT, self.subscribe(script(&params)).await),
            SUBSCRIBE_TX => (SUBSCRIBE_TX, self.subscribe(tx(&params)).await),
            "blockchain.scripthash.unsubscribe" => (
                "blockchain.scripthash.unsubscribe",
                self.unsubscribe(script(&params)),
            ),
            "blockchain.transaction.unsubscribe" => (
                "blockchain.transaction.unsubscribe",
                self.unsubscribe(tx(&params)),
            ),
            other => match methods::find(other, version) {
                Some(method) => (method.name, self.read(method, version, params).await),
                None => {
                    let method = other.chars().take(ECHO_CHARS).collect();
                    ("unknown", Err(ElectrumError::UnknownMethod { method }))
                }
            },
        }
    }

    async fn read(&self, method: Method, version: Version, params: Params) -> Answer {
        let work = move |state: &Inner| (method.answer)(state, version, &params);
        match method.submits {
            false => self.state.read(&self.patience, work).await,
            true => self.state.submit(&self.patience, work).await,
        }
    }

    fn negotiate(&mut self, params: &Params) -> Answer {
        if self.version.is_some() {
            return Err(ElectrumError::VersionSent);
        }
        let version = Version::negotiate(params.get(1, "protocol_version"));
        self.is_refused = matches!(version, Err(ElectrumError::UnsupportedVersion { .. }));
        let version = version?;
        self.version = Some(version);
        Ok(json(&[SOFTWARE, &version.to_string()]))
    }

    async fn subscribe_headers(&mut self) -> Answer {
        self.state.0.registry.subscribe_headers(&self.outbox);
        let header = (self.state)
            .read(&self.patience, |state| {
                let at = view::tip(&state.api)?;
                methods::tip_json(&at.view, at.tip)
            })
            .await;
        match header {
            Ok(header) => {
                self.header = Some(Arc::from(header.as_str()));
                Ok(header)
            }
            Err(error) => {
                self.unsubscribe_headers();
                Err(error)
            }
        }
    }

    fn unsubscribe_headers(&mut self) -> String {
        self.state.0.registry.unsubscribe_headers(&self.outbox);
        json(&self.header.take().is_some())
    }

    async fn subscribe(&mut self, topic: Result<Topic, ElectrumError>) -> Answer {
        let topic = topic?;
        let is_new = !self.topics.contains_key(&topic);
        if is_new {
            self.admission.subscribe(&self.state.0.config)?;
            self.topics.insert(topic, Told::nothing(topic));
            self.state.0.registry.subscribe(topic, &self.outbox);
            metrics::electrum_subscriptions(1);
        }
        let now = (self.state)
            .read(&self.patience, move |state| {
                methods::states(state, &[topic])?.remove(0)
            })
            .await;
        match now {
            Ok(now) => {
                self.topics.insert(topic, now);
                Ok(now.json())
            }
            Err(error) => {
                if is_new {
                    self.forget(&topic);
                }
                Err(error)
            }
        }
    }

    fn unsubscribe(&mut self, topic: Result<Topic, ElectrumError>) -> Answer {
        Ok(json(&self.forget(&topic?)))
    }

    /// Whether it was subscribed to.
    fn forget(&mut self, topic: &Topic) -> bool {
        let was_there = self.topics.remove(topic).is_some();
        if was_there {
            self.state.0.registry.unsubscribe([topic], &self.outbox);
            self.admission.unsubscribe();
            metrics::electrum_subscriptions(-1);
        }
        was_there
    }
}

impl Told {
    /// What a client has been told of a topic that it asks about for the first time.
    fn nothing(topic: Topic) -> Self {
        match topic {
            Topic::Script(_) => Self::Status(None),
            Topic::Tx(_) => Self::Height(None),
        }
    }

    fn json(&self) -> String {
        match self {
            Self::Status(status) => json(status),
            Self::Height(height) => json(height),
        }
    }
}

fn script(params: &Params) -> Result<Topic, ElectrumError> {
    methods::script_param(params).map(Topic::Script)
}

fn tx(params: &Params) -> Result<Topic, ElectrumError> {
    methods::tx_param(params).map(Topic::Tx)
}

impl Drop for Session {
    fn drop(&mut self) {
        let registry = &self.state.0.registry;
        registry.unsubscribe(self.topics.keys(), &self.outbox);
        registry.unsubscribe_headers(&self.outbox);
        let count = i32::try_from(self.topics.len()).unwrap_or(i32::MAX);
        metrics::electrum_subscriptions(-count);
    }
}

/// An answer to what never became a call.
pub(super) fn failed(id: &Value, error: ElectrumError) -> String {
    if let Some(limit) = error.limit() {
        metrics::electrum_refused(limit);
    }
    reply(id, &Err(error))
}
