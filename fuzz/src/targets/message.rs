//! Payloads of every command: `command's number u8 | payload`.

use pulse_p2p::{
    AddrEntry,
    message::{
        DecodeError, MAX_HEADERS, MAX_INVENTORY, MAX_LOCATOR, MAX_USER_AGENT, Message, Outgoing,
        max_payload,
    },
};
use pulse_primitives::bitcoin::p2p::{
    message::NetworkMessage,
    message_compact_blocks::{BlockTxn, CmpctBlock, GetBlockTxn, SendCmpct},
};

use super::{message_kind, outcome};
use crate::seeds;

/// Every command that is decoded, and one that is not.
const COMMANDS: [&str; 29] = [
    "version",
    "verack",
    "wtxidrelay",
    "sendaddrv2",
    "sendheaders",
    "sendcmpct",
    "feefilter",
    "ping",
    "pong",
    "getaddr",
    "addr",
    "addrv2",
    "inv",
    "getdata",
    "notfound",
    "getheaders",
    "getblocks",
    "headers",
    "block",
    "cmpctblock",
    "getblocktxn",
    "blocktxn",
    "tx",
    "mempool",
    "getcfilters",
    "getcfheaders",
    "getcfcheckpt",
    "filterclear",
    "whatever",
];

/// A message that decodes is within its limits, and is the same when sent on.
pub fn run(data: &[u8]) -> u64 {
    let Some((number, payload)) = data.split_first() else {
        return 0;
    };
    let command = COMMANDS[usize::from(*number) % COMMANDS.len()];
    decode(command, payload)
}

/// Tests one payload.
pub(super) fn decode(command: &str, payload: &[u8]) -> u64 {
    if payload.len() > max_payload(command) {
        return 0;
    }
    match Message::decode(command, payload.to_vec()) {
        Ok(message) => {
            check(&message);
            outcome((command, message_kind(&message)))
        }
        Err(DecodeError::TooMany { .. }) => outcome((command, "too many")),
        Err(_) => outcome((command, "malformed")),
    }
}

/// Panics if a message is not within its limits, or is another when sent on.
pub(super) fn check(message: &Message) {
    match message {
        Message::Addr(entries) => assert!(entries.len() <= pulse_p2p::MAX_ADDR),
        Message::Inv(list) | Message::GetData(list) | Message::NotFound(list) => {
            assert!(list.len() <= MAX_INVENTORY);
        }
        Message::GetHeaders(request) => assert!(request.locator_hashes.len() <= MAX_LOCATOR),
        Message::GetBlocks(request) => assert!(request.locator_hashes.len() <= MAX_LOCATOR),
        Message::Headers(headers) => assert!(headers.len() <= MAX_HEADERS),
        Message::Version(version) => {
            assert!(version.user_agent.chars().count() <= MAX_USER_AGENT);
        }
        Message::GetBlockTxn(request) => {
            let ascending = request.indexes.windows(2).all(|pair| pair[0] < pair[1]);
            let fitting = request.indexes.last().is_none_or(|last| *last <= 0xffff);
            assert!(ascending && fitting);
        }
        Message::CompactBlock(block) => {
            let count = block.short_ids.len() + block.prefilled_txs.len();
            assert!((1..=0xffff).contains(&count));
        }
        Message::Block(block) => assert!(block.bytes.len() > 80),
        _ => {}
    }
    if let Some(sent) = encode(message) {
        let received = Message::decode(sent.command(), sent.payload().to_vec());
        assert_eq!(received.as_ref(), Ok(message));
    }
}

/// The message for sending; `None` for those that are sent otherwise or not at all.
fn encode(message: &Message) -> Option<Outgoing> {
    Some(Outgoing::Message(match message.clone() {
        Message::SendCmpct {
            version,
            high_bandwidth,
        } => NetworkMessage::SendCmpct(SendCmpct {
            send_compact: high_bandwidth,
            version,
        }),
        Message::FeeFilter(rate) => {
            NetworkMessage::FeeFilter(i64::try_from(rate).expect("an amount of money"))
        }
        Message::Ping(nonce) => NetworkMessage::Ping(nonce),
        Message::Pong(nonce) => NetworkMessage::Pong(nonce),
        Message::Addr(entries) => return Some(addr(&entries)),
        Message::Inv(list) => NetworkMessage::Inv(list),
        Message::GetData(list) => NetworkMessage::GetData(list),
        Message::NotFound(list) => NetworkMessage::NotFound(list),
        Message::GetHeaders(request) => NetworkMessage::GetHeaders(*request),
        Message::GetBlocks(request) => NetworkMessage::GetBlocks(*request),
        Message::Headers(headers) => NetworkMessage::Headers(headers),
        Message::Block(block) => return Some(Outgoing::raw("block", block.bytes)),
        Message::CompactBlock(block) => NetworkMessage::CmpctBlock(CmpctBlock {
            compact_block: *block,
        }),
        Message::GetBlockTxn(request) => NetworkMessage::GetBlockTxn(GetBlockTxn {
            txs_request: request,
        }),
        Message::BlockTxn(transactions) => NetworkMessage::BlockTxn(BlockTxn { transactions }),
        Message::Tx(tx) => NetworkMessage::Tx(*tx),
        Message::GetCFilters(request) => NetworkMessage::GetCFilters(request),
        Message::GetCFHeaders(request) => NetworkMessage::GetCFHeaders(request),
        Message::GetCFCheckpt(request) => NetworkMessage::GetCFCheckpt(request),
        _ => return None,
    }))
}

fn addr(entries: &[AddrEntry]) -> Outgoing {
    Outgoing::addr(entries, true)
}

/// Every message.
pub fn seeds() -> Vec<Vec<u8>> {
    let seed = |message: Outgoing| {
        let number = COMMANDS
            .iter()
            .position(|command| *command == message.command())
            .and_then(|number| u8::try_from(number).ok())?;
        Some([&[number], &message.payload()[..]].concat())
    };
    seeds::messages().into_iter().filter_map(seed).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_a_seed_for_every_command_that_is_decoded() {
        assert_eq!(seeds().len(), COMMANDS.len() - 1);
        for seed in seeds() {
            let command = COMMANDS[usize::from(seed[0])];
            assert!(Message::decode(command, seed[1..].to_vec()).is_ok());
        }
    }
}
