//! Merging, precedence, and what is said about mistakes.

use std::{ffi::OsString, fs, path::Path, time::Duration};

use clap::Parser;
use pulse_primitives::bitcoin::{Network, Work};

use super::*;
use crate::cli::Cli;

const EXAMPLE: &str = include_str!(concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/../config.example.toml"
));

/// Loads from a file with `text`, variables, and the words of a command line.
fn load_all(text: &str, env: &[(&str, &str)], words: &[&str]) -> Result<load::Loaded, ConfigError> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("node.toml");
    fs::write(&path, text).unwrap();
    let words = ["pulse-node"].iter().chain(words);
    let mut flags = Cli::try_parse_from(words).unwrap().flags;
    flags.config = Some(path);
    let env = env
        .iter()
        .map(|(name, value)| (OsString::from(name), OsString::from(value)));
    load(&flags, env)
}

fn error(text: &str, env: &[(&str, &str)], words: &[&str]) -> String {
    load_all(text, env, words).unwrap_err().to_string()
}

fn config(text: &str, env: &[(&str, &str)], words: &[&str]) -> Config {
    load_all(text, env, words).unwrap().config
}

fn as_json(raw: &RawConfig) -> serde_json::Value {
    serde_json::to_value(raw).unwrap()
}

#[test]
fn flags_beat_environment_beats_file_beats_defaults() {
    let file = "[http]\naddr = \"127.0.0.1:1\"\n[log]\nformat = \"json\"\nfilter = \"warn\"";
    let env = [
        ("PULSE_HTTP__ADDR", "127.0.0.1:2"),
        ("PULSE_LOG__FILTER", "debug"),
    ];
    let flags = ["--http-addr", "127.0.0.1:3"];

    let all = config(file, &env, &flags);
    assert_eq!(all.http.addr.port(), 3);
    assert_eq!(all.log.filter, "debug");
    assert_eq!(all.log.format, LogFormat::Json);
    assert_eq!(all.http.cors, pulse_api::ApiConfig::default().cors);

    assert_eq!(config(file, &env, &[]).http.addr.port(), 2);
    assert_eq!(config(file, &[], &[]).http.addr.port(), 1);
    assert_eq!(config("", &[], &[]).http.addr.port(), 8080);
}

#[test]
fn every_flag_reaches_its_key() {
    let words = [
        "--data-dir",
        "/tmp/x",
        "--network",
        "signet",
        "--signet-challenge",
        "51",
        "--connect",
        "one.example:1",
        "--connect",
        "two.example",
        "--add-node",
        "three.example",
        "--max-peers",
        "50",
        "--proxy",
        "127.0.0.1:9050",
        "--only-net",
        "onion",
        "--only-net",
        "ipv4",
        "--min-chain-work",
        "ff",
        "--http-addr",
        "127.0.0.1:3",
        "--ops-addr",
        "[::1]:4",
        "--log-format",
        "json",
    ];
    let config = config("", &[], &words);
    assert_eq!(config.data_dir, Path::new("/tmp/x"));
    assert_eq!(config.chain.network, Network::Signet);
    assert_eq!(config.chain.signet_challenge, Some(vec![0x51]));
    let mut work = [0; 32];
    work[31] = 0xff;
    assert_eq!(config.chain.min_chain_work, Work::from_be_bytes(work));
    let peers = config.p2p.peers(config.chain.default_port).unwrap();
    let peers = peers.iter().map(ToString::to_string);
    assert_eq!(
        peers.collect::<Vec<_>>(),
        ["one.example:1", "two.example:38333", "three.example:38333"]
    );
    assert_eq!(config.p2p.max_peers, 50);
    assert_eq!(config.p2p.proxy, Some("127.0.0.1:9050".parse().unwrap()));
    assert_eq!(
        config.p2p.only_net,
        ["onion", "ipv4"].map(|name| name.parse().unwrap())
    );
    assert_eq!(config.http.ops_addr, Some("[::1]:4".parse().unwrap()));
    assert_eq!(config.log.format, LogFormat::Json);
    assert_eq!(config.simulate, None);
}

#[test]
fn variables_take_text_numbers_switches_and_lists() {
    let env = [
        ("PULSE_NODE__NETWORK", "signet"),
        // Looks like a number and is text.
        ("PULSE_NODE__SIGNET_CHALLENGE", "51"),
        ("PULSE_NODE__MIN_CHAIN_WORK", "0"),
        ("PULSE_NODE__STOP_TIMEOUT_SECS", "7"),
        ("PULSE_P2P__CONNECT", "one.example:1, two.example:2"),
    ];
    let loaded = load_all("", &env, &[]).unwrap();
    assert_eq!(loaded.warnings, Vec::<String>::new());
    let config = loaded.config;
    assert_eq!(config.chain.signet_challenge, Some(vec![0x51]));
    assert_eq!(config.chain.min_chain_work, Work::from_be_bytes([0; 32]));
    assert_eq!(config.stop_timeout, Duration::from_secs(7));
    assert_eq!(config.p2p.connect, ["one.example:1", "two.example:2"]);

    let simulate = [("PULSE_NODE__SIMULATE", "true")];
    assert!(self::config("", &simulate, &[]).simulate.is_some());
    let one = [("PULSE_P2P__CONNECT", "[::1]:5")];
    assert_eq!(
        self::config("", &one, &[]).p2p.peers(0).unwrap()[0].to_string(),
        "[::1]:5"
    );
}

#[test]
fn unknown_variables_warn_and_those_of_tests_and_build_do_not() {
    let env = [
        ("PULSE_HTTP__ADR", "127.0.0.1:1"),
        ("PULSE_NO_SECTION", "1"),
        ("PULSE_NOWHERE__AT_ALL", "1"),
        ("PULSE_CHAINDATA", "/somewhere"),
        ("PULSE_COMMIT", "abc"),
        ("HOME_OF_PULSE_HTTP__ADDR", "no"),
    ];
    let loaded = load_all("", &env, &[]).unwrap();
    assert_eq!(
        loaded.warnings,
        [
            "unknown environment variable PULSE_HTTP__ADR is ignored",
            "unknown environment variable PULSE_NOWHERE__AT_ALL is ignored",
            "unknown environment variable PULSE_NO_SECTION is ignored",
        ]
    );
    assert_eq!(loaded.config.http.addr.port(), 8080);
}

#[test]
fn an_unknown_key_in_the_file_is_named_with_the_file() {
    for (text, key) in [
        ("[p2p]\nconect = []", "p2p.conect"),
        ("[nowhere]\nx = 1", "nowhere"),
        ("connect = []", "connect"),
    ] {
        let error = error(text, &[], &[]);
        assert!(
            error.starts_with(&format!("unknown key \"{key}\" in /"))
                && error.ends_with("/node.toml"),
            "{error}"
        );
    }
}

#[test]
fn a_wrong_value_is_named_with_where_it_stands() {
    for (text, env, words, parts) in [
        (
            "[http]\naddr = \"localhost\"",
            [].as_slice(),
            [].as_slice(),
            ["node.toml: http.addr: ", "socket address"],
        ),
        (
            "[http]\naddr = 3",
            &[],
            &[],
            ["node.toml: http.addr: ", "found"],
        ),
        ("[http", &[], &[], ["node.toml: ", ""]),
        (
            "",
            &[("PULSE_HTTP__ADDR", "x")],
            &[],
            ["PULSE_HTTP__ADDR: ", "socket address"],
        ),
        (
            "",
            &[("PULSE_NODE__STOP_TIMEOUT_SECS", "-1")],
            &[],
            ["PULSE_NODE__STOP_TIMEOUT_SECS: ", "-1"],
        ),
        (
            "",
            &[],
            &["--http-addr", "127.0.0.1"],
            ["--http-addr 127.0.0.1: ", "socket address"],
        ),
        (
            "",
            &[],
            &["--ops-addr", ":9"],
            ["--ops-addr :9: ", "socket address"],
        ),
        (
            "",
            &[],
            &["--log-format", "xml"],
            ["--log-format xml: ", "xml"],
        ),
        (
            "",
            &[],
            &["--network", "main"],
            ["node.network: ", "\"main\" is not mainnet"],
        ),
        (
            "",
            &[],
            &["--signet-challenge", "51"],
            ["node.signet_challenge: ", "mainnet"],
        ),
        (
            "",
            &[],
            &["--network", "signet", "--signet-challenge", "5"],
            ["node.signet_challenge: ", "hex"],
        ),
        (
            "",
            &[],
            &["--min-chain-work", "xyz"],
            ["node.min_chain_work: ", "xyz"],
        ),
        ("", &[], &["--connect", "host:"], ["p2p.connect: ", "host:"]),
        ("[log]\nfilter = \"a=b=c\"", &[], &[], ["log.filter: ", ""]),
        (
            "[node]\nstop_timeout_secs = 0",
            &[],
            &[],
            ["node.stop_timeout_secs: ", "at least 1"],
        ),
    ] {
        let error = error(text, env, words);
        for part in parts {
            assert!(error.contains(part), "{error:?} does not say {part:?}");
        }
        assert!(!error.contains('\n'), "{error:?}");
    }
}

#[test]
fn a_missing_file_is_an_error() {
    let flags = Cli::try_parse_from(["pulse-node", "--config", "/nowhere/at/all"])
        .unwrap()
        .flags;
    let error = load(&flags, []).unwrap_err().to_string();
    assert!(error.contains("/nowhere/at/all"), "{error}");
}

#[test]
fn simulate_implies_regtest_and_refuses_any_other_network() {
    let simulated = config("", &[], &["--simulate"]);
    assert_eq!(simulated.chain.network, Network::Regtest);
    assert!(simulated.p2p.simulate);
    assert_eq!(
        simulated.simulate.unwrap().interval,
        Duration::from_secs(10)
    );
    config("", &[], &["--simulate", "--network", "regtest"]);
    for (text, env, words) in [
        (
            "",
            [].as_slice(),
            ["--simulate", "--network", "mainnet"].as_slice(),
        ),
        ("[node]\nnetwork = \"mainnet\"", &[], &["--simulate"]),
        ("", &[("PULSE_NODE__NETWORK", "signet")], &["--simulate"]),
    ] {
        let error = error(text, env, words);
        assert!(error.contains("a simulated chain is regtest"), "{error}");
    }
}

#[test]
fn traces_go_to_a_url_and_a_part_is_between_none_and_all() {
    let of = |text: &str| error(&format!("[trace]\n{text}"), &[], &[]);
    let wrong = of("otlp_endpoint = \"collector:4317\"");
    assert!(wrong.contains("trace.otlp_endpoint"), "{wrong}");
    let wrong = of("sample_ratio = 1.5");
    assert!(wrong.contains("trace.sample_ratio"), "{wrong}");
    let wrong = of("otlp_protocol = \"grpc\"");
    assert!(wrong.contains("http/protobuf"), "{wrong}");
    let read = config("[trace]\nsample_ratio = 1\n", &[], &[]);
    assert!((read.trace.sample_ratio - 1.0).abs() < f64::EPSILON);
}

#[test]
fn the_minimum_chain_work_is_that_of_the_network_unless_given() {
    let of = |words: &[&str]| config("", &[], words).chain.min_chain_work;
    assert!(of(&[]) > Work::from_be_bytes([0; 32]));
    assert_eq!(of(&["--min-chain-work", "0"]), Work::from_be_bytes([0; 32]));
    assert_eq!(of(&["--network", "regtest"]), Work::from_be_bytes([0; 32]));
}

#[test]
fn what_is_printed_reads_back_as_the_same() {
    let words = [
        "--network",
        "signet",
        "--signet-challenge",
        "51",
        "--connect",
        "one.example:1",
        "--min-chain-work",
        "ff",
        "--ops-addr",
        "127.0.0.1:9",
    ];
    let first = config("", &[], &words);
    let second = config(&first.to_toml().unwrap(), &[], &[]);
    assert_eq!(as_json(&first.raw), as_json(&second.raw));
}

#[test]
fn the_example_holds_every_key_with_its_default() {
    let example = toml::from_str::<RawConfig>(EXAMPLE).unwrap();
    assert_eq!(as_json(&example), as_json(&RawConfig::default()));
    let example = toml::from_str::<toml::Table>(EXAMPLE).unwrap();
    let defaults = toml::Table::try_from(RawConfig::default()).unwrap();
    assert_eq!(
        example, defaults,
        "a key is missing from config.example.toml"
    );
}

#[test]
fn keys_without_a_default_stand_in_the_example_as_comments_that_read() {
    let is_key = |line: &str| {
        line.strip_prefix('#')
            .is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_lowercase()))
    };
    let text = EXAMPLE
        .lines()
        .map(|line| if is_key(line) { &line[1..] } else { line })
        .collect::<Vec<_>>()
        .join("\n");
    toml::from_str::<RawConfig>(&text).unwrap();
    for key in [
        "proxy",
        "listen",
        "external",
        "ops_addr",
        "fallback_esplora",
        "fallback_ca",
        "salt",
    ] {
        assert!(
            text.contains(&format!("\n{key} = ")),
            "{key} is not in the example"
        );
    }
}
