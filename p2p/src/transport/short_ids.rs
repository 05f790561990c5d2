//! Commands of one byte in the encrypted transport (BIP 324).

/// The command of each id, from 1 on.
const COMMANDS: [&str; 28] = [
    "addr",
    "block",
    "blocktxn",
    "cmpctblock",
    "feefilter",
    "filteradd",
    "filterclear",
    "filterload",
    "getblocks",
    "getblocktxn",
    "getdata",
    "getheaders",
    "headers",
    "inv",
    "mempool",
    "merkleblock",
    "notfound",
    "ping",
    "pong",
    "sendcmpct",
    "tx",
    "getcfilters",
    "cfilter",
    "getcfheaders",
    "cfheaders",
    "getcfcheckpt",
    "cfcheckpt",
    "addrv2",
];

/// The command that `id` stands for; `None` if it is not assigned. 0 is not an id: a
/// long command follows it.
pub(super) fn command_of(id: u8) -> Option<&'static str> {
    COMMANDS.get(usize::from(id.checked_sub(1)?)).copied()
}

/// The id of `command`, if it has one.
pub(super) fn id_of(command: &str) -> Option<u8> {
    let at = COMMANDS.iter().position(|known| *known == command)?;
    u8::try_from(at + 1).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_those_of_bip_324() {
        for (id, command) in [(1, "addr"), (14, "inv"), (21, "tx"), (28, "addrv2")] {
            assert_eq!(command_of(id), Some(command));
        }
        assert_eq!((command_of(0), command_of(29)), (None, None));
        assert_eq!(id_of("version"), None);
        for id in 1..=28 {
            assert_eq!(command_of(id).and_then(id_of), Some(id));
        }
    }
}
