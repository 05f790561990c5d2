//! Order and status hash of a script's history. Pure.
//!
//! # Correctness
//! The status is the SHA-256 over `txid:height:` of every transaction: confirmed ones in
//! the order of the chain, then unconfirmed ones in the canonical order of protocol 1.6
//! (height 0 before -1, each by txid text), for every version. Printed as plain hex. A
//! script without history has none.
//! <https://electrum-protocol.readthedocs.io/en/latest/protocol-basics.html#status>

use std::fmt::Write;

use pulse_primitives::{
    Height,
    bitcoin::{
        Txid,
        hashes::{Hash, HashEngine, sha256},
    },
};

/// A status; `None` for a script without history.
pub(super) type Status = Option<sha256::Hash>;

/// An unconfirmed transaction of a script.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Waiting {
    pub(super) txid: Txid,
    /// In satoshis.
    pub(super) fee: u64,
    /// Whether it spends outputs of unconfirmed transactions.
    pub(super) has_unconfirmed_parents: bool,
}

impl Waiting {
    /// What the protocol has in the place of a height.
    pub(super) fn height(&self) -> i32 {
        if self.has_unconfirmed_parents { -1 } else { 0 }
    }
}

/// Puts unconfirmed transactions into the canonical order.
pub(super) fn sort(waiting: &mut [Waiting]) {
    waiting.sort_unstable_by(|a, b| {
        let parents = a.has_unconfirmed_parents.cmp(&b.has_unconfirmed_parents);
        // The text of an id has its bytes in reverse.
        let bytes = |entry: &Waiting| entry.txid.to_byte_array().into_iter().rev();
        parents.then_with(|| bytes(a).cmp(bytes(b)))
    });
}

/// The hash over the confirmed part of a history, which can be continued.
#[derive(Clone, Default)]
pub(super) struct Confirmed {
    engine: sha256::HashEngine,
    is_used: bool,
}

impl Confirmed {
    /// Continues with transactions that follow in the chain.
    pub(super) fn extend(&mut self, history: &[(Height, Txid)]) {
        let mut text = String::new();
        for (height, txid) in history {
            text.clear();
            write!(text, "{txid}:{height}:").expect("a String takes everything");
            self.engine.input(text.as_bytes());
        }
        self.is_used |= !history.is_empty();
    }

    /// The status with these unconfirmed transactions, in canonical order.
    pub(super) fn status(&self, waiting: &[Waiting]) -> Status {
        if !self.is_used && waiting.is_empty() {
            return None;
        }
        let mut engine = self.engine.clone();
        for entry in waiting {
            engine.input(format!("{}:{}:", entry.txid, entry.height()).as_bytes());
        }
        Some(sha256::Hash::from_engine(engine))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn txid(byte: u8) -> Txid {
        Txid::from_byte_array([byte; 32])
    }

    fn waiting(txid: Txid, has_unconfirmed_parents: bool) -> Waiting {
        Waiting {
            txid,
            fee: 1,
            has_unconfirmed_parents,
        }
    }

    #[test]
    fn the_status_of_the_contract_s_vector() {
        let mut confirmed = Confirmed::default();
        confirmed.extend(&[(700_000, txid(0xaa))]);
        confirmed.extend(&[(700_001, txid(0x0b))]);
        let mut unconfirmed = [waiting(txid(0xdd), true), waiting(txid(0xcc), false)];
        sort(&mut unconfirmed);
        let status = confirmed.status(&unconfirmed).unwrap();
        assert_eq!(
            status.to_string(),
            "81ddaeb8bc8957501fb1f118f03b9ae12dd10fbd1c081ee0abd0c745c97798de"
        );
        assert_eq!(Confirmed::default().status(&[]), None);
    }

    #[test]
    fn unconfirmed_ones_stand_by_the_text_of_their_ids() {
        // The text begins with the last byte.
        let id = |first: u8, last: u8| {
            let mut bytes = [0; 32];
            (bytes[0], bytes[31]) = (first, last);
            Txid::from_byte_array(bytes)
        };
        let mut list = [
            waiting(id(1, 9), true),
            waiting(id(1, 2), false),
            waiting(id(9, 1), true),
            waiting(id(9, 0), false),
        ];
        sort(&mut list);
        let order: Vec<Txid> = list.iter().map(|entry| entry.txid).collect();
        assert_eq!(order, [id(9, 0), id(1, 2), id(9, 1), id(1, 9)]);
        let mut texts: Vec<String> = order[2..].iter().map(ToString::to_string).collect();
        texts.sort();
        assert_eq!(texts, [id(9, 1).to_string(), id(1, 9).to_string()]);
    }
}
