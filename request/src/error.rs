//! Why a request over HTTP cannot be read.

use pulse_primitives::bitcoin::address::ParseError;

/// Why a request cannot be read. What it displays is the body that the client gets; the texts
/// are those of Blockstream's electrs where it has them. The status is always 400.
#[derive(Debug, thiserror::Error)]
pub enum RequestError {
    /// A block hash or txid that is not 64 hex digits.
    #[error("Invalid hex string")]
    InvalidHex,
    /// No decimal number, or one that does not fit.
    #[error("Invalid number")]
    InvalidNumber,
    /// A scripthash that is not 64 hex digits.
    #[error("Invalid scripthash")]
    InvalidScripthash,
    /// A length of a page that is none.
    #[error("Invalid limit")]
    InvalidLimit,
    /// A place of a page that is none.
    #[error("Invalid cursor")]
    InvalidCursor,
    /// A string that is no address of any network.
    #[error("{}", address_text(.0))]
    InvalidAddress(ParseError),
    /// An address of another network.
    #[error("Address on invalid network")]
    WrongNetwork,
    /// A body that is not UTF-8, or not the JSON that it should be.
    #[error("{what}")]
    InvalidBody {
        /// The parser's text.
        what: String,
    },
    /// No descriptors, or too many.
    #[error("Expected 1 to {most} descriptors")]
    TooManyDescriptors {
        /// The most that there may be.
        most: usize,
    },
    /// A descriptor that cannot be scanned.
    #[error("Descriptor {index}: {what}")]
    InvalidDescriptor {
        /// Its place in the request, from 0.
        index: usize,
        /// What is wrong, without a word of it.
        what: &'static str,
    },
    /// A scan would cost too much.
    #[error("Too many scripts to derive; ask with fewer descriptors or a lower gap_limit")]
    TooManyDerivations,
}

/// The texts of rust-bitcoin 0.32, spelled out because clients see them.
fn address_text(error: &ParseError) -> &'static str {
    match error {
        ParseError::Base58(_) => "base58 error",
        ParseError::LegacyAddressTooLong(_) => "legacy address base58 string",
        ParseError::InvalidBase58PayloadLength(_) => "legacy address base58 data",
        ParseError::InvalidLegacyPrefix(_) => "legacy address base58 prefix",
        ParseError::UnknownHrp(_) => "tried to parse an unknown hrp",
        _ => "Invalid Bitcoin address",
    }
}
