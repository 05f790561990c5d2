use super::*;

/// A compressed key, by form alone.
const KEY: [u8; 33] = [2; 33];

/// A signature by form alone, with this first byte of S and this hash type.
fn signature(s: u8, hash_type: u8) -> Vec<u8> {
    let mut der = vec![0x30, 0, 2, 32];
    der.extend([1; 32]);
    if s & 0x80 == 0 {
        der.extend([2, 32, s]);
    } else {
        der.extend([2, 33, 0, s]);
    }
    der.extend([1; 31]);
    der[1] = u8::try_from(der.len() - 2).unwrap();
    der.push(hash_type);
    der
}

fn push(data: &[u8]) -> Vec<u8> {
    let len = u8::try_from(data.len()).unwrap();
    let mut script = match len {
        0..=75 => vec![len],
        _ => vec![op::PUSHDATA1, len],
    };
    script.extend(data);
    script
}

fn pushes(items: &[&[u8]]) -> Vec<u8> {
    items.iter().flat_map(|item| push(item)).collect()
}

fn p2pkh() -> Vec<u8> {
    [
        &[op::DUP, op::HASH160, 20][..],
        &[7; 20],
        &[op::EQUALVERIFY, op::CHECKSIG],
    ]
    .concat()
}

fn p2sh() -> Vec<u8> {
    [&[op::HASH160, 20][..], &[7; 20], &[op::EQUAL]].concat()
}

fn program(version: u8, len: u8) -> Vec<u8> {
    let mut script = vec![
        if version == 0 {
            0
        } else {
            op::N1 + version - 1
        },
        len,
    ];
    script.extend(vec![7; len.into()]);
    script
}

fn key_check(key: &[u8]) -> Vec<u8> {
    [push(key), vec![op::CHECKSIG]].concat()
}

fn legacy(script_sig: &[u8], script: &[u8]) -> Verdict {
    judge_input(script_sig, &Witness::new(), script)
}

fn witness(items: &[&[u8]], script: &[u8]) -> Verdict {
    judge_input(&[], &Witness::from_slice(items), script)
}

#[test]
fn ordinary_spends_pass() {
    let sig = signature(0x10, 1);
    assert_eq!(legacy(&pushes(&[&sig, &KEY]), &p2pkh()), Ok(()));
    assert_eq!(legacy(&pushes(&[&sig, &key_check(&KEY)]), &p2sh()), Ok(()));
    assert_eq!(witness(&[&sig, &KEY], &program(0, 20)), Ok(()));
    assert_eq!(witness(&[&sig, &key_check(&KEY)], &program(0, 32)), Ok(()));
    assert_eq!(witness(&[&[1; 64]], &program(1, 32)), Ok(()));
    assert_eq!(witness(&[], &[0x51, 2, 0x4e, 0x73]), Ok(()));
}

#[test]
fn a_high_s_is_refused_wherever_it_stands() {
    let sig = signature(0x90, 1);
    let script_sig = pushes(&[&sig, &KEY]);
    assert_eq!(legacy(&script_sig, &p2pkh()), Err(HIGH_S));
    assert_eq!(witness(&[&sig, &KEY], &program(0, 20)), Err(HIGH_S));
    // OP_SIZE, whatever it is for.
    let unknown = [0x82, op::CHECKSIG];
    assert_eq!(witness(&[&sig, &unknown], &program(0, 32)), Err(HIGH_S));
}

#[test]
fn half_of_the_order_is_the_greatest_s() {
    let with_s = |s: &[u8; 32]| {
        let mut sig = signature(0x10, 1);
        let at = sig.len() - 33;
        sig[at..at + 32].copy_from_slice(s);
        sig
    };
    let mut above = HALF_ORDER;
    above[31] += 1;
    assert_eq!(judge_signature(&with_s(&HALF_ORDER)), Ok(()));
    assert_eq!(judge_signature(&with_s(&above)), Err(HIGH_S));
}

#[test]
fn an_undefined_hash_type_is_refused() {
    for (hash_type, verdict) in [
        (0, Err(HASH_TYPE)),
        (3, Ok(())),
        (4, Err(HASH_TYPE)),
        (0x81, Ok(())),
        (0x84, Err(HASH_TYPE)),
    ] {
        let sig = signature(0x10, hash_type);
        assert_eq!(
            witness(&[&sig, &KEY], &program(0, 20)),
            verdict,
            "{hash_type}"
        );
    }
}

#[test]
fn segwit_keys_must_be_compressed() {
    let (sig, key) = (signature(0x10, 1), [4; 65]);
    let refused = Err(WITNESS_PUBKEY_TYPE);
    assert_eq!(witness(&[&sig, &key], &program(0, 20)), refused);
    assert_eq!(witness(&[&sig, &key_check(&key)], &program(0, 32)), refused);
    assert_eq!(legacy(&pushes(&[&sig, &key]), &p2pkh()), Ok(()));
}

#[test]
fn hybrid_keys_are_refused() {
    let (sig, key) = (signature(0x10, 1), [6; 65]);
    assert_eq!(legacy(&pushes(&[&sig, &key]), &p2pkh()), Err(PUBKEY_TYPE));
}

#[test]
fn a_key_of_a_multisig_that_may_not_be_tried_is_not_judged() {
    let (sig, odd) = (signature(0x10, 1), [4; 65]);
    let script = |first: &[u8], last: &[u8]| {
        [
            vec![0x51],
            push(first),
            push(last),
            vec![0x52, op::CHECKMULTISIG],
        ]
        .concat()
    };
    let (last, first) = (script(&KEY, &odd), script(&odd, &KEY));
    assert_eq!(
        witness(&[&[], &sig, &last], &program(0, 32)),
        Err(WITNESS_PUBKEY_TYPE)
    );
    assert_eq!(witness(&[&[], &sig, &first], &program(0, 32)), Ok(()));
}

#[test]
fn what_is_left_on_the_stack_is_refused() {
    let sig = signature(0x10, 1);
    let more = pushes(&[&[9, 9], &sig, &KEY]);
    assert_eq!(legacy(&more, &p2pkh()), Err(CLEAN_STACK));
}

#[test]
fn pushes_that_are_too_long_are_refused() {
    let sig = signature(0x10, 1);
    let mut script_sig = vec![op::PUSHDATA1, u8::try_from(sig.len()).unwrap()];
    script_sig.extend(&sig);
    script_sig.extend(push(&KEY));
    assert_eq!(legacy(&script_sig, &p2pkh()), Err(MINIMAL_DATA));
    for (script, minimal) in [
        (&[1, 5][..], false),
        (&[1, 0x81], false),
        (&[1, 17], true),
        (&[0x55], true),
        (&[op::PUSHDATA2, 1, 0, 17], false),
        (&[op::PUSHDATA1, 0], false),
    ] {
        let (opcode, data) = Ops(script).next().unwrap();
        let is_push = opcode <= op::PUSHDATA4;
        assert_eq!(!is_push || is_minimal(opcode, data), minimal, "{script:?}");
    }
}

#[test]
fn what_a_conditional_may_skip_is_not_judged() {
    let inside = [op::IF, op::NOP4, 1, 5, op::ENDIF, op::N1];
    assert_eq!(scan(&inside, Version::WitnessV0), Ok(()));
    let behind = [op::IF, op::ENDIF, op::NOP4];
    assert_eq!(scan(&behind, Version::WitnessV0), Err(UPGRADABLE_NOPS));
}

#[test]
fn a_code_separator_counts_outside_of_witnesses_even_if_skipped() {
    let script = [op::IF, op::CODESEPARATOR, op::ENDIF, op::N1];
    assert_eq!(
        legacy(&pushes(&[&[1, 1], &script]), &p2sh()),
        Err(CODE_SEPARATOR)
    );
    assert_eq!(scan(&script, Version::WitnessV0), Ok(()));
}

#[test]
fn programs_of_the_future_are_refused() {
    assert_eq!(witness(&[], &program(2, 32)), Err(UPGRADABLE_WITNESS));
    assert_eq!(witness(&[], &program(1, 20)), Err(UPGRADABLE_WITNESS));
    let wrapped = push(&program(1, 32));
    assert_eq!(legacy(&wrapped, &p2sh()), Err(UPGRADABLE_WITNESS));
}

#[test]
fn tapscripts_of_the_future_are_refused() {
    let spend = |script: &[u8], leaf: u8| {
        let mut control = [7; 33];
        control[0] = leaf;
        witness(&[script, &control], &program(1, 32))
    };
    assert_eq!(spend(&[op::N1], 0xc1), Ok(()));
    assert_eq!(spend(&[op::N1], 0xc2), Err(UPGRADABLE_TAPROOT));
    assert_eq!(spend(&[op::N1, 187], 0xc0), Err(OP_SUCCESS));
    assert_eq!(spend(&key_check(&[7; 32]), 0xc0), Ok(()));
    assert_eq!(spend(&key_check(&[7; 33]), 0xc0), Err(UPGRADABLE_PUBKEY));
    // An annex does not hide the script.
    let annexed = witness(&[&[187], &[0xc0; 33], &[ANNEX_TAG]], &program(1, 32));
    assert_eq!(annexed, Err(OP_SUCCESS));
}

#[test]
fn malformed_scripts_are_left_to_the_kernel() {
    for script in [
        &[75][..],
        &[op::PUSHDATA1],
        &[op::PUSHDATA4, 255, 255, 255, 255, 0],
    ] {
        assert_eq!(scan(script, Version::Base), Ok(()));
    }
    assert_eq!(legacy(&[], &p2pkh()), Err(CLEAN_STACK));
    assert_eq!(legacy(&[], &p2sh()), Ok(()));
}
