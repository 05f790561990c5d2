use pulse_primitives::bitcoin::{
    Network, bip152::PrefilledTransaction, consensus::serialize, constants::genesis_block,
    p2p::message_compact_blocks::SendCmpct,
};

use super::*;
use crate::NetAddr;

fn genesis() -> pulse_primitives::bitcoin::Block {
    genesis_block(Network::Regtest)
}

fn decode(command: &str, payload: &[u8]) -> Result<Message, DecodeError> {
    assert!(payload.len() <= max_payload(command));
    Message::decode(command, payload.to_vec())
}

/// One of every message that is decoded, as it is sent and as it is understood.
fn samples() -> Vec<(Outgoing, Message)> {
    let genesis = genesis();
    let hash = genesis.block_hash();
    let tx = genesis.txdata[0].clone();
    let inventory = vec![
        Inventory::WitnessBlock(hash),
        Inventory::WTx(tx.compute_wtxid()),
        Inventory::Unknown {
            inv_type: 77,
            hash: [1; 32],
        },
    ];
    let locator = GetHeadersMessage {
        version: 70_016,
        locator_hashes: vec![hash; MAX_LOCATOR],
        stop_hash: BlockHash::all_zeros(),
    };
    let blocks = GetBlocksMessage::new(vec![hash], BlockHash::all_zeros());
    let compact = HeaderAndShortIds::from_block(&genesis, 3, 2, &[]).unwrap();
    let request = BlockTransactionsRequest {
        block_hash: hash,
        indexes: vec![0, 3, 65_535],
    };
    let transactions = BlockTransactions {
        block_hash: hash,
        transactions: vec![tx.clone(); 2],
    };
    let filters = GetCFilters {
        filter_type: 0,
        start_height: 5,
        stop_hash: hash,
    };
    let filter_headers = GetCFHeaders {
        filter_type: 0,
        start_height: 5,
        stop_hash: hash,
    };
    let checkpoints = GetCFCheckpt {
        filter_type: 0,
        stop_hash: hash,
    };
    let entries = [
        AddrEntry {
            time: 9,
            services: ServiceFlags::NETWORK,
            addr: NetAddr::Ipv4([1, 2, 3, 4].into()),
            port: 8333,
        },
        AddrEntry {
            time: 10,
            services: ServiceFlags::from(u64::MAX),
            addr: NetAddr::TorV3([7; 32]),
            port: 1,
        },
    ];
    let sent = |message: NetworkMessage| Outgoing::from(message);
    use pulse_primitives::bitcoin::p2p::message_compact_blocks as compact_blocks;
    vec![
        (sent(NetworkMessage::Verack), Message::Verack),
        (sent(NetworkMessage::WtxidRelay), Message::WtxidRelay),
        (sent(NetworkMessage::SendAddrV2), Message::SendAddrV2),
        (sent(NetworkMessage::SendHeaders), Message::SendHeaders),
        (
            sent(NetworkMessage::SendCmpct(SendCmpct {
                send_compact: true,
                version: 2,
            })),
            Message::SendCmpct {
                version: 2,
                high_bandwidth: true,
            },
        ),
        (
            sent(NetworkMessage::FeeFilter(1000)),
            Message::FeeFilter(1000),
        ),
        (sent(NetworkMessage::Ping(7)), Message::Ping(7)),
        (sent(NetworkMessage::Pong(7)), Message::Pong(7)),
        (sent(NetworkMessage::GetAddr), Message::GetAddr),
        (
            Outgoing::addr(&entries, true),
            Message::Addr(entries.to_vec()),
        ),
        (
            Outgoing::addr(&entries, false),
            Message::Addr(entries[..1].to_vec()),
        ),
        (
            sent(NetworkMessage::Inv(inventory.clone())),
            Message::Inv(inventory.clone()),
        ),
        (
            sent(NetworkMessage::GetData(inventory.clone())),
            Message::GetData(inventory.clone()),
        ),
        (
            sent(NetworkMessage::NotFound(inventory.clone())),
            Message::NotFound(inventory),
        ),
        (
            sent(NetworkMessage::GetHeaders(locator.clone())),
            Message::GetHeaders(Box::new(locator)),
        ),
        (
            sent(NetworkMessage::GetBlocks(blocks.clone())),
            Message::GetBlocks(Box::new(blocks)),
        ),
        (
            sent(NetworkMessage::Headers(vec![genesis.header; MAX_HEADERS])),
            Message::Headers(vec![genesis.header; MAX_HEADERS]),
        ),
        (
            Outgoing::raw("block", serialize(&genesis)),
            Message::Block(RawBlock {
                hash,
                bytes: serialize(&genesis),
            }),
        ),
        (
            sent(NetworkMessage::CmpctBlock(compact_blocks::CmpctBlock {
                compact_block: compact.clone(),
            })),
            Message::CompactBlock(Box::new(compact)),
        ),
        (
            sent(NetworkMessage::GetBlockTxn(compact_blocks::GetBlockTxn {
                txs_request: request.clone(),
            })),
            Message::GetBlockTxn(request),
        ),
        (
            sent(NetworkMessage::BlockTxn(compact_blocks::BlockTxn {
                transactions: transactions.clone(),
            })),
            Message::BlockTxn(transactions),
        ),
        (
            sent(NetworkMessage::Tx(tx.clone())),
            Message::Tx(Box::new(tx)),
        ),
        (sent(NetworkMessage::MemPool), Message::Mempool),
        (
            sent(NetworkMessage::GetCFilters(filters.clone())),
            Message::GetCFilters(filters),
        ),
        (
            sent(NetworkMessage::GetCFHeaders(filter_headers.clone())),
            Message::GetCFHeaders(filter_headers),
        ),
        (
            sent(NetworkMessage::GetCFCheckpt(checkpoints.clone())),
            Message::GetCFCheckpt(checkpoints),
        ),
        (
            sent(NetworkMessage::FilterClear),
            Message::Other("filterclear".to_owned()),
        ),
    ]
}

#[test]
fn messages_come_back_as_they_were_sent() {
    for (sent, expected) in samples() {
        assert_eq!(
            decode(sent.command(), &sent.payload()),
            Ok(expected),
            "{}",
            sent.command()
        );
    }
}

#[test]
fn bytes_after_the_end_are_ignored() {
    for (sent, expected) in samples() {
        // A block and full lists have their own end or no room for more.
        let payload = [&sent.payload()[..], &[0xff]].concat();
        if sent.command() != "block" && payload.len() <= max_payload(sent.command()) {
            assert_eq!(decode(sent.command(), &payload), Ok(expected));
        }
    }
}

#[test]
fn messages_cut_off_anywhere_are_malformed() {
    for (sent, whole) in samples() {
        let payload = sent.payload();
        // Long lists say nothing more in their middle.
        for len in
            (0..payload.len().min(500)).chain(payload.len().saturating_sub(100)..payload.len())
        {
            let cut = decode(sent.command(), &payload[..len]);
            // What is cut off a raw block is for the kernel to see.
            if !matches!(whole, Message::Block(_) | Message::Other(_)) || len <= 80 {
                assert_eq!(cut, Err(DecodeError::Malformed), "{} {len}", sent.command());
            }
        }
    }
}

#[test]
fn counts_above_the_limit_are_refused_before_anything_is_read() {
    for (command, before, count, limit) in [
        ("addr", 0, 1001_u16, MAX_ADDR),
        ("addrv2", 0, 1001, MAX_ADDR),
        ("inv", 0, 50_001, MAX_INVENTORY),
        ("getdata", 0, 50_001, MAX_INVENTORY),
        ("notfound", 0, 50_001, MAX_INVENTORY),
        ("headers", 0, 2001, MAX_HEADERS),
        ("getheaders", 4, 102, MAX_LOCATOR),
        ("getblocks", 4, 102, MAX_LOCATOR),
    ] {
        let mut payload = vec![0; before];
        payload.extend(serialize(&VarInt(count.into())));
        assert_eq!(
            decode(command, &payload),
            Err(DecodeError::TooMany {
                count: count.into(),
                limit
            }),
            "{command}"
        );
        // As many as are allowed, but not there.
        payload.truncate(before);
        payload.extend(serialize(&VarInt(count as u64 - 1)));
        assert_eq!(decode(command, &payload), Err(DecodeError::Malformed));
    }
    let mut payload = vec![0; 88];
    payload.extend(serialize(&VarInt(65_536)));
    assert!(matches!(
        decode("cmpctblock", &payload),
        Err(DecodeError::TooMany { count: 65_536, .. })
    ));
}

#[test]
fn compact_blocks_have_between_one_and_65535_transactions() {
    let genesis = genesis();
    let block = |short_ids: usize, prefilled: usize| {
        let tx = genesis.txdata[0].clone();
        let block = HeaderAndShortIds {
            header: genesis.header,
            nonce: 0,
            short_ids: vec![Default::default(); short_ids],
            prefilled_txs: vec![PrefilledTransaction { idx: 0, tx }; prefilled],
        };
        decode("cmpctblock", &serialize(&block))
    };
    assert_eq!(block(0, 0), Err(DecodeError::Malformed));
    assert!(block(65_534, 1).is_ok());
    assert_eq!(block(65_535, 1), Err(DecodeError::Malformed));
}

#[test]
fn indexes_of_block_transactions_fit_in_16_bits() {
    let request = |steps: &[u64]| {
        let mut payload = serialize(&BlockHash::all_zeros());
        payload.extend(serialize(&VarInt(steps.len() as u64)));
        payload.extend(steps.iter().flat_map(|step| serialize(&VarInt(*step))));
        decode("getblocktxn", &payload)
    };
    assert!(request(&[65_535]).is_ok());
    for steps in [&[65_536][..], &[65_535, 0], &[1, u64::MAX], &[u64::MAX]] {
        assert_eq!(request(steps), Err(DecodeError::Malformed));
    }
}

#[test]
fn fields_that_mean_nothing_are_refused_or_ignored() {
    let headers = [&[1][..], &serialize(&genesis().header), &[1]].concat();
    for (command, payload) in [
        ("headers", headers.as_slice()),
        ("sendcmpct", &[2, 2, 0, 0, 0, 0, 0, 0, 0]),
        ("getcfilters", &[1; 37]),
        ("getcfheaders", &[1; 37]),
        ("getcfcheckpt", &[1; 33]),
    ] {
        assert_eq!(decode(command, payload), Err(DecodeError::Malformed));
    }
    let other = Message::Other("feefilter".to_owned());
    assert_eq!(decode("feefilter", &[0xff; 8]), Ok(other));
}

#[test]
fn versions_may_be_short_and_user_agents_any_bytes() {
    let mut short = vec![0; 4 + 8 + 8 + 26];
    short[..4].copy_from_slice(&70_016_u32.to_le_bytes());
    let Ok(Message::Version(version)) = decode("version", &short) else {
        panic!("a version without the later fields");
    };
    assert_eq!(version.version, 70_016);
    assert!(version.relay);

    let mut long = [short, vec![0; 26 + 8]].concat();
    let agent_at = long.len();
    long.extend([3, b'a', 0xff, b'b', 1, 0, 0, 0, 0]);
    let Ok(Message::Version(version)) = decode("version", &long) else {
        panic!("a version with a user agent that is not UTF-8");
    };
    assert_eq!(version.user_agent, "a\u{fffd}b");
    assert_eq!((version.start_height, version.relay), (1, false));

    long.truncate(agent_at);
    long.extend([0xfd, 1, 1]);
    long.extend([b'a'; 257]);
    assert!(matches!(
        decode("version", &long),
        Err(DecodeError::TooMany { count: 257, .. })
    ));
}
