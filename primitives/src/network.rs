//! What differs from network to network.

use bitcoin::{
    Block, BlockHash, Network, Work,
    consensus::Params,
    constants::genesis_block,
    hashes::{Hash, sha256d},
};

/// Parameters of the network that a node runs on.
#[derive(Debug, Clone)]
pub struct ChainParams {
    /// The network.
    pub network: Network,
    /// First four bytes of every P2P message and of every frame in the block files.
    pub magic: [u8; 4],
    /// Challenge script of a custom signet (BIP 325); `None` for the default one and
    /// for every other network.
    pub signet_challenge: Option<Vec<u8>>,
    /// Rules for difficulty.
    pub consensus: Params,
    /// P2P port of the network.
    pub default_port: u16,
    /// Least total work of a chain that answers may be drawn from, as Bitcoin Core 31
    /// has it. Zero for regtest and for a custom signet.
    pub min_chain_work: Work,
}

impl ChainParams {
    /// Parameters of `network`. A `signet_challenge` is only meaningful for signet
    /// and ignored elsewhere.
    #[must_use]
    pub fn new(network: Network, signet_challenge: Option<Vec<u8>>) -> Self {
        let signet_challenge = signet_challenge.filter(|_| network == Network::Signet);
        let magic = match &signet_challenge {
            Some(challenge) => signet_magic(challenge),
            None => network.magic().to_bytes(),
        };
        let min_chain_work = match (network, &signet_challenge) {
            (Network::Bitcoin, _) => {
                work("0000000000000000000000000000000000000001128750f82f4c366153a3a030")
            }
            (Network::Testnet, _) => {
                work("0000000000000000000000000000000000000000000017dde1c649f3708d14b6")
            }
            (Network::Testnet4, _) => {
                work("0000000000000000000000000000000000000000000009a0fe15d0177d086304")
            }
            (Network::Signet, None) => {
                work("00000000000000000000000000000000000000000000000000000b463ea0a4b8")
            }
            _ => Work::from_be_bytes([0; 32]),
        };
        let default_port = match network {
            Network::Bitcoin => 8333,
            Network::Testnet => 18333,
            Network::Testnet4 => 48333,
            Network::Signet => 38333,
            _ => 18444,
        };
        Self {
            network,
            magic,
            signet_challenge,
            consensus: Params::new(network),
            default_port,
            min_chain_work,
        }
    }

    /// The first block of the network.
    #[must_use]
    pub fn genesis(&self) -> Block {
        genesis_block(&self.consensus)
    }

    /// Hash of the first block of the network.
    #[must_use]
    pub fn genesis_hash(&self) -> BlockHash {
        self.genesis().block_hash()
    }

    /// Name of the network on the command line and in files.
    #[must_use]
    pub fn name(&self) -> &'static str {
        network_name(self.network)
    }
}

/// Name of a network on the command line and in files: `mainnet`, `testnet3`,
/// `testnet4`, `signet` or `regtest`.
#[must_use]
pub fn network_name(network: Network) -> &'static str {
    match network {
        Network::Bitcoin => "mainnet",
        Network::Testnet => "testnet3",
        Network::Testnet4 => "testnet4",
        Network::Signet => "signet",
        _ => "regtest",
    }
}

/// The network of that name, if there is one.
#[must_use]
pub fn network_by_name(name: &str) -> Option<Network> {
    Some(match name {
        "mainnet" => Network::Bitcoin,
        "testnet3" => Network::Testnet,
        "testnet4" => Network::Testnet4,
        "signet" => Network::Signet,
        "regtest" => Network::Regtest,
        _ => return None,
    })
}

/// Magic of a custom signet: the first four bytes of the double SHA-256 of the
/// challenge with its length in front (BIP 325).
fn signet_magic(challenge: &[u8]) -> [u8; 4] {
    let mut bytes = bitcoin::consensus::serialize(&bitcoin::VarInt(challenge.len() as u64));
    bytes.extend_from_slice(challenge);
    let hash = sha256d::Hash::hash(&bytes).to_byte_array();
    [hash[0], hash[1], hash[2], hash[3]]
}

fn work(hex: &str) -> Work {
    Work::from_unprefixed_hex(hex).expect("the constant is 64 hex digits")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn default_signet_challenge_gives_the_default_signet_magic() {
        let challenge = "512103ad5e0edad18cb1f0fc0d28a3d4f1f3e445640337489abb10404f2d1e086be430210359ef5021964fe22d6f8e05b2463c9540ce96883fe3b278760f048f5189f2e6c452ae";
        let bytes = (0..challenge.len() / 2)
            .map(|i| u8::from_str_radix(&challenge[2 * i..2 * i + 2], 16).unwrap())
            .collect::<Vec<_>>();
        assert_eq!(signet_magic(&bytes), Network::Signet.magic().to_bytes());
    }

    #[test]
    fn names_round_trip() {
        for name in ["mainnet", "testnet3", "testnet4", "signet", "regtest"] {
            assert_eq!(network_name(network_by_name(name).unwrap()), name);
        }
        assert_eq!(network_by_name("main"), None);
    }
}
