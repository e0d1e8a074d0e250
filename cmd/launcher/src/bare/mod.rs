//! What std and a C library do elsewhere, and all the unsafe code there is.
//!
//! There is one thread, from the entry point to the end: there are no threads to race with anywhere in here.
#![expect(unsafe_code, reason = "there is nothing below this but the kernel; each use says why it is sound")]

pub(crate) mod calls;
mod heap;
mod memory;
mod start;
