//! Names of transactions as peers use them, and random times.

use std::time::Duration;

use pulse_primitives::bitcoin::{
    Transaction, Txid, Wtxid, hashes::Hash, p2p::message_blockdata::Inventory,
};
use rand::Rng;

/// A transaction's id as a peer gave it: with witnesses (BIP 339) or without.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum GenTxid {
    /// Without witnesses.
    Txid(Txid),
    /// With witnesses.
    Wtxid(Wtxid),
}

impl GenTxid {
    /// The id's bytes. The same for both ids of a transaction without witnesses.
    #[must_use]
    pub fn hash(&self) -> TxHash {
        match self {
            Self::Txid(txid) => txid.to_byte_array(),
            Self::Wtxid(wtxid) => wtxid.to_byte_array(),
        }
    }

    /// The id in an entry of `inv`, `getdata` or `notfound`; `None` for blocks and
    /// unknown types.
    #[must_use]
    pub fn from_inventory(entry: &Inventory) -> Option<Self> {
        match entry {
            Inventory::Transaction(txid) | Inventory::WitnessTransaction(txid) => {
                Some(Self::Txid(*txid))
            }
            Inventory::WTx(wtxid) => Some(Self::Wtxid(*wtxid)),
            _ => None,
        }
    }

    /// The entry that asks for it with its witnesses.
    #[must_use]
    pub fn to_request(self) -> Inventory {
        match self {
            Self::Txid(txid) => Inventory::WitnessTransaction(txid),
            Self::Wtxid(wtxid) => Inventory::WTx(wtxid),
        }
    }
}

/// Bytes of a txid or a wtxid.
pub type TxHash = [u8; 32];

/// Whether any input has a witness.
#[must_use]
pub fn has_witness(tx: &Transaction) -> bool {
    tx.input.iter().any(|input| !input.witness.is_empty())
}

/// A random time with an exponential distribution around `mean`: the gaps of a Poisson
/// process. At most 20 times the mean.
pub fn exponential(rng: &mut impl Rng, mean: Duration) -> Duration {
    let uniform: f64 = rng.gen_range(f64::MIN_POSITIVE..1.0);
    mean.mul_f64((-uniform.ln()).min(20.0))
}

#[cfg(test)]
mod tests {
    use rand::{SeedableRng, rngs::StdRng};

    use super::*;

    #[test]
    fn exponential_times_have_the_mean_asked_for() {
        let mut rng = StdRng::seed_from_u64(7);
        let sum: Duration = (0..20_000)
            .map(|_| exponential(&mut rng, Duration::from_secs(5)))
            .sum();
        let mean = sum.as_secs_f64() / 20_000.0;
        assert!((4.8..5.2).contains(&mean), "{mean}");
    }
}
