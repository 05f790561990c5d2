//! Output descriptors and extended public keys: from a client's text to scripts.
//!
//! # Security
//! The text is a wallet's privacy, and may by mistake hold a private key. Nothing of it goes
//! into an error, a log or an answer: errors have texts of their own, never the parser's.
//!
//! # Limits
//! Text, nesting, wrappers and the number of branches are bounded before or right after the
//! parser sees them, and the work of derivations by [`Budget`].

use std::{str::FromStr, sync::LazyLock};

use miniscript::{
    Descriptor, DescriptorPublicKey, ForEachKey,
    bitcoin::{
        NetworkKind, base58,
        bip32::ChildNumber,
        secp256k1::{All, Secp256k1},
    },
};
use pulse_primitives::bitcoin::{
    Network, ScriptBuf,
    hashes::{Hash, sha256},
};

use crate::RequestError;

/// Most descriptors in a request.
pub const MOST_DESCRIPTORS: usize = 20;
/// Most keychains (branches of descriptors) in a request.
const MOST_KEYCHAINS: usize = 40;
/// Longest text of a descriptor, in bytes: twenty keys with their origins, and room.
const LONGEST_TEXT: usize = 5_000;
/// Brackets of any kind that may be open at once.
const DEEPEST: usize = 64;
/// Wrappers in front of a fragment, such as `vc:`.
const MOST_WRAPPERS: usize = 16;

static SECP: LazyLock<Secp256k1<All>> = LazyLock::new(Secp256k1::new);

/// Scripts that follow each other by a last step of derivation.
pub struct Keychain {
    /// Place of the descriptor in the request.
    pub descriptor: usize,
    /// Which of its paths (BIP 389), 0 if it has one.
    pub branch: usize,
    source: Descriptor<DescriptorPublicKey>,
    /// Derivations of keys for one script.
    cost: usize,
    /// Those that were derived, by index from 0.
    pub scripts: Vec<Derived>,
}

/// A script of a keychain.
pub struct Derived {
    /// The script.
    pub script: ScriptBuf,
    /// SHA-256 of it, not reversed.
    pub hash: [u8; 32],
}

/// What the scan of a request may still derive.
#[derive(Debug, Clone, Copy)]
pub struct Budget {
    /// Scripts.
    pub scripts: usize,
    /// Derivations of public keys for them.
    pub keys: usize,
}

impl Keychain {
    /// Whether it has more than one script.
    #[must_use]
    pub fn is_ranged(&self) -> bool {
        self.source.has_wildcard()
    }

    /// Derives scripts until there are `count`, or the one that there is. `go_on` is asked
    /// before each.
    ///
    /// # Errors
    /// [`RequestError::TooManyDerivations`], or that of `go_on`.
    pub fn derive<E: From<RequestError>>(
        &mut self,
        count: usize,
        budget: &mut Budget,
        mut go_on: impl FnMut() -> Result<(), E>,
    ) -> Result<(), E> {
        let count = if self.is_ranged() { count } else { 1 };
        while self.scripts.len() < count {
            go_on()?;
            let spent = (budget.scripts.checked_sub(1)).zip(budget.keys.checked_sub(self.cost));
            let (scripts, keys) = spent.ok_or(RequestError::TooManyDerivations)?;
            *budget = Budget { scripts, keys };
            let index =
                u32::try_from(self.scripts.len()).map_err(|_| RequestError::TooManyDerivations)?;
            let derived = self.source.derived_descriptor(&SECP, index);
            let derived = derived.map_err(|_| self.wrong("cannot be derived"))?;
            let script = derived.script_pubkey();
            self.scripts.push(Derived {
                hash: sha256::Hash::hash(script.as_bytes()).to_byte_array(),
                script,
            });
        }
        Ok(())
    }

    fn wrong(&self, what: &'static str) -> RequestError {
        RequestError::InvalidDescriptor {
            index: self.descriptor,
            what,
        }
    }
}

/// The keychains of all texts, each a descriptor or an extended public key.
///
/// # Errors
/// [`RequestError::InvalidDescriptor`] with the first that is wrong, or
/// [`RequestError::TooManyDescriptors`].
pub fn keychains(texts: &[String], network: Network) -> Result<Vec<Keychain>, RequestError> {
    if texts.is_empty() || texts.len() > MOST_DESCRIPTORS {
        return Err(RequestError::TooManyDescriptors {
            most: MOST_DESCRIPTORS,
        });
    }
    let mut keychains = Vec::new();
    for (index, text) in texts.iter().enumerate() {
        let wrong = |what| RequestError::InvalidDescriptor { index, what };
        let branches = parse(text.trim(), network).map_err(wrong)?;
        if keychains.len() + branches.len() > MOST_KEYCHAINS {
            return Err(wrong("too many branches in all"));
        }
        keychains.extend(
            (branches.into_iter().enumerate()).map(|(branch, source)| Keychain {
                descriptor: index,
                branch,
                cost: cost(&source),
                source,
                scripts: Vec::new(),
            }),
        );
    }
    Ok(keychains)
}

/// The branches of one text, or what is wrong with it.
fn parse(
    text: &str,
    network: Network,
) -> Result<Vec<Descriptor<DescriptorPublicKey>>, &'static str> {
    const PRIVATE: &str = "private keys are not accepted";
    if text.len() > LONGEST_TEXT {
        return Err("too long");
    }
    if !text.is_ascii() {
        return Err("does not parse");
    }
    require_shallow(text)?;
    if has_private_key(text) {
        return Err(PRIVATE);
    }
    let wrapped = match text.contains('(') {
        true => None,
        false => Some(of_extended_key(text)?),
    };
    let text = wrapped.as_deref().unwrap_or(text);
    let parsed = Descriptor::parse_descriptor(&SECP, text);
    let (descriptor, private) = parsed.map_err(|_| match has_wrong_checksum(text) {
        true => "wrong checksum",
        false => "does not parse",
    })?;
    if !private.is_empty() {
        return Err(PRIVATE);
    }
    if !descriptor.for_each_key(|key| !key.has_hardened_step() && !has_hardened_wildcard(key)) {
        return Err("hardened derivation needs private keys");
    }
    let expected = NetworkKind::from(network);
    if !descriptor.for_each_key(|key| network_of(key).is_none_or(|kind| kind == expected)) {
        return Err("has keys of another network");
    }
    // The library takes the number of the first key for all, and drops what others have more.
    let mut numbers = Vec::new();
    descriptor.for_each_key(|key| {
        if let DescriptorPublicKey::MultiXPub(key) = key {
            numbers.push(key.derivation_paths.paths().len());
        }
        true
    });
    if numbers.windows(2).any(|pair| pair[0] != pair[1]) {
        return Err("its keys have different numbers of branches");
    }
    let branches = descriptor.into_single_descriptors();
    let branches = branches.map_err(|_| "its keys have different numbers of branches")?;
    Ok(branches)
}

/// Bounds what the parser does recursively.
fn require_shallow(text: &str) -> Result<(), &'static str> {
    let (mut depth, mut letters) = (0_usize, 0_usize);
    for byte in text.bytes() {
        match byte {
            b'(' | b'{' | b'[' | b'<' => depth += 1,
            b')' | b'}' | b']' | b'>' => depth = depth.saturating_sub(1),
            b':' if letters > MOST_WRAPPERS => return Err("too many wrappers"),
            _ => {}
        }
        if depth > DEEPEST {
            return Err("nested too deeply");
        }
        letters = if byte.is_ascii_lowercase() {
            letters + 1
        } else {
            0
        };
    }
    Ok(())
}

/// Whether a part of the text is a private key, whatever the rest is.
fn has_private_key(text: &str) -> bool {
    const EXTENDED: [[u8; 4]; 10] = [
        [0x04, 0x88, 0xad, 0xe4], // xprv
        [0x04, 0x9d, 0x78, 0x78], // yprv
        [0x02, 0x95, 0xb0, 0x05], // Yprv
        [0x04, 0xb2, 0x43, 0x0c], // zprv
        [0x02, 0xaa, 0x7a, 0x99], // Zprv
        [0x04, 0x35, 0x83, 0x94], // tprv
        [0x04, 0x4a, 0x4e, 0x28], // uprv
        [0x02, 0x42, 0x85, 0xb5], // Uprv
        [0x04, 0x5f, 0x18, 0xbc], // vprv
        [0x02, 0x57, 0x50, 0x48], // Vprv
    ];
    let mut parts = text.split(|c: char| !c.is_ascii_alphanumeric());
    parts.any(|part| match part.len() {
        // Mistyped ones count, too.
        4.. if part.get(1..4) == Some("prv") => true,
        111 => base58::decode_check(part)
            .is_ok_and(|bytes| EXTENDED.iter().any(|version| bytes.starts_with(version))),
        // WIF.
        51 | 52 => base58::decode_check(part).is_ok_and(|bytes| {
            matches!((bytes.first(), bytes.len()), (Some(0x80 | 0xef), 33 | 34))
        }),
        _ => false,
    })
}

/// The descriptor of an account's extended public key with both its branches, by the prefix
/// of SLIP 132: `xpub` is P2PKH (BIP 44), `ypub` P2SH-P2WPKH (BIP 49), `zpub` P2WPKH (BIP 84).
fn of_extended_key(text: &str) -> Result<String, &'static str> {
    const MAINNET: [u8; 4] = [0x04, 0x88, 0xb2, 0x1e];
    const TESTNETS: [u8; 4] = [0x04, 0x35, 0x87, 0xcf];
    let mut bytes = base58::decode_check(text).map_err(|_| "does not parse")?;
    let (version, rest) = bytes.split_first_chunk_mut::<4>().ok_or("does not parse")?;
    if rest.len() != 74 {
        return Err("does not parse");
    }
    let (plain, (before, after)) = match *version {
        MAINNET => (MAINNET, ("pkh(", ")")),
        [0x04, 0x9d, 0x7c, 0xb2] => (MAINNET, ("sh(wpkh(", "))")),
        [0x04, 0xb2, 0x47, 0x46] => (MAINNET, ("wpkh(", ")")),
        TESTNETS => (TESTNETS, ("pkh(", ")")),
        [0x04, 0x4a, 0x52, 0x62] => (TESTNETS, ("sh(wpkh(", "))")),
        [0x04, 0x5f, 0x1c, 0xf6] => (TESTNETS, ("wpkh(", ")")),
        _ => return Err("is an extended key of a kind that needs a descriptor"),
    };
    *version = plain;
    let key = base58::encode_check(&bytes);
    Ok(format!("{before}{key}/<0;1>/*{after}"))
}

/// Whether it parses without its checksum.
fn has_wrong_checksum(text: &str) -> bool {
    text.rsplit_once('#')
        .is_some_and(|(bare, _)| Descriptor::<DescriptorPublicKey>::from_str(bare).is_ok())
}

fn has_hardened_wildcard(key: &DescriptorPublicKey) -> bool {
    use miniscript::descriptor::Wildcard::Hardened;
    match key {
        DescriptorPublicKey::Single(_) => false,
        DescriptorPublicKey::XPub(key) => key.wildcard == Hardened,
        DescriptorPublicKey::MultiXPub(key) => key.wildcard == Hardened,
    }
}

fn network_of(key: &DescriptorPublicKey) -> Option<NetworkKind> {
    match key {
        DescriptorPublicKey::Single(_) => None,
        DescriptorPublicKey::XPub(key) => Some(key.xkey.network),
        DescriptorPublicKey::MultiXPub(key) => Some(key.xkey.network),
    }
}

/// Derivations of keys for one script.
fn cost(descriptor: &Descriptor<DescriptorPublicKey>) -> usize {
    let mut steps = 1;
    descriptor.for_each_key(|key| {
        let path: &[ChildNumber] = match key {
            DescriptorPublicKey::XPub(key) => key.derivation_path.as_ref(),
            DescriptorPublicKey::Single(_) | DescriptorPublicKey::MultiXPub(_) => &[],
        };
        steps += path.len() + 1;
        true
    });
    steps
}
