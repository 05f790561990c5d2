//! Parameters of paths and queries: from text to typed values, or the exact error.
//!
//! Segments of paths are taken as they stand, without percent-decoding; queries are decoded.

use std::str::FromStr;

use pulse_primitives::{
    Height,
    bitcoin::{
        Address, BlockHash, Network, Txid,
        hashes::{Hash, sha256},
        hex::{DisplayHex, FromHex},
    },
    page::{BalancePlace, Cursor, Heights},
};

use crate::RequestError;

/// SHA-256 of a script, not reversed.
pub type ScriptHash = [u8; 32];

/// A script, as a client names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subject {
    /// How it was named.
    pub kind: SubjectKind,
    /// The address or scripthash exactly as sent; it is echoed.
    pub text: String,
    /// SHA-256 of the script, not reversed.
    pub hash: ScriptHash,
}

/// The two ways to name a script.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SubjectKind {
    /// `/address/:address`
    Address,
    /// `/scripthash/:hash`
    Scripthash,
}

/// What a client asks for behind the path, on any route.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Asked {
    /// Whether it takes what is indexed so far for the whole.
    pub partial: bool,
    /// Entries of a list that it wants at most, as it said so.
    limit: Option<String>,
    /// Where the list is to begin, as it said so.
    cursor: Option<String>,
    /// Entries of a list as mempool/electrs counts them.
    pub max_txs: Option<usize>,
    /// What they come after, wherever it is.
    pub after_txid: Option<Txid>,
    /// Lowest and highest block that the list is about, as it said so.
    from_height: Option<String>,
    to_height: Option<String>,
    /// One block, as it said so.
    height: Option<String>,
    /// Whether unspent outputs are to have their script.
    pub scriptpubkey: bool,
}

/// The part of a list that a client asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Page {
    /// Most entries.
    pub limit: usize,
    /// What they come after.
    pub cursor: Option<Cursor>,
}

impl Asked {
    /// Reads a query string; of a key that is repeated the last value counts, and keys that
    /// mean nothing are ignored.
    #[must_use]
    pub fn of(query: Option<&str>) -> Self {
        let mut asked = Self::default();
        for (key, value) in form_urlencoded::parse(query.unwrap_or_default().as_bytes()) {
            match &*key {
                "partial" => asked.partial = value == "true" || value == "1",
                "limit" => asked.limit = Some(value.into_owned()),
                "cursor" => asked.cursor = Some(value.into_owned()),
                "max_txs" => asked.max_txs = value.parse().ok(),
                "after_txid" => asked.after_txid = value.parse().ok(),
                "from_height" => asked.from_height = Some(value.into_owned()),
                "to_height" => asked.to_height = Some(value.into_owned()),
                "height" => asked.height = Some(value.into_owned()),
                "scriptpubkey" => asked.scriptpubkey = value == "true" || value == "1",
                _ => {}
            }
        }
        asked
    }

    /// `max_txs`, which is `usual` if the client says nothing that is a number.
    #[must_use]
    pub fn max_txs(&self, usual: usize, most: usize) -> usize {
        self.max_txs.map_or(usual, |count| count.clamp(1, most))
    }

    /// Whether it asks for one list of unconfirmed and confirmed transactions together, as
    /// mempool/electrs makes it.
    #[must_use]
    pub fn wants_budget(&self) -> bool {
        self.max_txs.is_some() || self.after_txid.is_some()
    }

    /// The page of a list, `None` if the client asks for none. `most` bounds its length,
    /// which is `usual` if it says nothing.
    ///
    /// # Errors
    /// [`RequestError::InvalidLimit`] and [`RequestError::InvalidCursor`].
    pub fn page(&self, usual: usize, most: usize) -> Result<Option<Page>, RequestError> {
        if self.limit.is_none() && self.cursor.is_none() {
            return Ok(None);
        }
        let limit = match &self.limit {
            None => usual,
            Some(limit) => match limit.parse() {
                Ok(0) | Err(_) => return Err(RequestError::InvalidLimit),
                Ok(limit) => limit,
            },
        };
        let cursor = self.cursor.as_deref().map(cursor).transpose()?;
        let limit = limit.min(most);
        Ok(Some(Page { limit, cursor }))
    }
}

/// The last value of a key in a query.
#[must_use]
pub fn value(query: Option<&str>, key: &str) -> Option<String> {
    let pairs = form_urlencoded::parse(query.unwrap_or_default().as_bytes());
    pairs
        .filter(|(name, _)| name == key)
        .last()
        .map(|(_, value)| value.into_owned())
}

impl Asked {
    /// The blocks that a list is about.
    ///
    /// # Errors
    /// [`RequestError::InvalidNumber`].
    pub fn heights(&self) -> Result<Heights, RequestError> {
        let height = |text: &Option<String>| text.as_deref().map(number).transpose();
        Ok(Heights {
            from: height(&self.from_height)?.unwrap_or(0),
            to: height(&self.to_height)?,
        })
    }

    /// The block that is asked about.
    ///
    /// # Errors
    /// [`RequestError::InvalidNumber`].
    pub fn height(&self) -> Result<Option<Height>, RequestError> {
        self.height.as_deref().map(number).transpose()
    }

    /// The page of a list of balances.
    ///
    /// # Errors
    /// As [`Asked::page`].
    pub fn balances(
        &self,
        usual: usize,
        most: usize,
    ) -> Result<(usize, Option<BalancePlace>), RequestError> {
        let place = self.cursor.as_deref().map(balance_place).transpose()?;
        let limit = Self {
            cursor: None,
            ..self.clone()
        };
        let page = limit.page(usual, most)?;
        Ok((page.map_or(usual, |page| page.limit), place))
    }
}

/// A place in a list of balances as clients see it: a cursor, and behind it 16 hex digits.
#[must_use]
pub fn balance_place_text(place: &BalancePlace) -> String {
    let balance = place.balance.to_be_bytes().to_lower_hex_string();
    cursor_text(&place.cursor) + &balance
}

/// The other way round.
fn balance_place(text: &str) -> Result<BalancePlace, RequestError> {
    let (place, balance) = text
        .split_at_checked(40)
        .ok_or(RequestError::InvalidCursor)?;
    let balance = <[u8; 8]>::from_hex(balance).map_err(|_| RequestError::InvalidCursor)?;
    Ok(BalancePlace {
        cursor: cursor(place)?,
        balance: u64::from_be_bytes(balance),
    })
}

/// A cursor as clients see it: 40 hex digits that mean nothing to them.
#[must_use]
pub fn cursor_text(cursor: &Cursor) -> String {
    let mut bytes = Vec::with_capacity(20);
    bytes.extend_from_slice(&cursor.height.to_be_bytes());
    bytes.extend_from_slice(&cursor.check);
    bytes.extend_from_slice(&cursor.index.to_be_bytes());
    bytes.extend_from_slice(&cursor.vout.to_be_bytes());
    bytes.to_lower_hex_string()
}

/// The other way round.
fn cursor(text: &str) -> Result<Cursor, RequestError> {
    let bytes = <[u8; 20]>::from_hex(text).map_err(|_| RequestError::InvalidCursor)?;
    let number = |at: usize| {
        let mut number = [0; 4];
        number.copy_from_slice(&bytes[at..at + 4]);
        u32::from_be_bytes(number)
    };
    let mut check = [0; 8];
    check.copy_from_slice(&bytes[4..12]);
    Ok(Cursor {
        height: number(0),
        check,
        index: number(12),
        vout: number(16),
    })
}

/// 64 hex digits in display order; upper case is accepted.
///
/// # Errors
/// [`RequestError::InvalidHex`].
pub fn block_hash(segment: &str) -> Result<BlockHash, RequestError> {
    segment.parse().map_err(|_| RequestError::InvalidHex)
}

/// 64 hex digits in display order; upper case is accepted.
///
/// # Errors
/// [`RequestError::InvalidHex`].
pub fn txid(segment: &str) -> Result<Txid, RequestError> {
    segment.parse().map_err(|_| RequestError::InvalidHex)
}

/// A decimal number that must be there.
///
/// # Errors
/// [`RequestError::InvalidNumber`].
pub fn number<N: FromStr>(segment: &str) -> Result<N, RequestError> {
    segment.parse().map_err(|_| RequestError::InvalidNumber)
}

/// The script behind an address of `network`.
///
/// # Errors
/// [`RequestError::InvalidAddress`], [`RequestError::WrongNetwork`].
pub fn address(segment: &str, network: Network) -> Result<Subject, RequestError> {
    let script = segment
        .parse::<Address<_>>()
        .map_err(RequestError::InvalidAddress)?
        .require_network(network)
        .map_err(|_| RequestError::WrongNetwork)?
        .script_pubkey();
    Ok(Subject {
        kind: SubjectKind::Address,
        text: segment.to_owned(),
        hash: sha256::Hash::hash(script.as_bytes()).to_byte_array(),
    })
}

/// 64 hex digits: the SHA-256 of a script in byte order (Electrum shows it reversed).
///
/// # Errors
/// [`RequestError::InvalidScripthash`].
pub fn scripthash(segment: &str) -> Result<Subject, RequestError> {
    Ok(Subject {
        kind: SubjectKind::Scripthash,
        text: segment.to_owned(),
        hash: ScriptHash::from_hex(segment).map_err(|_| RequestError::InvalidScripthash)?,
    })
}

#[cfg(test)]
mod tests {
    use pulse_primitives::bitcoin::base58;

    use super::*;

    const H: &str = "1c45a447627cbd0003b94a77a48f5746dac20551805150cfb23d2b2f9b5fbc53";

    #[test]
    fn hashes_are_64_hex_digits_of_either_case() {
        assert_eq!(block_hash(H).unwrap().to_string(), H);
        assert_eq!(txid(&H.to_uppercase()).unwrap().to_string(), H);
        for bad in ["", "00", &H[1..], &format!("{H}0"), &H.replace('1', "g")] {
            assert_eq!(
                block_hash(bad).unwrap_err().to_string(),
                "Invalid hex string"
            );
            assert_eq!(txid(bad).unwrap_err().to_string(), "Invalid hex string");
        }
    }

    #[test]
    fn numbers_are_decimal_and_fit() {
        assert_eq!(number::<u64>("12").unwrap(), 12);
        for bad in ["", "-1", "abc", "1.0", " 1", "18446744073709551616"] {
            assert_eq!(
                number::<u64>(bad).unwrap_err().to_string(),
                "Invalid number"
            );
        }
        assert!(number::<u32>("4294967296").is_err());
    }

    #[test]
    fn a_scripthash_is_not_reversed() {
        let hash = "6191c3b590bfcfa0475e877c302da1e323497acf3b42c08d8fa28e364edf018b";
        let script = Vec::<u8>::from_hex("76a91462e907b15cbf27d5425399ebf6f0fb50ebb88f1888ac");
        let want = sha256::Hash::hash(&script.unwrap()).to_byte_array();
        assert_eq!(scripthash(hash).unwrap().hash, want);
        let genesis = address("1A1zP1eP5QGefi2DMPTfTL5SLmv7DivfNa", Network::Bitcoin).unwrap();
        assert_eq!(genesis.hash, want);
        for bad in ["", "zz", &hash[1..], &format!("{hash}0")] {
            assert_eq!(
                scripthash(bad).unwrap_err().to_string(),
                "Invalid scripthash"
            );
        }
    }

    #[test]
    fn addresses_that_do_not_parse_get_the_texts_of_the_reference() {
        for (text, want) in [
            // One digit of a P2WPKH and of a P2TR address mistyped.
            ("bc1qw508d6qejxtdg4y5r3zarvary0c5xw7kv8f3t5", "base58 error"),
            (
                "bc1pg3zyg3zyg3zyg3zyg3zyg3zyg3zyg3zyg3zyg3zyg3zyg3zyg3zq8ss0kg",
                "legacy address base58 string",
            ),
            ("1A1zP1eP5QGefi2DMPTfTL5SLmv7DivfNb", "base58 error"),
            ("", "base58 error"),
            ("abc", "base58 error"),
            // A Litecoin address in base58, then one in bech32.
            (
                "LVuDpNCSSj6pQ7t9Pv6d6sUkLKoqDEVUnJ",
                "legacy address base58 prefix",
            ),
            (
                "ltc1qw508d6qejxtdg4y5r3zarvary0c5xw7kgmn4n9",
                "tried to parse an unknown hrp",
            ),
            (
                "mipcBbFg9gMiCh81Kj8tqqdgoZub1ZJRfn",
                "Address on invalid network",
            ),
            (
                "tb1qw508d6qejxtdg4y5r3zarvary0c5xw7kxpjzsx",
                "Address on invalid network",
            ),
        ] {
            let error = address(text, Network::Bitcoin).unwrap_err();
            assert_eq!(error.to_string(), want, "{text}");
        }
    }

    #[test]
    fn base58_of_another_length_is_no_address() {
        let text = base58::encode_check(&[0; 22]);
        let error = address(&text, Network::Bitcoin).unwrap_err();
        assert_eq!(error.to_string(), "legacy address base58 data");
    }

    #[test]
    fn an_upper_case_address_is_echoed_as_sent() {
        let text = "BC1QW508D6QEJXTDG4Y5R3ZARVARY0C5XW7KV8F3T4";
        let subject = address(text, Network::Bitcoin).unwrap();
        assert_eq!(subject.text, text);
        let lower = address(&text.to_lowercase(), Network::Bitcoin).unwrap();
        assert_eq!(subject.hash, lower.hash);
    }

    #[test]
    fn test_networks_share_their_prefixes_except_regtest() {
        let tb1 = "tb1qw508d6qejxtdg4y5r3zarvary0c5xw7kxpjzsx";
        for network in [Network::Testnet, Network::Testnet4, Network::Signet] {
            assert!(address(tb1, network).is_ok());
        }
        assert!(address(tb1, Network::Regtest).is_err());
        assert!(address("mipcBbFg9gMiCh81Kj8tqqdgoZub1ZJRfn", Network::Regtest).is_ok());
    }
}
