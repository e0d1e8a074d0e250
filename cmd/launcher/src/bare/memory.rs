//! The memory functions that compiled code calls, as C defines them. In assembly, because a compiler may well turn a
//! loop that copies bytes into a call of the function that the loop is in. They handle a few kilobytes: simple is fast
//! enough.
//!
//! Each does what its name says to the memory that its caller owns, and uses registers that a function may change.

use core::arch::naked_asm;

#[cfg_attr(not(test), unsafe(no_mangle))]
#[unsafe(naked)]
pub(crate) unsafe extern "C" fn memcpy(to: *mut u8, from: *const u8, count: usize) -> *mut u8 {
    #[cfg(target_arch = "x86_64")]
    naked_asm!("mov rax, rdi", "mov rcx, rdx", "rep movsb", "ret");
    #[cfg(target_arch = "aarch64")]
    naked_asm!(
        "mov x3, x0",
        "cbz x2, 3f",
        "2:",
        "ldrb w4, [x1], #1",
        "strb w4, [x3], #1",
        "subs x2, x2, #1",
        "b.ne 2b",
        "3:",
        "ret"
    );
}

/// Copies upwards, unless `to` is within what is to be copied.
#[cfg_attr(not(test), unsafe(no_mangle))]
#[unsafe(naked)]
pub(crate) unsafe extern "C" fn memmove(to: *mut u8, from: *const u8, count: usize) -> *mut u8 {
    #[cfg(target_arch = "x86_64")]
    naked_asm!(
        "mov rax, rdi",
        "mov rcx, rdx",
        "mov r8, rdi",
        "sub r8, rsi",
        "cmp r8, rdx",
        "jb 2f",
        "rep movsb",
        "ret",
        "2:",
        "lea rdi, [rdi + rdx - 1]",
        "lea rsi, [rsi + rdx - 1]",
        "std",
        "rep movsb",
        "cld",
        "ret"
    );
    #[cfg(target_arch = "aarch64")]
    naked_asm!(
        "sub x3, x0, x1",
        "cmp x3, x2",
        "b.hs {memcpy}",
        "add x3, x0, x2",
        "add x1, x1, x2",
        "2:",
        "ldrb w4, [x1, #-1]!",
        "strb w4, [x3, #-1]!",
        "subs x2, x2, #1",
        "b.ne 2b",
        "ret",
        memcpy = sym memcpy
    );
}

#[cfg_attr(not(test), unsafe(no_mangle))]
#[unsafe(naked)]
pub(crate) unsafe extern "C" fn memset(to: *mut u8, byte: i32, count: usize) -> *mut u8 {
    #[cfg(target_arch = "x86_64")]
    naked_asm!("mov r8, rdi", "mov eax, esi", "mov rcx, rdx", "rep stosb", "mov rax, r8", "ret");
    #[cfg(target_arch = "aarch64")]
    naked_asm!(
        "mov x3, x0",
        "cbz x2, 3f",
        "2:",
        "strb w1, [x3], #1",
        "subs x2, x2, #1",
        "b.ne 2b",
        "3:",
        "ret"
    );
}

#[cfg_attr(not(test), unsafe(no_mangle))]
#[unsafe(naked)]
pub(crate) unsafe extern "C" fn memcmp(left: *const u8, right: *const u8, count: usize) -> i32 {
    #[cfg(target_arch = "x86_64")]
    naked_asm!(
        "xor ecx, ecx",
        "2:",
        "cmp rcx, rdx",
        "je 3f",
        "movzx eax, byte ptr [rdi + rcx]",
        "movzx r8d, byte ptr [rsi + rcx]",
        "inc rcx",
        "sub eax, r8d",
        "je 2b",
        "ret",
        "3:",
        "xor eax, eax",
        "ret"
    );
    #[cfg(target_arch = "aarch64")]
    naked_asm!(
        "mov x3, x0",
        "mov w0, wzr",
        "cbz x2, 3f",
        "2:",
        "ldrb w0, [x3], #1",
        "ldrb w4, [x1], #1",
        "subs w0, w0, w4",
        "b.ne 3f",
        "subs x2, x2, #1",
        "b.ne 2b",
        "3:",
        "ret"
    );
}

#[cfg_attr(not(test), unsafe(no_mangle))]
#[unsafe(naked)]
pub(crate) unsafe extern "C" fn bcmp(left: *const u8, right: *const u8, count: usize) -> i32 {
    #[cfg(target_arch = "x86_64")]
    naked_asm!("jmp {memcmp}", memcmp = sym memcmp);
    #[cfg(target_arch = "aarch64")]
    naked_asm!("b {memcmp}", memcmp = sym memcmp);
}

#[cfg_attr(not(test), unsafe(no_mangle))]
#[unsafe(naked)]
pub(crate) unsafe extern "C" fn strlen(text: *const u8) -> usize {
    #[cfg(target_arch = "x86_64")]
    naked_asm!(
        "mov rax, rdi",
        "2:",
        "cmp byte ptr [rax], 0",
        "je 3f",
        "inc rax",
        "jmp 2b",
        "3:",
        "sub rax, rdi",
        "ret"
    );
    #[cfg(target_arch = "aarch64")]
    naked_asm!(
        "mov x1, x0",
        "2:",
        "ldrb w2, [x1], #1",
        "cbnz w2, 2b",
        "sub x0, x1, x0",
        "sub x0, x0, #1",
        "ret"
    );
}
