//! Tells the linker where the programs of this package find libtorch when they run, and the program which version it is.

use std::path::Path;

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    // Set by torch-sys, whichever way libtorch was chosen (LIBTORCH, LIBTORCH_USE_PYTORCH or the system's).
    let Ok(lib) = std::env::var("DEP_TCH_LIBTORCH_LIB") else {
        return;
    };
    // Without this, every run and test would need LD_LIBRARY_PATH.
    println!("cargo:rustc-link-arg=-Wl,-rpath,{lib}");
    let header = Path::new(&lib).with_file_name("include").join("torch/headeronly/version.h");
    println!("cargo:rerun-if-changed={}", header.display());
    let version = std::fs::read_to_string(header).ok().and_then(|text| version(&text));
    println!("cargo:rustc-env=DTWN_TORCH_VERSION={}", version.as_deref().unwrap_or("unknown"));
}

/// `MAJOR.MINOR.PATCH` from the `#define`s of libtorch's version header.
fn version(header: &str) -> Option<String> {
    let number = |part: &str| {
        let name = format!("TORCH_VERSION_{part}");
        header.lines().find_map(|line| {
            let mut words = line.split_whitespace();
            (words.next() == Some("#define") && words.next() == Some(&name)).then(|| words.next()).flatten()
        })
    };
    Some(format!("{}.{}.{}", number("MAJOR")?, number("MINOR")?, number("PATCH")?))
}
