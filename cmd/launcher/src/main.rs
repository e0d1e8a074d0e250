//! The launcher's executable: the library on Linux without a C library, and without std.
#![cfg_attr(not(test), no_std)]
#![no_main]

extern crate alloc;

#[cfg(not(test))] // std has a panic handler and an entry point of its own
mod bare;
#[cfg(not(test))]
mod linux;
