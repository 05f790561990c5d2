//! Serves the blocks of a file to any number of nodes, for benchmarks.

use std::{net::SocketAddr, path::PathBuf, thread};

use clap::Parser;
use pulse_primitives::network::{ChainParams, network_by_name};
use pulse_testkit::{ScriptedPeer, ServedChain};

/// An honest Bitcoin peer that serves a file in blk-file framing.
#[derive(Debug, Parser)]
struct Args {
    /// The file: blocks in order, without gaps, genesis in front or not.
    #[arg(long)]
    file: PathBuf,
    /// mainnet, testnet3, testnet4, signet or regtest.
    #[arg(long, default_value = "regtest")]
    network: String,
    /// Address to listen on; with port 0, any free one.
    #[arg(long, default_value = "127.0.0.1:0")]
    listen: SocketAddr,
}

#[allow(clippy::print_stdout)] // the script that starts this waits for the line
fn main() -> Result<(), Box<dyn std::error::Error>> {
    let args = Args::parse();
    let network = network_by_name(&args.network).ok_or("no network of that name")?;
    let chain = ServedChain::from_file(&ChainParams::new(network, None), &args.file)?;
    let height = chain.height();
    let peer = ScriptedPeer::bind(args.listen, chain, &[])?;
    println!("serving {height} blocks on {}", peer.addr());
    loop {
        thread::park();
    }
}
