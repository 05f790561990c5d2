//! Unspent outputs, from the index to the mempool.

use bitcoin::{OutPoint, Txid};
use tokio::sync::watch;

use crate::{Height, block::SpentOutput, tip::ChainTip};

/// The index could not answer.
#[derive(Debug, thiserror::Error)]
#[error("unspent outputs cannot be read")]
pub struct CoinError(#[source] pub Box<dyn std::error::Error + Send + Sync>);

/// Unspent outputs as of one block; does not change while it lives.
pub trait CoinView {
    /// The block.
    fn tip(&self) -> ChainTip;
    /// The output at `outpoint` with the height of its block and whether a coinbase made
    /// it; `None` if it is spent or was never made. Outputs that nobody can ever spend
    /// are `None` as well.
    ///
    /// # Errors
    /// [`CoinError`].
    fn coin(&self, outpoint: &OutPoint) -> Result<Option<SpentOutput>, CoinError>;
    /// [`CoinView::coin`] of each outpoint, in the order given. Outputs of one
    /// transaction may cost no more than one of them.
    ///
    /// # Errors
    /// [`CoinError`].
    fn coins_many(&self, outpoints: &[OutPoint]) -> Result<Vec<Option<SpentOutput>>, CoinError> {
        outpoints
            .iter()
            .map(|outpoint| self.coin(outpoint))
            .collect()
    }
    /// Whether any output of the confirmed transaction `txid` is unspent.
    ///
    /// # Errors
    /// [`CoinError`].
    fn has_unspent(&self, txid: &Txid) -> Result<bool, CoinError>;
    /// Median time of the eleven blocks up to `height` (BIP 113), in seconds since 1970.
    ///
    /// # Errors
    /// [`CoinError`]; also above the tip.
    fn median_time_past(&self, height: Height) -> Result<u32, CoinError>;
}

/// Where [`CoinView`]s come from. Calls touch the disk.
pub trait CoinSource: Send + Sync + 'static {
    /// Unspent outputs now; `None` while nothing is indexed.
    ///
    /// # Errors
    /// [`CoinError`].
    fn coins(&self) -> Result<Option<Box<dyn CoinView + '_>>, CoinError>;
    /// Watch of the newest block that [`CoinSource::coins`] includes: it changes
    /// after the block's outputs can be seen.
    fn tip(&self) -> watch::Receiver<Option<ChainTip>>;
}
