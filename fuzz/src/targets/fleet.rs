//! What siblings say to each other beside the Bitcoin protocol: hello, and status in gossip.

use pulse_fleet::{
    hello::{Hello, VERSION, Version},
    status::{MAX_ADDRS, MAX_LEN, Status},
};
use pulse_primitives::bitcoin::{
    Network, block::Header, consensus::serialize, constants::genesis_block,
};

use super::{magnitude, outcome};

/// A hello that decodes is the same when it is sent on.
pub fn run_hello(data: &[u8]) -> u64 {
    let Some(hello) = Hello::decode(data) else {
        return 0;
    };
    assert!(hello.ticket.len() <= data.len());
    let again = Hello::decode(&hello.encode());
    assert_eq!(again.as_ref(), Some(&hello), "sent on");
    let works = VERSION.works_with(hello.version);
    assert_eq!(works, hello.version.works_with(VERSION));
    outcome((works, magnitude(hello.ticket.len())))
}

/// Hellos with and without a ticket, and one of a later version.
pub fn seeds_hello() -> Vec<Vec<u8>> {
    let hello = |minor, ticket| Hello {
        version: Version { major: 1, minor },
        network: [3; 32],
        ticket,
    };
    let mut later = hello(1, vec![9; 72]).encode();
    later.extend(b"what a later version says");
    vec![
        hello(0, Vec::new()).encode(),
        hello(0, vec![9; 72]).encode(),
        later,
    ]
}

/// The input follows the header, without whose work nothing is looked at. A status that decodes is
/// within its limits and the same when it is sent on.
pub fn run_status(data: &[u8]) -> u64 {
    let message = [serialize(&header()), data.to_vec()].concat();
    let Some(status) = Status::decode(&message) else {
        return 0;
    };
    assert!(message.len() <= MAX_LEN);
    assert!(status.addrs.len() <= MAX_ADDRS);
    let again = Status::decode(&status.encode());
    assert_eq!(again.as_ref(), Some(&status), "sent on");
    let lens = [status.version.len(), status.ticket.len()].map(magnitude);
    outcome((lens, status.addrs.len(), status.is_draining))
}

/// Statuses with nothing and with everything that there can be.
pub fn seeds_status() -> Vec<Vec<u8>> {
    let empty = Status {
        header: header(),
        height: 7,
        indexed: None,
        load_percent: 0,
        is_draining: false,
        version: String::new(),
        ticket: Vec::new(),
        addrs: Vec::new(),
    };
    let addrs = ["/ip4/10.0.0.1/tcp/4001", "/ip6/::1/udp/4001/quic-v1"];
    let full = Status {
        indexed: Some(6),
        load_percent: 250,
        is_draining: true,
        version: "1.2.3".to_owned(),
        ticket: vec![9; 72],
        addrs: addrs.map(|addr| addr.parse().expect("an address")).to_vec(),
        ..empty.clone()
    };
    let statuses = [empty, full];
    let len = serialize(&header()).len();
    statuses
        .map(|status| status.encode()[len..].to_vec())
        .to_vec()
}

fn header() -> Header {
    genesis_block(Network::Regtest).header
}
