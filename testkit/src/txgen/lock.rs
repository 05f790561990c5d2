//! What locks an output, and what opens it.

use bitcoin::{
    CompressedPublicKey, PublicKey, ScriptBuf, WitnessProgram, WitnessVersion, XOnlyPublicKey,
    hashes::{Hash, hash160, sha256},
    key::TapTweak,
    opcodes::all as op,
    script::{Builder, PushBytesBuf},
    secp256k1::{All, Keypair, Secp256k1, SecretKey},
    taproot::{LeafVersion, TapNodeHash},
};

/// Where a script stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Container {
    /// The output's script itself.
    Bare,
    /// Behind a script hash (BIP 16).
    P2sh,
    /// Behind a witness script hash (BIP 141).
    P2wsh,
    /// The same behind a script hash.
    P2shP2wsh,
    /// Behind a witness key hash; there is no other script.
    P2wpkh,
    /// The same behind a script hash.
    P2shP2wpkh,
    /// A Taproot output spent by its key (BIP 341).
    TapKey,
    /// A Taproot output spent by the script, its only leaf (BIP 342).
    TapLeaf(u8),
    /// A witness program of a version without meaning yet, or the anchor program.
    Program,
}

/// An element that opens a script.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Item {
    /// A signature of the key with this number.
    Sig(u8),
    /// The public key with this number.
    Key(u8),
    /// These bytes.
    Bytes(Vec<u8>),
}

/// An output script with everything that spends it.
#[derive(Debug, Clone)]
pub struct Lock {
    /// Name, for reports.
    pub name: &'static str,
    /// Where the script stands.
    pub container: Container,
    /// The script that is executed; empty where there is none.
    pub script: ScriptBuf,
    /// What opens it, bottom of the stack first.
    pub items: Vec<Item>,
    /// Height from which it can be spent (`OP_CHECKLOCKTIMEVERIFY`).
    pub lock_height: Option<u32>,
    /// Blocks that it must be old (`OP_CHECKSEQUENCEVERIFY`).
    pub lock_blocks: Option<u16>,
}

/// Keys that anyone can have.
#[derive(Debug, Clone)]
pub struct Keys {
    /// The curve.
    pub secp: Secp256k1<All>,
    secrets: Vec<SecretKey>,
}

impl Default for Keys {
    fn default() -> Self {
        let secrets = (1..=8_u8)
            .map(|number| {
                SecretKey::from_slice(sha256::Hash::hash(&[number]).as_byte_array())
                    .expect("a hash is a key")
            })
            .collect();
        Self {
            secp: Secp256k1::new(),
            secrets,
        }
    }
}

impl Keys {
    /// The secret key with this number.
    #[must_use]
    pub fn secret(&self, number: u8) -> SecretKey {
        self.secrets[usize::from(number) % self.secrets.len()]
    }

    /// Its public key.
    #[must_use]
    pub fn public(&self, number: u8) -> PublicKey {
        PublicKey::new(self.secret(number).public_key(&self.secp))
    }

    /// Its public key in Taproot's form.
    #[must_use]
    pub fn x_only(&self, number: u8) -> XOnlyPublicKey {
        self.keypair(number).x_only_public_key().0
    }

    /// The pair.
    #[must_use]
    pub fn keypair(&self, number: u8) -> Keypair {
        Keypair::from_secret_key(&self.secp, &self.secret(number))
    }
}

impl Lock {
    /// The output's script.
    #[must_use]
    pub fn script_pubkey(&self, keys: &Keys) -> ScriptBuf {
        match self.container {
            Container::Bare | Container::Program => self.script.clone(),
            Container::P2sh => self.script.to_p2sh(),
            Container::P2wsh => self.script.to_p2wsh(),
            Container::P2shP2wsh => self.script.to_p2wsh().to_p2sh(),
            Container::P2wpkh => Self::wpkh(keys),
            Container::P2shP2wpkh => Self::wpkh(keys).to_p2sh(),
            Container::TapKey => {
                ScriptBuf::new_p2tr(&keys.secp, keys.x_only(0), None::<TapNodeHash>)
            }
            Container::TapLeaf(_) => {
                ScriptBuf::new_p2tr(&keys.secp, keys.x_only(0), Some(self.leaf_hash()))
            }
        }
    }

    /// The witness program of key 0.
    #[must_use]
    pub fn wpkh(keys: &Keys) -> ScriptBuf {
        ScriptBuf::new_p2wpkh(&CompressedPublicKey(keys.public(0).inner).wpubkey_hash())
    }

    /// Hash of the only leaf.
    ///
    /// # Panics
    /// If the script is no leaf.
    #[must_use]
    pub fn leaf_hash(&self) -> TapNodeHash {
        TapNodeHash::from_script(&self.script, self.leaf_version())
    }

    /// Version of the only leaf.
    ///
    /// # Panics
    /// If the script is no leaf.
    #[must_use]
    pub fn leaf_version(&self) -> LeafVersion {
        match self.container {
            Container::TapLeaf(version) => {
                LeafVersion::from_consensus(version).expect("an even version")
            }
            other => panic!("{other:?} has no leaf"),
        }
    }

    /// Whether the output's Y coordinate is odd, for the control block.
    #[must_use]
    pub fn output_parity(&self, keys: &Keys) -> bitcoin::secp256k1::Parity {
        keys.x_only(0)
            .tap_tweak(&keys.secp, Some(self.leaf_hash()))
            .1
    }

    fn new(name: &'static str, container: Container, script: Builder, items: Vec<Item>) -> Self {
        Self {
            name,
            container,
            script: script.into_script(),
            items,
            lock_height: None,
            lock_blocks: None,
        }
    }
}

/// Bytes as an element of a script.
#[must_use]
pub fn push(bytes: Vec<u8>) -> PushBytesBuf {
    PushBytesBuf::try_from(bytes).expect("below 2^32 bytes")
}

fn multisig(keys: &Keys, needed: i64, of: u8) -> Builder {
    let mut builder = Builder::new().push_int(needed);
    for number in 0..of {
        builder = builder.push_key(&keys.public(number));
    }
    builder
        .push_int(of.into())
        .push_opcode(op::OP_CHECKMULTISIG)
}

fn multisig_items(needed: u8) -> Vec<Item> {
    let mut items = vec![Item::Bytes(vec![])];
    items.extend((0..needed).map(Item::Sig));
    items
}

/// Locks that wallets use. `height` is about where the chain will stand.
#[must_use]
pub fn usual(keys: &Keys, height: u32) -> Vec<Lock> {
    use Container as C;
    let key = || {
        Builder::new()
            .push_key(&keys.public(0))
            .push_opcode(op::OP_CHECKSIG)
    };
    let pkh = || {
        let hash = hash160::Hash::hash(&keys.public(0).to_bytes());
        Builder::new()
            .push_opcode(op::OP_DUP)
            .push_opcode(op::OP_HASH160)
            .push_slice(hash.to_byte_array())
            .push_opcode(op::OP_EQUALVERIFY)
            .push_opcode(op::OP_CHECKSIG)
    };
    let tap_key = || {
        Builder::new()
            .push_x_only_key(&keys.x_only(1))
            .push_opcode(op::OP_CHECKSIG)
    };
    let cltv = Builder::new()
        .push_int(i64::from(height) - 5)
        .push_opcode(op::OP_CLTV)
        .push_opcode(op::OP_DROP)
        .push_key(&keys.public(0))
        .push_opcode(op::OP_CHECKSIG);
    let csv = Builder::new()
        .push_int(3)
        .push_opcode(op::OP_CSV)
        .push_opcode(op::OP_DROP)
        .push_key(&keys.public(0))
        .push_opcode(op::OP_CHECKSIG);
    let hash_lock = || {
        Builder::new()
            .push_opcode(op::OP_SHA256)
            .push_slice(sha256::Hash::hash(b"preimage").to_byte_array())
            .push_opcode(op::OP_EQUALVERIFY)
            .push_key(&keys.public(0))
            .push_opcode(op::OP_CHECKSIG)
    };
    let hash_items = || vec![Item::Sig(0), Item::Bytes(b"preimage".to_vec())];
    vec![
        Lock::new("p2pk", C::Bare, key(), vec![Item::Sig(0)]),
        Lock::new("p2pkh", C::Bare, pkh(), vec![Item::Sig(0), Item::Key(0)]),
        Lock::new(
            "multisig-1of2",
            C::Bare,
            multisig(keys, 1, 2),
            multisig_items(1),
        ),
        Lock::new(
            "multisig-2of3",
            C::Bare,
            multisig(keys, 2, 3),
            multisig_items(2),
        ),
        Lock::new(
            "p2sh-multisig",
            C::P2sh,
            multisig(keys, 2, 3),
            multisig_items(2),
        ),
        Lock::new("p2sh-p2pk", C::P2sh, key(), vec![Item::Sig(0)]),
        Lock::new("p2sh-hash", C::P2sh, hash_lock(), hash_items()),
        Lock::new(
            "p2wpkh",
            C::P2wpkh,
            Builder::new(),
            vec![Item::Sig(0), Item::Key(0)],
        ),
        Lock::new(
            "p2sh-p2wpkh",
            C::P2shP2wpkh,
            Builder::new(),
            vec![Item::Sig(0), Item::Key(0)],
        ),
        Lock::new("p2wsh-p2pk", C::P2wsh, key(), vec![Item::Sig(0)]),
        Lock::new(
            "p2wsh-multisig",
            C::P2wsh,
            multisig(keys, 2, 3),
            multisig_items(2),
        ),
        Lock::new("p2wsh-hash", C::P2wsh, hash_lock(), hash_items()),
        Lock::new(
            "p2sh-p2wsh",
            C::P2shP2wsh,
            multisig(keys, 1, 2),
            multisig_items(1),
        ),
        Lock {
            lock_height: Some(height - 5),
            ..Lock::new("p2wsh-cltv", C::P2wsh, cltv, vec![Item::Sig(0)])
        },
        Lock {
            lock_blocks: Some(3),
            ..Lock::new("p2wsh-csv", C::P2wsh, csv, vec![Item::Sig(0)])
        },
        Lock::new("p2tr-key", C::TapKey, Builder::new(), vec![Item::Sig(0)]),
        Lock::new("p2tr-leaf", C::TapLeaf(0xc0), tap_key(), vec![Item::Sig(1)]),
    ]
}

/// Locks at the edge of policy: what they spend is unusual or refused by itself.
#[must_use]
pub fn unusual(keys: &Keys) -> Vec<Lock> {
    use Container as C;
    let one = || Builder::new().push_int(1);
    let checksigs = |count: usize| {
        let mut script = Builder::new();
        for _ in 0..count {
            script = script
                .push_key(&keys.public(0))
                .push_opcode(op::OP_CHECKSIG)
                .push_opcode(op::OP_DROP);
        }
        script.push_int(1)
    };
    let program = |version, len: usize| {
        let program = WitnessProgram::new(version, &vec![7; len]).expect("2 to 40 bytes");
        Builder::from(ScriptBuf::new_witness_program(&program).into_bytes())
    };
    let sig0 = || vec![Item::Sig(0)];
    let uncompressed = {
        let mut key = keys.public(0);
        key.compressed = false;
        key
    };
    let if_script = || {
        Builder::new()
            .push_opcode(op::OP_IF)
            .push_int(1)
            .push_opcode(op::OP_ELSE)
            .push_int(0)
            .push_opcode(op::OP_ENDIF)
    };
    let many = |count: usize| vec![Item::Bytes(vec![1]); count];
    let drops = |count: usize| {
        let mut script = Builder::new();
        for _ in 0..count {
            script = script.push_opcode(op::OP_DROP);
        }
        script.push_int(1)
    };
    let long = |len: usize| {
        let mut script = Builder::new();
        for _ in 0..len / 502 {
            script = script
                .push_slice(push(vec![1; 498]))
                .push_opcode(op::OP_DROP);
        }
        script.push_int(1)
    };
    vec![
        Lock::new("bare-true", C::Bare, one(), vec![]),
        Lock::new("p2sh-true", C::P2sh, one(), vec![]),
        Lock::new("p2wsh-true", C::P2wsh, one(), vec![]),
        Lock::new("p2wsh-false", C::P2wsh, Builder::new().push_int(0), vec![]),
        Lock::new("p2sh-false", C::P2sh, Builder::new().push_int(0), vec![]),
        Lock::new("tap-true", C::TapLeaf(0xc0), one(), vec![]),
        Lock::new(
            "tap-false",
            C::TapLeaf(0xc0),
            Builder::new().push_int(0),
            vec![],
        ),
        Lock::new(
            "anchor",
            C::Program,
            Builder::from(vec![0x51, 0x02, 0x4e, 0x73]),
            vec![],
        ),
        Lock::new(
            "witness-v1-short",
            C::Program,
            program(WitnessVersion::V1, 20),
            vec![],
        ),
        Lock::new(
            "witness-v2",
            C::Program,
            program(WitnessVersion::V2, 32),
            vec![],
        ),
        Lock::new(
            "witness-v16",
            C::Program,
            program(WitnessVersion::V16, 2),
            vec![],
        ),
        Lock::new(
            "p2sh-15-sigops",
            C::P2sh,
            checksigs(15),
            vec![Item::Bytes(vec![]); 15],
        ),
        Lock::new(
            "p2sh-16-sigops",
            C::P2sh,
            checksigs(16),
            vec![Item::Bytes(vec![]); 16],
        ),
        Lock::new(
            "p2wsh-sigops",
            C::P2wsh,
            checksigs(60),
            vec![Item::Bytes(vec![]); 60],
        ),
        Lock::new(
            "p2wsh-minimal-if-1",
            C::P2wsh,
            if_script(),
            vec![Item::Bytes(vec![1])],
        ),
        Lock::new(
            "p2wsh-minimal-if-2",
            C::P2wsh,
            if_script(),
            vec![Item::Bytes(vec![2])],
        ),
        Lock::new(
            "tap-minimal-if-2",
            C::TapLeaf(0xc0),
            if_script(),
            vec![Item::Bytes(vec![2])],
        ),
        Lock::new("p2wsh-100-items", C::P2wsh, drops(100), many(100)),
        Lock::new("p2wsh-101-items", C::P2wsh, drops(101), many(101)),
        Lock::new(
            "p2wsh-item-80",
            C::P2wsh,
            drops(1),
            vec![Item::Bytes(vec![1; 80])],
        ),
        Lock::new(
            "p2wsh-item-81",
            C::P2wsh,
            drops(1),
            vec![Item::Bytes(vec![1; 81])],
        ),
        Lock::new(
            "tap-item-80",
            C::TapLeaf(0xc0),
            drops(1),
            vec![Item::Bytes(vec![1; 80])],
        ),
        Lock::new(
            "tap-item-81",
            C::TapLeaf(0xc0),
            drops(1),
            vec![Item::Bytes(vec![1; 81])],
        ),
        Lock::new("p2wsh-script-3515", C::P2wsh, long(3_515), vec![]),
        Lock::new("p2wsh-script-4017", C::P2wsh, long(4_017), vec![]),
        Lock::new("p2wsh-leftover", C::P2wsh, one(), many(1)),
        Lock::new("p2sh-leftover", C::P2sh, one(), many(1)),
        Lock::new("tap-leftover", C::TapLeaf(0xc0), one(), many(1)),
        Lock::new(
            "tap-op-success",
            C::TapLeaf(0xc0),
            Builder::new().push_opcode(op::OP_RESERVED),
            vec![],
        ),
        Lock::new("tap-leaf-version", C::TapLeaf(0xc2), one(), vec![]),
        Lock::new(
            "tap-key-33-bytes",
            C::TapLeaf(0xc0),
            Builder::new()
                .push_key(&keys.public(1))
                .push_opcode(op::OP_CHECKSIG),
            vec![Item::Sig(1)],
        ),
        Lock::new(
            "tap-checkmultisig",
            C::TapLeaf(0xc0),
            multisig(keys, 1, 2),
            multisig_items(1),
        ),
        Lock::new(
            "p2wsh-uncompressed",
            C::P2wsh,
            Builder::new()
                .push_key(&uncompressed)
                .push_opcode(op::OP_CHECKSIG),
            sig0(),
        ),
        Lock::new(
            "p2sh-uncompressed",
            C::P2sh,
            Builder::new()
                .push_key(&uncompressed)
                .push_opcode(op::OP_CHECKSIG),
            sig0(),
        ),
        Lock::new(
            "bare-uncompressed",
            C::Bare,
            Builder::new()
                .push_key(&uncompressed)
                .push_opcode(op::OP_CHECKSIG),
            sig0(),
        ),
        Lock::new(
            "p2sh-nop10",
            C::P2sh,
            one().push_opcode(op::OP_NOP10),
            vec![],
        ),
        Lock::new(
            "p2wsh-nop10",
            C::P2wsh,
            one().push_opcode(op::OP_NOP10),
            vec![],
        ),
        Lock::new(
            "p2sh-codeseparator",
            C::P2sh,
            Builder::new()
                .push_opcode(op::OP_CODESEPARATOR)
                .push_key(&keys.public(0))
                .push_opcode(op::OP_CHECKSIG),
            sig0(),
        ),
        Lock::new(
            "p2sh-number-padded",
            C::P2sh,
            Builder::new().push_int(1).push_opcode(op::OP_NUMEQUAL),
            vec![Item::Bytes(vec![1, 0])],
        ),
        Lock::new(
            "p2sh-disabled",
            C::P2sh,
            one().push_opcode(op::OP_CAT),
            many(1),
        ),
        Lock::new(
            "p2sh-return",
            C::P2sh,
            Builder::new().push_opcode(op::OP_RETURN),
            vec![],
        ),
        Lock::new(
            "p2wsh-nullfail",
            C::P2wsh,
            Builder::new()
                .push_key(&keys.public(1))
                .push_opcode(op::OP_CHECKSIG)
                .push_opcode(op::OP_NOT),
            sig0(),
        ),
        Lock::new(
            "p2sh-nullfail",
            C::P2sh,
            Builder::new()
                .push_key(&keys.public(1))
                .push_opcode(op::OP_CHECKSIG)
                .push_opcode(op::OP_NOT),
            sig0(),
        ),
        Lock::new(
            "p2sh-nulldummy",
            C::P2sh,
            multisig(keys, 1, 1),
            vec![Item::Bytes(vec![1]), Item::Sig(0)],
        ),
        Lock::new(
            "p2wsh-nulldummy",
            C::P2wsh,
            multisig(keys, 1, 1),
            vec![Item::Bytes(vec![1]), Item::Sig(0)],
        ),
        Lock::new(
            "p2wsh-if-unbalanced",
            C::P2wsh,
            Builder::new().push_int(1).push_opcode(op::OP_IF),
            many(1),
        ),
        Lock::new(
            "p2wsh-20-of-20",
            C::P2wsh,
            {
                let mut script = Builder::new().push_int(1);
                for number in 0..20 {
                    script = script.push_key(&keys.public(number));
                }
                script.push_int(20).push_opcode(op::OP_CHECKMULTISIG)
            },
            multisig_items(1),
        ),
    ]
}
