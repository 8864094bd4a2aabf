//! What tests of the whole program share.

use std::path::PathBuf;
use std::process::Command;

use chaos::process::find_program;

/// The program, newly built: cargo builds the binaries of this package only.
pub fn program() -> PathBuf {
    if let Some(program) = std::env::var_os("ATLAS_SMR") {
        return program.into();
    }
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args(["build", "--quiet", "--package", "atlas-smr-cli", "--bin", "atlas-smr"]);
    if !cfg!(debug_assertions) {
        cargo.arg("--release");
    }
    let own = std::env::current_exe().expect("this test");
    // <target>/<profile>/deps/<test>
    let target = own.ancestors().nth(3).expect("a target directory");
    let built = cargo.arg("--target-dir").arg(target).current_dir(env!("CARGO_MANIFEST_DIR")).status();
    assert!(built.expect("cargo").success(), "the program does not build");
    find_program().expect("it was built")
}
