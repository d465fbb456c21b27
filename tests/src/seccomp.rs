//! A kernel that lacks a system call, as far as one process can see.

use std::{io, process::Command};

use std::os::unix::process::CommandExt;

/// Makes `bpf(2)` fail with ENOSYS in the command, as on a kernel built without it.
pub fn without_bpf(command: &mut Command) {
    let step = |code: u32, jump_true: u8, jump_false: u8, k: u32| libc::sock_filter {
        code: code as u16,
        jt: jump_true,
        jf: jump_false,
        k,
    };
    let program = [
        // The system call's number is the first word.
        step(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, 0),
        step(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, 0, 1, libc::SYS_bpf as u32),
        step(libc::BPF_RET | libc::BPF_K, 0, 0, libc::SECCOMP_RET_ERRNO | libc::ENOSYS as u32),
        step(libc::BPF_RET | libc::BPF_K, 0, 0, libc::SECCOMP_RET_ALLOW),
    ];
    let install = move || -> io::Result<()> {
        let filter = libc::sock_fprog { len: program.len() as u16, filter: program.as_ptr().cast_mut() };
        // SAFETY: a system call on integers.
        crate::socket::check(unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) })?;
        let mode = libc::SECCOMP_MODE_FILTER;
        // SAFETY: `filter` and the program it points to live through the call.
        crate::socket::check(unsafe { libc::prctl(libc::PR_SET_SECCOMP, mode, &raw const filter) })?;
        Ok(())
    };
    // SAFETY: between fork and exec the closure makes two system calls and nothing else.
    unsafe { command.pre_exec(install) };
}
