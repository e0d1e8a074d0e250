//! Every target for some seconds: what it finds at once, nobody needs to look for.

use std::process::Command;

#[test]
fn nothing_is_found_in_some_seconds() {
    let executable = env!("CARGO_BIN_EXE_drydock-fuzz");
    for target in [
        "reference",
        "json",
        "toml",
        "compression",
        "deflate",
        "tar",
        "archives",
        "dockerfile",
        "ignore",
        "variables",
        "sources",
        "registry",
    ] {
        let output = Command::new(executable).args([target, "3"]).output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() && said.contains("no finding"), "{target}: {said}");
    }
}
