//! Which system calls a sandbox may make: those that Podman allows by default to a container that has been given nothing more.

use serde_json::{Value as Json, json};

/// All that need no further rule. Those that a kernel or an architecture does not know are ignored.
const ALLOWED: &str = include_str!("syscalls.txt");

/// These are refused as to somebody without the right (`EPERM`); any other as if the kernel did not have it (`ENOSYS`), for which
/// programs have something else at hand.
const REFUSED: &str = "acct bdflush bpf clock_settime clock_settime64 delete_module fanotify_init finit_module \
    init_module io_pgetevents ioperm iopl kcmp kexec_file_load kexec_load lookup_dcookie migrate_pages move_pages \
    nfsservctl nice oldfstat oldlstat oldolduname oldstat olduname open_by_handle_at perf_event_open \
    process_madvise query_module quotactl setdomainname sethostname setns settimeofday sgetmask ssetmask stime \
    swapoff swapon sysfs uselib userfaultfd ustat vhangup vm86 vm86old vmsplice";

/// The values of `personality` that change nothing that matters: the usual one, 32 bits, and asking.
const PERSONALITIES: [u64; 5] = [0, 8, 0x0002_0000, 0x0002_0008, 0xffff_ffff];

const EPERM: u32 = 1;
const EINVAL: u32 = 22;
const ENOSYS: u32 = 38;
const AF_NETLINK: u64 = 16;
const NETLINK_AUDIT: u64 = 9;

/// The profile, as `linux.seccomp` of a bundle's `config.json`.
pub(crate) fn profile() -> Json {
    let words = |text: &str| -> Vec<String> { text.split_whitespace().map(str::to_owned).collect() };
    let is = |index: u32, value: u64| json!({"index": index, "value": value, "op": "SCMP_CMP_EQ"});
    let is_not = |index: u32, value: u64| json!({"index": index, "value": value, "op": "SCMP_CMP_NE"});
    let mut rules = vec![
        json!({"names": words(ALLOWED), "action": "SCMP_ACT_ALLOW"}),
        json!({"names": words(REFUSED), "action": "SCMP_ACT_ERRNO", "errnoRet": EPERM}),
        json!({"names": ["socket"], "action": "SCMP_ACT_ERRNO", "errnoRet": EINVAL,
               "args": [is(0, AF_NETLINK), is(2, NETLINK_AUDIT)]}),
        json!({"names": ["socket"], "action": "SCMP_ACT_ALLOW", "args": [is_not(0, AF_NETLINK)]}),
        json!({"names": ["socket"], "action": "SCMP_ACT_ALLOW", "args": [is_not(2, NETLINK_AUDIT)]}),
    ];
    rules.extend(
        PERSONALITIES.map(
            |value| json!({"names": ["personality"], "action": "SCMP_ACT_ALLOW", "args": [is(0, value)]}),
        ),
    );
    let architectures: &[&str] = match std::env::consts::ARCH {
        "x86_64" => &["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"],
        "aarch64" => &["SCMP_ARCH_AARCH64", "SCMP_ARCH_ARM"],
        // The runtime adds that of the machine.
        _ => &[],
    };
    json!({
        "defaultAction": "SCMP_ACT_ERRNO",
        "defaultErrnoRet": ENOSYS,
        "architectures": architectures,
        "syscalls": rules,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_call_is_allowed_and_refused() {
        let allowed: Vec<&str> = ALLOWED.split_whitespace().collect();
        assert!(allowed.is_sorted() && allowed.len() > 350);
        for refused in
            REFUSED.split_whitespace().chain(["socket", "personality", "io_uring_setup", "keyctl_"])
        {
            assert!(!allowed.contains(&refused), "{refused}");
        }
        for needed in ["execve", "openat", "clone3", "futex", "accept4", "statx"] {
            assert!(allowed.contains(&needed), "{needed}");
        }
    }
}
