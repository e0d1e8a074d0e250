//! The operating system, by direct calls of the kernel.

use alloc::ffi::CString;
use alloc::vec::Vec;
use core::mem::{MaybeUninit, forget};

use drydock_launcher::{Entry, Errno, Error, Exit, Finished, IoError, Kind, Reason, System};
use rustix::buffer::spare_capacity;
use rustix::fd::{AsFd, AsRawFd, OwnedFd};
use rustix::fs::{Access, AtFlags, FileType, Mode, OFlags, RawDir};
use rustix::io::retry_on_intr;
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{Pid, WaitOptions};

use crate::bare::calls;

/// The machine that the launcher runs on.
#[derive(Debug)]
pub(crate) struct Linux;

/// Opens `/dev/null` in place of those standard streams that are closed, so that no other file gets their numbers.
pub(crate) fn open_standard_streams() {
    while let Ok(file) = rustix::fs::open(c"/dev/null", OFlags::RDWR, Mode::empty())
        && file.as_raw_fd() <= 2
    {
        forget(file);
    }
}

impl System for Linux {
    fn read_file(&self, path: &[u8], limit: usize) -> Result<Vec<u8>, IoError> {
        // A FIFO would be waited for; a regular file does not care.
        let file = open(path, OFlags::NONBLOCK | OFlags::NOCTTY)?;
        let stat = rustix::fs::fstat(&file).map_err(on("stat", path))?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            return Err(IoError { call: "open", path: path.to_vec(), reason: Reason::NotAFile });
        }
        let size = usize::try_from(stat.st_size).unwrap_or_default().min(limit);
        read_to_end(&file, path, size, limit)
    }

    fn read_dir(&self, path: &[u8]) -> Result<Vec<Entry>, IoError> {
        let dir = open(path, OFlags::DIRECTORY)?;
        let mut buffer = [MaybeUninit::uninit(); 4096];
        let mut reader = RawDir::new(&dir, &mut buffer);
        let mut entries = Vec::new();
        while let Some(entry) = reader.next() {
            let entry = entry.map_err(on("readdirent", path))?;
            let name = entry.file_name();
            if matches!(name.to_bytes(), b"." | b"..") {
                continue;
            }
            let file_type = match entry.file_type() {
                FileType::Unknown => {
                    let stat = rustix::fs::statat(&dir, name, AtFlags::SYMLINK_NOFOLLOW);
                    FileType::from_raw_mode(stat.map_err(on("lstat", name.to_bytes()))?.st_mode)
                }
                known => known,
            };
            entries.push(Entry { name: name.to_bytes().to_vec(), kind: kind_of(file_type) });
        }
        Ok(entries)
    }

    fn kind(&self, path: &[u8]) -> Result<Kind, IoError> {
        let stat = rustix::fs::stat(path).map_err(on("stat", path))?;
        Ok(kind_of(FileType::from_raw_mode(stat.st_mode)))
    }

    fn check_executable(&self, path: &[u8]) -> Result<(), Errno> {
        rustix::fs::access(path, Access::EXEC_OK).map_err(number)
    }

    fn current_dir(&self) -> Result<Vec<u8>, Errno> {
        rustix::process::getcwd(Vec::new()).map(CString::into_bytes).map_err(number)
    }

    fn change_dir(&self, path: &[u8]) -> Result<(), IoError> {
        rustix::process::chdir(path).map_err(on("chdir", path))
    }

    fn run_exec_d(&self, path: &[u8], env: &[Vec<u8>], limit: usize) -> Result<Finished, Error> {
        let failed = |errno| Error::from(on("fork/exec", path)(errno));
        let program = CString::new(path).map_err(|_| failed(rustix::io::Errno::INVAL))?;
        let env = c_strings(env).ok_or_else(|| failed(rustix::io::Errno::INVAL))?;
        let (null, output, status) = (open(b"/dev/null", OFlags::empty())?, Pipe::new()?, Pipe::new()?);
        calls::keeping_ended_processes(|| {
            let Some(child) = calls::fork().map_err(failed)? else {
                become_exec_d(&program, &env, &null, &output.writer, &status.writer)
            };
            drop(null);
            let output = output.read_to_end(limit);
            let status = status.read_to_end(size_of::<i32>())?;
            let exit = wait_for(child).map_err(on("wait", path))?;
            let output = output?;
            match <[u8; 4]>::try_from(status.as_slice()) {
                Ok(errno) => Err(IoError {
                    call: "fork/exec",
                    path: path.to_vec(),
                    reason: Reason::Errno(Errno(i32::from_ne_bytes(errno))),
                }
                .into()),
                Err(_) => Ok(Finished { output, exit }),
            }
        })
    }

    fn exec(&self, program: &[u8], arguments: &[Vec<u8>], env: &[Vec<u8>]) -> Errno {
        match (CString::new(program), c_strings(arguments), c_strings(env)) {
            (Ok(program), Some(arguments), Some(env)) => number(calls::execve(&program, &arguments, &env)),
            _ => number(rustix::io::Errno::INVAL),
        }
    }

    fn stderr_is_terminal(&self) -> bool {
        rustix::termios::isatty(calls::stderr())
    }

    fn write_stderr(&self, text: &str) {
        let mut rest = text.as_bytes();
        while let Ok(written @ 1..) = retry_on_intr(|| rustix::io::write(calls::stderr(), rest)) {
            rest = &rest[written..];
        }
    }
}

/// In the copy of the launcher that was made for it: becomes an `exec.d` program. If that fails, says why on `status`,
/// which is closed when it does not.
fn become_exec_d(
    program: &CString,
    env: &[CString],
    null: &OwnedFd,
    output: &OwnedFd,
    status: &OwnedFd,
) -> ! {
    // Numbers 0 to 2 were taken when these files were opened, `null` first: only `null` can be number 3.
    let errno = rustix::stdio::dup2_stdin(null)
        .and_then(|()| calls::duplicate_to(output.as_fd(), 3))
        .map(|()| calls::hand_on_none_from(4))
        .map_or_else(|errno| errno, |()| calls::execve(program, core::slice::from_ref(program), env));
    let _ = rustix::io::write(status, &errno.raw_os_error().to_ne_bytes()); // exits with a failure in any case
    calls::exit(1)
}

fn wait_for(child: Pid) -> Result<Exit, rustix::io::Errno> {
    loop {
        let Some((_, status)) =
            retry_on_intr(|| rustix::process::waitpid(Some(child), WaitOptions::empty()))?
        else {
            continue;
        };
        if let Some(code) = status.exit_status() {
            return Ok(Exit::Code(code));
        }
        if let Some(number) = status.terminating_signal() {
            return Ok(Exit::Signal { number, core_dumped: status.as_raw() & 0x80 != 0 });
        }
    }
}

/// A pipe that programs do not inherit.
struct Pipe {
    reader: OwnedFd,
    writer: OwnedFd,
}

impl Pipe {
    fn new() -> Result<Self, IoError> {
        let (reader, writer) = pipe_with(PipeFlags::CLOEXEC).map_err(on("pipe2", b""))?;
        Ok(Self { reader, writer })
    }

    /// What other processes write, until none of them can any more. After `limit` bytes they cannot go on.
    fn read_to_end(self, limit: usize) -> Result<Vec<u8>, IoError> {
        drop(self.writer);
        read_to_end(&self.reader, b"|0", 0, limit)
    }
}

fn open(path: &[u8], flags: OFlags) -> Result<OwnedFd, IoError> {
    let flags = flags | OFlags::RDONLY | OFlags::CLOEXEC;
    retry_on_intr(|| rustix::fs::open(path, flags, Mode::empty())).map_err(on("open", path))
}

/// At most `limit` bytes; `size` is how many there seem to be.
fn read_to_end(file: &OwnedFd, path: &[u8], size: usize, limit: usize) -> Result<Vec<u8>, IoError> {
    let mut contents = Vec::with_capacity(size + 1);
    loop {
        if retry_on_intr(|| rustix::io::read(file, spare_capacity(&mut contents)))
            .map_err(on("read", path))?
            == 0
        {
            return Ok(contents);
        }
        if contents.len() > limit {
            return Err(IoError { call: "read", path: path.to_vec(), reason: Reason::LargerThan(limit) });
        }
        contents.reserve(4096);
    }
}

/// `None` if one has a null byte in it.
fn c_strings(strings: &[Vec<u8>]) -> Option<Vec<CString>> {
    strings.iter().map(|string| CString::new(string.as_slice()).ok()).collect()
}

fn kind_of(file_type: FileType) -> Kind {
    match file_type {
        FileType::Directory => Kind::Directory,
        FileType::Symlink => Kind::Symlink,
        _ => Kind::File,
    }
}

fn number(errno: rustix::io::Errno) -> Errno {
    Errno(errno.raw_os_error())
}

fn on<'a>(call: &'static str, path: &'a [u8]) -> impl Fn(rustix::io::Errno) -> IoError + Copy + 'a {
    move |errno| IoError { call, path: path.to_vec(), reason: Reason::Errno(number(errno)) }
}
