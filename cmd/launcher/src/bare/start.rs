//! The entry point, and what happens on a panic.

use alloc::vec::Vec;
use core::ffi::{CStr, c_char};
use core::fmt::{self, Write};
use core::panic::PanicInfo;

use drydock_launcher::System;

use super::calls;
use super::heap::Heap;
use crate::linux::{self, Linux};

#[global_allocator]
static HEAP: Heap = Heap::new();

// The kernel enters here with the stack pointer at the argument count. The file is linked to fixed addresses, so there
// is nothing to relocate; nothing is thread-local, so there is nothing to set up.
#[cfg(target_arch = "x86_64")]
core::arch::global_asm!(
    ".globl _start",
    "_start:",
    "xor ebp, ebp", // the outermost frame
    "mov rdi, rsp",
    "and rsp, -16", // as a call needs it
    "call {start}",
    start = sym start,
);

#[cfg(target_arch = "aarch64")]
core::arch::global_asm!(
    ".globl _start",
    "_start:",
    "mov x29, xzr", // the outermost frame
    "mov x30, xzr",
    "mov x0, sp",
    "b {start}",
    start = sym start,
);

/// Runs the launcher on what the kernel left on the stack: a count, so many arguments, a null pointer, the environment
/// and a null pointer, all of them pointers to strings.
extern "C" fn start(stack: *const usize) -> ! {
    // SAFETY: `_start` passes on the stack pointer as the kernel set it, before anything was pushed. The strings are
    // never written to or freed.
    let (arguments, environment) = unsafe {
        let count = *stack;
        let arguments = stack.add(1).cast::<*const c_char>();
        (strings(arguments), strings(arguments.add(count + 1)))
    };
    linux::open_standard_streams();
    calls::exit(drydock_launcher::run(&Linux, &arguments, &environment))
}

/// Copies strings, up to a null pointer.
///
/// # Safety
///
/// `pointer` points to pointers, each to a string that ends with a null byte, the last of them null.
unsafe fn strings(mut pointer: *const *const c_char) -> Vec<Vec<u8>> {
    let mut strings = Vec::new();
    // SAFETY: as the caller promises; `pointer` is not moved past the null pointer.
    unsafe {
        while !(*pointer).is_null() {
            strings.push(CStr::from_ptr(*pointer).to_bytes().to_vec());
            pointer = pointer.add(1);
        }
    }
    strings
}

#[panic_handler]
fn panic(info: &PanicInfo<'_>) -> ! {
    struct Stderr;
    impl Write for Stderr {
        fn write_str(&mut self, text: &str) -> fmt::Result {
            Linux.write_stderr(text);
            Ok(())
        }
    }
    let _ = writeln!(Stderr, "ERROR: launcher: {info}"); // cannot fail: see above
    calls::exit(1)
}

// The ready-made parts of Rust were compiled so that they could unwind, and name these. A panic ends the process
// before anything is unwound.

#[unsafe(no_mangle)]
extern "C" fn rust_eh_personality() {
    calls::exit(1)
}

#[unsafe(no_mangle)]
extern "C" fn _Unwind_Resume() -> ! {
    calls::exit(1)
}

/// Atomic operations ask for it, to find out whether the processor has the newer of two ways: it is said to have none.
#[cfg(target_arch = "aarch64")]
#[unsafe(no_mangle)]
extern "C" fn getauxval(_: usize) -> usize {
    0
}
