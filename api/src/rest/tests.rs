//! The API over an index and a mempool that are made up.

// The index is fed by the same chains as the indexer's own tests.
#[allow(dead_code, clippy::cast_possible_truncation)]
#[path = "../../../indexer/src/tests/memchain.rs"]
mod memchain;

mod acceptance;
mod bulk;
mod conditional;
mod errors;
mod fakes;
mod fuzz;
mod golden;
mod merged;
mod paging;
mod partial;
mod ranges;
mod relatives;
mod submissions;
mod together;
mod unconfirmed;
mod wallets;

use std::sync::{Arc, atomic::AtomicBool};

use axum::{
    Router,
    body::Body,
    http::{HeaderMap, Method, Request, StatusCode, header},
    response::Response,
};
use http_body_util::BodyExt;
use metrics_exporter_prometheus::PrometheusBuilder;
use parking_lot::Mutex;
use pulse_indexer::{Index, IndexConfig, IndexSync};
use pulse_primitives::{
    bitcoin::{
        Amount, Network, OutPoint, ScriptBuf, Sequence, Transaction, TxIn, TxOut, Witness,
        absolute::LockTime,
        hashes::{Hash, sha256},
        transaction::Version,
    },
    block::SpentOutput,
    mempool::MempoolTx,
    network::ChainParams,
    ports::BlockSource,
};
use serde_json::Value;
use tower::ServiceExt;

use crate::{ApiConfig, ApiState, MempoolPorts, main_router};
use fakes::{FakeMempool, FakeStatus};
use memchain::{MemChain, mine};

/// A node without peers: a chain, its index, a mempool.
struct World {
    _dir: tempfile::TempDir,
    chain: Arc<MemChain>,
    sync: Mutex<IndexSync>,
    mempool: Arc<FakeMempool>,
    state: ApiState,
    router: Router,
}

struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    text: String,
}

impl Answer {
    async fn of(response: Response) -> Self {
        let (parts, body) = response.into_parts();
        let bytes = body.collect().await.unwrap().to_bytes();
        Self {
            status: parts.status,
            headers: parts.headers,
            text: String::from_utf8_lossy(&bytes).into_owned(),
        }
    }

    fn json(&self) -> Value {
        assert_eq!(self.status, StatusCode::OK, "{}", self.text);
        assert_eq!(self.headers[header::CONTENT_TYPE], "application/json");
        serde_json::from_str(&self.text).unwrap()
    }

    fn cache(&self) -> &str {
        self.headers[header::CACHE_CONTROL].to_str().unwrap()
    }

    fn is_error(&self, status: u16, text: &str) {
        assert_eq!((self.status.as_u16(), self.text.as_str()), (status, text));
        assert_eq!(self.headers[header::CONTENT_TYPE], "text/plain");
        assert!(!self.headers.contains_key(header::CACHE_CONTROL));
    }
}

impl World {
    fn new() -> Self {
        Self::with(|config| config.utxos_limit = 500, true)
    }

    fn with(adjust: impl FnOnce(&mut ApiConfig), has_mempool: bool) -> Self {
        let params = ChainParams::new(Network::Regtest, None);
        let dir = tempfile::tempdir().unwrap();
        let chain = Arc::new(MemChain::new(&params));
        mine(&chain, 20, 12, 7);
        let source = Arc::clone(&chain) as Arc<dyn BlockSource>;
        let config = IndexConfig {
            memory_mib: 16,
            ..IndexConfig::default()
        };
        let index = Index::open(dir.path(), &config, &params).unwrap();
        let mempool = Arc::new(FakeMempool::default());
        let ports = MempoolPorts {
            source: Arc::clone(&mempool) as _,
            submitter: Arc::clone(&mempool) as _,
        };
        let mut config = ApiConfig::default();
        adjust(&mut config);
        let state = ApiState::new(
            index.query(Arc::clone(&source)),
            Arc::new(FakeStatus::new(Arc::clone(&chain))),
            has_mempool.then_some(ports),
            params,
            config,
            PrometheusBuilder::new().build_recorder().handle(),
        );
        let world = Self {
            _dir: dir,
            sync: Mutex::new(index.syncer(source)),
            chain,
            mempool,
            router: main_router(state.clone(), None),
            state,
        };
        world.follow_index();
        world.follow_mempool();
        world
    }

    /// The index comes to the tip of the chain.
    fn follow_index(&self) {
        self.sync.lock().catch_up(&AtomicBool::new(false)).unwrap();
    }

    /// The mempool comes to the tip of the index.
    fn follow_mempool(&self) {
        let tip = *self.state.query().tip_watch().borrow();
        self.mempool.change(|pool| pool.tip = tip);
    }

    async fn call(&self, method: Method, path: &str, body: impl Into<Body>) -> Answer {
        let request = Request::builder().method(method).uri(path);
        let request = request.body(body.into()).unwrap();
        Answer::of(self.router.clone().oneshot(request).await.unwrap()).await
    }

    /// As [`World::call`], on the operator's listener.
    async fn operator(&self, method: Method, path: &str, body: impl Into<Body>) -> Answer {
        let router = Router::new().fallback(super::handle_operator);
        let router = router.with_state(self.state.clone());
        let request = Request::builder().method(method).uri(path);
        let request = request.body(body.into()).unwrap();
        Answer::of(router.oneshot(request).await.unwrap()).await
    }

    async fn get(&self, path: &str) -> Answer {
        self.call(Method::GET, path, Body::empty()).await
    }

    /// Outputs of the chain that are not spent, in the same order each time.
    fn coins(&self) -> Vec<(OutPoint, SpentOutput)> {
        self.chain.coins().into_iter().collect()
    }

    /// A block with these transactions (and a coinbase) on the chain, not yet indexed.
    fn confirm(&self, txs: &[&Transaction], nonce: u32) {
        let height = u32::try_from(self.chain.active().len()).unwrap();
        let mut coinbase = self.chain.blocks()[1].0.txdata[0].clone();
        coinbase.input[0].script_sig = ScriptBuf::from_bytes(height.to_le_bytes().to_vec());
        let mut txdata = vec![coinbase];
        txdata.extend(txs.iter().map(|tx| (**tx).clone()));
        let previous = *self.chain.active().last().unwrap();
        let block = memchain::block(previous, height, txdata, nonce);
        let spent = memchain::update_coins(&mut self.chain.coins(), &block, height);
        self.chain.connect(block, spent);
    }
}

/// A script that the chain does not use.
fn script(index: u8) -> ScriptBuf {
    ScriptBuf::from_bytes([&[0, 0x14][..], &[0xc0 + index; 20]].concat())
}

fn scripthash(script: &ScriptBuf) -> String {
    let hash = sha256::Hash::hash(script.as_bytes());
    hash.to_byte_array()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

/// An entry of the mempool that spends `coin` and pays all but one satoshi to `to`.
fn spend(coin: &(OutPoint, SpentOutput), to: &ScriptBuf, sequence: u64) -> MempoolTx {
    let value = coin.1.output.value - Amount::from_sat(1);
    spend_into(
        coin,
        vec![TxOut {
            value,
            script_pubkey: to.clone(),
        }],
        sequence,
    )
}

fn spend_into(coin: &(OutPoint, SpentOutput), output: Vec<TxOut>, sequence: u64) -> MempoolTx {
    let tx = Transaction {
        version: Version::TWO,
        lock_time: LockTime::ZERO,
        input: vec![TxIn {
            previous_output: coin.0,
            script_sig: ScriptBuf::new(),
            sequence: Sequence::MAX,
            witness: Witness::new(),
        }],
        output,
    };
    let spent: Amount = tx.output.iter().map(|output| output.value).sum();
    MempoolTx {
        txid: tx.compute_txid(),
        wtxid: tx.compute_wtxid(),
        prevouts: Arc::new([coin.1.output.clone()]),
        fee: coin.1.output.value - spent,
        weight: tx.weight().to_wu(),
        vsize: tx.weight().to_vbytes_ceil(),
        sigop_cost: 0,
        time: 1_700_000_000 + sequence,
        sequence,
        tx: Arc::new(tx),
    }
}

/// The output of an entry, as a coin to spend.
fn output_of(entry: &MempoolTx, vout: u32) -> (OutPoint, SpentOutput) {
    let output = entry.tx.output[vout as usize].clone();
    let coin = SpentOutput {
        output,
        height: 0,
        is_coinbase: false,
    };
    (OutPoint::new(entry.txid, vout), coin)
}
