//! What the pipeline does at the limits of a process: each test runs itself again, in a process of its own.
#![expect(clippy::unwrap_used, reason = "helpers of tests panic like tests")]

use std::num::NonZeroUsize;
use std::process::Command;
use std::{env, fs, io};

use drydock_encode::compress::Compression;
use drydock_encode::pipeline::{self, Error, Job};
use drydock_io::sink::Sink;

/// Set in the process that a test started.
const INNER: &str = "PIPELINE_TEST_INNER";
const MIB: u64 = 1 << 20;

/// Runs this test in a shell that first does `prepare`; it must succeed.
fn run_inside(test: &str, prepare: &str) {
    let script = format!("{prepare} exec \"$0\" --exact {test} --nocapture");
    let executable = env::current_exe().unwrap();
    let output = Command::new("sh").arg("-c").arg(script).arg(executable).env(INNER, "1").output().unwrap();
    let printed = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && printed.contains("1 passed"), "{printed}");
}

#[expect(clippy::disallowed_methods, reason = "the test says by a variable that it runs itself again")]
fn is_inner() -> bool {
    env::var_os(INNER).is_some()
}

/// The most memory that this process ever had, in bytes.
fn peak_memory() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().strip_suffix(" kB").unwrap().parse::<u64>().unwrap() * 1024
}

#[test]
fn memory_is_bounded() {
    if !is_inner() {
        return run_inside("memory_is_bounded", "");
    }
    let dir = tempfile::tempdir().unwrap();
    // Layers of 300 MiB in all, in pieces as large as the sink lends.
    let source = |sink: &mut dyn Sink| -> io::Result<()> {
        let mut left = 100 * MIB;
        while left > 0 {
            let space = sink.space()?;
            let n = space.len().min(usize::try_from(left).unwrap());
            space[..n].fill((left % 251) as u8);
            sink.advance(n);
            left -= n as u64;
        }
        Ok(())
    };
    let blob = Some((dir.path(), Compression::FAST_GZIP));
    let jobs = [(); 3].map(|()| Job { source: &source, known: None, blob, copy: Some(dir.path()) });
    for threads in [2, 8] {
        let done = pipeline::run(&jobs, NonZeroUsize::new(threads).unwrap()).unwrap();
        assert!(done.iter().all(|layer| layer.size == 100 * MIB));
        let bound = (48 + 8 * threads as u64) * MIB;
        assert!(peak_memory() <= bound, "{} bytes with {threads} threads", peak_memory());
    }
}

#[test]
fn full_disk_stops_an_endless_source() {
    if !is_inner() {
        // No file may be larger than 2 MiB or so; ignoring the signal makes that an error.
        return run_inside("full_disk_stops_an_endless_source", "trap '' XFSZ; ulimit -f 4096;");
    }
    let dir = tempfile::tempdir().unwrap();
    let source = |sink: &mut dyn Sink| -> io::Result<()> {
        loop {
            sink.write_all(&[0; 1000])?;
        }
    };
    let job = Job { source: &source, known: None, blob: None, copy: Some(dir.path()) };
    let error = pipeline::run(&[job], NonZeroUsize::MIN).unwrap_err();
    assert!(matches!(error, Error::Write { .. }), "{error}");
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0, "a temporary file is left");
}
