//! What a block does to the index. Pure: no store, no clock, no other block.
//!
//! Apply and rollback are one batch seen from two sides: [`IndexBatch::from_block`]
//! gives the same rows each time it meets the same block at the same place, so what
//! it put can be taken away with nothing but the block in hand.

use std::ops::Range;

use pulse_primitives::block::BlockPosition;

use crate::{
    keys::{Keys, ScriptKey},
    prepared::{Inconsistent, Prepared},
    rows::{
        TxNum,
        block::BlockRow,
        checkpoint::Sum,
        delta::{Created, Delta, Spent},
        script::Change,
        tx,
        txpos::{CHUNK_TXS, Chunk, put_chunk},
    },
    store::totals::ScriptTotals,
};

/// All rows of one block.
pub(crate) struct IndexBatch {
    /// What has to be known to take the block back; `tx`, `hist`, `utxo` and
    /// `spend` rows follow from it.
    pub delta: Delta,
    /// The `blk` row.
    pub row: BlockRow,
    /// The `pos` row.
    pub position: BlockPosition,
    /// Key and value of each `txpos` row, the value as a range of `chunk_bytes`.
    pub chunks: Vec<(TxNum, Range<usize>)>,
    /// Values of the `txpos` rows.
    pub chunk_bytes: Vec<u8>,
}

impl IndexBatch {
    /// The rows of `block`, whose coinbase gets `first_txnum`. `funding` holds the
    /// number of the transaction that created the output of each input, in block
    /// order and without the coinbase. `repeated` is the earlier transaction that the
    /// coinbase repeats, if it does.
    ///
    /// # Errors
    /// [`Inconsistent`] if the transaction numbers are used up or a number of
    /// outputs does not fit.
    pub(crate) fn from_block(
        block: &Prepared,
        first_txnum: TxNum,
        funding: &[TxNum],
        repeated: Option<&Repeated>,
        keys: &Keys,
    ) -> Result<Self, Inconsistent> {
        let connected = &block.connected;
        let inconsistent = |what| Inconsistent {
            height: connected.height,
            what,
        };
        let count =
            u32::try_from(connected.txids.len()).map_err(|_| inconsistent("transactions"))?;
        if first_txnum.checked_add(count).is_none() {
            return Err(inconsistent("transaction numbers are used up"));
        }
        if funding.len() != block.spent_scripts.len() {
            return Err(inconsistent("number of funding transactions"));
        }

        let mut created = Vec::with_capacity(block.output_scripts.len());
        let mut scripts = block.output_scripts.iter();
        for (txnum, tx) in (first_txnum..).zip(&connected.block.txdata) {
            for ((vout, output), script) in (0..).zip(&tx.output).zip(&mut scripts) {
                if let Some(script) = *script {
                    created.push(Created {
                        script,
                        txnum,
                        vout,
                        amount: output.value.to_sat(),
                        spent_here: false,
                        replaces: repeated
                            .filter(|earlier| txnum == first_txnum && earlier.is_unspent(vout))
                            .map(|earlier| earlier.txnum),
                    });
                }
            }
        }

        let mut spent = Vec::with_capacity(funding.len());
        let mut sources = funding.iter().zip(&block.spent_scripts);
        let spenders = (first_txnum + 1..).zip(&connected.block.txdata[1..]);
        for ((spender, tx), outputs) in spenders.zip(&connected.spent) {
            for ((input, output), (txnum, script)) in tx.input.iter().zip(outputs).zip(&mut sources)
            {
                let vout = input.previous_output.vout;
                if *txnum >= first_txnum {
                    let at = created
                        .binary_search_by_key(&(*txnum, vout), |output| (output.txnum, output.vout))
                        .map_err(|_| inconsistent("spends an output that the block lacks"))?;
                    created[at].spent_here = true;
                }
                spent.push(Spent {
                    script: *script,
                    txnum: *txnum,
                    vout,
                    amount: output.output.value.to_sat(),
                    spender,
                });
            }
        }

        let (chunks, chunk_bytes) = chunks(block, first_txnum, keys);
        let header = connected.block.header;
        Ok(Self {
            delta: Delta {
                hash: block.hash,
                height: connected.height,
                first_txnum,
                tx_prefixes: block
                    .tx_hashes
                    .iter()
                    .map(|hash| tx::prefix(*hash))
                    .collect(),
                created,
                spent,
            },
            row: BlockRow {
                header,
                first_txnum,
                tx_count: count,
                size: connected.position.block_len,
                weight: u32::try_from(connected.block.weight().to_wu())
                    .map_err(|_| inconsistent("weight"))?,
            },
            position: connected.position,
            chunks,
            chunk_bytes,
        })
    }
}

/// The `txpos` rows of a block.
#[allow(clippy::cast_possible_truncation)] // A chunk has at most 64 transactions.
fn chunks(
    block: &Prepared,
    first_txnum: TxNum,
    keys: &Keys,
) -> (Vec<(TxNum, Range<usize>)>, Vec<u8>) {
    let connected = &block.connected;
    // The coinbase has no undo entry.
    let undo_lens = std::iter::once(0).chain(connected.undo_lens.iter().copied());
    let undo_lens = undo_lens.collect::<Vec<_>>();
    let mut bytes = Vec::with_capacity(4 * undo_lens.len() + 16);
    let (mut txnum, mut offset) = (first_txnum, connected.first_tx_offset);
    let mut undo_offset = connected.first_undo_offset;
    let lens = connected.tx_lens.chunks(CHUNK_TXS);
    let chunks = lens
        .zip(undo_lens.chunks(CHUNK_TXS))
        .map(|(lens, undo_lens)| {
            let start = bytes.len();
            let chunk = Chunk {
                height: connected.height,
                offset,
                undo_offset,
                lens,
                undo_lens,
            };
            put_chunk(&mut bytes, &chunk, |run| {
                keys.undo_check(&connected.undo[run.start as usize..run.end as usize])
            });
            let key = txnum;
            txnum += lens.len() as TxNum;
            offset += lens.iter().sum::<u32>();
            undo_offset += undo_lens.iter().sum::<u32>();
            (key, start..bytes.len())
        })
        .collect();
    (chunks, bytes)
}

/// An earlier transaction with the id of a block's coinbase (BIP 30: mainnet blocks 91,842
/// and 91,880 repeat earlier coinbases). The later outputs take the place of those of the
/// earlier that are unspent, as in Bitcoin Core's set of coins (`AddCoins`).
pub(crate) struct Repeated {
    /// Its number.
    pub txnum: TxNum,
    /// Its outputs that are spent, by rising index.
    pub spent: Vec<u32>,
}

impl Repeated {
    fn is_unspent(&self, vout: u32) -> bool {
        self.spent.binary_search(&vout).is_err()
    }
}

/// What a transaction does to a script.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Event {
    /// Creates an output.
    Fund,
    /// Creates an output in place of another of the same value.
    Replace,
    /// Spends an output.
    Spend,
}

/// One output that a transaction creates for a script, or spends.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ScriptEvent {
    script: ScriptKey,
    txnum: TxNum,
    event: Event,
    amount: u64,
}

/// Events sorted by script and transaction, of one block or several.
pub(crate) struct ScriptEvents(Vec<ScriptEvent>);

impl ScriptEvents {
    pub(crate) fn new(mut events: Vec<ScriptEvent>) -> Self {
        events.sort_unstable_by_key(|event| (event.script, event.txnum));
        Self(events)
    }

    /// What each transaction does to each script: the `hist` rows, with all sums.
    pub(crate) fn changes(&self) -> impl Iterator<Item = (ScriptKey, TxNum, Change)> {
        self.0
            .chunk_by(|a, b| (a.script, a.txnum) == (b.script, b.txnum))
            .map(|events| (events[0].script, events[0].txnum, change(events)))
    }

    /// What all of them do to each script.
    pub(crate) fn totals(&self) -> impl Iterator<Item = ScriptTotals> {
        self.0.chunk_by(|a, b| a.script == b.script).map(|events| {
            let mut sum = Sum::from(None);
            for events in events.chunk_by(|a, b| a.txnum == b.txnum) {
                sum.add(events[0].txnum, &change(events));
            }
            ScriptTotals {
                script: events[0].script,
                last: events[events.len() - 1].txnum,
                totals: sum.stated(),
            }
        })
    }
}

/// Sums up events of one script and transaction.
fn change(events: &[ScriptEvent]) -> Change {
    let mut change = Change::default();
    for event in events {
        match event.event {
            Event::Fund => {
                change.funded += 1;
                change.funded_sum = change.funded_sum.wrapping_add(event.amount);
            }
            Event::Replace => {}
            Event::Spend => {
                change.spent += 1;
                let sum = change.spent_sum.unwrap_or_default();
                change.spent_sum = Some(sum.wrapping_add(event.amount));
            }
        }
    }
    change
}

impl Delta {
    /// Outputs whose place an output of the same value takes, as script key, transaction,
    /// index and value.
    pub(crate) fn replaced(&self) -> impl Iterator<Item = (ScriptKey, TxNum, u32, u64)> {
        let created = self.created.iter();
        created.filter_map(|o| Some((o.script, o.replaces?, o.vout, o.amount)))
    }

    /// What the block does to scripts.
    pub(crate) fn script_events(&self) -> impl Iterator<Item = ScriptEvent> {
        let created = self.created.iter().map(|output| ScriptEvent {
            script: output.script,
            txnum: output.txnum,
            event: match output.replaces {
                None => Event::Fund,
                Some(_) => Event::Replace,
            },
            amount: output.amount,
        });
        let spent = self.spent.iter().map(|output| ScriptEvent {
            script: output.script,
            txnum: output.spender,
            event: Event::Spend,
            amount: output.amount,
        });
        created.chain(spent)
    }

    /// First transaction number of each of the block's `txpos` rows.
    pub(crate) fn chunk_keys(&self) -> impl Iterator<Item = TxNum> {
        (self.first_txnum..)
            .take(self.tx_prefixes.len())
            .step_by(CHUNK_TXS)
    }
}
