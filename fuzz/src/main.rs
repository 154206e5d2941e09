//! One program for all targets: the variable `FUZZ_TARGET` names one of [`targets::ALL`].

#![no_main]
// The fuzzer's runtime calls the entry point that this macro makes.
#![allow(unsafe_code)]

mod targets;

use std::sync::OnceLock;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    static TARGET: OnceLock<targets::Target> = OnceLock::new();
    TARGET.get_or_init(|| {
        let name = std::env::var("FUZZ_TARGET").unwrap_or_default();
        let found = targets::ALL.iter().find(|(known, _)| *known == name);
        found.unwrap_or_else(|| panic!("FUZZ_TARGET: {name:?} is not a target")).1
    })(data);
});
