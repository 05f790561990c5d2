//! Golden answers: what an index must say about every script of a run.

use bitcoin::{BlockHash, ScriptBuf, Txid};
use pulse_primitives::Height;
use serde::Deserialize;

/// All golden answers of a run.
#[derive(Debug, Clone)]
pub struct Golden {
    /// Height at which they hold.
    pub tip_height: Height,
    /// Hash of the block at that height.
    pub tip_hash: BlockHash,
    /// Transactions of the run.
    pub tx_count: u64,
    /// One entry per script.
    pub scripts: Vec<GoldenScript>,
}

/// What an index must say about one script. Sums are in satoshi.
///
/// The coinbase of genesis counts as an output like any other.
#[derive(Debug, Clone, Deserialize)]
pub struct GoldenScript {
    /// SHA-256 of the script, reversed, in hex (as Electrum writes it).
    pub scripthash: String,
    /// The script.
    pub script: ScriptBuf,
    /// Its type, in the words of the tool that made the file.
    #[serde(rename = "type")]
    pub kind: String,
    /// Whether it can never be spent (OP_RETURN); an index may leave those out.
    pub unspendable: bool,
    /// Transactions in `history`.
    pub tx_count: u64,
    /// Outputs that ever paid to it.
    pub funded_txo_count: u64,
    /// What they were worth together.
    pub funded_txo_sum: u64,
    /// Outputs of it that were spent.
    pub spent_txo_count: u64,
    /// What those were worth together.
    pub spent_txo_sum: u64,
    /// Height, position in the block and txid of every transaction that touches it,
    /// in chain order.
    pub history: Vec<(Height, u32, Txid)>,
    /// Its unspent outputs, in chain order.
    pub utxos: Vec<GoldenUtxo>,
    /// SHA-256 of "txid:height:" over the history, in hex; `None` without history.
    pub electrum_status: Option<String>,
}

/// An unspent output.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(from = "(Txid, u32, u64, Height)")]
pub struct GoldenUtxo {
    /// Transaction that made it.
    pub txid: Txid,
    /// Its number in that transaction.
    pub vout: u32,
    /// Satoshi.
    pub value: u64,
    /// Height of the block that made it.
    pub height: Height,
}

impl From<(Txid, u32, u64, Height)> for GoldenUtxo {
    fn from((txid, vout, value, height): (Txid, u32, u64, Height)) -> Self {
        Self {
            txid,
            vout,
            value,
            height,
        }
    }
}

impl Golden {
    /// Reads a file of JSON lines: first a summary, then one line per script.
    ///
    /// # Panics
    /// If the form is another.
    #[must_use]
    pub fn parse(bytes: &[u8]) -> Self {
        #[derive(Deserialize)]
        struct Summary {
            tip_height: Height,
            tip_hash: BlockHash,
            txs: u64,
            scripts: usize,
        }
        let text = std::str::from_utf8(bytes).expect("the file is text");
        let mut lines = text.lines();
        let summary: Summary = serde_json::from_str(lines.next().expect("there is a first line"))
            .expect("the first line is a summary");
        let scripts: Vec<GoldenScript> = lines
            .map(|line| serde_json::from_str(line).expect("each line is a script"))
            .collect();
        assert_eq!(scripts.len(), summary.scripts, "the file is complete");
        Self {
            tip_height: summary.tip_height,
            tip_hash: summary.tip_hash,
            tx_count: summary.txs,
            scripts,
        }
    }
}
