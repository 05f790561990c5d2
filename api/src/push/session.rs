//! One client: what it has subscribed to, what it has been told, and what comes next.
//!
//! ```text
//! link -> request -> session -> registry, state -> link
//! hub and outbox -> what the client does not know yet -> link
//! ```
//!
//! # Correctness
//! - A key is registered before its state is read, so no change falls between. The follower
//!   and a request may read a state at the same time; whichever is told last may be the
//!   older one, but then the follower tells the newer one next.
//! - The outbox is emptied before the hub is read, so that the blocks that lead to a state
//!   are told before it. `id` of a state is the last event that was told before it: who
//!   comes back with the id of any message has missed nothing before that.
//!
//! # Limits
//! While something is read or written for a client nothing more is taken from it. Events
//! wait in the ring that all share, states in an outbox with one place for each
//! subscription. A client that does not take what it is sent within the write time-out, or
//! for which the ring was too short, is told so as far as it listens, and cut off.

use std::{
    collections::{HashMap, HashSet, hash_map::Entry},
    future::Future,
    sync::Arc,
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use tokio::{
    sync::watch,
    time::{MissedTickBehavior, interval_at},
};
use tracing::debug;

use super::{
    Admission, Outbox, PushState,
    follower::{AT_ONCE, mempool_state},
    hub::{Channel, Channels, Missed, Place, Resume},
    message::{EventId, Message},
    request::{self, Action, BadRequest, Label, Name, Named, Wishes},
    state::{Key, State, states},
};
use crate::{access::Meter, metrics, rest::error::RestError};

/// Why a connection ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// The client has left.
    Left,
    /// The node stops.
    Stop,
    /// The client does not take what it is sent.
    Slow,
    /// It gives no sign of life.
    Silent,
    /// It has sent a message that is too long.
    TooLong,
    /// The node is not followed any more.
    NotSynced,
    /// The key that it has sent is good no more.
    KeyRevoked,
}

impl End {
    /// For messages and metrics.
    pub(super) fn reason(self) -> &'static str {
        match self {
            Self::Left => "left",
            Self::Stop => "shutdown",
            Self::Slow => "slow",
            Self::Silent => "silent",
            Self::TooLong => "message_too_long",
            Self::NotSynced => "not_synced",
            Self::KeyRevoked => "key_revoked",
        }
    }
}

/// What came from a client.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Incoming {
    /// A message.
    Text(String),
    /// One that is no text.
    NotText,
    /// A sign of life.
    Sign,
    /// The end.
    End(End),
}

/// A connection that carries messages.
pub(super) trait Link: Send {
    /// Whether the client answers pings.
    const ANSWERS_PINGS: bool;

    /// What comes next. May be dropped while it waits; nothing is lost.
    fn receive(&mut self) -> impl Future<Output = Incoming> + Send;
    /// Sends messages. An error ends the connection.
    fn send(&mut self, messages: Vec<Message>) -> impl Future<Output = Result<(), End>> + Send;
    /// Sends a sign of life.
    fn ping(&mut self) -> impl Future<Output = Result<(), End>> + Send;
    /// Says good-bye, with `last` if it can still be sent.
    fn close(&mut self, last: Message, end: End) -> impl Future<Output = ()> + Send;
}

/// What a client knows of a key.
#[derive(Debug, Default)]
struct Subscription {
    /// The address by which it has named a script.
    address: Option<Box<str>>,
    /// Whether it has named it otherwise.
    plain: bool,
    /// What it was told last.
    told: Option<Arc<State>>,
}

/// One client.
pub(super) struct Session {
    push: PushState,
    outbox: Arc<Outbox>,
    news: watch::Receiver<u64>,
    /// Up to where it was told of the chain.
    place: Place,
    channels: Channels,
    keys: HashMap<Key, Subscription>,
    /// The state of the mempool that it was told last.
    mempool: Option<u64>,
    admission: Admission,
    /// Counts its messages, and knows its key; `None` if it has none and sends none.
    meter: Option<Meter>,
}

impl Session {
    /// A client that was let in.
    pub(super) fn new(push: PushState, admission: Admission, meter: Option<Meter>) -> Self {
        Self {
            outbox: push.0.registry.outbox(),
            news: push.0.hub.watch(),
            push,
            place: admission.place,
            channels: Channels::default(),
            keys: HashMap::new(),
            mempool: None,
            admission,
            meter,
        }
    }

    /// Serves it until it leaves, is too slow, gives no sign of life, or the node stops.
    /// It begins with the wishes of `first`.
    pub(super) async fn run(
        mut self,
        mut link: impl Link,
        first: Option<(Wishes, Option<String>)>,
    ) {
        let end = match self.serve(&mut link, first).await {
            Ok(end) | Err(end) => end,
        };
        metrics::push_closed(end.reason());
        debug!(reason = end.reason(), "push connection ended");
        if end != End::Left {
            let kind = if end == End::Stop {
                "reconnect"
            } else {
                "closing"
            };
            let last = self.message(kind, json!({"reason": end.reason()}));
            link.close(last, end).await;
        }
    }

    async fn serve(
        &mut self,
        link: &mut impl Link,
        first: Option<(Wishes, Option<String>)>,
    ) -> Result<End, End> {
        let stop = self.push.0.stop.clone();
        link.send(vec![self.hello()]).await?;
        if let Some((wishes, resume)) = first {
            self.subscribe(link, None, wishes, resume).await?;
        }
        let period = Duration::from_secs(self.push.0.config.ping_interval_secs.get());
        let mut ping = interval_at(tokio::time::Instant::now() + period, period);
        ping.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut heard = Instant::now();
        loop {
            let outbox = Arc::clone(&self.outbox);
            tokio::select! {
                () = stop.cancelled() => {
                    self.deliver(link).await?;
                    return Ok(End::Stop);
                }
                _ = self.news.changed() => self.deliver(link).await?,
                () = outbox.wake.notified() => self.deliver(link).await?,
                _ = ping.tick() => {
                    if heard.elapsed() > 2 * period && answers_pings(link) {
                        return Ok(End::Silent);
                    }
                    if self.meter.as_ref().is_some_and(|meter| !meter.is_admitted()) {
                        return Ok(End::KeyRevoked);
                    }
                    link.ping().await?;
                }
                incoming = link.receive() => {
                    heard = Instant::now();
                    match incoming {
                        Incoming::Sign => {}
                        Incoming::End(end) => return Ok(end),
                        Incoming::NotText => {
                            let reason = "only text messages are understood".to_owned();
                            let error = BadRequest::Malformed { reason };
                            link.send(vec![self.refused(None, &error)]).await?;
                        }
                        Incoming::Text(text) => match self.count_message() {
                            Ok(()) => self.answer(link, &text).await?,
                            Err(RestError::WrongApiKey) => return Ok(End::KeyRevoked),
                            Err(error) => link.send(vec![self.not_counted(&error)]).await?,
                        },
                    }
                }
            }
        }
    }

    /// A message for this client, at its place.
    fn message(&self, kind: &'static str, body: Value) -> Message {
        Message::new(kind, self.place.id, Some(self.place.tip), body)
    }

    fn hello(&self) -> Message {
        let config = &self.push.0.config;
        self.message(
            "hello",
            json!({
                "network": self.push.0.api.params().name(),
                "limits": {
                    "subscriptions": config.max_subscriptions,
                    "message_bytes": config.max_message_kib.get() << 10,
                    "replay_events": config.replay_events,
                },
            }),
        )
    }

    fn refused(&self, label: Option<&Label>, error: &BadRequest) -> Message {
        metrics::push_refused(error.code());
        self.failed(label, error.code(), &error.to_string())
    }

    fn count_message(&self) -> Result<(), RestError> {
        self.meter.as_ref().map_or(Ok(()), Meter::count)
    }

    /// What is said of a message that is not even read.
    fn not_counted(&self, error: &RestError) -> Message {
        const CODE: &str = "too_many_requests";
        metrics::push_refused(CODE);
        self.failed(None, CODE, &error.to_string())
    }

    fn failed(&self, label: Option<&Label>, code: &str, error: &str) -> Message {
        self.message(
            "error",
            json!({"request": label, "code": code, "error": error}),
        )
    }

    async fn answer(&mut self, link: &mut impl Link, text: &str) -> Result<(), End> {
        let network = self.push.0.api.params().network;
        let request = match request::parse(text, network) {
            Ok(request) => request,
            Err((label, error)) => {
                return link.send(vec![self.refused(label.as_ref(), &error)]).await;
            }
        };
        let label = request.label;
        match request.action {
            Action::Ping => {
                let pong = self.message("pong", json!({"request": label}));
                link.send(vec![pong]).await
            }
            Action::Unsubscribe(wishes) => {
                self.unsubscribe(&wishes);
                let body = json!({"request": label, "subscriptions": self.count()});
                link.send(vec![self.message("unsubscribed", body)]).await
            }
            Action::Subscribe { wishes, resume } => {
                self.subscribe(link, label, wishes, resume).await
            }
        }
    }

    fn count(&self) -> usize {
        self.keys.len() + self.channels.len()
    }

    /// Tells what the client does not know yet.
    async fn deliver(&mut self, link: &mut impl Link) -> Result<(), End> {
        // In this order: see the module.
        let pending = self.outbox.take();
        let hub = &self.push.0.hub;
        let mut messages = match hub.since(self.place.id.number, self.channels) {
            Missed::Messages(messages, place) => {
                self.place = place;
                messages
            }
            Missed::TooMuch if hub.end().is_none() => return Err(End::NotSynced),
            Missed::TooMuch => return Err(End::Slow),
        };
        if self.channels.contains(Channel::Mempool) {
            messages.extend(self.mempool_message(false));
        }
        for (key, state) in pending.states {
            self.tell(&key, state, false, &mut messages);
        }
        self.send(link, messages).await
    }

    async fn send(&self, link: &mut impl Link, messages: Vec<Message>) -> Result<(), End> {
        if messages.is_empty() {
            return Ok(());
        }
        metrics::push_sent(messages.len());
        link.send(messages).await
    }

    fn mempool_message(&mut self, initial: bool) -> Option<Message> {
        let (count, state) = self.push.0.hub.mempool(self.mempool)?;
        self.mempool = Some(count);
        let mut body = (*state).clone();
        body["initial"] = initial.into();
        Some(self.message("mempool", body))
    }

    /// Messages with a state of a key, if the client does not know it.
    fn tell(&mut self, key: &Key, state: Arc<State>, initial: bool, messages: &mut Vec<Message>) {
        let Some(subscription) = self.keys.get_mut(key) else {
            return;
        };
        let told = subscription.told.replace(Arc::clone(&state));
        let is_known = |told: &Arc<State>| told.fingerprint == state.fingerprint;
        if !initial && told.as_ref().is_some_and(is_known) {
            return;
        }
        let mut body = state.body.clone();
        body["initial"] = initial.into();
        if let Key::Tx(_) = key {
            body["previous"] = told.and_then(|told| told.word).into();
        }
        let mut push = |kind, name: &str, value: Value| {
            let mut body = body.clone();
            body[name] = value;
            let tip = Some(state.tip);
            messages.push(Message::new(kind, self.place.id, tip, body));
        };
        match key {
            Key::Script(script) => {
                if let Some(address) = &subscription.address {
                    push("address", "address", (&**address).into());
                }
                if subscription.plain {
                    let hash: &[u8] = script.as_ref();
                    push("scripthash", "scripthash", hex::encode(hash).into());
                }
            }
            Key::Outpoint(outpoint) => push("outpoint", "outpoint", outpoint.to_string().into()),
            Key::Tx(txid) => push("tx", "txid", txid.to_string().into()),
        }
    }

    async fn subscribe(
        &mut self,
        link: &mut impl Link,
        label: Option<Label>,
        wishes: Wishes,
        resume: Option<String>,
    ) -> Result<(), End> {
        if resume.is_some() && self.channels.follow_chain() {
            let refused = self.refused(label.as_ref(), &BadRequest::LateResume);
            return link.send(vec![refused]).await;
        }
        let new = match self.register(&wishes.names) {
            Ok(new) => new,
            Err(error) => return link.send(vec![self.refused(label.as_ref(), &error)]).await,
        };
        // From here on the place is that of the tip that is told.
        self.deliver(link).await?;
        let added = wishes.channels.without(self.channels);
        self.channels = self.channels.union(wishes.channels);
        let body = json!({"request": label, "subscriptions": self.count()});
        let mut messages = vec![self.message("subscribed", body)];
        let mut is_resumed = false;
        if let Some(resume) = resume {
            match self.push.0.hub.resume(EventId::parse(&resume)) {
                Resume::From(number, events) => {
                    is_resumed = true;
                    messages.push(self.message("resumed", json!({"events": events})));
                    self.place.id = self.push.0.hub.id(number);
                }
                Resume::OtherProcess => {
                    messages.push(self.message("reset", json!({"reason": "other_process"})));
                }
                Resume::TooOld => {
                    messages.push(self.message("reset", json!({"reason": "too_old"})));
                }
            }
        }
        if added.follow_chain() && !is_resumed {
            messages.push(self.message("tip", json!({"initial": true})));
        }
        self.send(link, messages).await?;
        if is_resumed {
            self.deliver(link).await?;
        }
        if added.contains(Channel::Mempool) {
            self.tell_mempool(link).await?;
        }
        self.tell_states(link, label.as_ref(), &wishes.names, &new)
            .await
    }

    async fn tell_mempool(&mut self, link: &mut impl Link) -> Result<(), End> {
        let push = self.push.clone();
        // Without a state the next one is told when there is one.
        let _ = self
            .push
            .read(move || {
                if let Some(state) = mempool_state(&push.0) {
                    push.0.hub.publish_mempool(state);
                }
                Ok(())
            })
            .await;
        self.mempool = None;
        let message = self.mempool_message(true);
        self.send(link, message.into_iter().collect()).await
    }

    /// Tells the present state of everything that was named. Of `new`, what has none is
    /// not subscribed to.
    async fn tell_states(
        &mut self,
        link: &mut impl Link,
        label: Option<&Label>,
        names: &[Named],
        new: &HashSet<Key>,
    ) -> Result<(), End> {
        let mut seen = HashSet::new();
        let keys = names.iter().map(|named| named.key);
        let keys: Vec<Key> = keys.filter(|key| seen.insert(*key)).collect();
        for (n, part) in keys.chunks(AT_ONCE).enumerate() {
            let (push, asked) = (self.push.clone(), part.to_vec());
            let found = self.push.read(move || states(&push.0.api, &asked)).await;
            let found = match found {
                Ok(found) => found,
                Err(error) => {
                    let rest = keys[n * AT_ONCE..].iter();
                    let rest: Vec<Key> = rest.filter(|key| new.contains(*key)).copied().collect();
                    self.forget(&rest);
                    return link
                        .send(vec![self.without_state(label, None, &error)])
                        .await;
                }
            };
            let mut messages = Vec::with_capacity(found.len());
            for (key, state) in part.iter().zip(found) {
                match state {
                    Ok(state) => self.tell(key, state, true, &mut messages),
                    Err(error) => {
                        if new.contains(key) {
                            self.forget(&[*key]);
                        }
                        messages.push(self.without_state(label, Some(key), &error));
                    }
                }
            }
            self.send(link, messages).await?;
        }
        Ok(())
    }

    /// That there is no state of a key, or of all that were named.
    fn without_state(
        &self,
        label: Option<&Label>,
        key: Option<&Key>,
        error: &RestError,
    ) -> Message {
        error.log("push");
        let code = match error {
            RestError::NotSynced { .. } => "not_synced",
            RestError::MempoolBehind | RestError::Busy | RestError::QueryTimeout => "busy",
            _ => "internal",
        };
        let of = key.map(|key| match key {
            Key::Script(script) => hex::encode(AsRef::<[u8]>::as_ref(script)),
            Key::Outpoint(outpoint) => outpoint.to_string(),
            Key::Tx(txid) => txid.to_string(),
        });
        let body = json!({"request": label, "code": code, "error": error.to_string(), "of": of});
        self.message("error", body)
    }

    /// Registers what is named. Returns what is new.
    fn register(&mut self, names: &[Named]) -> Result<HashSet<Key>, BadRequest> {
        let new: HashSet<Key> = (names.iter().map(|named| named.key))
            .filter(|key| !self.keys.contains_key(key))
            .collect();
        let limit = self.push.0.config.max_subscriptions;
        if self.keys.len() + new.len() > limit {
            return Err(BadRequest::TooMany { limit });
        }
        if let Some(part) = &mut self.admission.part
            && !part.reserve(new.len())
        {
            let limit = part.limit();
            return Err(BadRequest::TooManyOfAddress { limit });
        }
        if !self.push.0.reserve(new.len()) {
            if let Some(part) = &mut self.admission.part {
                part.release(new.len());
            }
            return Err(BadRequest::TooManyInAll);
        }
        metrics::push_subscriptions(new.len(), true);
        for Named { key, name } in names {
            let subscription = self.keys.entry(*key).or_default();
            match name {
                Name::Address(address) => subscription.address = Some(address.clone()),
                Name::Plain => subscription.plain = true,
            }
        }
        for key in &new {
            self.push.0.registry.subscribe(*key, &self.outbox);
        }
        Ok(new)
    }

    fn unsubscribe(&mut self, wishes: &Wishes) {
        self.channels = self.channels.without(wishes.channels);
        let mut ended = Vec::new();
        for Named { key, name } in &wishes.names {
            if let Entry::Occupied(mut entry) = self.keys.entry(*key) {
                let subscription = entry.get_mut();
                match name {
                    Name::Address(_) => subscription.address = None,
                    Name::Plain => subscription.plain = false,
                }
                if subscription.address.is_none() && !subscription.plain {
                    ended.push(*key);
                }
            }
        }
        self.forget(&ended);
    }

    fn forget(&mut self, keys: &[Key]) {
        let mut count = 0;
        for key in keys {
            count += usize::from(self.keys.remove(key).is_some());
        }
        self.push.0.registry.unsubscribe(keys, &self.outbox);
        self.push.0.release(count);
        if let Some(part) = &mut self.admission.part {
            part.release(count);
        }
        metrics::push_subscriptions(count, false);
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        let keys: Vec<Key> = self.keys.keys().copied().collect();
        self.forget(&keys);
    }
}

fn answers_pings<L: Link>(_: &L) -> bool {
    L::ANSWERS_PINGS
}
