//! What tests of seeded hashes share.

use std::process::Command;

/// Checks that `hash`, computed by the test `name`, is another one in another process: it runs that test there.
pub(crate) fn assert_seeded_per_process(name: &str, hash: u64) {
    const INSIDE: &str = "ATLAS_TEST_OF_SEEDS";
    println!("hash {hash:016x}");
    if std::env::var_os(INSIDE).is_some() {
        return;
    }
    let program = std::env::current_exe().expect("a program");
    let another = Command::new(program).args(["--exact", name, "--nocapture"]).env(INSIDE, "1").output();
    let printed = String::from_utf8(another.expect("it runs").stdout).expect("text");
    let (_, other) = printed.split_once("hash ").expect("a test of this name");
    assert_ne!(&other[..16], format!("{hash:016x}"));
}
