//! What clients are told: JSON objects with a `type`, the `id` up to which the client has
//! been told of the chain, and a tip.

use std::{fmt, sync::Arc};

use pulse_primitives::{Height, bitcoin::BlockHash, tip::ChainTip};
use serde::Serialize;
use serde_json::Value;

/// One message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Message {
    /// Its `type`.
    pub(super) kind: &'static str,
    /// Its `id`.
    pub(super) id: EventId,
    /// The whole JSON.
    pub(super) text: Arc<str>,
}

impl Message {
    /// A message of `kind` whose further keys are those of the object `body`.
    pub(super) fn new(kind: &'static str, id: EventId, tip: Option<ChainTip>, body: Value) -> Self {
        let envelope = Envelope {
            kind,
            id: id.to_string(),
            tip: tip.map(TipJson::from),
            body,
        };
        let text = serde_json::to_string(&envelope);
        Self {
            kind,
            id,
            text: text.expect("names are text and numbers are finite").into(),
        }
    }
}

#[derive(Serialize)]
struct Envelope {
    #[serde(rename = "type")]
    kind: &'static str,
    id: String,
    tip: Option<TipJson>,
    #[serde(flatten)]
    body: Value,
}

#[derive(Serialize)]
struct TipJson {
    height: Height,
    hash: BlockHash,
    time: u32,
}

impl From<ChainTip> for TipJson {
    fn from(tip: ChainTip) -> Self {
        Self {
            height: tip.height,
            hash: tip.hash,
            time: tip.time,
        }
    }
}

/// A place among the events of one process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct EventId {
    /// Of the process: another one has another.
    pub(super) epoch: u64,
    /// How many events there were.
    pub(super) number: u64,
}

/// `EPOCH-NUMBER`, the epoch as 16 hex digits.
impl fmt::Display for EventId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}-{}", self.epoch, self.number)
    }
}

impl EventId {
    /// The other way round; `None` if `text` is no id of any process.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let (epoch, number) = text.split_once('-')?;
        let plain = |text: &str| text.bytes().all(|byte| byte.is_ascii_hexdigit());
        if epoch.len() != 16 || number.len() > 20 || !plain(epoch) || !plain(number) {
            return None;
        }
        Some(Self {
            epoch: u64::from_str_radix(epoch, 16).ok()?,
            number: number.parse().ok()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn ids_read_back_and_nothing_else_does() {
        let id = EventId {
            epoch: 0xab,
            number: u64::MAX,
        };
        assert_eq!(id.to_string(), "00000000000000ab-18446744073709551615");
        assert_eq!(EventId::parse(&id.to_string()), Some(id));
        for wrong in [
            "",
            "-",
            "ab-1",
            "00000000000000ab",
            "00000000000000ab-",
            "00000000000000ab-+1",
            "00000000000000ab--1",
            "+0000000000000ab-1",
            "00000000000000ab-18446744073709551616",
            "00000000000000ab-1-1",
            "00000000000000äb-1",
        ] {
            assert_eq!(EventId::parse(wrong), None, "{wrong:?}");
        }
    }

    #[test]
    fn a_message_begins_with_its_type_whatever_it_holds() {
        let id = EventId {
            epoch: 1,
            number: 2,
        };
        let message = Message::new("x", id, None, json!({"b": 1, "a": [2]}));
        let value: Value = serde_json::from_str(&message.text).unwrap();
        let expected = json!({"type": "x", "id": id.to_string(), "tip": null, "b": 1, "a": [2]});
        assert_eq!(value, expected);
        assert!(message.text.starts_with(r#"{"type":"x","id":""#));
    }
}
