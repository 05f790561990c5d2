//! What an index must answer for every script, computed in the plainest way.

use std::collections::{BTreeSet, HashMap};

use bitcoin::{Amount, Block, OutPoint, Script, ScriptBuf, Txid};
use pulse_primitives::Height;

/// An unspent output.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LedgerUtxo {
    /// Where it is.
    pub outpoint: OutPoint,
    /// What it is worth.
    pub value: Amount,
    /// Height of the block that made it.
    pub height: Height,
}

/// Everything about one script, up to the tip.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ScriptLedger {
    /// Number of outputs that ever paid to the script.
    pub funded_count: u64,
    /// What they were worth together.
    pub funded_sum: Amount,
    /// Number of those that were spent.
    pub spent_count: u64,
    /// What the spent ones were worth together.
    pub spent_sum: Amount,
    /// Transactions that pay to the script or spend from it, each once, in chain
    /// order: height, position in the block, txid.
    pub history: Vec<(Height, u32, Txid)>,
    /// Unspent outputs, in chain order.
    pub utxos: Vec<LedgerUtxo>,
}

impl ScriptLedger {
    /// What the unspent outputs are worth together.
    #[must_use]
    pub fn balance(&self) -> Amount {
        self.funded_sum - self.spent_sum
    }

    fn touch(&mut self, height: Height, position: u32, txid: Txid) {
        if self.history.last().map(|entry| (entry.0, entry.1)) != Some((height, position)) {
            self.history.push((height, position, txid));
        }
    }
}

/// Everything about several scripts together.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct WalletLedger {
    /// What the unspent outputs are worth together, immature coinbases included.
    pub balance: Amount,
    /// Transactions that touch any of the scripts, each once, in chain order.
    pub txids: Vec<Txid>,
    /// Unspent outputs, by script and then in chain order.
    pub utxos: Vec<LedgerUtxo>,
}

/// Balances, unspent outputs and histories of all scripts of a chain.
///
/// Built from blocks alone, without any knowledge of how they came to be. OP_RETURN
/// outputs count like all others, and so does the coinbase of genesis.
#[derive(Debug, Clone, Default)]
pub struct Ledger {
    scripts: HashMap<ScriptBuf, ScriptLedger>,
    unspent: HashMap<OutPoint, (ScriptBuf, Amount)>,
    txs: u64,
}

impl Ledger {
    /// The ledger of a chain from genesis on.
    pub fn from_chain<'a>(blocks: impl IntoIterator<Item = &'a Block>) -> Self {
        let mut ledger = Self::default();
        for (height, block) in (0..).zip(blocks) {
            ledger.connect(height, block);
        }
        ledger
    }

    /// Adds the next block.
    ///
    /// # Panics
    /// If the block spends what does not exist.
    pub fn connect(&mut self, height: Height, block: &Block) {
        for (position, tx) in (0..).zip(&block.txdata) {
            let txid = tx.compute_txid();
            self.txs += 1;
            for input in tx.input.iter().filter(|_| position > 0) {
                let outpoint = input.previous_output;
                let (script, value) = self.unspent.remove(&outpoint).expect("the block is valid");
                let entry = self.scripts.entry(script).or_default();
                entry.spent_count += 1;
                entry.spent_sum += value;
                entry.utxos.retain(|utxo| utxo.outpoint != outpoint);
                entry.touch(height, position, txid);
            }
            for (vout, output) in (0..).zip(&tx.output) {
                let outpoint = OutPoint { txid, vout };
                let entry = self
                    .scripts
                    .entry(output.script_pubkey.clone())
                    .or_default();
                entry.funded_count += 1;
                entry.funded_sum += output.value;
                entry.utxos.push(LedgerUtxo {
                    outpoint,
                    value: output.value,
                    height,
                });
                entry.touch(height, position, txid);
                self.unspent
                    .insert(outpoint, (output.script_pubkey.clone(), output.value));
            }
        }
    }

    /// What is known about a script; `None` if the chain never used it.
    #[must_use]
    pub fn script(&self, script: &Script) -> Option<&ScriptLedger> {
        self.scripts.get(script)
    }

    /// All scripts, in no particular order.
    pub fn iter_scripts(&self) -> impl Iterator<Item = (&Script, &ScriptLedger)> {
        self.scripts
            .iter()
            .map(|(script, entry)| (script.as_script(), entry))
    }

    /// Number of transactions of the chain, coinbases included.
    #[must_use]
    pub fn tx_count(&self) -> u64 {
        self.txs
    }

    /// What a wallet with these scripts should show.
    pub fn wallet<'a>(&self, scripts: impl IntoIterator<Item = &'a ScriptBuf>) -> WalletLedger {
        let mut wallet = WalletLedger::default();
        let mut history = BTreeSet::new();
        for entry in scripts
            .into_iter()
            .filter_map(|script| self.scripts.get(script.as_script()))
        {
            wallet.balance += entry.balance();
            wallet.utxos.extend_from_slice(&entry.utxos);
            history.extend(entry.history.iter().copied());
        }
        wallet.txids = history.into_iter().map(|(_, _, txid)| txid).collect();
        wallet
    }
}
