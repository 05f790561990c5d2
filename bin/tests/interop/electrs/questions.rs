//! What exists to be asked about, and questions about it and about what does not exist.

use pulse_primitives::bitcoin::{
    Address, Network, ScriptBuf, Txid,
    hashes::{Hash, sha256},
};
use pulse_testkit::Bitcoind;
use rand::{Rng, rngs::StdRng, seq::SliceRandom};
use serde_json::{Value, json};

use super::txids;

/// Everything of the chain and of the mempool.
pub struct World {
    pub height: u64,
    blocks: Vec<String>,
    confirmed: Vec<String>,
    waiting: Vec<String>,
    pub scripts: Vec<ScriptBuf>,
    addresses: Vec<String>,
    /// Raw transactions, some of each kind.
    raw: Vec<String>,
}

/// Where numbers belong.
const NUMBERS: &[&str] = &[
    "-1",
    "+5",
    "007",
    "abc",
    "",
    "1.5",
    "4294967295",
    "4294967296",
    "18446744073709551615",
    "18446744073709551616",
    "%31",
    "1%20",
    "0x10",
];
/// Where hashes belong.
const HASHES: &[&str] = &[
    "",
    "abc",
    "zz",
    "..",
    "%20",
    "0x11",
    "tip",
    "-1",
    "ffff",
    "111111111111111111111111111111111111111111111111111111111111111",
    "11111111111111111111111111111111111111111111111111111111111111111",
    "g111111111111111111111111111111111111111111111111111111111111111",
    "1111111111111111111111111111111111111111111111111111111111111111",
    "0000000000000000000000000000000000000000000000000000000000000000",
];
/// Where addresses belong: of other networks, mistyped, and nothing of the kind.
const ADDRESSES: &[&str] = &[
    "",
    "abc",
    "1BoatSLRHtKNngkdXEeobR76b53LETtpyT",
    "1BoatSLRHtKNngkdXEeobR76b53LETtpyX",
    "bc1qar0srrr7xfkvy5l643lydnw9re59gtzzwf5mdq",
    "bc1qar0srrr7xfkvy5l643lydnw9re59gtzzwf5mdz",
    "tb1qw508d6qejxtdg4y5r3zarvary0c5xw7kxpjzsx",
    "bcrt1qw508d6qejxtdg4y5r3zarvary0c5xw7kygt080",
    "bcrt1qw508d6qejxtdg4y5r3zarvary0c5xw7kygt08x",
    "bcrt1p0xlxvlhemja6c4dqv22uapctqupfhlxm9h8z3k2e72q4k9hcz7vqzk5jjx",
    "5HueCGU8rMjxEXxiPuD5BDku4MkFqeZyd4dZ1jvhTVqvbTLvyTJ",
    "LaMT348PWRnrqeeWArpwQPbuanpXDZGEUz",
    "ltc1qw508d6qejxtdg4y5r3zarvary0c5xw7kgmn4n9",
    "mipcBbFg9gMiCh81Kj8tqqdgoZub1ZJRfn",
    "xpub661MyMwAqRbcFtXgS5sYJABqqG9YLmC4Q1Rdap9gSE8NqtwybGhePY2gZ29ESFjqJoCu1Rupje8YtGqsefD265TMg7usUDFdp6W1EGMcet8",
];

impl World {
    pub fn of(bitcoind: &Bitcoind) -> Self {
        let height = bitcoind.call("getblockcount", &json!([])).as_u64().unwrap();
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        let waiting = txids(&bitcoind.call("getrawmempool", &json!([])));
        let waiting: Vec<String> = waiting.iter().map(Txid::to_string).collect();
        let mut world = Self {
            height,
            blocks: Vec::new(),
            confirmed: Vec::new(),
            waiting,
            scripts: Vec::new(),
            addresses: Vec::new(),
            raw: Vec::new(),
        };
        let mut txs = Vec::new();
        for height in 0..=height {
            let hash = bitcoind.call("getblockhash", &json!([height]));
            let block = bitcoind.call("getblock", &json!([hash, 2]));
            world.blocks.push(text(&hash));
            for tx in block["tx"].as_array().unwrap() {
                world.confirmed.push(text(&tx["txid"]));
                txs.push(tx.clone());
            }
        }
        for txid in &world.waiting {
            txs.push(bitcoind.call("getrawtransaction", &json!([txid, true])));
        }
        for tx in &txs {
            world.raw.push(text(&tx["hex"]));
            for output in tx["vout"].as_array().unwrap() {
                let script = ScriptBuf::from_hex(&text(&output["scriptPubKey"]["hex"])).unwrap();
                if let Ok(address) = Address::from_script(&script, Network::Regtest) {
                    world.addresses.push(address.to_string());
                }
                world.scripts.push(script);
            }
        }
        world.scripts.sort_unstable();
        world.scripts.dedup();
        world.addresses.sort_unstable();
        world.addresses.dedup();
        world
    }

    /// Where a confirmed transaction stands in the chain.
    pub fn position(&self, txid: &str) -> Option<usize> {
        self.confirmed
            .iter()
            .position(|confirmed| confirmed == txid)
    }

    pub fn block(&self, rng: &mut StdRng) -> String {
        match rng.gen_range(0..10) {
            0 => (*pick(rng, HASHES)).to_owned(),
            1 => self.txid(rng),
            2 => pick(rng, &self.blocks).to_uppercase(),
            // Those with something in them are the last.
            3..=6 => {
                let from = self.blocks.len() - 15;
                pick(rng, &self.blocks[from..]).clone()
            }
            _ => pick(rng, &self.blocks).clone(),
        }
    }

    pub fn txid(&self, rng: &mut StdRng) -> String {
        match rng.gen_range(0..10) {
            0 => (*pick(rng, HASHES)).to_owned(),
            1 => pick(rng, &self.confirmed).to_uppercase(),
            2 => pick(rng, &self.blocks).clone(),
            3 | 4 => pick(rng, &self.waiting).clone(),
            _ => pick(rng, &self.confirmed).clone(),
        }
    }

    pub fn height(&self, rng: &mut StdRng) -> String {
        match rng.gen_range(0..6) {
            0 => (*pick(rng, NUMBERS)).to_owned(),
            1 => (self.height + rng.gen_range(0..3)).to_string(),
            _ => rng.gen_range(0..=self.height).to_string(),
        }
    }

    pub fn small(&self, rng: &mut StdRng) -> String {
        match rng.gen_range(0..6) {
            0 => (*pick(rng, NUMBERS)).to_owned(),
            1 => (25 * rng.gen_range(0..4)).to_string(),
            _ => rng.gen_range(0..6).to_string(),
        }
    }

    pub fn script(&self, rng: &mut StdRng) -> &ScriptBuf {
        pick(rng, &self.scripts)
    }

    /// `address/A` or `scripthash/S`.
    pub fn owner(&self, rng: &mut StdRng) -> String {
        match rng.gen_range(0..12) {
            0 => format!("address/{}", pick(rng, ADDRESSES)),
            1 => format!("address/{}", pick(rng, &self.addresses).to_uppercase()),
            2..=5 => format!("address/{}", pick(rng, &self.addresses)),
            6 => format!("scripthash/{}", pick(rng, HASHES)),
            // The script of most coinbases.
            7 => format!("scripthash/{}", sha256::Hash::hash(&[0x51])),
            _ => {
                let script = self.script(rng);
                format!("scripthash/{}", sha256::Hash::hash(script.as_bytes()))
            }
        }
    }

    /// A transaction, mined, waiting, damaged, or none at all. Nothing of it is new and good.
    pub fn raw(&self, rng: &mut StdRng) -> String {
        let raw = pick(rng, &self.raw).clone();
        match rng.gen_range(0..6) {
            0 => (*pick(rng, &["", "zz", "00", "0", "\"00\"", "[]", "ff00ff"])).to_owned(),
            1 => raw[..rng.gen_range(0..raw.len())].to_owned(),
            2 => format!("{raw}00"),
            3 => raw.to_uppercase(),
            _ => raw,
        }
    }
}

/// One of a list.
pub fn pick<'a, T>(rng: &mut StdRng, list: &'a [T]) -> &'a T {
    list.choose(rng).expect("there are some")
}
