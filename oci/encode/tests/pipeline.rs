//! What the pipeline does at the limits of a process: each test runs itself again, in a process of its own.
#![expect(clippy::unwrap_used, reason = "helpers of tests panic like tests")]

use std::num::NonZeroUsize;
use std::process::Command;
use std::{env, fs, io, thread};

use drydock_encode::pipeline::{self, Error, Job, Settings};
use drydock_io::dir::Place;
use drydock_io::sink::Sink;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Set in the process that a test started.
const INNER: &str = "PIPELINE_TEST_INNER";
const MIB: u64 = 1 << 20;
/// So much address space each thread asks for in the process that a test started.
const STACK: u64 = 256 * MIB;

/// Runs this test in a shell that first does `prepare`; it must succeed.
fn run_inside(test: &str, prepare: &str) {
    let script = format!("{prepare} \"$0\" --exact {test} --nocapture");
    let mut command = Command::new("sh");
    command.arg("-c").arg(script).arg(env::current_exe().unwrap());
    command.env(INNER, "1").env("RUST_MIN_STACK", STACK.to_string());
    // The allocator does as that of the executables that ship: large pieces go back to the system once they
    // are free.
    command.env("MALLOC_MMAP_THRESHOLD_", (128 << 10).to_string());
    let output = command.output().unwrap();
    let printed = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && printed.contains("1 passed"), "{printed}");
}

#[expect(clippy::disallowed_methods, reason = "the test says by a variable that it runs itself again")]
fn is_inner() -> bool {
    env::var_os(INNER).is_some()
}

fn settings(threads: usize, compression: &str) -> Settings {
    let threads = NonZeroUsize::new(threads).unwrap();
    Settings { threads, compression: compression.parse().unwrap(), write_out: false }
}

/// What the kernel says of this process, in bytes.
fn status(field: &str) -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(field)).unwrap();
    line.trim().strip_suffix(" kB").unwrap().parse::<u64>().unwrap() * 1024
}

/// Writes bytes that cannot be compressed, in pieces as large as the sink lends.
fn noise(size: u64) -> impl Fn(&mut dyn Sink) -> io::Result<()> {
    move |sink| {
        let (mut left, mut state) = (size, 1_u64);
        while left > 0 {
            let space = sink.space()?;
            let n = space.len().min(usize::try_from(left).unwrap());
            for byte in &mut space[..n] {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                *byte = (state >> 56) as u8;
            }
            sink.advance(n);
            left -= n as u64;
        }
        Ok(())
    }
}

#[test]
fn memory_is_bounded_whatever_there_is_to_do() {
    if !is_inner() {
        return run_inside("memory_is_bounded_whatever_there_is_to_do", "");
    }
    let dir = tempfile::tempdir().unwrap();
    let source = noise(4 * MIB);
    let place = Place::by_path(&dir.path().join("layer"));
    let (blob, copy) = (Some(&place), Some(dir.path()));
    let jobs = [(); 20].map(|()| Job { source: &source, known: None, blob, copy });
    for (threads, compression) in
        [(2, "gzip"), (64, "gzip"), (1000, "gzip:9"), (64, "zstd:3"), (1000, "zstd:19"), (64, "none")]
    {
        // Stronger levels take time: so many layers are in work at once.
        let jobs = if compression == "gzip" { &jobs[..] } else { &jobs[..8] };
        let done = pipeline::run(jobs, settings(threads, compression)).unwrap();
        assert!(done.iter().all(|layer| layer.size == 4 * MIB));
        let peak = status("VmHWM:");
        assert!(peak <= 64 * MIB, "{peak} bytes with {threads} threads, {compression}");
    }
}

#[test]
fn threads_that_cannot_be_had_are_done_without() {
    if !is_inner() {
        return run_inside("threads_that_cannot_be_had_are_done_without", "");
    }
    let dir = tempfile::tempdir().unwrap();
    let source = noise(12 * MIB);
    let place = Place::by_path(&dir.path().join("layer"));
    let (blob, copy) = (Some(&place), Some(dir.path()));
    let jobs = [(); 2].map(|()| Job { source: &source, known: None, blob, copy });
    let digests = || {
        let done = pipeline::run(&jobs, settings(8, "gzip")).unwrap();
        done.iter().map(|layer| (layer.diff_id, layer.blob.as_ref().unwrap().digest)).collect::<Vec<_>>()
    };
    let (before, unlimited) = (status("VmSize:"), getrlimit(Resource::As));
    let limit = |threads| {
        let current = Some(before + threads * STACK + STACK / 2);
        setrlimit(Resource::As, Rlimit { current, ..unlimited }).unwrap();
    };
    limit(0);
    assert!(thread::Builder::new().spawn(|| ()).is_err(), "threads can be had all the same");
    let alone = digests();
    for threads in [1, 2, 1000] {
        limit(threads);
        assert_eq!(digests(), alone, "{threads} threads");
    }
}

#[test]
fn blobs_go_to_the_disk_while_they_are_made() {
    let test = "blobs_go_to_the_disk_while_they_are_made";
    if !is_inner() {
        let dir = tempfile::tempdir().unwrap();
        let trace = dir.path().join("trace");
        run_inside(test, &format!("exec strace -f -qq -e trace=/fadvise -o {}", trace.display()));
        let trace = fs::read_to_string(trace).unwrap();
        assert_eq!(trace.lines().filter(|line| line.ends_with("= 0")).count(), 2, "{trace}");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let source = noise(20 * MIB);
    let place = Place::by_path(&dir.path().join("layer"));
    let (blob, copy) = (Some(&place), Some(dir.path()));
    for write_out in [true, false] {
        let settings = Settings { write_out, ..settings(2, "gzip") };
        pipeline::run(&[Job { source: &source, known: None, blob, copy }], settings).unwrap();
    }
}

#[test]
fn full_disk_stops_an_endless_source() {
    if !is_inner() {
        // No file may be larger than 2 MiB or so; ignoring the signal makes that an error.
        return run_inside("full_disk_stops_an_endless_source", "trap '' XFSZ; ulimit -f 4096;");
    }
    let dir = tempfile::tempdir().unwrap();
    let source = noise(u64::MAX);
    let job = Job { source: &source, known: None, blob: None, copy: Some(dir.path()) };
    let error = pipeline::run(&[job], settings(1, "gzip")).unwrap_err();
    assert!(matches!(error, Error::Write(_)), "{error}");
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0, "a temporary file is left");
}
