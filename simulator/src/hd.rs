//! Wallets of the simulation that other wallet software can open by descriptor.

use bitcoin::{
    Network, NetworkKind,
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
        debug_assert_eq!(master.network, NetworkKind::Test);
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
