package filter

// Native gives the program for a native guest. It is installed before the guest is
// executed, so execve is allowed; execveat, by which a program without a path is
// executed, is not.
func Native() ([]byte, error) { return encode(nativePolicy()) }

func nativePolicy() policy {
	var allow []string
	for _, group := range [][]string{
		nativeFiles(), nativeMemory(), nativeProcess(), nativeWaiting(), nativeNetwork(),
	} {
		allow = append(allow, group...)
	}
	return policy{allow: allow, refuse: nativeRefusals(), check: nativeChecks()}
}

func nativeFiles() []string {
	return []string{
		"access", "chdir", "chmod", "chown", "close", "close_range", "copy_file_range", "creat",
		"dup", "dup2", "dup3", "faccessat", "faccessat2", "fadvise64", "fallocate", "fchdir", "fchmod", "fchmodat",
		"fchmodat2", "fchown", "fchownat", "fcntl", "fdatasync", "flock", "fstat", "fstatfs", "fsync", "ftruncate",
		"futimesat", "getcwd", "getdents", "getdents64", "inotify_add_watch", "inotify_init", "inotify_init1",
		"inotify_rm_watch", "lchown", "link", "linkat", "lseek", "lstat", "mkdir", "mkdirat", "newfstatat",
		"open", "openat", "openat2", "pipe", "pipe2", "pread64", "preadv", "preadv2", "pwrite64", "pwritev", "pwritev2",
		"read", "readahead", "readlink", "readlinkat", "readv", "rename", "renameat", "renameat2", "rmdir", "sendfile",
		"stat", "statfs", "statx", "symlink", "symlinkat", "truncate", "umask", "unlink", "unlinkat", "utime",
		"utimensat", "utimes", "write", "writev",
		// Reading attributes: Python's shutil does not take EPERM for an answer.
		"fgetxattr", "flistxattr", "getxattr", "lgetxattr", "listxattr", "llistxattr",
	}
}

func nativeMemory() []string {
	return []string{
		// Memory that is written and then executed stays allowed: V8 and other just-in-time
		// compilers live by it.
		"brk", "mincore", "mlock", "mlock2", "mmap", "mprotect", "mremap", "mseal", "msync", "munlock", "munmap",
		"pkey_alloc", "pkey_free", "pkey_mprotect",
	}
}

func nativeProcess() []string {
	return []string{
		"capget", "execve", "exit", "exit_group", "fork", "getegid", "geteuid", "getgid", "getgroups",
		"getpgid", "getpgrp", "getpid", "getppid", "getpriority", "getresgid", "getresuid", "getrlimit", "getrusage",
		"getsid", "gettid", "getuid", "prlimit64", "setpgid", "setpriority", "setrlimit", "setsid", "vfork",
		"wait4", "waitid",
		"kill", "pidfd_open", "pidfd_send_signal", "rt_sigaction", "rt_sigpending", "rt_sigprocmask", "rt_sigqueueinfo",
		"rt_sigreturn", "rt_sigsuspend", "rt_sigtimedwait", "rt_tgsigqueueinfo", "sigaltstack", "signalfd", "signalfd4",
		"tgkill", "tkill",
		"get_robust_list", "membarrier", "rseq", "sched_getaffinity", "sched_getattr", "sched_getparam",
		"sched_get_priority_max", "sched_get_priority_min", "sched_getscheduler", "sched_rr_get_interval",
		"sched_setaffinity", "sched_yield", "set_robust_list", "set_tid_address",
		"getcpu", "getrandom", "sysinfo", "uname",
	}
}

func nativeWaiting() []string {
	return []string{
		"alarm", "clock_getres", "clock_gettime", "clock_nanosleep", "epoll_create", "epoll_create1", "epoll_ctl",
		"epoll_pwait", "epoll_pwait2", "epoll_wait", "eventfd", "eventfd2", "futex", "futex_waitv", "getitimer",
		"gettimeofday", "nanosleep", "pause", "poll", "ppoll", "pselect6", "restart_syscall", "select", "setitimer",
		"time", "timer_create", "timer_delete", "timer_getoverrun", "timer_gettime", "timer_settime", "timerfd_create",
		"timerfd_gettime", "timerfd_settime", "times",
	}
}

func nativeNetwork() []string {
	return []string{
		"accept", "accept4", "bind", "connect", "getpeername", "getsockname", "getsockopt", "listen", "recvfrom",
		"recvmmsg", "recvmsg", "sendmmsg", "sendmsg", "sendto", "shutdown",
	}
}

// nativeRefusals are the calls whose callers go another way when they get the right
// answer, and stumble when they get EPERM.
func nativeRefusals() map[string]errno {
	return map[string]errno{
		// A structure in memory holds its flags, which a filter cannot read. glibc goes on
		// to clone, whose flags can be read, on ENOSYS alone.
		"clone3": eNOSYS,
		// Its work is done past every filter. libuv takes threads instead.
		"io_uring_setup": eNOSYS, "io_uring_enter": eNOSYS, "io_uring_register": eNOSYS,
		"io_setup": eNOSYS,
		// A file without a path, on which no mount's noexec lies.
		"memfd_create": eNOSYS, "memfd_secret": eNOSYS,
		// How such a file would be executed. glibc's fexecve goes by /proc, which finds
		// noexec in its way.
		"execveat": eNOSYS,
		// They put pages of files that the guest may only read into pipes, where the kernel
		// has been talked into writing to them more than once, and here they are the host's
		// own. Go, Rust and libuv copy instead.
		"splice": eINVAL, "tee": eINVAL, "vmsplice": eINVAL,
		// tmpfs keeps attributes in memory that no limit of the mount covers.
		"setxattr": eOPNOTSUPP, "lsetxattr": eOPNOTSUPP, "fsetxattr": eOPNOTSUPP,
		"removexattr": eOPNOTSUPP, "lremovexattr": eOPNOTSUPP, "fremovexattr": eOPNOTSUPP,
		// These write out the whole machine's disks, and keep the neighbours waiting. They
		// have nothing to write for a guest, so they succeed without being made.
		"sync": 0, "syncfs": 0,
		// Numbers of later calls that people look for in a log; the rule for new ones would
		// say ENOSYS.
		"pidfd_getfd": ePERM, "process_madvise": ePERM, "quotactl_fd": ePERM,
		"open_tree": ePERM, "move_mount": ePERM, "fsopen": ePERM, "fsconfig": ePERM, "fsmount": ePERM, "fspick": ePERM,
		"mount_setattr": ePERM,
	}
}

func nativeChecks() map[string]check {
	return map[string]check{
		"socket":     sockets(),
		"socketpair": only(0, eAFNOSUPPORT, afUnix),
		"setsockopt": socketOptions(),
		// No namespaces, and no siblings: CLONE_PARENT would make processes that are not
		// below the guest's own.
		"clone":       noBits(0, ePERM, cloneNamespaces|cloneParent),
		"ioctl":       only(1, eNOTTY, nativeIoctls()...),
		"prctl":       only(0, eINVAL, nativePrctls()...),
		"arch_prctl":  only(0, eINVAL, archPrctls()...),
		"personality": only(0, ePERM, 0, 0xffffffff), // the plain one, and the question
		// Merging equal pages tells a guest what its neighbours have in memory.
		"madvise": unless(2, eINVAL, 12 /* MADV_MERGEABLE */),
		"mknod":   nodes(1),
		"mknodat": nodes(2),
	}
}

// nativeIoctls are what a program without a terminal asks of files and sockets:
// asm-generic/ioctls.h, linux/sockios.h. Anything else is answered as by a file that
// knows no ioctl. So nothing is typed into a terminal (TIOCSTI, TIOCLINUX).
func nativeIoctls() []uint32 {
	return []uint32{
		0x5401,     // TCGETS: isatty
		0x802c542a, // TCGETS2: isatty of later glibc
		0x5413,     // TIOCGWINSZ
		0x5411,     // TIOCOUTQ, SIOCOUTQ
		0x541b,     // FIONREAD
		0x5421,     // FIONBIO
		0x5450,     // FIONCLEX
		0x5451,     // FIOCLEX
		0x8905,     // SIOCATMARK
		0x8910,     // SIOCGIFNAME
		0x8912,     // SIOCGIFCONF
		0x8913,     // SIOCGIFFLAGS
		0x8915,     // SIOCGIFADDR
		0x8919,     // SIOCGIFBRDADDR
		0x891b,     // SIOCGIFNETMASK
		0x8921,     // SIOCGIFMTU
		0x8927,     // SIOCGIFHWADDR
		0x8933,     // SIOCGIFINDEX
	}
}

// nativePrctls neither give a privilege nor take a protection away: linux/prctl.h.
func nativePrctls() []uint32 {
	return []uint32{
		1, 2, // PR_SET_PDEATHSIG, PR_GET_PDEATHSIG
		3,      // PR_GET_DUMPABLE
		7,      // PR_GET_KEEPCAPS
		15, 16, // PR_SET_NAME, PR_GET_NAME
		21,     // PR_GET_SECCOMP
		23,     // PR_CAPBSET_READ
		27,     // PR_GET_SECUREBITS
		29, 30, // PR_SET_TIMERSLACK, PR_GET_TIMERSLACK
		36, 37, // PR_SET_CHILD_SUBREAPER, PR_GET_CHILD_SUBREAPER
		38, 39, // PR_SET_NO_NEW_PRIVS, PR_GET_NO_NEW_PRIVS
		40,     // PR_GET_TID_ADDRESS
		41, 42, // PR_SET_THP_DISABLE, PR_GET_THP_DISABLE
		52,         // PR_GET_SPECULATION_CTRL
		0x53564d41, // PR_SET_VMA: allocators name their memory
	}
}

// archPrctls are thread-local storage, shadow stacks, and the larger registers:
// asm/prctl.h, x86 only.
func archPrctls() []uint32 {
	return []uint32{
		0x1001, 0x1002, 0x1003, 0x1004, // ARCH_SET_GS, ARCH_SET_FS, ARCH_GET_FS, ARCH_GET_GS
		0x1011,                                 // ARCH_GET_CPUID
		0x1021, 0x1022, 0x1023, 0x1024, 0x1025, // ARCH_GET_XCOMP_SUPP and those that follow
		0x3001,                         // ARCH_CET_STATUS, asked for by glibc
		0x5001, 0x5002, 0x5003, 0x5005, // ARCH_SHSTK_ENABLE, _DISABLE, _LOCK, _STATUS
	}
}
