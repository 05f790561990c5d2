//! What clients ask for: messages over WebSocket, query strings of `/events`.
//!
//! # Security
//! A request is taken as a whole or not at all: with one name in it that means nothing,
//! nothing is subscribed to.

use pulse_primitives::bitcoin::{Network, OutPoint};
use pulse_request::RequestError;
use serde::{Deserialize, Serialize};

use super::{
    hub::{Channel, Channels},
    state::Key,
};
use crate::rest::parts;

/// Longest part of what a client sent that is sent back in an error.
const ECHO_CHARS: usize = 80;
/// Longest text that a client gives its request.
const LABEL_BYTES: usize = 64;

/// A name with what it means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Named {
    pub(super) key: Key,
    pub(super) name: Name,
}

/// How a client names something.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Name {
    /// A script by an address, as sent.
    Address(Box<str>),
    /// A script by its hash, or what has one name only.
    Plain,
}

/// What is asked for in one request.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Wishes {
    pub(super) channels: Channels,
    pub(super) names: Vec<Named>,
}

/// Why a request is refused.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum BadRequest {
    #[error("not a request: {reason}")]
    Malformed {
        /// The parser's text.
        reason: String,
    },
    #[error("{text}: {name}")]
    Name {
        /// What is wrong, in the words of the REST API.
        text: String,
        /// The beginning of the name.
        name: String,
    },
    #[error("nothing is asked for")]
    Nothing,
    #[error("resume has to come with the first channels of a connection")]
    LateResume,
    #[error("more than {limit} subscriptions of one connection")]
    TooMany {
        /// The limit.
        limit: usize,
    },
    #[error("more than {limit} subscriptions of one address")]
    TooManyOfAddress {
        /// The limit.
        limit: usize,
    },
    #[error("the server has too many subscriptions; try again later")]
    TooManyInAll,
}

impl BadRequest {
    /// What programs tell errors by.
    pub(super) fn code(&self) -> &'static str {
        match self {
            Self::Malformed { .. } => "malformed",
            Self::Name { .. } => "invalid_name",
            Self::Nothing => "nothing_asked",
            Self::LateResume => "late_resume",
            Self::TooMany { .. } => "too_many_subscriptions",
            Self::TooManyOfAddress { .. } => "address_subscriptions",
            Self::TooManyInAll => "server_full",
        }
    }
}

/// What a client calls its request; sent back with the answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub(super) enum Label {
    Number(i64),
    Text(String),
}

/// A message of a client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Request {
    pub(super) label: Option<Label>,
    pub(super) action: Action,
}

/// What it is to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Action {
    Subscribe {
        wishes: Wishes,
        /// The id up to which the client was told before.
        resume: Option<String>,
    },
    Unsubscribe(Wishes),
    Ping,
}

#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum Kind {
    Subscribe,
    Unsubscribe,
    Ping,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawRequest {
    #[serde(rename = "type")]
    kind: Kind,
    #[serde(default)]
    request: Option<Label>,
    #[serde(default)]
    channels: Vec<String>,
    #[serde(default)]
    addresses: Vec<String>,
    #[serde(default)]
    scripthashes: Vec<String>,
    #[serde(default)]
    outpoints: Vec<String>,
    #[serde(default)]
    txids: Vec<String>,
    #[serde(default)]
    resume: Option<String>,
}

/// Reads a message.
///
/// # Errors
/// [`BadRequest`], with the label if one could be read.
pub(super) fn parse(text: &str, network: Network) -> Result<Request, (Option<Label>, BadRequest)> {
    let raw: RawRequest = serde_json::from_str(text).map_err(|err| {
        let reason = err.to_string();
        (None, BadRequest::Malformed { reason })
    })?;
    let label = raw.request.clone();
    if matches!(&label, Some(Label::Text(text)) if text.len() > LABEL_BYTES) {
        let reason = format!("request has more than {LABEL_BYTES} bytes");
        return Err((None, BadRequest::Malformed { reason }));
    }
    match raw.read(network) {
        Ok(action) => Ok(Request { label, action }),
        Err(error) => Err((label, error)),
    }
}

impl RawRequest {
    fn read(self, network: Network) -> Result<Action, BadRequest> {
        let mut wishes = Wishes::default();
        for (kind, names) in [
            ("channel", self.channels),
            ("address", self.addresses),
            ("scripthash", self.scripthashes),
            ("outpoint", self.outpoints),
            ("txid", self.txids),
        ] {
            for name in names {
                wishes.add(kind, &name, network)?;
            }
        }
        match self.kind {
            Kind::Ping => Ok(Action::Ping),
            _ if wishes == Wishes::default() => Err(BadRequest::Nothing),
            Kind::Unsubscribe => Ok(Action::Unsubscribe(wishes)),
            Kind::Subscribe => Ok(Action::Subscribe {
                wishes,
                resume: self.resume,
            }),
        }
    }
}

impl Wishes {
    /// The wishes of a query string: the keys `channel`, `address`, `scripthash`, `outpoint`
    /// and `txid`, each as often as wanted and with one name or several between commas. Also
    /// the value of `last_event_id`. Other keys are ignored.
    ///
    /// # Errors
    /// [`BadRequest::Name`], [`BadRequest::Nothing`].
    pub(super) fn of_query(
        query: &str,
        network: Network,
    ) -> Result<(Self, Option<String>), BadRequest> {
        let mut wishes = Self::default();
        let mut last = None;
        for (key, value) in form_urlencoded::parse(query.as_bytes()) {
            match &*key {
                "last_event_id" => last = Some(value.into_owned()),
                kind @ ("channel" | "address" | "scripthash" | "outpoint" | "txid") => {
                    for name in value.split(',') {
                        wishes.add(kind, name, network)?;
                    }
                }
                _ => {}
            }
        }
        match wishes == Self::default() {
            true => Err(BadRequest::Nothing),
            false => Ok((wishes, last)),
        }
    }

    fn add(&mut self, kind: &str, name: &str, network: Network) -> Result<(), BadRequest> {
        let bad = |error: RequestError| BadRequest::Name {
            text: error.to_string(),
            name: name.chars().take(ECHO_CHARS).collect(),
        };
        let (key, name) = match kind {
            "channel" => {
                let channel = Channel::ALL.into_iter().find(|one| one.name() == name);
                self.channels
                    .insert(channel.ok_or_else(|| BadRequest::Name {
                        text: "Invalid channel".to_owned(),
                        name: name.chars().take(ECHO_CHARS).collect(),
                    })?);
                return Ok(());
            }
            "address" => {
                let script = parts::address(name, network).map_err(bad)?;
                (Key::Script(script), Name::Address(name.into()))
            }
            "scripthash" => {
                let script = parts::scripthash(name).map_err(bad)?;
                (Key::Script(script), Name::Plain)
            }
            "outpoint" => (Key::Outpoint(outpoint(name).map_err(bad)?), Name::Plain),
            _ => (Key::Tx(parts::txid(name).map_err(bad)?), Name::Plain),
        };
        self.names.push(Named { key, name });
        Ok(())
    }
}

/// `TXID:VOUT`
fn outpoint(text: &str) -> Result<OutPoint, RequestError> {
    let (txid, vout) = text.split_once(':').ok_or(RequestError::InvalidHex)?;
    if !vout.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(RequestError::InvalidNumber);
    }
    Ok(OutPoint {
        txid: parts::txid(txid)?,
        vout: vout.parse().map_err(|_| RequestError::InvalidNumber)?,
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use pulse_primitives::bitcoin::ScriptBuf;
    use pulse_primitives::{bitcoin::hashes::Hash, mempool::ScriptHash};

    use super::*;

    const A: &str = "bc1qw508d6qejxtdg4y5r3zarvary0c5xw7kv8f3t4";
    const H: &str = "1c45a447627cbd0003b94a77a48f5746dac20551805150cfb23d2b2f9b5fbc53";

    fn read(text: &str) -> Result<Request, (Option<Label>, BadRequest)> {
        parse(text, Network::Bitcoin)
    }

    fn code(text: &str) -> &'static str {
        read(text).unwrap_err().1.code()
    }

    #[test]
    fn a_message_and_a_query_string_ask_for_the_same() {
        let text = format!(
            r#"{{"type":"subscribe","request":7,"channels":["tips","mempool"],"addresses":["{A}"],
            "scripthashes":["{H}"],"outpoints":["{H}:1"],"txids":["{H}"],"resume":"x"}}"#
        );
        let request = read(&text).unwrap();
        assert_eq!(request.label, Some(Label::Number(7)));
        let Action::Subscribe { wishes, resume } = request.action else {
            panic!("{text}");
        };
        assert_eq!(resume.as_deref(), Some("x"));
        assert_eq!(wishes.channels.len(), 2);
        assert!(wishes.channels.contains(Channel::Mempool));
        let script = ScriptBuf::from_hex("0014751e76e8199196d454941c45d1b3a323f1433bd6").unwrap();
        let expected = [
            Named {
                key: Key::Script(ScriptHash::hash(script.as_bytes())),
                name: Name::Address(A.into()),
            },
            Named {
                key: Key::Script(ScriptHash::from_byte_array(
                    hex::decode(H).unwrap().try_into().unwrap(),
                )),
                name: Name::Plain,
            },
            Named {
                key: Key::Outpoint(OutPoint::new(H.parse().unwrap(), 1)),
                name: Name::Plain,
            },
            Named {
                key: Key::Tx(H.parse().unwrap()),
                name: Name::Plain,
            },
        ];
        assert_eq!(wishes.names, expected);
        let query = format!(
            "channel=mempool,tips&x=y&address={A}&scripthash={H}&outpoint={H}%3A1&txid={H}&last_event_id=x"
        );
        let asked = Wishes::of_query(&query, Network::Bitcoin).unwrap();
        assert_eq!(asked, (wishes, Some("x".to_owned())));
    }

    #[test]
    fn what_is_no_request_is_refused_with_a_code() {
        for text in [
            "",
            "x",
            "[]",
            "{}",
            "null",
            r#"{"type":"nonsense"}"#,
            r#"{"type":"subscribe","channel":["tips"]}"#,
            r#"{"type":"subscribe","channels":"tips"}"#,
            r#"{"type":"subscribe","channels":[1]}"#,
            r#"{"type":"ping","request":{}}"#,
            r#"{"type":"ping","request":1.5}"#,
            &format!(r#"{{"type":"ping","request":"{}"}}"#, "x".repeat(65)),
            &"[".repeat(100_000),
        ] {
            assert_eq!(code(text), "malformed", "{}", &text[..text.len().min(80)]);
        }
        for (key, names) in [
            ("channels", vec!["", "Tips", "all"]),
            (
                "addresses",
                vec!["", "x", "tb1qw508d6qejxtdg4y5r3zarvary0c5xw7kxpjzsx"],
            ),
            ("scripthashes", vec!["", "00", &H[1..]]),
            ("outpoints", vec!["", H, ":", ":0", "00:0"]),
            ("txids", vec!["", "00", &H[1..]]),
        ] {
            for name in names {
                let text = format!(r#"{{"type":"subscribe","{key}":["{name}"]}}"#);
                assert_eq!(code(&text), "invalid_name", "{text}");
            }
        }
        for vout in ["", "-1", "+1", "4294967296", "1:1", "0x1"] {
            let text = format!(r#"{{"type":"subscribe","outpoints":["{H}:{vout}"]}}"#);
            assert_eq!(code(&text), "invalid_name", "{text}");
        }
        assert_eq!(code(r#"{"type":"subscribe"}"#), "nothing_asked");
        assert_eq!(
            code(r#"{"type":"unsubscribe","txids":[]}"#),
            "nothing_asked"
        );
        let (label, _) = read(r#"{"type":"subscribe","request":"a","txids":["x"]}"#).unwrap_err();
        assert_eq!(label, Some(Label::Text("a".to_owned())));
        assert_eq!(read(r#"{"type":"ping"}"#).unwrap().action, Action::Ping);
        for query in ["", "x=y", "channel", "channel=", "address=", "txid=,"] {
            assert!(
                Wishes::of_query(query, Network::Bitcoin).is_err(),
                "{query}"
            );
        }
    }

    proptest! {
        #[test]
        fn nothing_that_a_client_sends_is_a_panic(
            text in ".{0,200}",
            name in ".{0,80}",
            key in "channels|addresses|scripthashes|outpoints|txids|resume|request",
        ) {
            let _ = read(&text);
            let _ = Wishes::of_query(&text, Network::Bitcoin);
            let request = serde_json::json!({"type": "subscribe", key: [name]}).to_string();
            let _ = read(&request);
        }
    }
}
