use pulse_primitives::bitcoin::{
    Amount, CompactTarget, OutPoint, ScriptBuf, Sequence, TxIn, TxOut, Txid, Witness,
    absolute::LockTime,
    bip152::BlockTransactions,
    block::Version,
    consensus::{deserialize, serialize as bytes_of},
    transaction,
};
use rand::{Rng, SeedableRng, rngs::StdRng, seq::SliceRandom};

use super::*;

/// A mempool, and what was seen besides.
struct Source(Vec<Arc<Transaction>>);

impl CompactSource for Source {
    fn visit(&self, see: &mut dyn FnMut(&Wtxid, &Arc<Transaction>) -> ControlFlow<()>) {
        for tx in &self.0 {
            if see(&tx.compute_wtxid(), tx).is_break() {
                return;
            }
        }
    }
}

fn tx(rng: &mut StdRng, witness: bool) -> Transaction {
    let mut input = TxIn {
        previous_output: OutPoint::new(Txid::from_byte_array(rng.r#gen()), rng.gen_range(0..9)),
        script_sig: ScriptBuf::new(),
        sequence: Sequence::MAX,
        witness: Witness::new(),
    };
    if witness {
        input.witness.push(rng.r#gen::<[u8; 32]>());
    }
    Transaction {
        version: transaction::Version::TWO,
        lock_time: LockTime::ZERO,
        input: vec![input],
        output: vec![TxOut {
            value: Amount::from_sat(rng.gen_range(0..1_000_000)),
            script_pubkey: ScriptBuf::from_bytes(vec![0x51; rng.gen_range(1..40)]),
        }],
    }
}

/// A block of that many transactions besides its coinbase, half of them with witnesses.
fn block(rng: &mut StdRng, count: usize) -> Block {
    let mut coinbase = tx(rng, true);
    coinbase.input[0].previous_output = OutPoint::null();
    let mut txdata = vec![coinbase];
    for index in 0..count {
        txdata.push(tx(rng, index % 2 == 0));
    }
    let mut block = Block {
        header: Header {
            version: Version::TWO,
            prev_blockhash: BlockHash::from_byte_array(rng.r#gen()),
            merkle_root: TxMerkleNode::all_zeros(),
            time: 0,
            bits: CompactTarget::from_consensus(0x207f_ffff),
            nonce: rng.r#gen(),
        },
        txdata,
    };
    commit(&mut block);
    block
}

/// Makes the commitments of the block right.
fn commit(block: &mut Block) {
    block.txdata[0].output.truncate(1);
    let reserved = block.txdata[0].input[0].witness.nth(0).unwrap().to_vec();
    let root = block.witness_root().unwrap();
    let commitment = Block::compute_witness_commitment(&root, &reserved);
    let script = [&COMMITMENT_PREFIX[..], commitment.as_byte_array()].concat();
    block.txdata[0].output.push(TxOut {
        value: Amount::ZERO,
        script_pubkey: ScriptBuf::from_bytes(script),
    });
    block.header.merkle_root = block.compute_merkle_root().unwrap();
}

/// What an honest peer answers to a request.
fn answer(block: &Block, request: &BlockTransactionsRequest) -> Vec<Transaction> {
    let request = deserialize(&bytes_of(request)).unwrap();
    BlockTransactions::from_request(&request, block)
        .unwrap()
        .transactions
}

fn over_the_wire(compact: &HeaderAndShortIds) -> HeaderAndShortIds {
    deserialize(&bytes_of(compact)).unwrap()
}

#[test]
fn any_block_comes_back_from_any_mempool() {
    let mut rng = StdRng::seed_from_u64(1);
    for round in 0..200 {
        let count = rng.gen_range(0..60);
        let block = block(&mut rng, count);
        let prefilled: Vec<_> = (1..=count).filter(|_| rng.gen_bool(0.1)).collect();
        let compact = HeaderAndShortIds::from_block(&block, rng.r#gen(), 2, &prefilled).unwrap();
        let share = f64::from(round % 5) / 4.0;
        let mut have: Vec<_> = block.txdata[1..]
            .iter()
            .filter(|_| rng.gen_bool(share))
            .cloned()
            .map(Arc::new)
            .collect();
        let in_hand = have.len();
        for _ in 0..rng.gen_range(0..100) {
            let stranger = tx(&mut rng, true);
            have.push(Arc::new(stranger));
        }
        // The same transaction in the mempool and among the others is no collision.
        have.extend(have.clone().into_iter().take(3));
        have.shuffle(&mut rng);
        let partial = PartialBlock::new(over_the_wire(&compact), &Source(have)).unwrap();
        assert_eq!(partial.tx_count(), count + 1);
        assert_eq!(partial.block_hash(), block.block_hash());
        let missing = match partial.request() {
            Some(request) => {
                assert!(request.indexes.len() <= count - in_hand);
                answer(&block, &request)
            }
            None => Vec::new(),
        };
        if share == 1.0 {
            assert_eq!(missing, []);
        }
        assert_eq!(partial.fill(missing).unwrap(), bytes_of(&block));
    }
}

#[test]
fn the_coinbase_is_always_in_the_message() {
    let mut rng = StdRng::seed_from_u64(2);
    let block = block(&mut rng, 3);
    let compact = compact_block(&block, 7).unwrap();
    assert_eq!(compact.prefilled_txs[0].tx, block.txdata[0]);
    let partial = PartialBlock::new(compact, &()).unwrap();
    assert_eq!(partial.request().unwrap().indexes, [1, 2, 3]);
}

#[test]
fn two_equal_short_ids_make_it_unusable() {
    let mut rng = StdRng::seed_from_u64(3);
    let mut compact = compact_block(&block(&mut rng, 5), 7).unwrap();
    compact.short_ids[4] = compact.short_ids[1];
    assert_eq!(
        PartialBlock::new(compact, &()).err(),
        Some(CompactError::Unusable)
    );
}

/// Shows other transactions under ids that they do not have.
struct Colliding(Vec<(Wtxid, Arc<Transaction>)>);

impl CompactSource for Colliding {
    fn visit(&self, see: &mut dyn FnMut(&Wtxid, &Arc<Transaction>) -> ControlFlow<()>) {
        for (wtxid, tx) in &self.0 {
            if see(wtxid, tx).is_break() {
                return;
            }
        }
    }
}

#[test]
fn a_wrong_transaction_with_the_right_short_id_is_noticed_and_not_punished() {
    let mut rng = StdRng::seed_from_u64(4);
    let block = block(&mut rng, 1);
    let wrong = Arc::new(tx(&mut rng, false));
    let source = Colliding(vec![(block.txdata[1].compute_wtxid(), wrong)]);
    let compact = compact_block(&block, 7).unwrap();
    let partial = PartialBlock::new(compact, &source).unwrap();
    assert_eq!(partial.request(), None);
    assert_eq!(partial.fill(Vec::new()), Err(CompactError::Unusable));
}

#[test]
fn a_transaction_that_two_candidates_match_is_asked_for() {
    // Wtxids whose short ids collide cannot be had in a test, so one that has matched
    // already stands in the place of the first.
    let mut rng = StdRng::seed_from_u64(5);
    let block = block(&mut rng, 2);
    let compact = compact_block(&block, 7).unwrap();
    let right = Arc::new(block.txdata[1].clone());
    let mut partial = PartialBlock::new(compact.clone(), &()).unwrap();
    let keys = ShortId::calculate_siphash_keys(&compact.header, compact.nonce);
    let id = ShortId::with_siphash_keys(&right.compute_wtxid(), keys);
    let wanted = HashMap::from([(
        id,
        Match {
            index: 1,
            taken: true,
        },
    )]);
    partial.slots[1] = Some(Slot {
        tx: Arc::new(tx(&mut rng, false)),
        wtxid: Some(Wtxid::all_zeros()),
    });
    partial.look_up(wanted, keys, &Source(vec![Arc::clone(&right), right]));
    assert_eq!(partial.request().unwrap().indexes, [1, 2]);
}

#[test]
fn what_no_honest_peer_sends_is_invalid() {
    let mut rng = StdRng::seed_from_u64(6);
    let block = block(&mut rng, 4);
    let honest = compact_block(&block, 7).unwrap();
    let invalid = |change: &dyn Fn(&mut HeaderAndShortIds)| {
        let mut compact = honest.clone();
        change(&mut compact);
        let err = PartialBlock::new(compact, &()).err();
        assert!(matches!(err, Some(CompactError::Invalid(_))), "{err:?}");
    };
    invalid(&|compact| {
        compact.short_ids.clear();
        compact.prefilled_txs.clear();
    });
    invalid(&|compact| compact.prefilled_txs[0].idx = 5);
    invalid(&|compact| compact.prefilled_txs[0].idx = u16::MAX);
    invalid(&|compact| {
        compact.prefilled_txs[0].tx.input.clear();
        compact.prefilled_txs[0].tx.output.clear();
    });
    invalid(&|compact| {
        compact.short_ids = (0..u16::MAX)
            .map(|id| {
                let [a, b] = id.to_le_bytes();
                ShortId::from([a, b, 0, 0, 0, 0])
            })
            .collect();
    });

    let txs = &block.txdata;
    for wrong in [vec![], txs[1..4].to_vec(), txs.clone()] {
        let partial = PartialBlock::new(honest.clone(), &()).unwrap();
        let filled = partial.fill(wrong);
        assert!(
            matches!(filled, Err(CompactError::Invalid(_))),
            "{filled:?}"
        );
    }
    let partial = PartialBlock::new(honest, &()).unwrap();
    let mut swapped = txs[1..].to_vec();
    swapped.swap(0, 1);
    assert_eq!(partial.fill(swapped), Err(CompactError::Unusable));
}

#[test]
fn transactions_added_without_changing_the_root_are_noticed() {
    let mut rng = StdRng::seed_from_u64(7);
    let block = block(&mut rng, 2);
    let mut longer = block.clone();
    longer.txdata.push(block.txdata[2].clone());
    assert_eq!(
        longer.compute_merkle_root(),
        Some(block.header.merkle_root),
        "three transactions, the last one doubled"
    );
    let slots: Vec<_> = longer.txdata.iter().map(slot).collect();
    assert!(!belongs(&block.header, &slots));
    let slots: Vec<_> = block.txdata.iter().map(slot).collect();
    assert!(belongs(&block.header, &slots));
}

fn slot(tx: &Transaction) -> Slot {
    Slot {
        tx: Arc::new(tx.clone()),
        wtxid: None,
    }
}

#[test]
fn changed_missing_or_uncommitted_witnesses_are_noticed() {
    let mut rng = StdRng::seed_from_u64(8);
    let block = block(&mut rng, 4);
    let fits = |block: &Block| {
        let slots: Vec<_> = block.txdata.iter().map(slot).collect();
        belongs(&block.header, &slots)
    };
    assert!(fits(&block));
    let mut changed = block.clone();
    changed.txdata[1].input[0].witness = Witness::from_slice(&[[9; 32]]);
    assert!(!fits(&changed));
    // Stripped of all witnesses, the reserved value of the coinbase included.
    let mut stripped = block.clone();
    for tx in &mut stripped.txdata {
        tx.input[0].witness = Witness::new();
    }
    assert!(!fits(&stripped));
    // Without a commitment there may be none.
    let mut uncommitted = block.clone();
    uncommitted.txdata[0].output.truncate(1);
    uncommitted.header.merkle_root = uncommitted.compute_merkle_root().unwrap();
    assert!(!fits(&uncommitted));
    for tx in &mut uncommitted.txdata {
        tx.input[0].witness = Witness::new();
    }
    assert!(fits(&uncommitted));
}

#[test]
fn a_block_without_a_coinbase_may_not_hold_64_byte_transactions() {
    let mut rng = StdRng::seed_from_u64(9);
    let mut block = block(&mut rng, 1);
    block.txdata.remove(0);
    block.txdata[0].input[0].witness = Witness::new();
    let output = &mut block.txdata[0].output[0].script_pubkey;
    *output = ScriptBuf::from_bytes(vec![0x51; 4]);
    assert_eq!(block.txdata[0].base_size(), 64);
    block.header.merkle_root = block.compute_merkle_root().unwrap();
    assert!(!belongs(&block.header, &[slot(&block.txdata[0])]));
}
