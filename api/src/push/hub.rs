//! What has happened to the chain: a ring of events that one writes and every session reads
//! at its own pace, and the newest state of the mempool.
//!
//! # Correctness
//! The tip and the events that lead to it change under one lock: who begins at a tip with
//! the number that belongs to it is told every event after it, and of none before it.
//!
//! # Limits
//! The newest `replay_events` are kept. A session that falls behind more than that has
//! missed some, and is told so.

use std::{
    collections::VecDeque,
    hash::{BuildHasher, Hasher, RandomState},
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

use parking_lot::Mutex;
use pulse_primitives::tip::ChainTip;
use serde_json::Value;
use tokio::sync::watch;

use super::message::{EventId, Message};

/// What a client can subscribe to besides addresses and the like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Channel {
    /// The newest tip.
    Tips,
    /// Every block that becomes part of the chain.
    Blocks,
    /// Blocks that leave it.
    Reorgs,
    /// Size and fee rates of the mempool.
    Mempool,
}

impl Channel {
    /// All of them.
    pub(super) const ALL: [Self; 4] = [Self::Tips, Self::Blocks, Self::Reorgs, Self::Mempool];

    /// Its name in requests.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Tips => "tips",
            Self::Blocks => "blocks",
            Self::Reorgs => "reorgs",
            Self::Mempool => "mempool",
        }
    }
}

/// Some channels.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Channels(u8);

impl Channels {
    pub(super) fn insert(&mut self, channel: Channel) {
        self.0 |= 1 << channel as u8;
    }

    pub(super) fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    pub(super) fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    pub(super) fn contains(self, channel: Channel) -> bool {
        self.0 & (1 << channel as u8) != 0
    }

    /// Whether any of them is about the chain.
    pub(super) fn follow_chain(self) -> bool {
        let mut mempool = Self::default();
        mempool.insert(Channel::Mempool);
        self.without(mempool) != Self::default()
    }

    pub(super) fn len(self) -> usize {
        usize::try_from(self.0.count_ones()).unwrap_or(Channel::ALL.len())
    }
}

/// Who is told of an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Audience {
    /// Who subscribes to this.
    Channel(Channel),
    /// Who subscribes to anything about the chain.
    Chain,
    /// Everybody.
    All,
}

impl Audience {
    fn is_of(self, channels: Channels) -> bool {
        match self {
            Self::Channel(channel) => channels.contains(channel),
            Self::Chain => channels.follow_chain(),
            Self::All => true,
        }
    }
}

/// Something that is about to be told.
pub(super) struct News {
    pub(super) kind: &'static str,
    pub(super) audience: Audience,
    pub(super) tip: ChainTip,
    pub(super) body: Value,
}

/// What a session has missed.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Missed {
    /// These messages, oldest first, and where they end.
    Messages(Vec<Message>, Place),
    /// More than is kept.
    TooMuch,
}

/// A place among the events.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    /// Of the last event before it.
    pub(super) id: EventId,
    /// The tip after that event.
    pub(super) tip: ChainTip,
}

/// Whether what a client has missed can be told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Resume {
    /// From this number on; so many events have passed since.
    From(u64, u64),
    /// The id is that of another process, or of none.
    OtherProcess,
    /// Events after it are not kept any more, or could not be told one by one.
    TooOld,
}

/// See the module.
pub(super) struct Hub {
    epoch: u64,
    kept: usize,
    inner: Mutex<Inner>,
    /// Changes whenever there is something to read.
    version: watch::Sender<u64>,
}

struct Inner {
    ring: VecDeque<(Audience, Message)>,
    /// Number of the newest event.
    number: u64,
    /// The tip after it, while the node is followed.
    tip: Option<ChainTip>,
    /// State of the mempool, and how many there were.
    mempool: Option<(u64, Arc<Value>)>,
}

impl Hub {
    /// A hub that keeps `kept` events.
    pub(super) fn new(kept: usize) -> Self {
        let mut hasher = RandomState::new().build_hasher();
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        hasher.write_u128(now.map_or(0, |since| since.as_nanos()));
        hasher.write_u32(std::process::id());
        Self {
            epoch: hasher.finish(),
            kept,
            inner: Mutex::new(Inner {
                ring: VecDeque::new(),
                number: 0,
                tip: None,
                mempool: None,
            }),
            version: watch::Sender::new(0),
        }
    }

    /// Changes whenever there is something to read.
    pub(super) fn watch(&self) -> watch::Receiver<u64> {
        self.version.subscribe()
    }

    /// The id of `number`.
    pub(super) fn id(&self, number: u64) -> EventId {
        EventId {
            epoch: self.epoch,
            number,
        }
    }

    /// The place after the newest event; `None` while the node is not followed.
    pub(super) fn end(&self) -> Option<Place> {
        self.end_of(&self.inner.lock())
    }

    fn end_of(&self, inner: &Inner) -> Option<Place> {
        Some(Place {
            id: self.id(inner.number),
            tip: inner.tip?,
        })
    }

    /// Whether a client that was told up to `id` can be told what came after.
    pub(super) fn resume(&self, id: Option<EventId>) -> Resume {
        let inner = self.inner.lock();
        match id {
            Some(id) if id.epoch == self.epoch && id.number <= inner.number => {
                match inner.oldest() <= id.number + 1 {
                    true => Resume::From(id.number, inner.number - id.number),
                    false => Resume::TooOld,
                }
            }
            _ => Resume::OtherProcess,
        }
    }

    /// Messages for who subscribes to `channels` and was told up to `number`. Of several
    /// tips only the last.
    pub(super) fn since(&self, number: u64, channels: Channels) -> Missed {
        let inner = self.inner.lock();
        let skip = (number + 1).checked_sub(inner.oldest());
        let (Some(skip), Some(end), true) = (skip, self.end_of(&inner), number <= inner.number)
        else {
            return Missed::TooMuch;
        };
        let skip = usize::try_from(skip).unwrap_or(usize::MAX);
        let missed = inner.ring.range(skip.min(inner.ring.len())..);
        let is_tip = |audience: &Audience| *audience == Audience::Channel(Channel::Tips);
        let last_tip = (inner.ring.iter()).rposition(|(audience, _)| is_tip(audience));
        let messages = (skip..).zip(missed).filter(|(at, (audience, _))| {
            audience.is_of(channels) && (!is_tip(audience) || Some(*at) == last_tip)
        });
        let messages = messages.map(|(_, (_, message))| message.clone());
        Missed::Messages(messages.collect(), end)
    }

    /// Tells `news`, after which the chain ends with `tip`.
    pub(super) fn publish(&self, news: Vec<News>, tip: ChainTip) {
        {
            let mut inner = self.inner.lock();
            for one in news {
                inner.number += 1;
                let id = self.id(inner.number);
                let message = Message::new(one.kind, id, Some(one.tip), one.body);
                if inner.ring.len() == self.kept {
                    inner.ring.pop_front();
                }
                inner.ring.push_back((one.audience, message));
            }
            inner.tip = Some(tip);
        }
        self.wake();
    }

    /// The node is followed no more: what happens until the next event is not told to
    /// anybody, and nobody can come back to before it.
    pub(super) fn forget(&self) {
        let mut inner = self.inner.lock();
        if inner.tip.take().is_some() {
            inner.number += 1;
            inner.ring.clear();
        }
    }

    /// The newest state of the mempool, if it is not the `known` one.
    pub(super) fn mempool(&self, known: Option<u64>) -> Option<(u64, Arc<Value>)> {
        let inner = self.inner.lock();
        let newest = inner.mempool.as_ref()?;
        (known != Some(newest.0)).then(|| newest.clone())
    }

    /// Tells the state of the mempool, if it has changed.
    pub(super) fn publish_mempool(&self, state: Value) {
        {
            let mut inner = self.inner.lock();
            let count = match &inner.mempool {
                Some((_, last)) if **last == state => return,
                Some((count, _)) => count + 1,
                None => 0,
            };
            inner.mempool = Some((count, Arc::new(state)));
        }
        self.wake();
    }

    fn wake(&self) {
        self.version
            .send_modify(|version| *version = version.wrapping_add(1));
    }
}

impl Inner {
    /// Number of the oldest event that is kept, or of the next one.
    fn oldest(&self) -> u64 {
        self.number + 1 - self.ring.len() as u64
    }
}

#[cfg(test)]
mod tests {
    use pulse_primitives::bitcoin::{BlockHash, hashes::Hash};
    use serde_json::json;

    use super::*;

    fn tip(height: u32) -> ChainTip {
        ChainTip {
            height,
            hash: BlockHash::from_byte_array([height.to_le_bytes()[0]; 32]),
            time: 0,
        }
    }

    fn block(height: u32) -> Vec<News> {
        let news = |kind, channel| News {
            kind,
            audience: Audience::Channel(channel),
            tip: tip(height),
            body: json!({}),
        };
        vec![news("block", Channel::Blocks), news("tip", Channel::Tips)]
    }

    fn channels(all: &[Channel]) -> Channels {
        let mut channels = Channels::default();
        all.iter().for_each(|channel| channels.insert(*channel));
        channels
    }

    fn kinds(missed: Missed) -> Vec<(&'static str, u64)> {
        match missed {
            Missed::Messages(messages, _) => (messages.iter())
                .map(|message| (message.kind, message.id.number))
                .collect(),
            Missed::TooMuch => panic!("too much"),
        }
    }

    #[test]
    fn a_reader_gets_what_it_missed_of_its_channels_and_one_tip() {
        let hub = Hub::new(10);
        assert_eq!(hub.end(), None);
        hub.publish(Vec::new(), tip(0));
        let start = hub.end().unwrap();
        assert_eq!((start.id.number, start.tip), (0, tip(0)));
        let mut watch = hub.watch();
        watch.mark_unchanged();
        (1..=3).for_each(|height| hub.publish(block(height), tip(height)));
        assert!(watch.has_changed().unwrap());
        let both = channels(&[Channel::Tips, Channel::Blocks]);
        let all = [("block", 1), ("block", 3), ("block", 5), ("tip", 6)];
        assert_eq!(kinds(hub.since(0, both)), all);
        assert_eq!(kinds(hub.since(3, both)), all[2..]);
        assert_eq!(
            kinds(hub.since(0, channels(&[Channel::Tips]))),
            [("tip", 6)]
        );
        assert_eq!(kinds(hub.since(0, channels(&[Channel::Reorgs]))), []);
        let end = hub.end().unwrap();
        assert_eq!(end.tip, tip(3));
        assert_eq!(hub.since(6, both), Missed::Messages(Vec::new(), end));
        assert_eq!(hub.since(7, both), Missed::TooMuch);
    }

    #[test]
    fn what_is_not_kept_and_what_another_process_told_cannot_be_resumed() {
        let hub = Hub::new(4);
        (1..=5).for_each(|height| hub.publish(block(height), tip(height)));
        // Ten events, of which 7 to 10 are kept.
        assert_eq!(hub.resume(Some(hub.id(10))), Resume::From(10, 0));
        assert_eq!(hub.resume(Some(hub.id(6))), Resume::From(6, 4));
        assert_eq!(hub.resume(Some(hub.id(5))), Resume::TooOld);
        assert_eq!(hub.resume(Some(hub.id(11))), Resume::OtherProcess);
        assert_eq!(hub.resume(None), Resume::OtherProcess);
        let other = EventId {
            epoch: hub.epoch.wrapping_add(1),
            number: 10,
        };
        assert_eq!(hub.resume(Some(other)), Resume::OtherProcess);
        assert_eq!(hub.since(5, Channels::default()), Missed::TooMuch);
        assert_eq!(kinds(hub.since(6, channels(&[Channel::Blocks]))).len(), 2);
        assert_ne!(Hub::new(4).epoch, hub.epoch);
    }

    #[test]
    fn nobody_comes_back_to_before_the_node_was_lost_sight_of() {
        let hub = Hub::new(4);
        hub.publish(block(1), tip(1));
        hub.forget();
        hub.forget();
        assert_eq!(hub.end(), None);
        hub.publish(Vec::new(), tip(9));
        assert_eq!(hub.resume(Some(hub.id(2))), Resume::TooOld);
        assert_eq!(hub.end().unwrap().id.number, 3);
        assert_eq!(hub.resume(Some(hub.id(3))), Resume::From(3, 0));
    }

    #[test]
    fn the_mempool_is_told_when_it_changes() {
        let hub = Hub::new(4);
        assert_eq!(hub.mempool(None), None);
        hub.publish_mempool(json!(1));
        let (first, _) = hub.mempool(None).unwrap();
        hub.publish_mempool(json!(1));
        assert_eq!(hub.mempool(Some(first)), None);
        hub.publish_mempool(json!(2));
        assert_eq!(*hub.mempool(Some(first)).unwrap().1, 2);
    }
}
