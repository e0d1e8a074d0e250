//! System calls that no safe library offers, because in general they are not safe.

use alloc::ffi::CString;
use alloc::vec::Vec;
use core::ffi::{CStr, c_char};
use core::ptr::null;

use rustix::fd::{AsRawFd, BorrowedFd};
use rustix::io::Errno;
use rustix::process::Pid;

#[cfg(target_arch = "x86_64")]
mod number {
    pub(super) const RT_SIGACTION: usize = 13;
    pub(super) const CLONE: usize = 56;
    pub(super) const EXECVE: usize = 59;
    pub(super) const EXIT_GROUP: usize = 231;
    pub(super) const DUP3: usize = 292;
    pub(super) const CLOSE_RANGE: usize = 436;
}

#[cfg(target_arch = "aarch64")]
mod number {
    pub(super) const DUP3: usize = 24;
    pub(super) const EXIT_GROUP: usize = 94;
    pub(super) const RT_SIGACTION: usize = 134;
    pub(super) const CLONE: usize = 220;
    pub(super) const EXECVE: usize = 221;
    pub(super) const CLOSE_RANGE: usize = 436;
}

const SIGCHLD: usize = 17;

/// Ends the process.
pub(crate) fn exit(code: i32) -> ! {
    loop {
        // SAFETY: it touches no memory, and does not return.
        let _ = unsafe { call(number::EXIT_GROUP, [code.cast_unsigned() as usize, 0, 0, 0]) };
    }
}

/// Standard error.
pub(crate) fn stderr() -> BorrowedFd<'static> {
    // SAFETY: it is open from the start, and nothing here closes it.
    unsafe { rustix::stdio::stderr() }
}

/// Makes a copy of this process: `None` in the copy.
pub(crate) fn fork() -> Result<Option<Pid>, Errno> {
    // SAFETY: with these flags the copy shares no memory, and having been the only thread, misses none.
    let id = unsafe { call(number::CLONE, [SIGCHLD, 0, 0, 0]) }?;
    Ok(i32::try_from(id).ok().and_then(Pid::from_raw))
}

/// Becomes another program. Returns only if that fails.
pub(crate) fn execve(program: &CStr, arguments: &[CString], env: &[CString]) -> Errno {
    let (arguments, env) = (pointers(arguments), pointers(env));
    let parameters = [program.as_ptr().addr(), arguments.as_ptr().addr(), env.as_ptr().addr(), 0];
    // SAFETY: the strings outlive the call, each ends with a null byte, and each list with a null pointer.
    match unsafe { call(number::EXECVE, parameters) } {
        Ok(_) => Errno::NOEXEC, // never: success does not return
        Err(errno) => errno,
    }
}

fn pointers(strings: &[CString]) -> Vec<*const c_char> {
    strings.iter().map(|string| string.as_ptr()).chain([null()]).collect()
}

/// Makes `number` another name of an open file, whatever it was before, and one that a program inherits.
pub(crate) fn duplicate_to(file: BorrowedFd<'_>, number: i32) -> Result<(), Errno> {
    let parameters = [file.as_raw_fd().cast_unsigned() as usize, number.cast_unsigned() as usize, 0, 0];
    // SAFETY: it touches no memory. Callers are about to become another program, and use no other file by number.
    unsafe { call(number::DUP3, parameters) }.map(|_| ())
}

/// Has no file from `number` on inherited by the program that this process becomes. Before Linux 5.11 nothing happens.
pub(crate) fn hand_on_none_from(number: i32) {
    const CLOSE_RANGE_CLOEXEC: usize = 4;
    let first = number.cast_unsigned() as usize;
    // SAFETY: it touches no memory, and closes nothing yet.
    let _ = unsafe { call(number::CLOSE_RANGE, [first, u32::MAX as usize, CLOSE_RANGE_CLOEXEC, 0]) };
}

/// Does something while the kernel keeps processes that have ended until they are waited for, even if the launcher was
/// started so that it does not.
pub(crate) fn keeping_ended_processes<T>(action: impl FnOnce() -> T) -> T {
    let (default, mut inherited) = ([0_usize; 4], [0_usize; 4]);
    let old = (&raw mut inherited).addr();
    // SAFETY: both are as large as the kernel's `sigaction` (handler, flags, restorer, a mask of eight bytes); all
    // zeros means the default action, which runs no code of ours.
    let changed = unsafe { call(number::RT_SIGACTION, [SIGCHLD, (&raw const default).addr(), old, 8]) };
    let result = action();
    if changed.is_ok() {
        // SAFETY: as above; what was inherited is never a function of ours.
        let _ = unsafe { call(number::RT_SIGACTION, [SIGCHLD, old, 0, 8]) };
    }
    result
}

/// Calls the kernel. The fifth and further parameters are 0.
///
/// # Safety
///
/// The call must do nothing to memory that Rust does not expect.
unsafe fn call(number: usize, parameters: [usize; 4]) -> Result<usize, Errno> {
    let [a, b, c, d] = parameters;
    let result: isize;
    // SAFETY: the registers are those of the kernel's convention, and memory is not declared to be untouched.
    #[cfg(target_arch = "x86_64")]
    unsafe {
        core::arch::asm!(
            "syscall",
            inlateout("rax") number => result,
            in("rdi") a, in("rsi") b, in("rdx") c, in("r10") d, in("r8") 0,
            lateout("rcx") _, lateout("r11") _,
            options(nostack)
        );
    }
    // SAFETY: as above.
    #[cfg(target_arch = "aarch64")]
    unsafe {
        core::arch::asm!(
            "svc 0",
            inlateout("x0") a => result,
            in("x8") number, in("x1") b, in("x2") c, in("x3") d, in("x4") 0,
            options(nostack)
        );
    }
    match i32::try_from(result) {
        Ok(error @ -4095..=-1) => Err(Errno::from_raw_os_error(-error)),
        _ => Ok(result.cast_unsigned()),
    }
}
