//! What a block is counted with is what it takes, also where it is made to take much.

use pulse_primitives::{
    bitcoin::{
        Amount, Block, OutPoint, Sequence, Transaction, TxIn, TxOut, Txid, Witness, absolute,
        block::{Header, Version},
        consensus::{deserialize, serialize},
        hashes::Hash,
        transaction,
    },
    bitcoin::{BlockHash, CompactTarget, ScriptBuf, TxMerkleNode},
    block::BlockPosition,
};

use super::*;

/// A block as it comes from a file: `txs` transactions, each with so many inputs and outputs
/// with scripts of that length, and so many witness elements of that length per input.
fn block(
    txs: usize,
    inputs: usize,
    outputs: usize,
    script: usize,
    witness: (usize, usize),
) -> Prepared {
    let output = TxOut {
        value: Amount::from_sat(5),
        script_pubkey: ScriptBuf::from_bytes(vec![0x51; script]),
    };
    let input = |n: usize| TxIn {
        previous_output: OutPoint::new(Txid::from_byte_array([7; 32]), n as u32),
        script_sig: ScriptBuf::from_bytes(vec![0x51; script]),
        sequence: Sequence::MAX,
        witness: Witness::from_slice(&vec![vec![9u8; witness.1]; witness.0]),
    };
    let tx = |inputs: usize| Transaction {
        version: transaction::Version::TWO,
        lock_time: absolute::LockTime::ZERO,
        input: (0..inputs).map(input).collect(),
        output: vec![output.clone(); outputs],
    };
    let mut txdata = vec![tx(1)];
    txdata.extend((0..txs).map(|_| tx(inputs)));
    let block = Block {
        header: Header {
            version: Version::TWO,
            prev_blockhash: BlockHash::all_zeros(),
            merkle_root: TxMerkleNode::all_zeros(),
            time: 1,
            bits: CompactTarget::from_consensus(0),
            nonce: 0,
        },
        txdata,
    };
    let bytes = serialize(&block);
    // As reading makes it, with whatever room it leaves.
    let block: Block = deserialize(&bytes).unwrap();
    let spent: Vec<Vec<SpentOutput>> = (0..txs)
        .map(|_| {
            let spent = (0..inputs).map(|_| SpentOutput {
                output: output.clone(),
                height: 1,
                is_coinbase: false,
            });
            spent.collect()
        })
        .collect();
    let undo = vec![0; txs * inputs * (script + 12)];
    let connected = ConnectedBlock {
        height: 2,
        txids: block.txdata.iter().map(Transaction::compute_txid).collect(),
        tx_lens: block
            .txdata
            .iter()
            .map(|tx| tx.total_size() as u32)
            .collect(),
        first_tx_offset: 81,
        undo_lens: vec![(inputs * (script + 12)) as u32; txs],
        first_undo_offset: 0,
        position: BlockPosition {
            file: 0,
            block_offset: 8,
            block_len: bytes.len() as u32 + 8,
            undo_offset: 8,
            undo_len: undo.len() as u32,
        },
        undo,
        spent,
        block,
    };
    Prepared::new(connected, &Keys::new(&[1; 16]), false).unwrap()
}

/// A piece of the heap: 16 bytes at least and in steps of 16, and 8 of the allocator.
fn piece(bytes: usize) -> usize {
    if bytes == 0 {
        return 0;
    }
    let mut size = 32;
    while size < bytes + 8 {
        size += 16;
    }
    size
}

fn vec_bytes<T>(vec: &Vec<T>) -> usize {
    piece(vec.capacity() * size_of::<T>())
}

fn script_bytes(script: &ScriptBuf) -> usize {
    piece(script.len())
}

fn taken(block: &Prepared) -> usize {
    let connected = &block.connected;
    let mut bytes = vec_bytes(&connected.block.txdata)
        + vec_bytes(&connected.txids)
        + vec_bytes(&connected.tx_lens)
        + vec_bytes(&connected.undo)
        + vec_bytes(&connected.undo_lens)
        + vec_bytes(&connected.spent)
        + vec_bytes(&block.tx_hashes)
        + vec_bytes(&block.output_scripts)
        + vec_bytes(&block.spent_scripts);
    for tx in &connected.block.txdata {
        bytes += vec_bytes(&tx.input) + vec_bytes(&tx.output);
        for input in &tx.input {
            // Each element with its length, and four bytes for its place.
            let witness = input.witness.iter().map(|element| element.len() + 1 + 4);
            bytes += script_bytes(&input.script_sig) + piece(witness.sum());
        }
        bytes += tx
            .output
            .iter()
            .map(|output| script_bytes(&output.script_pubkey))
            .sum::<usize>();
    }
    for spent in &connected.spent {
        bytes += vec_bytes(spent);
        let scripts = spent
            .iter()
            .map(|spent| script_bytes(&spent.output.script_pubkey));
        bytes += scripts.sum::<usize>();
    }
    bytes
}

/// The system's allocator is free to do otherwise with large pieces; of small ones there are
/// most.
#[test]
fn a_block_is_counted_with_no_less_than_it_takes_whatever_is_in_it() {
    for (what, block) in [
        (
            "outputs with empty scripts",
            block(1, 1, 100_000, 0, (0, 0)),
        ),
        ("outputs with one byte", block(1, 1, 90_000, 1, (0, 0))),
        ("inputs with empty scripts", block(1, 24_000, 1, 0, (0, 0))),
        (
            "inputs that spend long scripts",
            block(1, 2_000, 1, 9_000, (0, 0)),
        ),
        ("small transactions", block(16_000, 1, 1, 0, (0, 0))),
        (
            "small transactions without outputs' scripts",
            block(10_000, 1, 3, 0, (0, 0)),
        ),
        ("empty witness elements", block(1, 1, 1, 0, (1_000_000, 0))),
        (
            "witness elements of a byte",
            block(10, 100, 1, 0, (1_000, 1)),
        ),
        ("one large witness", block(1, 1, 1, 0, (1, 3_900_000))),
        ("large scripts", block(90, 1, 1, 9_999, (0, 0))),
        ("ordinary", block(2_500, 2, 2, 22, (2, 72))),
    ] {
        let (counted, taken) = (block.memory_bytes(), taken(&block));
        assert!(counted >= taken, "{what}: {counted} counted, {taken} taken");
        // And not so much more that little waits where much could.
        assert!(
            counted <= 3 * taken,
            "{what}: {counted} counted, {taken} taken"
        );
    }
}
