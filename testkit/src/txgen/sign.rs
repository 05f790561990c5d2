//! Opens locks: signatures, scriptSigs, witnesses.

use bitcoin::{
    Amount, EcdsaSighashType, ScriptBuf, TapLeafHash, TapSighashType, Transaction, TxOut, Witness,
    ecdsa,
    hashes::Hash,
    key::TapTweak,
    script::Builder,
    secp256k1::Message,
    sighash::{Prevouts, SighashCache},
    taproot::{ControlBlock, TaprootMerkleBranch},
};

use super::lock::{Container, Item, Keys, Lock, push};

/// How a signature differs from a good one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SigFault {
    /// Not at all.
    None,
    /// One bit of it is wrong.
    Corrupt,
    /// By a key that is not asked for.
    WrongKey,
    /// No signature at all.
    Empty,
    /// Its S is in the upper half (BIP 146).
    HighS,
    /// Its encoding has a byte too many (BIP 66).
    Padded,
    /// It says to have signed in a way that has no meaning.
    UndefinedHashType,
    /// It signs no output.
    HashNone,
    /// It signs this input and one output alone, where there may be none.
    HashSingleAnyone,
}

/// What else may be wrong with how an input is opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OpenFault {
    /// Nothing.
    None,
    /// The scriptSig pushes with longer opcodes than it needs.
    WidePush,
    /// The scriptSig has an opcode that does not push.
    NotPushOnly,
    /// One element more than is used.
    ExtraItem,
    /// The last element is missing.
    MissingItem,
    /// A witness where none belongs.
    StrayWitness,
    /// No witness where one belongs.
    NoWitness,
    /// A scriptSig in front of a witness program.
    StrayScriptSig,
    /// An annex behind the witness (BIP 341).
    Annex,
    /// A byte of the script that was committed to is wrong.
    WrongScript,
}

/// Fills scriptSigs and witnesses of `tx`, whose inputs spend `spent` in order. The
/// faults are those of the first input.
pub fn sign(
    keys: &Keys,
    tx: &mut Transaction,
    spent: &[(Lock, Amount)],
    sig: SigFault,
    open: OpenFault,
) {
    let prevouts: Vec<TxOut> = spent
        .iter()
        .map(|(lock, value)| TxOut {
            value: *value,
            script_pubkey: lock.script_pubkey(keys),
        })
        .collect();
    for (index, (lock, _)) in spent.iter().enumerate().take(tx.input.len()) {
        let (sig, open) = if index == 0 {
            (sig, open)
        } else {
            (SigFault::None, OpenFault::None)
        };
        let signer = Signer {
            keys,
            tx,
            index,
            lock,
            prevouts: &prevouts,
            sig,
            annex: open == OpenFault::Annex,
        };
        let (script_sig, witness) = signer.solve(open);
        tx.input[index].script_sig = script_sig;
        tx.input[index].witness = witness;
    }
}

struct Signer<'a> {
    keys: &'a Keys,
    tx: &'a Transaction,
    index: usize,
    lock: &'a Lock,
    prevouts: &'a [TxOut],
    sig: SigFault,
    annex: bool,
}

const ANNEX: [u8; 3] = [0x50, 1, 2];

impl Signer<'_> {
    fn solve(&self, open: OpenFault) -> (ScriptBuf, Witness) {
        let mut items: Vec<Vec<u8>> = self.lock.items.iter().map(|item| self.item(item)).collect();
        match open {
            OpenFault::ExtraItem => items.insert(0, vec![1]),
            OpenFault::MissingItem => drop(items.pop()),
            _ => {}
        }
        let mut script = self.lock.script.clone().into_bytes();
        if open == OpenFault::WrongScript
            && let Some(byte) = script.last_mut()
        {
            *byte ^= 1;
        }
        let (mut script_sig, mut witness) = (Vec::new(), Vec::new());
        match self.lock.container {
            Container::Bare => script_sig = items,
            Container::P2sh => {
                script_sig = items;
                script_sig.push(script);
            }
            Container::P2wsh | Container::P2shP2wsh => {
                witness = items;
                witness.push(script);
                if self.lock.container == Container::P2shP2wsh {
                    script_sig.push(self.lock.script.to_p2wsh().into_bytes());
                }
            }
            Container::P2wpkh => witness = items,
            Container::P2shP2wpkh => {
                witness = items;
                script_sig.push(Lock::wpkh(self.keys).into_bytes());
            }
            Container::TapKey => witness = items,
            Container::TapLeaf(_) => {
                witness = items;
                witness.push(script);
                witness.push(self.control_block());
            }
            Container::Program => {}
        }
        match open {
            OpenFault::StrayWitness => witness.push(vec![1]),
            OpenFault::NoWitness => witness.clear(),
            OpenFault::StrayScriptSig => script_sig.insert(0, vec![1]),
            OpenFault::Annex => witness.push(ANNEX.to_vec()),
            _ => {}
        }
        (
            script_sig_of(script_sig, open),
            Witness::from_slice(&witness),
        )
    }

    fn control_block(&self) -> Vec<u8> {
        ControlBlock {
            leaf_version: self.lock.leaf_version(),
            output_key_parity: self.lock.output_parity(self.keys),
            internal_key: self.keys.x_only(0),
            merkle_branch: TaprootMerkleBranch::default(),
        }
        .serialize()
    }

    fn item(&self, item: &Item) -> Vec<u8> {
        match item {
            Item::Bytes(bytes) => bytes.clone(),
            Item::Key(number) => self.keys.public(*number).to_bytes(),
            Item::Sig(number) => match self.lock.container {
                Container::TapKey | Container::TapLeaf(_) => self.schnorr(*number),
                _ => self.ecdsa(*number),
            },
        }
    }

    fn ecdsa(&self, number: u8) -> Vec<u8> {
        let hash_type = match self.sig {
            SigFault::HashNone => EcdsaSighashType::None,
            SigFault::HashSingleAnyone => EcdsaSighashType::SinglePlusAnyoneCanPay,
            _ => EcdsaSighashType::All,
        };
        let value = self.prevouts[self.index].value;
        let mut cache = SighashCache::new(self.tx);
        let digest = match self.lock.container {
            Container::P2wpkh | Container::P2shP2wpkh => cache
                .p2wpkh_signature_hash(self.index, &Lock::wpkh(self.keys), value, hash_type)
                .expect("a key hash")
                .to_byte_array(),
            Container::P2wsh | Container::P2shP2wsh => cache
                .p2wsh_signature_hash(self.index, &self.lock.script, value, hash_type)
                .expect("the input exists")
                .to_byte_array(),
            _ => cache
                .legacy_signature_hash(self.index, &self.lock.script, hash_type.to_u32())
                .expect("the input exists")
                .to_byte_array(),
        };
        let number = if self.sig == SigFault::WrongKey {
            number + 5
        } else {
            number
        };
        let signature = self
            .keys
            .secp
            .sign_ecdsa(&Message::from_digest(digest), &self.keys.secret(number));
        let mut bytes = ecdsa::Signature {
            signature,
            sighash_type: hash_type,
        }
        .to_vec();
        match self.sig {
            SigFault::Corrupt => bytes[10] ^= 1,
            SigFault::Empty => bytes.clear(),
            SigFault::HighS => bytes = high_s(&signature.serialize_compact(), hash_type),
            SigFault::Padded => {
                // A zero in front of R, and both lengths raised.
                bytes[1] += 1;
                bytes[3] += 1;
                bytes.insert(4, 0);
            }
            SigFault::UndefinedHashType => *bytes.last_mut().expect("not empty") = 0x45,
            _ => {}
        }
        bytes
    }

    fn schnorr(&self, number: u8) -> Vec<u8> {
        let hash_type = match self.sig {
            SigFault::HashNone => TapSighashType::None,
            SigFault::HashSingleAnyone => TapSighashType::SinglePlusAnyoneCanPay,
            _ => TapSighashType::Default,
        };
        let leaf = match self.lock.container {
            Container::TapLeaf(_) => Some((
                TapLeafHash::from_script(&self.lock.script, self.lock.leaf_version()),
                u32::MAX,
            )),
            _ => None,
        };
        let annex = self
            .annex
            .then(|| bitcoin::sighash::Annex::new(&ANNEX).expect("an annex"));
        let digest = SighashCache::new(self.tx)
            .taproot_signature_hash(
                self.index,
                &Prevouts::All(self.prevouts),
                annex,
                leaf,
                hash_type,
            )
            // A signature of a single output that is not there: any digest will do.
            .map_or([1; 32], |hash| hash.to_byte_array());
        let number = if self.sig == SigFault::WrongKey {
            number + 5
        } else {
            number
        };
        let keypair = self.keys.keypair(number);
        let keypair = match leaf {
            Some(_) => keypair,
            None => keypair.tap_tweak(&self.keys.secp, None).to_keypair(),
        };
        let mut bytes = self
            .keys
            .secp
            .sign_schnorr_no_aux_rand(&Message::from_digest(digest), &keypair)
            .serialize()
            .to_vec();
        if hash_type != TapSighashType::Default {
            bytes.push(hash_type as u8);
        }
        match self.sig {
            SigFault::Corrupt => bytes[10] ^= 1,
            SigFault::Empty => bytes.clear(),
            SigFault::Padded => bytes.push(0),
            SigFault::UndefinedHashType => bytes.push(0x45),
            _ => {}
        }
        bytes
    }
}

/// The same signature with the other S, which is valid by consensus alone.
fn high_s(compact: &[u8; 64], hash_type: EcdsaSighashType) -> Vec<u8> {
    const ORDER: [u8; 32] = [
        0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff,
        0xfe, 0xba, 0xae, 0xdc, 0xe6, 0xaf, 0x48, 0xa0, 0x3b, 0xbf, 0xd2, 0x5e, 0x8c, 0xd0, 0x36,
        0x41, 0x41,
    ];
    let mut s = [0; 32];
    let mut borrow = 0;
    for i in (0..32).rev() {
        let difference = i16::from(ORDER[i]) - i16::from(compact[32 + i]) - borrow;
        borrow = i16::from(difference < 0);
        s[i] = u8::try_from(difference + 256 * borrow).expect("a byte");
    }
    let signature =
        bitcoin::secp256k1::ecdsa::Signature::from_compact(&[&compact[..32], &s].concat())
            .expect("below the order");
    ecdsa::Signature {
        signature,
        sighash_type: hash_type,
    }
    .to_vec()
}

fn script_sig_of(items: Vec<Vec<u8>>, open: OpenFault) -> ScriptBuf {
    let mut bytes = Vec::new();
    for item in items {
        let small = match item.as_slice() {
            [] => Some(0),
            [byte @ 1..=16] => Some(0x50 + byte),
            _ => None,
        };
        match (small, item.len()) {
            (_, len) if open == OpenFault::WidePush => {
                bytes.push(0x4d);
                bytes.extend(u16::try_from(len).expect("a short item").to_le_bytes());
                bytes.extend(item);
            }
            (Some(opcode), _) => bytes.push(opcode),
            (None, _) => bytes.extend(Builder::new().push_slice(push(item)).into_bytes()),
        }
    }
    if open == OpenFault::NotPushOnly {
        bytes.push(bitcoin::opcodes::all::OP_NOP.to_u8());
    }
    ScriptBuf::from_bytes(bytes)
}
