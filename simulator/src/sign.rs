//! Turns a planned transaction into a real one: scripts, signatures, txid.

use bitcoin::{
    Amount, EcdsaSighashType, OutPoint, ScriptBuf, TapLeafHash, TapSighashType, Transaction, TxIn,
    TxOut, Txid, Witness, Wtxid,
    absolute::LockTime,
    ecdsa,
    hashes::Hash,
    key::TapTweak,
    script::{Builder, PushBytesBuf},
    secp256k1::{Keypair, Message, Parity, Scalar, SecretKey},
    sighash::{Prevouts, SighashCache},
    taproot::{ControlBlock, LeafVersion, TapTweakHash, TaprootMerkleBranch},
    transaction::Version,
};

use crate::{
    address::{AddressBook, AddressId, Quorum, ScriptKind, data_script},
    plan::{Payee, PlannedInput, PlannedTx, Source},
};

/// A finished transaction with its ids.
#[derive(Debug, Clone)]
pub(crate) struct SignedTx {
    pub(crate) tx: Transaction,
    pub(crate) txid: Txid,
    pub(crate) wtxid: Wtxid,
}

/// Builds and signs `plan`. `parent` tells the txid of an earlier transaction of the
/// block by its index in the plan.
pub(crate) fn build(
    book: &AddressBook,
    plan: &PlannedTx,
    parent: impl Fn(usize) -> Txid,
) -> SignedTx {
    let mut tx = Transaction {
        version: Version(plan.version),
        lock_time: LockTime::from_consensus(plan.lock_time),
        input: plan
            .inputs
            .iter()
            .map(|input| TxIn {
                previous_output: match input.source {
                    Source::Chain(outpoint) => outpoint,
                    Source::Block { tx, vout } => OutPoint::new(parent(tx), vout),
                },
                script_sig: ScriptBuf::new(),
                sequence: input.sequence,
                witness: Witness::new(),
            })
            .collect(),
        output: plan
            .outputs
            .iter()
            .map(|output| TxOut {
                value: Amount::from_sat(output.value),
                script_pubkey: match &output.payee {
                    Payee::Address(address) => book.script_pubkey(*address),
                    Payee::Data(data) => data_script(data),
                },
            })
            .collect(),
    };
    let solutions = Signer::new(book, &tx, &plan.inputs).solve_all();
    for (input, (script_sig, witness)) in tx.input.iter_mut().zip(solutions) {
        input.script_sig = script_sig;
        input.witness = witness;
    }
    let txid = tx.compute_txid();
    let wtxid = tx.compute_wtxid();
    SignedTx { tx, txid, wtxid }
}

struct Signer<'a> {
    book: &'a AddressBook,
    inputs: &'a [PlannedInput],
    cache: SighashCache<&'a Transaction>,
    /// All spent outputs if a Taproot signature needs them, else none.
    prevouts: Vec<TxOut>,
}

impl<'a> Signer<'a> {
    fn new(book: &'a AddressBook, tx: &'a Transaction, inputs: &'a [PlannedInput]) -> Self {
        let needs_prevouts = inputs
            .iter()
            .any(|input| book.kind(input.address).is_taproot());
        let prevouts = inputs
            .iter()
            .filter(|_| needs_prevouts)
            .map(|input| TxOut {
                value: Amount::from_sat(input.value),
                script_pubkey: book.script_pubkey(input.address),
            })
            .collect();
        Self {
            book,
            inputs,
            cache: SighashCache::new(tx),
            prevouts,
        }
    }

    fn solve_all(mut self) -> Vec<(ScriptBuf, Witness)> {
        (0..self.inputs.len())
            .map(|index| self.solve(index))
            .collect()
    }

    /// The scriptSig and witness of an input.
    fn solve(&mut self, index: usize) -> (ScriptBuf, Witness) {
        let id = self.inputs[index].address;
        let book = self.book;
        let kind = book.kind(id);
        if kind.is_legacy() {
            return (self.solve_legacy(index, id, kind), Witness::new());
        }
        match kind {
            ScriptKind::P2shP2wpkh => {
                let program = ScriptBuf::new_p2wpkh(&book.wpkh(id));
                let script_sig = Builder::new()
                    .push_slice(PushBytesBuf::try_from(program.to_bytes()).expect("22 bytes"))
                    .into_script();
                (script_sig, self.solve_wpkh(index, id))
            }
            ScriptKind::P2wpkh => (ScriptBuf::new(), self.solve_wpkh(index, id)),
            ScriptKind::P2wshMultisig(quorum) => {
                let script = book.multisig_script(id, quorum);
                (
                    ScriptBuf::new(),
                    self.solve_wsh_multisig(index, id, quorum, &script),
                )
            }
            ScriptKind::P2wshCltv { height } => {
                let script = book.cltv_script(id, height);
                (ScriptBuf::new(), self.solve_wsh(index, id, &script))
            }
            ScriptKind::P2wshCsv { blocks } => {
                let script = book.csv_script(id, blocks);
                (ScriptBuf::new(), self.solve_wsh(index, id, &script))
            }
            ScriptKind::P2trKey => (ScriptBuf::new(), self.solve_tap_key(index, id)),
            ScriptKind::P2trScript => (ScriptBuf::new(), self.solve_tap_script(index, id)),
            _ => (ScriptBuf::new(), Witness::new()),
        }
    }

    fn solve_legacy(&self, index: usize, id: AddressId, kind: ScriptKind) -> ScriptBuf {
        let book = self.book;
        match kind {
            ScriptKind::P2pk { .. } => {
                let signature = self.sign_legacy(index, &book.script_pubkey(id), id, 0);
                Builder::new().push_slice(push(&signature)).into_script()
            }
            ScriptKind::P2pkh { compressed } => {
                let key = book.legacy_key(id, compressed);
                let script = ScriptBuf::new_p2pkh(&key.pubkey_hash());
                let signature = self.sign_legacy(index, &script, id, 0);
                Builder::new()
                    .push_slice(push(&signature))
                    .push_key(&key)
                    .into_script()
            }
            ScriptKind::Multisig(quorum) => {
                self.multisig_signatures(index, id, quorum).0.into_script()
            }
            ScriptKind::P2shMultisig(quorum) => {
                let (builder, script) = self.multisig_signatures(index, id, quorum);
                builder
                    .push_slice(PushBytesBuf::try_from(script.into_bytes()).expect("105 bytes"))
                    .into_script()
            }
            other => unreachable!("{other:?} is not a legacy script"),
        }
    }

    fn multisig_signatures(
        &self,
        index: usize,
        id: AddressId,
        quorum: Quorum,
    ) -> (Builder, ScriptBuf) {
        let script = self.book.multisig_script(id, quorum);
        // CHECKMULTISIG takes one element more than it uses (BIP 147).
        let mut builder = Builder::new().push_int(0);
        for slot in 0..u64::from(quorum.signatures()) {
            let signature = self.sign_legacy(index, &script, id, slot);
            builder = builder.push_slice(push(&signature));
        }
        (builder, script)
    }

    fn solve_wpkh(&mut self, index: usize, id: AddressId) -> Witness {
        let public = self.book.public(id, 0);
        let script_pubkey =
            ScriptBuf::new_p2wpkh(&bitcoin::CompressedPublicKey(public).wpubkey_hash());
        let sighash = self
            .cache
            .p2wpkh_signature_hash(
                index,
                &script_pubkey,
                Amount::from_sat(self.inputs[index].value),
                EcdsaSighashType::All,
            )
            .expect("the input exists and the script is P2WPKH");
        let signature = self.sign_ecdsa(sighash.to_byte_array(), id, 0);
        Witness::p2wpkh(&signature, &public)
    }

    fn solve_wsh_multisig(
        &mut self,
        index: usize,
        id: AddressId,
        quorum: Quorum,
        script: &ScriptBuf,
    ) -> Witness {
        let sighash = self.wsh_sighash(index, script);
        let mut witness = Witness::new();
        witness.push([]);
        for slot in 0..u64::from(quorum.signatures()) {
            witness.push_ecdsa_signature(&self.sign_ecdsa(sighash, id, slot));
        }
        witness.push(script.as_bytes());
        witness
    }

    fn solve_wsh(&mut self, index: usize, id: AddressId, script: &ScriptBuf) -> Witness {
        let sighash = self.wsh_sighash(index, script);
        let mut witness = Witness::new();
        witness.push_ecdsa_signature(&self.sign_ecdsa(sighash, id, 0));
        witness.push(script.as_bytes());
        witness
    }

    fn wsh_sighash(&mut self, index: usize, script: &ScriptBuf) -> [u8; 32] {
        self.cache
            .p2wsh_signature_hash(
                index,
                script,
                Amount::from_sat(self.inputs[index].value),
                EcdsaSighashType::All,
            )
            .expect("the input exists")
            .to_byte_array()
    }

    fn solve_tap_key(&mut self, index: usize, id: AddressId) -> Witness {
        let sighash = self
            .cache
            .taproot_key_spend_signature_hash(
                index,
                &Prevouts::All(&self.prevouts),
                TapSighashType::Default,
            )
            .expect("all prevouts are given");
        // The tweak on the secret side alone, which spares a multiplication on the curve.
        let (internal_key, parity) = self.book.public(id, 0).x_only_public_key();
        let secret = even(self.book.secret(id, 0), parity);
        let tweak = TapTweakHash::from_key_and_tweak(internal_key, None).to_scalar();
        let tweaked = add(secret, &tweak);
        let mut witness = Witness::new();
        witness.push(self.sign_schnorr(sighash.to_byte_array(), &tweaked));
        witness
    }

    fn solve_tap_script(&mut self, index: usize, id: AddressId) -> Witness {
        let leaf = self.book.tap_leaf(id);
        let sighash = self
            .cache
            .taproot_script_spend_signature_hash(
                index,
                &Prevouts::All(&self.prevouts),
                TapLeafHash::from_script(&leaf, LeafVersion::TapScript),
                TapSighashType::Default,
            )
            .expect("all prevouts are given");
        let internal_key = self.book.x_only(id, 0);
        let (_, output_key_parity) =
            internal_key.tap_tweak(self.book.secp(), Some(self.book.tap_root(id)));
        let control_block = ControlBlock {
            leaf_version: LeafVersion::TapScript,
            output_key_parity,
            internal_key,
            merkle_branch: TaprootMerkleBranch::from([self.book.tap_sibling(id)]),
        };
        let mut witness = Witness::new();
        witness.push(self.sign_schnorr(sighash.to_byte_array(), &self.book.secret(id, 1)));
        witness.push(leaf.as_bytes());
        witness.push(control_block.serialize());
        witness
    }

    fn sign_legacy(
        &self,
        index: usize,
        script: &ScriptBuf,
        id: AddressId,
        slot: u64,
    ) -> ecdsa::Signature {
        let sighash = self
            .cache
            .legacy_signature_hash(index, script, EcdsaSighashType::All.to_u32())
            .expect("the input exists");
        self.sign_ecdsa(sighash.to_byte_array(), id, slot)
    }

    fn sign_ecdsa(&self, sighash: [u8; 32], id: AddressId, slot: u64) -> ecdsa::Signature {
        let secret = self.book.secret(id, slot);
        let message = Message::from_digest(sighash);
        ecdsa::Signature::sighash_all(self.book.secp().sign_ecdsa(&message, &secret))
    }

    fn sign_schnorr(&self, sighash: [u8; 32], secret: &SecretKey) -> [u8; 64] {
        let keypair = Keypair::from_secret_key(self.book.secp(), secret);
        self.book
            .secp()
            .sign_schnorr_no_aux_rand(&Message::from_digest(sighash), &keypair)
            .serialize()
    }
}

fn push(signature: &ecdsa::Signature) -> PushBytesBuf {
    PushBytesBuf::try_from(signature.to_vec()).expect("a signature has at most 73 bytes")
}

/// The secret whose public key has an even Y (BIP 340).
fn even(secret: SecretKey, parity: Parity) -> SecretKey {
    match parity {
        Parity::Even => secret,
        Parity::Odd => secret.negate(),
    }
}

fn add(secret: SecretKey, tweak: &Scalar) -> SecretKey {
    secret
        .add_tweak(tweak)
        .expect("a key and a hash of it do not add up to zero")
}
