//! Wallets of the simulation that other wallet software can open by descriptor.

use bitcoin::{
    Network,
    bip32::{ChildNumber, DerivationPath, Xpriv},
    hashes::{Hash, sha256},
    secp256k1::{All, Secp256k1, SecretKey},
};

use crate::address::ScriptKind;

/// Number of BIP 32 wallets in a simulation.
pub(crate) const HD_WALLETS: u32 = 4;

/// A BIP 32 wallet that takes part in the simulation, with its descriptors.
///
/// Its addresses are used in order on both of its chains, so that a scan with a gap
/// limit finds them all.
#[derive(Debug, Clone)]
pub struct HdWallet {
    /// BIP that defines its paths and scripts: 44, 49, 84 or 86.
    pub purpose: u32,
    /// Descriptor of the receiving addresses, with the private key.
    pub external_descriptor: String,
    /// Descriptor of the change addresses, with the private key.
    pub internal_descriptor: String,
    chains: [Xpriv; 2],
}

impl HdWallet {
    pub(crate) fn all(secp: &Secp256k1<All>, seed: u64) -> Vec<Self> {
        [44, 49, 84, 86]
            .map(|purpose| Self::new(secp, seed, purpose))
            .to_vec()
    }

    fn new(secp: &Secp256k1<All>, seed: u64, purpose: u32) -> Self {
        let mut bytes = b"pulse simulator wallet".to_vec();
        bytes.extend_from_slice(&seed.to_le_bytes());
        bytes.extend_from_slice(&purpose.to_le_bytes());
        let entropy = sha256::Hash::hash(&bytes);
        // Regtest and signet share the version bytes of extended keys.
        let master = Xpriv::new_master(Network::Regtest, entropy.as_byte_array())
            .expect("a hash is a valid key but for one in 2^127");
        let chain = |chain: u32| {
            let path: DerivationPath = format!("{purpose}'/1'/0'/{chain}")
                .parse()
                .expect("the path is well formed");
            master
                .derive_priv(secp, &path)
                .expect("derivation fails for one hash in 2^127")
        };
        let descriptor = |chain: u32| {
            let key = format!("{master}/{purpose}'/1'/0'/{chain}/*");
            match purpose {
                44 => format!("pkh({key})"),
                49 => format!("sh(wpkh({key}))"),
                84 => format!("wpkh({key})"),
                _ => format!("tr({key})"),
            }
        };
        Self {
            purpose,
            external_descriptor: descriptor(0),
            internal_descriptor: descriptor(1),
            chains: [chain(0), chain(1)],
        }
    }

    /// Type of the wallet's scripts.
    #[must_use]
    pub fn script_kind(&self) -> ScriptKind {
        match self.purpose {
            44 => ScriptKind::P2pkh { compressed: true },
            49 => ScriptKind::P2shP2wpkh,
            84 => ScriptKind::P2wpkh,
            _ => ScriptKind::P2trKey,
        }
    }

    pub(crate) fn secret(&self, secp: &Secp256k1<All>, internal: bool, index: u32) -> SecretKey {
        let child = ChildNumber::from_normal_idx(index).expect("indexes stay below 2^31");
        self.chains[usize::from(internal)]
            .derive_priv(secp, &[child])
            .expect("derivation fails for one hash in 2^127")
            .private_key
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::address::{AddressBook, Owner};
    use bitcoin::{Address, CompressedPublicKey, KnownHrp, ScriptBuf, bip32::Xpub};

    /// What a wallet that opens `descriptor` derives at `index`.
    fn derive(descriptor: &str, index: u32) -> ScriptBuf {
        let secp = Secp256k1::new();
        let start = descriptor.find("tprv").unwrap();
        let (key, path) = descriptor[start..].split_once('/').unwrap();
        let path = path
            .split(')')
            .next()
            .unwrap()
            .replace('*', &index.to_string());
        let key: Xpriv = key.parse().unwrap();
        let path: DerivationPath = path.parse().unwrap();
        let key = Xpub::from_priv(&secp, &key.derive_priv(&secp, &path).unwrap());
        let public = CompressedPublicKey(key.public_key);
        let network = Network::Regtest;
        match &descriptor[..start] {
            "pkh(" => Address::p2pkh(public, network),
            "sh(wpkh(" => Address::p2shwpkh(&public, network),
            "wpkh(" => Address::p2wpkh(&public, KnownHrp::Regtest),
            "tr(" => Address::p2tr(&secp, key.to_x_only_pub(), None, KnownHrp::Regtest),
            other => panic!("{other}"),
        }
        .script_pubkey()
    }

    #[test]
    fn descriptors_lead_to_the_addresses_in_use() {
        let book = AddressBook::new(21, 5);
        let mut seen = 0;
        for id in 0..3_000 {
            let Owner::Hd {
                wallet,
                internal,
                index,
            } = book.owner(id)
            else {
                continue;
            };
            let wallet = &book.hd_wallets()[wallet as usize];
            let descriptor = if internal {
                &wallet.internal_descriptor
            } else {
                &wallet.external_descriptor
            };
            assert_eq!(book.script_pubkey(id), derive(descriptor, index));
            seen += 1;
        }
        assert!(seen > 40);
    }
}
