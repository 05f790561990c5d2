//! Checks that the processor has what the build assumes.
//!
//! Release builds name x86-64-v3 and PCLMULQDQ (`.cargo/config.toml`), for Rust and C++
//! alike. On an older processor they would end in an illegal instruction; this says so
//! first. The standard library's detection macro cannot be used: the compiler knows what
//! it was told to assume and folds the question away. So the processor is asked itself.
//!
//! # Correctness
//! `main` would be too late: constructors of C++ statics run before it, and they use what
//! the build allows. So the check stands in `.preinit_array`, which the dynamic linker
//! calls before all constructors (System V ABI). It runs on processors that lack what the
//! compiler may use, so it holds nothing that would be worth vector instructions: no
//! allocation, no formatting, no large moves.

use std::{
    arch::x86_64::{__cpuid, __cpuid_count},
    io::Write,
};

/// Exit code, that of any failure to run.
const EXIT_CODE: i32 = 1;

#[allow(
    unsafe_code,
    reason = "placing a function pointer in a section; see above"
)]
#[used]
#[unsafe(link_section = ".preinit_array")]
static BEFORE_CONSTRUCTORS: extern "C" fn() = check;

/// Name, CPUID leaf, register and bit of every feature that the build assumes beyond
/// baseline x86-64. From the x86-64 psABI's definition of level v3, and the manuals of
/// Intel and AMD for the bits.
const NEEDED: [(&str, u32, Register, u32); 17] = {
    use Register::{Ebx, Ecx};
    [
        ("sse3", 1, Ecx, 0),
        ("pclmulqdq", 1, Ecx, 1),
        ("ssse3", 1, Ecx, 9),
        ("fma", 1, Ecx, 12),
        ("cmpxchg16b", 1, Ecx, 13),
        ("sse4.1", 1, Ecx, 19),
        ("sse4.2", 1, Ecx, 20),
        ("movbe", 1, Ecx, 22),
        ("popcnt", 1, Ecx, 23),
        ("osxsave", 1, Ecx, 27),
        ("avx", 1, Ecx, 28),
        ("f16c", 1, Ecx, 29),
        ("bmi1", 7, Ebx, 3),
        ("avx2", 7, Ebx, 5),
        ("bmi2", 7, Ebx, 8),
        ("lahf", 0x8000_0001, Ecx, 0),
        ("lzcnt", 0x8000_0001, Ecx, 5),
    ]
};

#[derive(Clone, Copy)]
enum Register {
    Ebx,
    Ecx,
}

extern "C" fn check() {
    let missing = missing_features();
    if missing != 0 {
        report(missing);
        // Not std's exit: nothing has been constructed that could be destroyed.
        signal_hook::low_level::exit(EXIT_CODE);
    }
}

/// Features that are missing, as bits of the numbers of their entries in [`NEEDED`].
#[inline(never)]
fn missing_features() -> u32 {
    let mut missing = 0;
    let mut number = 0;
    while number < NEEDED.len() {
        let (_, leaf, register, bit) = NEEDED[number];
        // A leaf above the highest one that the processor has reads as another.
        let exists = __cpuid(leaf & 0x8000_0000).eax >= leaf;
        let result = __cpuid_count(leaf, 0);
        let bits = match register {
            Register::Ebx => result.ebx,
            Register::Ecx => result.ecx,
        };
        if !exists || bits >> bit & 1 == 0 {
            missing |= 1 << number;
        }
        number += 1;
    }
    missing
}

/// Says on standard error which features are missing.
#[inline(never)]
fn report(missing: u32) {
    let write = |text: &str| {
        // There is nobody left to tell.
        let _ = std::io::stderr().write_all(text.as_bytes());
    };
    write("pulse-node: error: this processor lacks");
    let mut number = 0;
    while number < NEEDED.len() {
        if missing >> number & 1 == 1 {
            write(" ");
            write(NEEDED[number].0);
        }
        number += 1;
    }
    write("; this build needs x86-64-v3 and pclmulqdq\n");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn agrees_with_the_flags_that_the_kernel_shows() {
        let text = std::fs::read_to_string("/proc/cpuinfo").unwrap();
        let flags = text
            .lines()
            .find_map(|line| line.strip_prefix("flags"))
            .unwrap()
            .split_whitespace()
            .collect::<Vec<_>>();
        let missing = missing_features();
        for (number, (name, ..)) in NEEDED.into_iter().enumerate() {
            let flag = match name {
                "sse3" => "pni",
                "cmpxchg16b" => "cx16",
                "sse4.1" => "sse4_1",
                "sse4.2" => "sse4_2",
                "osxsave" => "xsave",
                "lahf" => "lahf_lm",
                "lzcnt" => "abm",
                same => same,
            };
            let is_missing = missing >> number & 1 == 1;
            assert_eq!(flags.contains(&flag), !is_missing, "{name}");
        }
    }
}
