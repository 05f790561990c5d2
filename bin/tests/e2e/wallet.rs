//! Real clients, unmodified: esplora-client and a BDK wallet.

use std::collections::BTreeSet;

use bdk_esplora::EsploraExt;
use bdk_wallet::{KeychainKind, Wallet};
use pulse_primitives::bitcoin::{Block, Network, Txid};
use pulse_simulator::{Generator, GeneratorConfig};
use pulse_testkit::{PulseNode, ScriptedPeer, ServedChain};
use serde_json::{Value, json};

use super::common::{DEADLINE, params, start};

/// What the node finds by a wallet's public descriptors.
fn assert_scanned(node: &PulseNode, wallet: &Wallet) {
    let descriptors = [KeychainKind::External, KeychainKind::Internal]
        .map(|keychain| wallet.public_descriptor(keychain).to_string());
    let body = json!({"descriptors": descriptors}).to_string();
    let scan = |path: &str| -> Value {
        let reply = node.post(path, &body);
        assert_eq!(reply.status, 200, "{}", reply.text());
        serde_json::from_str(reply.text()).unwrap()
    };
    let found = scan("/descriptors/utxo");
    assert_eq!(
        found["balance"]["confirmed"],
        wallet.balance().total().to_sat()
    );
    let mut utxos: Vec<_> = (found["utxos"].as_array().unwrap().iter())
        .map(|utxo| {
            let text = |key: &str| utxo[key].to_string().replace('"', "");
            (
                format!("{}:{}", text("txid"), text("vout")),
                utxo["value"].as_u64().unwrap(),
                (utxo["keychain"].as_u64(), utxo["index"].as_u64()),
            )
        })
        .collect();
    let mut wanted: Vec<_> = (wallet.list_unspent())
        .map(|utxo| {
            let keychain = u64::from(utxo.keychain == KeychainKind::Internal);
            (
                utxo.outpoint.to_string(),
                utxo.txout.value.to_sat(),
                (Some(keychain), Some(utxo.derivation_index.into())),
            )
        })
        .collect();
    utxos.sort();
    wanted.sort();
    assert_eq!(utxos, wanted);
    for (place, keychain) in [(0, KeychainKind::External), (1, KeychainKind::Internal)] {
        let next = &found["keychains"][place]["next_index"];
        let used = wallet
            .derivation_index(keychain)
            .map_or(0, |index| index + 1);
        assert_eq!(*next, used, "keychain {place}");
    }
    let history = scan("/descriptors/txs?limit=1000");
    let ids: Vec<Txid> = (history["txs"].as_array().unwrap().iter())
        .map(|tx| tx["txid"].as_str().unwrap().parse().unwrap())
        .collect();
    assert_eq!(ids.len(), wallet.transactions().count());
    let ids: BTreeSet<Txid> = ids.into_iter().collect();
    let wanted: BTreeSet<Txid> = wallet.transactions().map(|tx| tx.tx_node.txid).collect();
    assert_eq!(ids, wanted);
}

/// What the wallet of that index shows, and what the generator's ledger says.
fn assert_wallet(wallet: &Wallet, generator: &Generator, index: usize) {
    let ledger = generator.ledger().unwrap();
    let scripts = generator.hd_wallet_scripts(index);
    let truth = ledger.wallet(&scripts);
    assert_eq!(
        wallet.balance().total(),
        truth.balance,
        "balance of wallet {index}"
    );
    let found: BTreeSet<Txid> = wallet.transactions().map(|tx| tx.tx_node.txid).collect();
    let expected: BTreeSet<Txid> = truth.txids.iter().copied().collect();
    assert_eq!(found, expected, "transactions of wallet {index}");
    let found: BTreeSet<_> = wallet.list_unspent().map(|utxo| utxo.outpoint).collect();
    let expected: BTreeSet<_> = truth.utxos.iter().map(|utxo| utxo.outpoint).collect();
    assert_eq!(found, expected, "unspent outputs of wallet {index}");
}

#[test]
fn bdk_wallets_scan_and_later_sync_to_what_the_generator_knows() {
    let config = GeneratorConfig::regtest(11).txs_per_block(20).with_ledger();
    let mut generator = Generator::new(config);
    let mut blocks = vec![generator.genesis()];
    blocks.extend((0..170).map(|_| generator.next_block()));
    let peer = ScriptedPeer::honest(ServedChain::from_blocks(&params(Network::Regtest), &blocks));
    let mut node = start("regtest", &[peer.addr()]);
    node.wait_synced_to(170, DEADLINE);
    let client = bdk_esplora::esplora_client::Builder::new(&node.api_url()).build_blocking();
    assert_eq!(client.get_height().unwrap(), 170);
    let count = generator.hd_wallets().len();
    let mut wallets: Vec<Wallet> = Vec::new();
    for index in 0..count {
        let hd = &generator.hd_wallets()[index];
        let mut wallet = Wallet::create(
            hd.external_descriptor.clone(),
            hd.internal_descriptor.clone(),
        )
        .network(Network::Regtest)
        .create_wallet_no_persist()
        .unwrap();
        let request = wallet.start_full_scan();
        let update = client.full_scan(request, 20, 4).unwrap();
        wallet.apply_update(update).unwrap();
        assert_wallet(&wallet, &generator, index);
        assert_scanned(&node, &wallet);
        // Told with its private key, it is refused, and nothing of it repeated.
        let body = json!({"descriptors": [hd.external_descriptor]}).to_string();
        let refused = node.post("/descriptors", &body);
        assert_eq!(
            (refused.status, refused.text()),
            (400, "Descriptor 0: private keys are not accepted")
        );
        wallets.push(wallet);
    }
    let used: usize = (0..count)
        .map(|index| generator.hd_wallet_scripts(index).len())
        .sum();
    assert!(used > 20, "the wallets take part");

    // A later, incremental sync. Addresses that came into use since are revealed, as a
    // wallet that handed them out would have.
    let later: Vec<Block> = (0..5).map(|_| generator.next_block()).collect();
    peer.push_blocks(&later);
    node.wait_synced_to(175, DEADLINE);
    for (index, wallet) in wallets.iter_mut().enumerate() {
        for keychain in [KeychainKind::External, KeychainKind::Internal] {
            let next = wallet
                .derivation_index(keychain)
                .map_or(0, |index| index + 1);
            let _ = wallet.reveal_addresses_to(keychain, next + 30).count();
        }
        let request = wallet.start_sync_with_revealed_spks();
        let update = client.sync(request, 4).unwrap();
        wallet.apply_update(update).unwrap();
        assert_wallet(wallet, &generator, index);
    }
}

#[test]
fn esplora_client_reads_blocks_transactions_and_proofs() {
    let mut generator = Generator::new(GeneratorConfig::regtest(12).txs_per_block(20));
    let mut blocks = vec![generator.genesis()];
    blocks.extend((0..140).map(|_| generator.next_block()));
    let peer = ScriptedPeer::honest(ServedChain::from_blocks(&params(Network::Regtest), &blocks));
    let mut node = start("regtest", &[peer.addr()]);
    node.wait_synced_to(140, DEADLINE);
    let client = esplora_client::Builder::new(&node.api_url()).build_blocking();
    let block = &blocks[140];
    let hash = block.block_hash();
    assert_eq!(client.get_tip_hash().unwrap(), hash);
    assert_eq!(client.get_block_hash(140).unwrap(), hash);
    assert_eq!(client.get_header_by_hash(&hash).unwrap(), block.header);
    assert_eq!(
        client.get_block_by_hash(&hash).unwrap().as_ref(),
        Some(block)
    );
    let status = client.get_block_status(&hash).unwrap();
    assert!(status.in_best_chain);
    assert_eq!(status.height, Some(140));
    for (position, tx) in block.txdata.iter().enumerate() {
        let txid = tx.compute_txid();
        assert_eq!(client.get_tx(&txid).unwrap().as_ref(), Some(tx));
        assert_eq!(
            client.get_txid_at_block_index(&hash, position).unwrap(),
            Some(txid)
        );
        let info = client.get_tx_info(&txid).unwrap().unwrap();
        assert_eq!(info.txid, txid);
        assert_eq!(info.status.block_height, Some(140));
        let proof = client.get_merkle_proof(&txid).unwrap().unwrap();
        assert_eq!((proof.block_height, proof.pos), (140, position));
        let merkle = client.get_merkle_block(&txid).unwrap().unwrap();
        let (mut matches, mut indexes) = (vec![], vec![]);
        let root = merkle
            .txn
            .extract_matches(&mut matches, &mut indexes)
            .unwrap();
        assert_eq!(root, block.header.merkle_root);
        assert_eq!(matches, [txid]);
        for input in tx.input.iter().filter(|_| position > 0) {
            let outpoint = input.previous_output;
            let spend = client
                .get_output_status(&outpoint.txid, outpoint.vout.into())
                .unwrap()
                .unwrap();
            assert!(spend.spent);
            assert_eq!(spend.txid, Some(txid));
        }
    }
    let unknown = "11".repeat(32).parse::<Txid>().unwrap();
    assert_eq!(client.get_tx(&unknown).unwrap(), None);
}
