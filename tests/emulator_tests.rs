//! The emulator's own tests, which need a C++ compiler and no Rust: micro-kernels with known
//! answers in every mode, and misuses that must be reported (`kernels/emulator/tests/run.sh`).

use std::path::Path;
use std::process::Command;

#[test]
fn the_emulators_own_tests_pass() {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("kernels/emulator/tests/run.sh");
    let build = Path::new(env!("CARGO_TARGET_TMPDIR")).join("emulator");
    let out = Command::new(script).arg(build).output().unwrap();
    let said = String::from_utf8_lossy(&out.stdout) + String::from_utf8_lossy(&out.stderr);
    assert!(out.status.success(), "{said}");
}
