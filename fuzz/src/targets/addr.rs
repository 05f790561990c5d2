//! Lists of addresses: `0 | addr` or `1 | addrv2`.

use pulse_p2p::{NetAddress, message::Outgoing};

use super::message::decode;
use crate::seeds;

/// What decodes is the same when it is sent on, and when it is shown and read back.
pub fn run(data: &[u8]) -> u64 {
    let Some((version, payload)) = data.split_first() else {
        return 0;
    };
    let command = ["addr", "addrv2"][usize::from(version & 1)];
    let decoded = pulse_p2p::message::Message::decode(command, payload.to_vec());
    if let Ok(pulse_p2p::message::Message::Addr(entries)) = decoded {
        for entry in entries {
            let shown = entry.address().to_string();
            let read = shown.parse::<NetAddress>().expect("what was shown");
            // What lies in fc00::/8 is read as CJDNS.
            assert_eq!(read.addr.flipped_to_cjdns(), entry.addr.flipped_to_cjdns());
            assert_eq!(read.port, entry.port);
        }
    }
    decode(command, payload)
}

/// Both messages, with entries of every network.
pub fn seeds() -> Vec<Vec<u8>> {
    [false, true]
        .map(|v2| {
            let message = Outgoing::addr(&seeds::entries(), v2);
            [&[u8::from(v2)], &message.payload()[..]].concat()
        })
        .to_vec()
}
