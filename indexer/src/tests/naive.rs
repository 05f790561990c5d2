//! The simplest index: the whole chain in maps, read again for every answer.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

use pulse_primitives::{
    Height,
    bitcoin::{
        Block, OutPoint, ScriptBuf, TxOut, Txid,
        consensus::serialize,
        hashes::{Hash, sha256},
    },
    block::SpentOutput,
};

use super::memchain::{SCRIPTS, script, spendable};
use crate::query::{
    Heights, QueryError, View,
    model::{BalanceChange, BlockRef, ScriptStats, Spender, TxDetail, Utxo},
};

#[derive(Default)]
pub(super) struct Naive {
    blocks: Vec<Block>,
    txs: HashMap<Txid, TxDetail>,
    spenders: HashMap<OutPoint, Spender>,
    scripts: HashMap<ScriptBuf, ScriptIndex>,
}

#[derive(Default)]
struct ScriptIndex {
    stats: ScriptStats,
    history: Vec<Txid>,
    utxos: BTreeMap<(u64, u32), Utxo>,
}

impl Naive {
    pub(super) fn new(chain: &[(Block, Vec<Vec<SpentOutput>>)]) -> Self {
        let mut naive = Self::default();
        let mut numbers = HashMap::new();
        let mut next = 0u64;
        for (height, (block, spent)) in chain.iter().enumerate() {
            let block_ref = BlockRef {
                height: height as Height,
                hash: block.block_hash(),
                time: block.header.time,
            };
            for (index, tx) in block.txdata.iter().enumerate() {
                let txid = tx.compute_txid();
                let prevouts: Vec<TxOut> = match index {
                    0 => Vec::new(),
                    _ => spent[index - 1].iter().map(|s| s.output.clone()).collect(),
                };
                let repeated: Option<u64> = numbers.insert(txid, next);
                let mut touched = BTreeSet::new();
                if index > 0 {
                    for (vin, (input, prevout)) in (0..).zip(tx.input.iter().zip(&prevouts)) {
                        let outpoint = input.previous_output;
                        let spender = Spender {
                            txid,
                            vin,
                            block: block_ref,
                        };
                        naive.spenders.insert(outpoint, spender);
                        let entry = naive.scripts.get_mut(&prevout.script_pubkey).unwrap();
                        entry.stats.spent_txo_count += 1;
                        entry.stats.spent_txo_sum += prevout.value.to_sat();
                        let key = (numbers[&outpoint.txid], outpoint.vout);
                        entry.utxos.remove(&key).unwrap();
                        touched.insert(prevout.script_pubkey.clone());
                    }
                }
                for (vout, output) in (0..).zip(&tx.output) {
                    if !spendable(&output.script_pubkey) {
                        continue;
                    }
                    let entry = naive
                        .scripts
                        .entry(output.script_pubkey.clone())
                        .or_default();
                    let value = output.value.to_sat();
                    // An unspent output of an earlier transaction with this id is replaced.
                    let repeated = repeated.filter(|number| *number > 0);
                    let earlier = repeated.and_then(|number| entry.utxos.remove(&(number, vout)));
                    if earlier.is_none() {
                        entry.stats.funded_txo_count += 1;
                        entry.stats.funded_txo_sum += value;
                    }
                    let outpoint = OutPoint { txid, vout };
                    let utxo = Utxo {
                        outpoint,
                        value,
                        block: block_ref,
                    };
                    entry.utxos.insert((next, vout), utxo);
                    touched.insert(output.script_pubkey.clone());
                }
                for script in touched {
                    let entry = naive.scripts.get_mut(&script).unwrap();
                    entry.stats.tx_count += 1;
                    entry.history.push(txid);
                }
                let detail = TxDetail {
                    tx: Arc::new(tx.clone()),
                    txid,
                    prevouts: prevouts.into(),
                    block: block_ref,
                };
                naive.txs.insert(txid, detail);
                next += 1;
            }
            naive.blocks.push(block.clone());
        }
        naive
    }

    /// Asks `view` everything and compares.
    pub(super) fn check(&self, view: &View<'_>) {
        let tip = view.tip().unwrap();
        assert_eq!(tip.height as usize, self.blocks.len() - 1);
        for (height, block) in self.blocks.iter().enumerate() {
            self.check_block(view, height as Height, block);
        }
        let above = self.blocks.len() as Height;
        assert_eq!(view.block_at(above).unwrap(), None);
        assert_eq!(view.block_at(Height::MAX).unwrap(), None);
        for (txid, detail) in &self.txs {
            self.check_tx(view, txid, detail);
        }
        self.check_coins(view);
        for index in 0..SCRIPTS {
            self.check_script(view, &script(index));
        }
        for script in self.scripts.keys() {
            self.check_script(view, script);
        }
    }

    fn check_block(&self, view: &View<'_>, height: Height, block: &Block) {
        let info = view.block_at(height).unwrap().unwrap();
        assert_eq!(info.height, height);
        assert_eq!(info.hash, block.block_hash());
        assert_eq!(info.header, block.header);
        assert_eq!(info.tx_count as usize, block.txdata.len());
        assert_eq!(info.size as usize, block.total_size());
        assert_eq!(u64::from(info.weight), block.weight().to_wu());
        let last = height as usize;
        let mut times = self.blocks[last.saturating_sub(10)..=last]
            .iter()
            .map(|block| block.header.time)
            .collect::<Vec<_>>();
        times.sort_unstable();
        assert_eq!(info.median_time, times[times.len() / 2]);
        assert_eq!(
            view.block_by_hash(&info.hash).unwrap().as_ref(),
            Some(&info)
        );
        assert!(view.header_known(&info.hash));
        assert_eq!(view.block_raw(&info).unwrap(), serialize(block));
        let txids = block
            .txdata
            .iter()
            .map(|tx| tx.compute_txid())
            .collect::<Vec<_>>();
        assert_eq!(*view.block_txids(&info).unwrap(), txids);

        let wanted = txids
            .iter()
            .map(|txid| self.txs[txid].clone())
            .collect::<Vec<_>>();
        let count = wanted.len() as u32;
        assert_eq!(view.block_txs(&info, 0, u32::MAX).unwrap(), wanted);
        assert_eq!(view.block_txs(&info, count, 5).unwrap(), []);
        assert_eq!(view.block_txs(&info, u32::MAX, u32::MAX).unwrap(), []);
        for start in (0..count).step_by(25) {
            let page = view.block_txs(&info, start, 25).unwrap();
            let end = (start + 25).min(count);
            assert_eq!(page, wanted[start as usize..end as usize]);
        }
    }

    fn check_tx(&self, view: &View<'_>, txid: &Txid, detail: &TxDetail) {
        assert_eq!(view.tx(txid).unwrap().as_ref(), Some(detail));
        assert_eq!(view.tx_block(txid).unwrap(), Some(detail.block));
        let raw = (serialize(&*detail.tx), detail.block);
        assert_eq!(view.tx_raw(txid).unwrap(), Some(raw));

        let proof = view.merkle_proof(txid).unwrap().unwrap();
        let block = &self.blocks[detail.block.height as usize];
        assert_eq!(proof.block, detail.block);
        assert_eq!(block.txdata[proof.pos as usize].compute_txid(), *txid);
        let (mut node, mut at) = (*txid, proof.pos);
        for sibling in &proof.merkle {
            let (left, right) = if at % 2 == 0 {
                (&node, sibling)
            } else {
                (sibling, &node)
            };
            let both = [left.to_byte_array(), right.to_byte_array()].concat();
            node = Txid::from_raw_hash(Hash::hash(&both));
            at /= 2;
        }
        assert_eq!(node.to_raw_hash(), block.header.merkle_root.to_raw_hash());

        let (proof, of_block) = view.merkle_block(txid).unwrap().unwrap();
        assert_eq!(of_block, detail.block);
        let (mut matches, mut indexes) = (Vec::new(), Vec::new());
        proof.extract_matches(&mut matches, &mut indexes).unwrap();
        assert_eq!(proof.header, block.header);
        assert_eq!(matches, [*txid]);

        let mut spenders = Vec::new();
        for vout in 0..detail.tx.output.len() as u32 {
            let outpoint = OutPoint { txid: *txid, vout };
            let spender = self.spenders.get(&outpoint).copied();
            assert_eq!(view.spender(&outpoint).unwrap(), spender);
            spenders.push(spender);
        }
        let outpoint = OutPoint {
            txid: *txid,
            vout: u32::MAX,
        };
        assert_eq!(view.spender(&outpoint).unwrap(), None);
        assert_eq!(view.spenders(txid).unwrap(), Some(spenders));
    }

    fn check_coins(&self, view: &View<'_>) {
        let (mut outpoints, mut wanted) = (Vec::new(), Vec::new());
        for (txid, detail) in &self.txs {
            let mut unspent = 0;
            // One index too many, and a very large one.
            let vouts = 0..=detail.tx.output.len() as u32;
            for vout in vouts.chain([u32::MAX]) {
                let outpoint = OutPoint { txid: *txid, vout };
                let output = detail.tx.output.get(vout as usize);
                let coin = output.filter(|output| {
                    detail.block.height > 0
                        && spendable(&output.script_pubkey)
                        && !self.spenders.contains_key(&outpoint)
                });
                let coin = coin.map(|output| SpentOutput {
                    output: output.clone(),
                    height: detail.block.height,
                    is_coinbase: detail.tx.is_coinbase(),
                });
                assert_eq!(view.unspent(&[outpoint]).unwrap()[0], coin);
                unspent += usize::from(coin.is_some());
                outpoints.push(outpoint);
                wanted.push(coin);
            }
            assert_eq!(view.has_unspent(txid).unwrap(), unspent > 0);
        }
        // All at once, so that outputs of one transaction do not stand side by side.
        let both = outpoints.iter().zip(&wanted);
        let (mut by_index, wanted): (Vec<_>, Vec<_>) = {
            let mut both = both.map(|(o, c)| (*o, c.clone())).collect::<Vec<_>>();
            both.sort_by_key(|(outpoint, _)| (outpoint.vout, outpoint.txid));
            both.into_iter().unzip()
        };
        assert_eq!(view.unspent(&by_index).unwrap(), wanted);
        let stranger = Txid::from_byte_array([9; 32]);
        by_index.truncate(1);
        by_index.push(OutPoint::new(stranger, 0));
        assert_eq!(view.unspent(&by_index).unwrap()[1], None);
        assert!(!view.has_unspent(&stranger).unwrap());
    }

    fn check_script(&self, view: &View<'_>, script: &ScriptBuf) {
        let nothing = ScriptIndex::default();
        let wanted = self.scripts.get(script).unwrap_or(&nothing);
        let hash = sha256::Hash::hash(script.as_bytes()).to_byte_array();
        assert_eq!(view.script_stats(&hash).unwrap(), wanted.stats);
        let newest_first = wanted.history.iter().rev().copied().collect::<Vec<_>>();
        let ids = |txs: Vec<TxDetail>| txs.into_iter().map(|tx| tx.txid).collect::<Vec<_>>();
        let all = view.script_txs(&hash, None, usize::MAX).unwrap();
        for tx in &all {
            assert_eq!(*tx, self.txs[&tx.txid]);
        }
        assert_eq!(ids(all), newest_first);
        assert_eq!(view.script_txs(&hash, None, 0).unwrap(), []);
        let mut paged = ids(view.script_txs(&hash, None, 2).unwrap());
        while let Some(last) = paged.last().copied() {
            let page = ids(view.script_txs(&hash, Some(&last), 3).unwrap());
            if page.is_empty() {
                break;
            }
            paged.extend(page);
        }
        assert_eq!(paged, newest_first);
        let stranger = Txid::from_byte_array([9; 32]);
        assert_eq!(view.script_txs(&hash, Some(&stranger), 3).unwrap(), []);

        let utxos = wanted.utxos.values().copied().collect::<Vec<_>>();
        let count = utxos.len();
        if count > 0 {
            assert_eq!(view.script_utxos(&hash, count - 1).unwrap(), None);
        }
        assert_eq!(view.script_utxos(&hash, count).unwrap(), Some(utxos));
        self.check_balances(view, script, &wanted.history);
    }

    /// Compares what a script was worth block by block, and lists of some of the blocks.
    fn check_balances(&self, view: &View<'_>, script: &ScriptBuf, history: &[Txid]) {
        let hash = sha256::Hash::hash(script.as_bytes()).to_byte_array();
        let worth = |outputs: &[TxOut]| -> i64 {
            let own = outputs.iter().filter(|out| out.script_pubkey == *script);
            own.map(|out| out.value.to_sat() as i64).sum()
        };
        let mut balance = 0;
        let mut wanted: Vec<BalanceChange> = Vec::new();
        for txid in history {
            let tx = &self.txs[txid];
            let change = worth(&tx.tx.output) - worth(&tx.prevouts);
            balance += change;
            if wanted.last().is_none_or(|last| last.block != tx.block) {
                wanted.push(BalanceChange {
                    block: tx.block,
                    tx_count: 0,
                    change: 0,
                    balance: 0,
                });
            }
            let last = wanted.last_mut().unwrap();
            last.tx_count += 1;
            last.change += change;
            last.balance = balance as u64;
        }
        let tip = self.blocks.len() as Height - 1;
        let low = tip / 3;
        for (heights, limit) in [
            (Heights::ALL, 2),
            (
                Heights {
                    from: low,
                    to: Some(2 * low),
                },
                1,
            ),
        ] {
            let is_in =
                |height: Height| height >= heights.from && heights.to.is_none_or(|to| height <= to);
            let (mut found, mut place) = (Vec::new(), None);
            loop {
                let page = view.balance_page(&hash, heights, place.as_ref(), limit);
                let page = page.unwrap().unwrap();
                assert!(page.changes.len() <= limit);
                found.extend(page.changes);
                place = page.next;
                if place.is_none() {
                    break;
                }
            }
            let of_blocks = wanted.iter().filter(|change| is_in(change.block.height));
            let of_blocks: Vec<_> = of_blocks.rev().copied().collect();
            assert_eq!(found, of_blocks, "{heights:?}");
            if heights == Heights::ALL {
                continue;
            }

            let page = view.history_page(&hash, heights, None, usize::MAX);
            let page = page.unwrap().unwrap();
            let listed = view.page_txs(&hash, &page).map(|tx| tx.unwrap().txid);
            let in_blocks = |txid: &&Txid| is_in(self.txs[*txid].block.height);
            let of_blocks: Vec<_> = history.iter().filter(in_blocks).rev().copied().collect();
            assert_eq!(listed.collect::<Vec<_>>(), of_blocks);

            let all = self.scripts.get(script).map(|index| index.utxos.values());
            let of_blocks = all
                .into_iter()
                .flatten()
                .filter(|utxo| is_in(utxo.block.height));
            let (mut listed, mut cursor) = (Vec::new(), None);
            loop {
                let page = view.unspent_page(&hash, heights, cursor.as_ref(), limit.min(3));
                let page = page.unwrap().unwrap();
                view.page_utxos(&hash, &page, |utxo| {
                    listed.push(utxo);
                    Ok::<_, QueryError>(())
                })
                .unwrap();
                cursor = page.next();
                if cursor.is_none() {
                    break;
                }
            }
            assert_eq!(listed, of_blocks.copied().collect::<Vec<_>>());
        }
        for height in [0, low, 2 * low, tip] {
            let before = wanted
                .iter()
                .take_while(|change| change.block.height <= height);
            let wanted = before.last().map_or(0, |change| change.balance);
            let (block, balance) = view.balance_at(&hash, height).unwrap().unwrap().unwrap();
            assert_eq!((block.height, balance), (height, wanted));
        }
        assert_eq!(view.balance_at(&hash, tip + 1).unwrap(), None);
    }

    /// Compares the totals of all scripts.
    pub(super) fn check_totals(&self, view: &View<'_>) {
        for (script, wanted) in &self.scripts {
            let hash = sha256::Hash::hash(script.as_bytes()).to_byte_array();
            assert_eq!(view.script_stats(&hash).unwrap(), wanted.stats);
        }
    }

    /// Compares the unspent outputs of all scripts.
    pub(super) fn check_utxos(&self, view: &View<'_>) {
        for (script, wanted) in &self.scripts {
            let hash = sha256::Hash::hash(script.as_bytes()).to_byte_array();
            let utxos = wanted.utxos.values().copied().collect::<Vec<_>>();
            assert_eq!(view.script_utxos(&hash, utxos.len()).unwrap(), Some(utxos));
        }
    }

    /// Totals of several scripts together: a transaction of two of them counts once.
    pub(super) fn totals_of(&self, scripts: &[&ScriptBuf]) -> ScriptStats {
        let mut sum = ScriptStats::default();
        // A repeated coinbase is listed more than once.
        let mut times = BTreeMap::<Txid, u64>::new();
        for script in scripts {
            let ScriptIndex { stats, history, .. } = &self.scripts[*script];
            sum.funded_txo_count += stats.funded_txo_count;
            sum.funded_txo_sum += stats.funded_txo_sum;
            sum.spent_txo_count += stats.spent_txo_count;
            sum.spent_txo_sum += stats.spent_txo_sum;
            let mut own = BTreeMap::<Txid, u64>::new();
            history
                .iter()
                .for_each(|txid| *own.entry(*txid).or_default() += 1);
            for (txid, count) in own {
                let times = times.entry(txid).or_default();
                *times = count.max(*times);
            }
        }
        sum.tx_count = times.values().sum();
        sum
    }

    /// Transactions of the chain.
    pub(super) fn txids(&self) -> impl Iterator<Item = &Txid> {
        self.txs.keys()
    }

    /// Scripts of the chain.
    pub(super) fn scripts(&self) -> impl Iterator<Item = &ScriptBuf> {
        self.scripts.keys()
    }
}
