//! Valid messages to start from.

use std::net::{Ipv4Addr, SocketAddr};

use pulse_p2p::{
    AddrEntry, NetAddr,
    message::Outgoing,
    version::{PROTOCOL_VERSION, USER_AGENT, local_services},
};
use pulse_primitives::bitcoin::{
    Amount, Block, BlockHash, Network, OutPoint, ScriptBuf, Sequence, Transaction, TxIn, TxOut,
    Txid, Witness,
    absolute::LockTime,
    bip152::{BlockTransactions, BlockTransactionsRequest, HeaderAndShortIds},
    consensus::serialize,
    constants::genesis_block,
    hashes::Hash,
    p2p::{
        Address, ServiceFlags,
        message::NetworkMessage,
        message_blockdata::{GetBlocksMessage, GetHeadersMessage, Inventory},
        message_compact_blocks::{BlockTxn, CmpctBlock, GetBlockTxn, SendCmpct},
        message_filter::{GetCFCheckpt, GetCFHeaders, GetCFilters},
        message_network::VersionMessage,
    },
    transaction::Version,
};

/// Magic of the network that everything here is of.
pub const MAGIC: [u8; 4] = [0xfa, 0xbf, 0xb5, 0xda];

/// A block of a few transactions, with and without witnesses.
pub fn block() -> Block {
    let mut block = genesis_block(Network::Regtest);
    for number in 0..4 {
        let mut witness = Witness::new();
        for len in 0..number {
            witness.push(vec![0x30; 33 * len]);
        }
        block.txdata.push(Transaction {
            version: Version::TWO,
            lock_time: LockTime::ZERO,
            input: vec![
                TxIn {
                    previous_output: OutPoint::new(Txid::all_zeros(), 3),
                    script_sig: ScriptBuf::new(),
                    sequence: Sequence::MAX,
                    witness,
                };
                1 + number
            ],
            output: vec![
                TxOut {
                    value: Amount::from_sat(1000),
                    script_pubkey: ScriptBuf::from_bytes(vec![0x51; 22]),
                };
                2
            ],
        });
    }
    commit(&mut block);
    block
}

/// Makes the block commit to its transactions (BIP 141), so that nothing is wrong with
/// it but its proof of work.
fn commit(block: &mut Block) {
    let reserved = [0; 32];
    block.txdata[0].input[0].witness.push(reserved);
    let root = block.witness_root().expect("it has transactions");
    let commitment = Block::compute_witness_commitment(&root, &reserved);
    let mut script = vec![0x6a, 0x24, 0xaa, 0x21, 0xa9, 0xed];
    script.extend_from_slice(commitment.as_ref());
    block.txdata[0].output.push(TxOut {
        value: Amount::ZERO,
        script_pubkey: ScriptBuf::from_bytes(script),
    });
    block.header.merkle_root = block.compute_merkle_root().expect("it has transactions");
}

/// Entries of every network.
pub fn entries() -> Vec<AddrEntry> {
    [
        NetAddr::Ipv4(Ipv4Addr::new(1, 2, 3, 4)),
        NetAddr::Ipv6("2a00::1".parse().expect("an IPv6 address")),
        NetAddr::TorV3([3; 32]),
        NetAddr::I2p([4; 32]),
        NetAddr::Cjdns("fc00::1".parse().expect("an IPv6 address")),
    ]
    .map(|addr| AddrEntry {
        time: 1_700_000_000,
        services: ServiceFlags::NETWORK | ServiceFlags::WITNESS,
        addr,
        port: 8333,
    })
    .to_vec()
}

/// The compact form of [`block`].
pub fn compact_block() -> HeaderAndShortIds {
    HeaderAndShortIds::from_block(&block(), 5, 2, &[2]).expect("a block with three transactions")
}

/// A `version` message.
pub fn version() -> VersionMessage {
    let nobody = Address::new(
        &SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)),
        ServiceFlags::NONE,
    );
    VersionMessage {
        version: PROTOCOL_VERSION,
        services: local_services(true, true),
        timestamp: 1_700_000_000,
        receiver: nobody.clone(),
        sender: nobody,
        nonce: 9,
        user_agent: USER_AGENT.to_owned(),
        start_height: 100,
        relay: true,
    }
}

/// One of every message that is decoded.
pub fn messages() -> Vec<Outgoing> {
    let block = block();
    let hash = block.block_hash();
    let tx = block.txdata[3].clone();
    let inventory = vec![
        Inventory::Transaction(tx.compute_txid()),
        Inventory::WTx(tx.compute_wtxid()),
        Inventory::WitnessBlock(hash),
        Inventory::CompactBlock(hash),
    ];
    let mut messages: Vec<Outgoing> = [
        NetworkMessage::Version(version()),
        NetworkMessage::Verack,
        NetworkMessage::WtxidRelay,
        NetworkMessage::SendAddrV2,
        NetworkMessage::SendHeaders,
        NetworkMessage::SendCmpct(SendCmpct {
            send_compact: true,
            version: 2,
        }),
        NetworkMessage::FeeFilter(1000),
        NetworkMessage::Ping(7),
        NetworkMessage::Pong(7),
        NetworkMessage::GetAddr,
        NetworkMessage::Inv(inventory.clone()),
        NetworkMessage::GetData(inventory.clone()),
        NetworkMessage::NotFound(inventory),
        NetworkMessage::GetHeaders(GetHeadersMessage {
            version: PROTOCOL_VERSION,
            locator_hashes: vec![hash; 12],
            stop_hash: BlockHash::all_zeros(),
        }),
        NetworkMessage::GetBlocks(GetBlocksMessage {
            version: PROTOCOL_VERSION,
            locator_hashes: vec![hash; 2],
            stop_hash: hash,
        }),
        NetworkMessage::Headers(vec![block.header; 5]),
        NetworkMessage::CmpctBlock(CmpctBlock {
            compact_block: compact_block(),
        }),
        NetworkMessage::GetBlockTxn(GetBlockTxn {
            txs_request: BlockTransactionsRequest {
                block_hash: hash,
                indexes: vec![0, 1, 300, 65_535],
            },
        }),
        NetworkMessage::BlockTxn(BlockTxn {
            transactions: BlockTransactions {
                block_hash: hash,
                transactions: block.txdata.clone(),
            },
        }),
        NetworkMessage::Tx(tx),
        NetworkMessage::MemPool,
        NetworkMessage::GetCFilters(GetCFilters {
            filter_type: 0,
            start_height: 1,
            stop_hash: hash,
        }),
        NetworkMessage::GetCFHeaders(GetCFHeaders {
            filter_type: 0,
            start_height: 1,
            stop_hash: hash,
        }),
        NetworkMessage::GetCFCheckpt(GetCFCheckpt {
            filter_type: 0,
            stop_hash: hash,
        }),
        NetworkMessage::FilterClear,
    ]
    .into_iter()
    .map(Outgoing::from)
    .collect();
    messages.push(Outgoing::addr(&entries(), false));
    messages.push(Outgoing::addr(&entries(), true));
    messages.push(Outgoing::raw("block", serialize(&block)));
    messages
}
