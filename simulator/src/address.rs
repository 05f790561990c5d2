//! Every address of the simulation, by number.
//!
//! Address `n` is defined by the seed and `n` alone: its owner, the type of its script
//! and its keys. Addresses are handed out in order, so a chain tells how many were used.

use bitcoin::{
    ScriptBuf, TapNodeHash, WPubkeyHash, XOnlyPublicKey,
    key::TapTweak,
    opcodes::all::{
        OP_CHECKMULTISIG, OP_CHECKSIG, OP_CLTV, OP_CSV, OP_DROP, OP_PUSHNUM_1, OP_PUSHNUM_2,
        OP_PUSHNUM_3,
    },
    script::{Builder, PushBytesBuf},
    secp256k1::{All, PublicKey, Secp256k1, SecretKey},
    taproot::LeafVersion,
};

use crate::{
    hd::{HD_WALLETS, HdWallet},
    keys::KeyGrid,
};

/// Number of an address.
pub(crate) type AddressId = u32;

/// Stands for the P2A script, which belongs to nobody. See [`anchor_script`].
pub(crate) const ANCHOR: AddressId = AddressId::MAX;

/// Every 64th address belongs to a BIP 32 wallet.
const HD_EVERY: u32 = 64;
/// Keys set aside for each address.
const KEYS_EACH: u64 = 3;

/// The type of a script, with what it takes to spend it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ScriptKind {
    /// Pay to public key; the key with or without compression.
    P2pk {
        /// Whether the key has 33 bytes (or 65).
        compressed: bool,
    },
    /// Pay to public key hash; the key with or without compression.
    P2pkh {
        /// Whether the key has 33 bytes (or 65).
        compressed: bool,
    },
    /// Bare multisig.
    Multisig(Quorum),
    /// Multisig behind a script hash (BIP 16).
    P2shMultisig(Quorum),
    /// P2WPKH behind a script hash (BIP 141).
    P2shP2wpkh,
    /// Pay to witness public key hash (BIP 141).
    P2wpkh,
    /// Multisig behind a witness script hash (BIP 141).
    P2wshMultisig(Quorum),
    /// A key that may sign from a height on (BIP 65), behind a witness script hash.
    P2wshCltv {
        /// First height that the script accepts as lock time.
        height: u32,
    },
    /// A key that may sign some blocks later (BIP 112), behind a witness script hash.
    P2wshCsv {
        /// Blocks to wait.
        blocks: u16,
    },
    /// Taproot without scripts (BIP 341, BIP 86).
    P2trKey,
    /// Taproot with two scripts, spent by the first of them (BIP 342).
    P2trScript,
    /// Pay to anchor: anyone may spend.
    P2a,
}

/// How many keys of how many must sign.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Quorum {
    /// One key of two.
    OneOfTwo,
    /// Two keys of three.
    TwoOfThree,
}

impl Quorum {
    /// Number of signatures needed.
    #[must_use]
    pub fn signatures(self) -> u8 {
        match self {
            Self::OneOfTwo => 1,
            Self::TwoOfThree => 2,
        }
    }

    /// Number of keys.
    #[must_use]
    pub fn keys(self) -> u8 {
        self.signatures() + 1
    }
}

impl ScriptKind {
    /// Greatest weight of an input that spends such a script, in weight units.
    pub(crate) fn input_weight(self) -> u64 {
        // 41 bytes of outpoint, sequence and length, and a longest signature of 73.
        let legacy = |script_sig: u64| 4 * (41 + script_sig) + 1;
        match self {
            Self::P2pk { .. } => legacy(73),
            Self::P2pkh { compressed: true } => legacy(107),
            Self::P2pkh { compressed: false } => legacy(139),
            Self::Multisig(quorum) => legacy(1 + 73 * u64::from(quorum.signatures())),
            Self::P2shMultisig(quorum) => {
                legacy(7 + 73 * u64::from(quorum.signatures()) + 34 * u64::from(quorum.keys()))
            }
            Self::P2shP2wpkh => 4 * 64 + 109,
            Self::P2wpkh => 4 * 41 + 109,
            Self::P2wshMultisig(quorum) => {
                4 * 41 + 6 + 73 * u64::from(quorum.signatures()) + 34 * u64::from(quorum.keys())
            }
            Self::P2wshCltv { .. } | Self::P2wshCsv { .. } => 4 * 41 + 120,
            Self::P2trKey => 4 * 41 + 66,
            Self::P2trScript => 4 * 41 + 168,
            Self::P2a => 4 * 41 + 1,
        }
    }

    /// Weight of an output with such a script, in weight units.
    pub(crate) fn output_weight(self) -> u64 {
        let script = match self {
            Self::P2pk { compressed: true } => 35,
            Self::P2pk { compressed: false } => 67,
            Self::P2pkh { .. } => 25,
            Self::Multisig(quorum) => 3 + 34 * u64::from(quorum.keys()),
            Self::P2shMultisig(_) | Self::P2shP2wpkh => 23,
            Self::P2wpkh => 22,
            Self::P2a => 4,
            _ => 34,
        };
        4 * (9 + script)
    }

    /// Signature operations that an input with such a script counts (BIP 141).
    pub(crate) fn input_sigops(self) -> u64 {
        match self {
            Self::P2shMultisig(quorum) => 4 * u64::from(quorum.keys()),
            Self::P2wshMultisig(quorum) => u64::from(quorum.keys()),
            Self::P2shP2wpkh | Self::P2wpkh | Self::P2wshCltv { .. } | Self::P2wshCsv { .. } => 1,
            _ => 0,
        }
    }

    /// Signature operations that an output with such a script counts (BIP 141).
    pub(crate) fn output_sigops(self) -> u64 {
        match self {
            Self::P2pk { .. } | Self::P2pkh { .. } => 4,
            Self::Multisig(_) => 80,
            _ => 0,
        }
    }

    /// Whether spending it takes a Taproot signature.
    pub(crate) fn is_taproot(self) -> bool {
        matches!(self, Self::P2trKey | Self::P2trScript)
    }

    /// Whether what it takes to spend it stands (also) in the scriptSig.
    pub(crate) fn is_legacy(self) -> bool {
        matches!(
            self,
            Self::P2pk { .. } | Self::P2pkh { .. } | Self::Multisig(_) | Self::P2shMultisig(_)
        )
    }
}

/// Who owns an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Owner {
    /// One of the wallets with keys from the grid.
    Wallet(u32),
    /// A BIP 32 wallet.
    Hd {
        wallet: u32,
        internal: bool,
        index: u32,
    },
}

/// Derives keys and scripts of addresses.
#[derive(Debug, Clone)]
pub(crate) struct AddressBook {
    seed: u64,
    wallets: u32,
    keys: KeyGrid,
    hd: Vec<HdWallet>,
}

impl AddressBook {
    pub(crate) fn new(seed: u64, wallets: u32) -> Self {
        let keys = KeyGrid::new(seed);
        let hd = HdWallet::all(keys.secp(), seed);
        Self {
            seed,
            wallets: wallets.max(1),
            keys,
            hd,
        }
    }

    /// Makes addresses up to and including `id` available.
    pub(crate) fn extend_to(&mut self, id: AddressId) {
        self.keys.extend_to(key_id(id, KEYS_EACH - 1));
    }

    pub(crate) fn secp(&self) -> &Secp256k1<All> {
        self.keys.secp()
    }

    pub(crate) fn hd_wallets(&self) -> &[HdWallet] {
        &self.hd
    }

    pub(crate) fn owner(&self, id: AddressId) -> Owner {
        if id % HD_EVERY != HD_EVERY - 1 {
            return Owner::Wallet(id % self.wallets);
        }
        let n = id / HD_EVERY;
        Owner::Hd {
            wallet: n % HD_WALLETS,
            internal: n / HD_WALLETS % 2 == 1,
            index: n / HD_WALLETS / 2,
        }
    }

    pub(crate) fn kind(&self, id: AddressId) -> ScriptKind {
        if id == ANCHOR {
            return ScriptKind::P2a;
        }
        if let Owner::Hd { wallet, .. } = self.owner(id) {
            return self.hd_wallet(wallet).script_kind();
        }
        let draw = mix(self.seed ^ mix(u64::from(id)));
        let variant = draw >> 32;
        let quorum = if variant.is_multiple_of(3) {
            Quorum::OneOfTwo
        } else {
            Quorum::TwoOfThree
        };
        let compressed = !variant.is_multiple_of(8);
        match draw % 1000 {
            0..25 => ScriptKind::P2pk { compressed },
            25..180 => ScriptKind::P2pkh { compressed },
            180..205 => ScriptKind::Multisig(quorum),
            205..245 => ScriptKind::P2shMultisig(quorum),
            245..335 => ScriptKind::P2shP2wpkh,
            335..395 => ScriptKind::P2wshMultisig(quorum),
            395..405 => ScriptKind::P2wshCltv {
                height: u32::try_from(1 + variant % 100).expect("at most 100"),
            },
            405..415 => ScriptKind::P2wshCsv {
                blocks: u16::try_from(1 + variant % 12).expect("at most 12"),
            },
            415..560 => ScriptKind::P2trKey,
            560..620 => ScriptKind::P2trScript,
            _ => ScriptKind::P2wpkh,
        }
    }

    /// Secret key `slot` (0 to 2) of an address.
    pub(crate) fn secret(&self, id: AddressId, slot: u64) -> SecretKey {
        match self.owner(id) {
            Owner::Wallet(_) => self.keys.secret(key_id(id, slot)),
            Owner::Hd {
                wallet,
                internal,
                index,
            } => self.hd_wallet(wallet).secret(self.secp(), internal, index),
        }
    }

    /// Public key `slot` (0 to 2) of an address.
    pub(crate) fn public(&self, id: AddressId, slot: u64) -> PublicKey {
        match self.owner(id) {
            Owner::Wallet(_) => self.keys.public(key_id(id, slot)),
            Owner::Hd { .. } => self.secret(id, slot).public_key(self.secp()),
        }
    }

    /// Public key 0 as it stands in the scripts of a P2PK or P2PKH address.
    pub(crate) fn legacy_key(&self, id: AddressId, compressed: bool) -> bitcoin::PublicKey {
        bitcoin::PublicKey {
            compressed,
            inner: self.public(id, 0),
        }
    }

    /// The script that outputs to an address carry.
    pub(crate) fn script_pubkey(&self, id: AddressId) -> ScriptBuf {
        match self.kind(id) {
            ScriptKind::P2pk { compressed } => {
                ScriptBuf::new_p2pk(&self.legacy_key(id, compressed))
            }
            ScriptKind::P2pkh { compressed } => {
                ScriptBuf::new_p2pkh(&self.legacy_key(id, compressed).pubkey_hash())
            }
            ScriptKind::Multisig(quorum) => self.multisig_script(id, quorum),
            ScriptKind::P2shMultisig(quorum) => self.multisig_script(id, quorum).to_p2sh(),
            ScriptKind::P2shP2wpkh => ScriptBuf::new_p2wpkh(&self.wpkh(id)).to_p2sh(),
            ScriptKind::P2wpkh => ScriptBuf::new_p2wpkh(&self.wpkh(id)),
            ScriptKind::P2wshMultisig(quorum) => self.multisig_script(id, quorum).to_p2wsh(),
            ScriptKind::P2wshCltv { height } => self.cltv_script(id, height).to_p2wsh(),
            ScriptKind::P2wshCsv { blocks } => self.csv_script(id, blocks).to_p2wsh(),
            ScriptKind::P2trKey => {
                let internal_key = self.x_only(id, 0);
                ScriptBuf::new_p2tr(self.secp(), internal_key, None)
            }
            ScriptKind::P2trScript => {
                let internal_key = self.x_only(id, 0);
                let root = self.tap_root(id);
                let (output_key, _) = internal_key.tap_tweak(self.secp(), Some(root));
                ScriptBuf::new_p2tr_tweaked(output_key)
            }
            ScriptKind::P2a => anchor_script(),
        }
    }

    pub(crate) fn wpkh(&self, id: AddressId) -> WPubkeyHash {
        bitcoin::CompressedPublicKey(self.public(id, 0)).wpubkey_hash()
    }

    pub(crate) fn x_only(&self, id: AddressId, slot: u64) -> XOnlyPublicKey {
        self.public(id, slot).x_only_public_key().0
    }

    pub(crate) fn multisig_script(&self, id: AddressId, quorum: Quorum) -> ScriptBuf {
        let mut builder = Builder::new().push_opcode(match quorum {
            Quorum::OneOfTwo => OP_PUSHNUM_1,
            Quorum::TwoOfThree => OP_PUSHNUM_2,
        });
        for slot in 0..u64::from(quorum.keys()) {
            builder = builder.push_key(&bitcoin::PublicKey::new(self.public(id, slot)));
        }
        builder
            .push_opcode(match quorum {
                Quorum::OneOfTwo => OP_PUSHNUM_2,
                Quorum::TwoOfThree => OP_PUSHNUM_3,
            })
            .push_opcode(OP_CHECKMULTISIG)
            .into_script()
    }

    pub(crate) fn cltv_script(&self, id: AddressId, height: u32) -> ScriptBuf {
        self.locked_script(id, i64::from(height), OP_CLTV)
    }

    pub(crate) fn csv_script(&self, id: AddressId, blocks: u16) -> ScriptBuf {
        self.locked_script(id, i64::from(blocks), OP_CSV)
    }

    fn locked_script(&self, id: AddressId, lock: i64, opcode: bitcoin::Opcode) -> ScriptBuf {
        Builder::new()
            .push_int(lock)
            .push_opcode(opcode)
            .push_opcode(OP_DROP)
            .push_key(&bitcoin::PublicKey::new(self.public(id, 0)))
            .push_opcode(OP_CHECKSIG)
            .into_script()
    }

    /// The leaf by which a P2TR script address is spent.
    pub(crate) fn tap_leaf(&self, id: AddressId) -> ScriptBuf {
        Builder::new()
            .push_x_only_key(&self.x_only(id, 1))
            .push_opcode(OP_CHECKSIG)
            .into_script()
    }

    /// Hash of the leaf beside it, which nobody uses: a later spend by another key.
    pub(crate) fn tap_sibling(&self, id: AddressId) -> TapNodeHash {
        let script = Builder::new()
            .push_int(144)
            .push_opcode(OP_CSV)
            .push_opcode(OP_DROP)
            .push_x_only_key(&self.x_only(id, 2))
            .push_opcode(OP_CHECKSIG)
            .into_script();
        TapNodeHash::from_script(&script, LeafVersion::TapScript)
    }

    /// Root of the two leaves.
    pub(crate) fn tap_root(&self, id: AddressId) -> TapNodeHash {
        let leaf = TapNodeHash::from_script(&self.tap_leaf(id), LeafVersion::TapScript);
        TapNodeHash::from_node_hashes(leaf, self.tap_sibling(id))
    }

    fn hd_wallet(&self, wallet: u32) -> &HdWallet {
        &self.hd[usize::try_from(wallet).expect("one of four")]
    }
}

/// The P2A script: witness version 1 with the program `4e73`.
pub(crate) fn anchor_script() -> ScriptBuf {
    Builder::new()
        .push_opcode(OP_PUSHNUM_1)
        .push_slice([0x4e, 0x73])
        .into_script()
}

/// An OP_RETURN script with at most 80 bytes of data.
pub(crate) fn data_script(data: &[u8]) -> ScriptBuf {
    let data = PushBytesBuf::try_from(data.to_vec()).expect("data is short");
    ScriptBuf::new_op_return(data)
}

fn key_id(id: AddressId, slot: u64) -> u64 {
    u64::from(id) * KEYS_EACH + slot
}

/// A bijection of 64-bit numbers without visible structure (the finaliser of SplitMix64).
fn mix(mut x: u64) -> u64 {
    x = x.wrapping_add(0x9e37_79b9_7f4a_7c15);
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn addresses_are_distinct_and_of_every_kind() {
        let mut book = AddressBook::new(3, 10);
        book.extend_to(3_000);
        let scripts: HashSet<_> = (0..3_000).map(|id| book.script_pubkey(id)).collect();
        assert_eq!(scripts.len(), 3_000);
        let kinds: HashSet<_> = (0..3_000)
            .map(|id| std::mem::discriminant(&book.kind(id)))
            .collect();
        assert_eq!(kinds.len(), 11, "all kinds but P2A, which has no number");
    }

    #[test]
    fn descriptor_wallets_use_their_addresses_in_order() {
        let book = AddressBook::new(3, 10);
        let mut next = [[0u32; 2]; 4];
        for id in 0..10_000 {
            if let Owner::Hd {
                wallet,
                internal,
                index,
            } = book.owner(id)
            {
                let slot = &mut next[wallet as usize][usize::from(internal)];
                assert_eq!(index, *slot);
                *slot += 1;
            }
        }
        assert!(next.iter().flatten().all(|count| *count > 10));
    }

    #[test]
    fn anchor_is_the_script_of_core() {
        assert_eq!(anchor_script().to_hex_string(), "51024e73");
    }
}
