//! The generated chains against libbitcoinkernel, which is Bitcoin Core's own validation.

#![allow(clippy::unwrap_used)]

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex},
};

use bitcoin::{Block, Network, consensus::serialize};
use bitcoinkernel::{
    BlockValidationStateRef, ChainType, ChainstateManager, ContextBuilder, ValidationMode,
    prelude::*,
};
use pulse_primitives::network::ChainParams;
use pulse_simulator::{
    Generator, GeneratorConfig, Ledger, ScriptKind, SimulateFileOptions, mine, write_chain,
};

/// A kernel with empty databases in memory that records its verdicts.
struct Kernel {
    manager: ChainstateManager,
    verdicts: Arc<Mutex<Vec<ValidationMode>>>,
    _dir: tempfile::TempDir,
}

impl Kernel {
    fn new(params: &ChainParams) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let verdicts = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&verdicts);
        let builder = ContextBuilder::new();
        let builder = match &params.signet_challenge {
            Some(challenge) => builder.signet(challenge),
            None => builder.chain_type(ChainType::Regtest),
        };
        let context = builder
            .validation(move |registry| {
                registry.register_block_checked(
                    move |_block: bitcoinkernel::Block, state: BlockValidationStateRef<'_>| {
                        seen.lock().unwrap().push(state.mode());
                    },
                );
            })
            .build()
            .unwrap();
        let data = dir.path().to_str().unwrap();
        let manager = ChainstateManager::builder(&context, data, &format!("{data}/blocks"))
            .unwrap()
            .worker_threads(2)
            .block_tree_db_in_memory(true)
            .chainstate_db_in_memory(true)
            .build()
            .unwrap();
        // Genesis was checked while opening.
        verdicts.lock().unwrap().clear();
        Self {
            manager,
            verdicts,
            _dir: dir,
        }
    }

    /// Hands a block over and returns the verdicts that followed.
    fn process(&self, block: &Block) -> Vec<ValidationMode> {
        let block = bitcoinkernel::Block::new(&serialize(block)).unwrap();
        let _ = self.manager.process_block(&block);
        std::mem::take(&mut self.verdicts.lock().unwrap())
    }

    fn assert_connects(&self, block: &Block, height: u32) {
        assert_eq!(
            self.process(block),
            [ValidationMode::Valid],
            "height {height}"
        );
        assert_eq!(
            self.manager.active_chain().height(),
            i32::try_from(height).unwrap()
        );
    }
}

#[test]
fn kernel_connects_every_block_and_every_script_type_is_spent() {
    let mut generator =
        Generator::new(GeneratorConfig::regtest(42).txs_per_block(60).with_ledger());
    let kernel = Kernel::new(&generator.config().params);
    let mut chain = vec![generator.genesis()];
    for height in 1..=320 {
        let block = generator.next_block();
        kernel.assert_connects(&block, height);
        chain.push(block);
    }

    let ledger = generator.ledger().unwrap();
    let scripts = generator.script_kinds();
    assert!(scripts.len() >= 14, "{:?}", scripts.keys());
    let spent: HashSet<_> = spent_scripts(&chain);
    let unspent: Vec<_> = wallet_kinds(&generator)
        .into_iter()
        .filter(|(_, scripts)| scripts.iter().all(|script| !spent.contains(script)))
        .map(|(kind, _)| kind)
        .collect();
    assert!(unspent.is_empty(), "never spent: {unspent:?}");
    assert!(spent.contains(&scripts[&ScriptKind::P2a]));
    assert!(
        ledger
            .iter_scripts()
            .any(|(script, _)| script.is_op_return())
    );

    let steady: Vec<_> = chain[200..].iter().flat_map(|b| &b.txdata[1..]).collect();
    assert_eq!(steady.len(), 121 * 60, "blocks are full");
    let inputs = steady.iter().map(|tx| tx.input.len()).sum::<usize>() as f64;
    let outputs = steady.iter().map(|tx| tx.output.len()).sum::<usize>() as f64;
    let count = steady.len() as f64;
    assert!((1.9..2.6).contains(&(inputs / count)), "{}", inputs / count);
    assert!(
        (2.0..2.9).contains(&(outputs / count)),
        "{}",
        outputs / count
    );
    let chained = chain
        .iter()
        .filter(|block| {
            let ids: HashSet<_> = block.txdata.iter().map(|tx| tx.compute_txid()).collect();
            block.txdata[1..]
                .iter()
                .flat_map(|tx| &tx.input)
                .any(|input| ids.contains(&input.previous_output.txid))
        })
        .count();
    assert!(chained > 150, "{chained} blocks with chains of spends");
}

fn spent_scripts(chain: &[Block]) -> HashSet<bitcoin::ScriptBuf> {
    let mut outputs = HashMap::new();
    let mut spent = HashSet::new();
    for tx in chain.iter().flat_map(|block| &block.txdata) {
        for input in &tx.input {
            spent.extend(outputs.remove(&input.previous_output));
        }
        let txid = tx.compute_txid();
        for (vout, output) in (0..).zip(&tx.output) {
            outputs.insert(
                bitcoin::OutPoint { txid, vout },
                output.script_pubkey.clone(),
            );
        }
    }
    spent
}

/// All used scripts by type; time locks of all lengths count as one type each.
fn wallet_kinds(generator: &Generator) -> HashMap<ScriptKind, Vec<bitcoin::ScriptBuf>> {
    let mut kinds: HashMap<_, Vec<_>> = HashMap::new();
    for (kind, script) in generator.iter_scripts() {
        let kind = match kind {
            ScriptKind::P2wshCltv { .. } => ScriptKind::P2wshCltv { height: 0 },
            ScriptKind::P2wshCsv { .. } => ScriptKind::P2wshCsv { blocks: 0 },
            other => other,
        };
        kinds.entry(kind).or_default().push(script);
    }
    kinds
}

#[test]
fn same_seed_gives_the_same_bytes_and_another_seed_others() {
    let dir = tempfile::tempdir().unwrap();
    let write = |name: &str, seed, uneven| {
        let out = dir.path().join(name);
        let options = SimulateFileOptions {
            blocks: 140,
            txs_per_block: 30,
            seed,
            uneven,
            out: out.clone(),
        };
        let summary = write_chain(&options, |_| {}).unwrap();
        let bytes = std::fs::read(out).unwrap();
        assert_eq!(summary.bytes, bytes.len() as u64);
        assert_eq!(summary.height, 140);
        bytes
    };
    for uneven in [false, true] {
        let first = write("a", 5, uneven);
        assert_eq!(first, write("b", 5, uneven));
        assert_ne!(first, write("c", 6, uneven));
    }
}

#[test]
fn resumed_chain_goes_on_as_the_undisturbed_one() {
    let config = GeneratorConfig::regtest(9).txs_per_block(40).with_ledger();
    let mut generator = Generator::new(config.clone());
    let chain: Vec<_> = (0..260).map(|_| generator.next_block()).collect();
    for height in [0, 1, 100, 117, 180, 250] {
        let mut resumed =
            Generator::resume(config.clone(), chain[..height].iter().cloned()).unwrap();
        for expected in &chain[height..height + 10] {
            assert_eq!(&resumed.next_block(), expected, "resumed at {height}");
        }
    }
    let resumed = Generator::resume(config.clone(), chain.iter().cloned()).unwrap();
    for wallet in 0..config.wallets {
        assert_eq!(
            resumed.wallet_scripts(wallet),
            generator.wallet_scripts(wallet)
        );
    }
    let gap = [chain[0].clone(), chain[2].clone()];
    assert!(Generator::resume(config, gap).is_err());
}

#[test]
fn kernel_reorganises_to_a_longer_branch() {
    let config = GeneratorConfig::regtest(3).txs_per_block(20);
    let kernel = Kernel::new(&config.params);
    let mut generator = Generator::new(config.clone());
    let mut chain = Vec::new();
    for height in 1..=130 {
        chain.push(generator.next_block());
        kernel.assert_connects(chain.last().unwrap(), height);
    }
    let fork = Generator::resume(config.clone(), chain[..120].iter().cloned()).unwrap();
    let mut branch = fork.branch(1);
    let blocks: Vec<_> = (0..12).map(|_| branch.next_block()).collect();
    assert_ne!(blocks[0], chain[120]);
    assert_eq!(blocks[0].header.prev_blockhash, chain[119].block_hash());
    for block in &blocks {
        kernel.process(block);
    }
    assert_eq!(kernel.manager.active_chain().height(), 132);
    kernel.assert_connects(&branch.next_block(), 133);
    // A branch is a chain like any other: it can be resumed without its salt.
    let whole = chain[..120].iter().chain(&blocks).cloned();
    let mut resumed = Generator::resume(config, whole).unwrap();
    resumed.next_block();
    assert_eq!(resumed.next_block(), branch.next_block());
}

#[test]
fn kernel_connects_blocks_as_full_as_they_get() {
    let mut generator = Generator::new(GeneratorConfig::regtest(11).txs_per_block(5_000));
    let kernel = Kernel::new(&generator.config().params);
    let mut weight = 0;
    for height in 1..=121 {
        let block = generator.next_block();
        weight = block.weight().to_wu();
        kernel.assert_connects(&block, height);
    }
    assert!((3_000_000..4_000_000).contains(&weight), "{weight}");
}

#[test]
fn kernel_connects_a_custom_signet() {
    let params = ChainParams::new(Network::Signet, Some(vec![0x51]));
    let kernel = Kernel::new(&params);
    let mut generator = Generator::new(GeneratorConfig::new(params, 1));
    for height in 1..=3 {
        kernel.assert_connects(&generator.next_block(), height);
    }
}

#[test]
fn kernel_refuses_a_block_that_claims_too_much() {
    let params = ChainParams::new(Network::Regtest, None);
    let kernel = Kernel::new(&params);
    let mut generator = Generator::new(GeneratorConfig::regtest(1));
    let mut block = generator.next_block();
    block.txdata[0].output[0].value += bitcoin::Amount::from_sat(1);
    block.header.merkle_root = block.compute_merkle_root().unwrap();
    mine::grind(&mut block.header);
    assert_eq!(kernel.process(&block), [ValidationMode::Invalid]);
}

#[test]
fn ledger_agrees_with_itself_and_with_the_supply() {
    let config = GeneratorConfig::regtest(8).txs_per_block(30).with_ledger();
    let mut generator = Generator::new(config);
    let mut chain = vec![generator.genesis()];
    chain.extend((0..180).map(|_| generator.next_block()));
    let ledger = generator.ledger().unwrap();
    let rebuilt = Ledger::from_chain(&chain);
    assert_eq!(
        ledger.iter_scripts().count(),
        rebuilt.iter_scripts().count()
    );
    let mut total = bitcoin::Amount::ZERO;
    for (script, entry) in ledger.iter_scripts() {
        assert_eq!(rebuilt.script(script), Some(entry));
        assert_eq!(
            entry.balance(),
            entry.utxos.iter().map(|utxo| utxo.value).sum()
        );
        assert!(entry.history.is_sorted());
        total += entry.balance();
    }
    let supply = (0..=180)
        .map(|height| mine::subsidy(Network::Regtest, height))
        .sum();
    assert_eq!(total, supply, "no fee is lost");
    for index in 0..generator.hd_wallets().len() {
        let scripts = generator.hd_wallet_scripts(index);
        let wallet = ledger.wallet(&scripts);
        assert!(!wallet.txids.is_empty());
        assert_eq!(
            wallet.balance,
            wallet.utxos.iter().map(|utxo| utxo.value).sum()
        );
    }
}
