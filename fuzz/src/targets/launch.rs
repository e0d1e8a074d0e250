//! The launcher, in a system of files in memory: `metadata.toml`, environment files, what `exec.d` programs say.
//!
//! The parts of an input are files: a path in the first line, the contents in the rest. The first part is no file: its first line is the
//! launcher's arguments, further ones are its environment. Contents that begin with `x` and a newline can be run; as `exec.d`, they say what
//! follows.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};

use drydock_launcher::{Entry, Errno, Error, Exit, Finished, IoError, Kind, Reason, System, run as launch};

use super::{Target, parts, roughly};

pub(crate) const TARGET: Target = Target {
    name: "launch",
    longest: 1 << 13,
    words: &[
        b"\n====\n",
        b"\n====\n/layers/a/l/exec.d/web/p\nx\nA = 'b'\n",
        b"\n====\n/layers/a/l/env.launch/web/A.append\nx",
        b"\n====\n/layers/a/l/env/PATH.delim\n:",
        b"\n====\n/layers/a/l/profile.d/p\n",
        b"\n====\n/workspace/.profile\n",
        b"\n[[processes]]\ntype = 'web'\n",
        b"\ncommand = ['p']\n",
        b"\nargs = ['a']\n",
        b"\ndirect = true\n",
        b"\nexec-env = ['*']\n",
        b"\nworking-dir = '/w'\n",
        b"\n[[buildpacks]]\nid = 'a'\napi = '0.10'\n",
        b"\nCNB_PLATFORM_API=0.14\n",
        b"\nCNB_EXEC_ENV=test\n",
        b"\nCNB_NO_COLOR=true\n",
        b"..",
        b"'''",
        b"\\u0000",
        b"=",
        b":",
    ],
    can_use: |_, _| false,
    run,
};

/// What is asked of the system, and what is done in it.
struct Memory<'i> {
    files: BTreeMap<&'i [u8], &'i [u8]>,
    /// What `exec.d` programs have said, as another reader takes it.
    said: RefCell<BTreeMap<String, String>>,
    stderr: RefCell<String>,
    started: RefCell<Option<char>>,
}

impl Memory<'_> {
    fn below<'s>(&'s self, dir: &'s [u8]) -> impl Iterator<Item = &'s [u8]> {
        let dir = dir.strip_suffix(b"/").unwrap_or(dir);
        self.files.keys().filter_map(move |path| path.strip_prefix(dir)?.strip_prefix(b"/"))
    }

    fn missing(call: &'static str, path: &[u8]) -> IoError {
        IoError { call, path: path.to_vec(), reason: Reason::Errno(Errno::NOENT) }
    }

    /// Each variable is there once, and those of `exec.d` are as they were said.
    fn check(&self, env: &[Vec<u8>]) {
        let name = |entry: &Vec<u8>| entry.split(|byte| *byte == b'=').next().map(<[u8]>::to_vec);
        // A name with a `=` in it is the kernel's to judge.
        let is_odd = |name: &String| name.contains('=');
        let said = self.said.borrow();
        let names: BTreeSet<_> = env.iter().filter_map(name).collect();
        assert!(names.len() == env.len() || said.keys().any(is_odd), "a variable is there twice: {env:?}");
        for (name, value) in said.iter().filter(|(name, _)| !is_odd(name)) {
            let entry = format!("{name}={value}").into_bytes();
            assert!(env.contains(&entry), "an `exec.d` program has set {name} to {value:?}: {env:?}");
        }
    }
}

impl System for Memory<'_> {
    fn read_file(&self, path: &[u8], limit: usize) -> Result<Vec<u8>, IoError> {
        let contents = self.files.get(path).ok_or_else(|| Self::missing("open", path))?;
        if contents.len() > limit {
            return Err(IoError { call: "read", path: path.to_vec(), reason: Reason::LargerThan(limit) });
        }
        Ok(contents.to_vec())
    }

    fn read_dir(&self, path: &[u8]) -> Result<Vec<Entry>, IoError> {
        let mut entries: BTreeMap<&[u8], Kind> = BTreeMap::new();
        for below in self.below(path).filter(|below| !below.is_empty()) {
            match below.iter().position(|byte| *byte == b'/') {
                Some(slash) => drop(entries.insert(&below[..slash], Kind::Directory)),
                None => drop(entries.insert(below, Kind::File)),
            }
        }
        if entries.is_empty() {
            return Err(Self::missing("open", path));
        }
        Ok(entries.into_iter().rev().map(|(name, kind)| Entry { name: name.to_vec(), kind }).collect())
    }

    fn kind(&self, path: &[u8]) -> Result<Kind, IoError> {
        match (self.files.contains_key(path), self.below(path).next()) {
            (true, _) => Ok(Kind::File),
            (false, Some(_)) => Ok(Kind::Directory),
            (false, None) => Err(Self::missing("stat", path)),
        }
    }

    fn check_executable(&self, path: &[u8]) -> Result<(), Errno> {
        let contents = self.files.get(path).ok_or(Errno::NOENT)?;
        if contents.starts_with(b"x\n") { Ok(()) } else { Err(Errno::ACCES) }
    }

    fn current_dir(&self) -> Result<Vec<u8>, Errno> {
        Ok(b"/current".to_vec())
    }

    fn change_dir(&self, path: &[u8]) -> Result<(), IoError> {
        if path.contains(&0) { Err(Self::missing("chdir", path)) } else { Ok(()) }
    }

    fn run_exec_d(&self, path: &[u8], env: &[Vec<u8>], limit: usize) -> Result<Finished, Error> {
        self.check(env);
        let contents = self.files.get(path).expect("a program that is run is there");
        let output = contents.strip_prefix(b"x\n").unwrap_or_default();
        let exit = if contents.starts_with(b"x\n") { Exit::Code(0) } else { Exit::Code(7) };
        assert!(output.len() <= limit);
        let read = str::from_utf8(output).ok().and_then(|text| toml::from_str(text).ok());
        let read: BTreeMap<String, String> = read.unwrap_or_default();
        self.said.borrow_mut().extend(read);
        Ok(Finished { output: output.to_vec(), exit })
    }

    fn exec(&self, program: &[u8], arguments: &[Vec<u8>], env: &[Vec<u8>]) -> Errno {
        self.check(env);
        let is_shell = program == b"/bin/bash";
        assert!(is_shell || self.check_executable(program).is_ok(), "{program:?} cannot be run");
        assert!(program.contains(&b'/') && !arguments.is_empty());
        *self.started.borrow_mut() = Some(if is_shell { 's' } else { 'd' });
        Errno(8)
    }

    fn stderr_is_terminal(&self) -> bool {
        false
    }

    fn write_stderr(&self, text: &str) {
        self.stderr.borrow_mut().push_str(text);
    }
}

fn run(input: &[u8]) -> String {
    let mut parts = parts(input);
    let words = |line: &[u8], at: u8| -> Vec<Vec<u8>> {
        line.split(|byte| *byte == at).map(<[u8]>::to_vec).collect()
    };
    let mut called = words(parts.next().unwrap_or_default(), b'\n');
    let environment = called.split_off(1);
    let arguments = words(&called[0], b' ');
    let mut files = BTreeMap::new();
    for part in parts {
        let end = part.iter().position(|byte| *byte == b'\n').unwrap_or(part.len());
        // A path as the kernel has it: absolute, and of names.
        let path = &part[..end];
        if path.starts_with(b"/") && path[1..].split(|byte| *byte == b'/').all(is_name) {
            files.insert(path, part.get(end + 1..).unwrap_or_default());
        }
    }
    let system =
        Memory { files, said: RefCell::default(), stderr: RefCell::default(), started: RefCell::default() };
    let code = launch(&system, &arguments, &environment);
    assert!([1, 11, 12, 82].contains(&code), "the exit code is {code}");
    let stderr = system.stderr.take();
    assert!(stderr.ends_with('\n') && !stderr.starts_with('\n'), "{stderr:?}");
    let started = system.started.take().unwrap_or('n');
    format!("{code}{started}{} {stderr}", roughly(system.said.take().len()))
}

fn is_name(name: &[u8]) -> bool {
    !matches!(name, b"" | b"." | b"..") && !name.contains(&0)
}
