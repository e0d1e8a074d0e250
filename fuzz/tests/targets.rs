//! Every target for some seconds: what it finds at once, nobody needs to look for.

use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

/// What the fuzzer says.
fn said(arguments: [&str; 2]) -> (bool, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_drydock-fuzz")).args(arguments).output();
    let output = output.expect("it can be started");
    let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    (output.status.success(), said.into_owned())
}

#[test]
fn nothing_is_found_in_some_seconds() {
    // It lists its targets to whom asks for another one.
    let (_, list) = said(["other", "0"]);
    let list = list.lines().next().and_then(|line| line.split_once("there are ")).expect(&list).1;
    let targets: Vec<&str> = list.split(", ").collect();
    assert!(targets.len() > 20, "{targets:?}");
    let next = AtomicUsize::new(0);
    thread::scope(|scope| {
        // Two at a time.
        for _ in 0..2 {
            scope.spawn(|| {
                while let Some(target) = targets.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let (is_done, said) = said([target, "3"]);
                    assert!(is_done && said.contains("no finding"), "{target}: {said}");
                }
            });
        }
    });
}
