//! What is tested: one file for each parser.

pub mod accept;
pub mod addr;
pub mod block;
pub mod compact_block;
pub mod descriptors;
pub mod electrum;
pub mod fleet;
pub mod frames;
pub mod handshake;
pub mod http;
pub mod message;
pub mod packets;

use std::{
    future::Future,
    hash::{DefaultHasher, Hash, Hasher},
    time::Duration,
};

use pulse_p2p::{codec::CodecError, message::Message, transport::Connection};
use tokio::{
    io::{AsyncWriteExt, DuplexStream, copy, duplex, sink, split},
    runtime::{Builder, Runtime},
    time::timeout,
};

/// Whatever takes longer hangs.
const HANG: Duration = Duration::from_secs(10);

thread_local! {
    static RUNTIME: Runtime = Builder::new_current_thread()
        .enable_time()
        .build()
        .expect("a runtime without I/O needs nothing");
}

/// A number for what became of an input.
fn outcome(what: impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    what.hash(&mut hasher);
    hasher.finish()
}

/// So that lists of similar lengths count as the same outcome.
fn magnitude(len: usize) -> u32 {
    usize::BITS - len.leading_zeros()
}

/// Runs to the end, which has to come soon.
fn block_on<T>(future: impl Future<Output = T>) -> T {
    RUNTIME.with(|runtime| {
        runtime.block_on(async { timeout(HANG, future).await.expect("it must not hang") })
    })
}

/// Runs `ours` on a connection whose other end says `data`, then nothing more, and
/// hears whatever it is told.
async fn against<T, F>(data: &[u8], ours: impl FnOnce(DuplexStream) -> F) -> T
where
    F: Future<Output = T>,
{
    let (our_end, their_end) = duplex(1 << 16);
    let (mut hears, mut says) = split(their_end);
    let theirs = async {
        // Our end may be gone before all is said.
        if says.write_all(data).await.is_ok() {
            let _ = says.shutdown().await;
        }
        let _ = copy(&mut hears, &mut sink()).await;
    };
    tokio::join!(ours(our_end), theirs).0
}

/// Reads until the connection ends; gives the outcome, and the bytes of all messages.
async fn read_all(connection: &mut Connection) -> (u64, u64) {
    let (mut kinds, mut bytes) = (Vec::new(), 0);
    loop {
        match connection.read().await {
            Ok((message, len)) => {
                message::check(&message);
                bytes += len;
                kinds.push(message_kind(&message));
            }
            Err(err) => return (outcome((kinds, error_kind(&err))), bytes),
        }
    }
}

fn message_kind(message: &Message) -> u64 {
    let len = match message {
        Message::Inv(list) | Message::GetData(list) | Message::NotFound(list) => list.len(),
        Message::Addr(list) => list.len(),
        Message::Headers(list) => list.len(),
        Message::CompactBlock(block) => block.short_ids.len() + block.prefilled_txs.len(),
        Message::BlockTxn(txs) => txs.transactions.len(),
        Message::GetBlockTxn(request) => request.indexes.len(),
        Message::GetHeaders(request) => request.locator_hashes.len(),
        Message::GetBlocks(request) => request.locator_hashes.len(),
        Message::Tx(tx) => tx.input.len() + 16 * tx.output.len(),
        _ => 0,
    };
    outcome((std::mem::discriminant(message), magnitude(len)))
}

fn error_kind(err: &CodecError) -> u64 {
    let io = match err {
        CodecError::Io(err) => Some(err.kind()),
        _ => None,
    };
    outcome((std::mem::discriminant(err), io))
}
