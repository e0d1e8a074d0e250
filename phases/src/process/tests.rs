//! Programs that are shell scripts. What signals do to them concerns the whole process, and has tests of its own.

use std::fs;
use std::io::{PipeWriter, Write as _};
use std::os::fd::{AsFd as _, BorrowedFd};
use std::path::Path;
use std::sync::mpsc;
use std::thread;

use rustix::process::test_kill_process;

use super::*;

/// Runs scripts of `sh` in a folder; gives how they ended and what they printed.
fn run_in(dir: &Path, scripts: &[impl AsRef<str>]) -> Vec<(io::Result<ExitStatus>, Vec<u8>)> {
    let signals = Signals::handle().unwrap();
    let mut outputs = vec![Vec::new(); scripts.len()];
    let mut programs = Vec::new();
    for (script, output) in scripts.iter().zip(&mut outputs) {
        let mut command = Command::new("/bin/sh");
        command.args(["-c", script.as_ref()]).current_dir(dir);
        programs.push(Program { command, output });
    }
    let ended = run_all(programs, &signals.hold()).unwrap();
    ended.into_iter().zip(outputs).collect()
}

/// Whether the process whose number a file holds is no more.
fn is_gone(pid_file: &Path) -> bool {
    let pid = fs::read_to_string(pid_file).unwrap().trim().parse().unwrap();
    test_kill_process(Pid::from_raw(pid).unwrap()) == Err(Errno::SRCH)
}

#[test]
fn how_programs_end() {
    let dir = tempfile::tempdir().unwrap();
    for (script, want) in [
        ("exit 0", "exit status 0"),
        ("exit 100", "exit status 100"),
        ("kill -KILL $$", "signal: SIGKILL"),
        ("kill -TERM 0", "signal: SIGTERM"),
        ("cat; exit $?", "exit status 0"),
    ] {
        let [(ended, output)] = &run_in(dir.path(), &[script])[..] else { panic!("{script}") };
        assert_eq!(describe(*ended.as_ref().unwrap()), want, "{script}");
        assert_eq!(output, b"", "{script}");
    }
}

#[test]
fn what_cannot_be_started_tells_why() {
    let signals = Signals::handle().unwrap();
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("data"), "").unwrap();
    for (name, want) in [("missing", ErrorKind::NotFound), ("data", ErrorKind::PermissionDenied)] {
        let mut output = Vec::new();
        let program = Program { command: Command::new(dir.path().join(name)), output: &mut output };
        assert_eq!(run(program, &signals.hold()).unwrap().unwrap_err().kind(), want, "{name}");
    }
}

#[test]
fn output_is_whole() {
    let dir = tempfile::tempdir().unwrap();
    let bytes: Vec<u8> = (0..=250).cycle().take(3_000_000).collect();
    fs::write(dir.path().join("file"), &bytes).unwrap();
    for (script, want) in [
        ("cat file", bytes.clone()),
        ("cat file >&2; printf '\\377\\000 %%s'", [&bytes[..], b"\xff\0 %s"].concat()),
        ("printf a; printf b >&2; printf c", b"abc".to_vec()),
        // What it leaves behind has something to say for longer than it runs itself.
        ("(sleep 0.2; cat file) &", bytes.clone()),
        (
            "(trap 'echo ended; exit' TERM; echo ready; exec 2> errors; while :; do sleep 0.1; done) &",
            b"ready\nended\n".to_vec(),
        ),
        ("true", Vec::new()),
    ] {
        let [(ended, output)] = &run_in(dir.path(), &[script])[..] else { panic!("{script}") };
        assert!(ended.as_ref().unwrap().success(), "{script}");
        assert!(*output == want, "{script}: {} bytes", output.len());
    }
}

#[test]
fn nothing_is_left_running() {
    let dir = tempfile::tempdir().unwrap();
    let background = [
        "sleep 100000",
        "sleep 100000 > /dev/null 2>&1",
        "while :; do echo on and on; sleep 0.01; done",
        "trap '' TERM; while :; do sleep 0.01; done",
        r"kill -STOP \$\$; sleep 100000",
    ];
    let script = |(place, background)| {
        let pid = format!("pid{place}");
        format!(r#"sh -c "echo \$\$ > {pid}; {background}" & while [ ! -s {pid} ]; do :; done; exit 3"#)
    };
    let scripts: Vec<String> = background.iter().enumerate().map(script).collect();
    let ended = run_in(dir.path(), &scripts);
    for (place, (ended, _)) in ended.iter().enumerate() {
        assert_eq!(ended.as_ref().unwrap().code(), Some(3), "{}", scripts[place]);
        assert!(is_gone(&dir.path().join(format!("pid{place}"))), "{}", scripts[place]);
    }
}

/// Who left the group may live on, but nobody waits for it.
#[test]
fn those_who_leave_are_not_waited_for() {
    let dir = tempfile::tempdir().unwrap();
    let script =
        "setsid sh -c 'echo $$ > pid; exec sleep 100000' & while [ ! -s pid ]; do :; done; echo done";
    let [(ended, output)] = &run_in(dir.path(), &[script])[..] else { panic!() };
    assert!(ended.as_ref().unwrap().success());
    assert_eq!(output, b"done\n");
    let pid = fs::read_to_string(dir.path().join("pid")).unwrap().trim().parse().unwrap();
    rustix::process::kill_process(Pid::from_raw(pid).unwrap(), Signal::KILL).unwrap();
}

#[test]
fn several_run_at_a_time_and_keep_their_places() {
    let dir = tempfile::tempdir().unwrap();
    // Each of the first two waits for the other.
    let meet =
        |me: &str, other: &str| format!("touch {me}; while [ ! -e {other} ]; do :; done; echo {me}; exit 1");
    let mut scripts = vec![meet("one", "two"), meet("two", "one")];
    scripts.extend((0..3 * PARALLEL).map(|number| format!("echo {number}; exit {}", number % 7)));
    let ended = run_in(dir.path(), &scripts);
    let mut want = vec![(1, "one\n".to_owned()), (1, "two\n".to_owned())];
    want.extend((0..3 * PARALLEL).map(|number| (number % 7, format!("{number}\n"))));
    assert_eq!(ended.len(), want.len());
    for ((ended, output), (code, text)) in ended.iter().zip(want) {
        assert_eq!(ended.as_ref().unwrap().code(), i32::try_from(code).ok());
        assert_eq!(*output, text.into_bytes());
    }
    assert!(run_in(dir.path(), &[""; 0]).is_empty());
}

/// Takes its time, in which the program ends.
struct Slow;

impl Output for Slow {
    fn offer(&mut self, bytes: &[u8]) -> usize {
        thread::sleep(Duration::from_millis(200));
        bytes.len()
    }
}

#[test]
fn an_end_at_any_time_is_seen() {
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        let signals = Signals::handle().unwrap();
        let mut command = Command::new("/bin/sh");
        command.args(["-c", "echo x; sleep 0.1"]);
        let status = run(Program { command, output: &mut Slow }, &signals.hold()).unwrap();
        sender.send(status.unwrap().success()).unwrap();
    });
    assert_eq!(receiver.recv_timeout(Duration::from_mins(1)), Ok(true));
}

/// A pipe that is written to without waiting.
struct Pipe(PipeWriter);

impl Output for Pipe {
    fn offer(&mut self, bytes: &[u8]) -> usize {
        match self.0.write(bytes) {
            Err(error) if error.kind() == ErrorKind::WouldBlock => 0,
            written => written.unwrap(),
        }
    }

    fn room(&self) -> Option<BorrowedFd<'_>> {
        Some(self.0.as_fd())
    }
}

#[test]
fn a_slow_reader_gets_everything() {
    let dir = tempfile::tempdir().unwrap();
    let bytes: Vec<u8> = (0..=250).cycle().take(3_000_000).collect();
    fs::write(dir.path().join("file"), &bytes).unwrap();
    for script in ["cat file", "(cat file) &", "(cat file; sleep 100000) &"] {
        let (mut reader, writer) = io::pipe().unwrap();
        ioctl_fionbio(&writer, true).unwrap();
        let reading = thread::spawn(move || {
            // Longer than what is left behind may be silent and speak.
            thread::sleep(SILENCE + LAST_WORDS);
            let mut read = Vec::new();
            reader.read_to_end(&mut read).unwrap();
            read
        });
        let signals = Signals::handle().unwrap();
        let mut command = Command::new("/bin/sh");
        command.args(["-c", script]).current_dir(dir.path());
        let mut output = Pipe(writer);
        assert!(run(Program { command, output: &mut output }, &signals.hold()).unwrap().unwrap().success());
        drop(output);
        assert!(reading.join().unwrap() == bytes, "{script}");
    }
}
