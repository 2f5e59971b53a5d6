package filter

// Wasm gives the program for the process that hosts WebAssembly guests, from before it
// is executed: what a Go program takes to start, what the process does to lock itself
// in, and what it takes to add [WasmSealed].
func Wasm() ([]byte, error) { return encode(wasmPolicy()) }

// WasmSealed gives the program that the process adds when it has started, for all its
// threads: [Seal]. From then on it computes, and talks over the descriptors it has. It
// opens nothing, connects to nothing, executes nothing, and makes no process.
func WasmSealed() ([]byte, error) { return encode(wasmSealedPolicy()) }

func wasmPolicy() policy {
	p := wasmSealedPolicy()
	p.allow = append(p.allow,
		// To be executed, by a descriptor or by a path, with or without libc.
		"access", "brk", "execve", "execveat", "newfstatat", "pread64", "set_robust_list", "set_tid_address",
		// What Go's runtime asks of the machine.
		"getrlimit", "open", "openat", "pipe2", "prlimit64", "readlinkat",
		"sched_getaffinity", "setrlimit", "uname",
		// To close what was inherited, and to leave a place.
		"chdir", "close_range", "dup3", "fstat", "getdents64", "getegid", "geteuid", "getgid", "getppid", "getuid",
		"lseek", "umask",
		// To give up what is left of privileges and to add filters.
		"capget", "capset", "seccomp",
	)
	p.check["arch_prctl"] = only(0, eINVAL, archPrctls()...)
	p.check["ioctl"] = only(1, eNOTTY, ioctlPagemapScan, 0x5401 /* TCGETS */)
	p.check["fcntl"] = only(1, eINVAL, append(wasmFcntls(), 0 /* F_DUPFD */)...)
	p.check["prctl"] = only(0, eINVAL, append(nativePrctls(),
		4,  // PR_SET_DUMPABLE
		24, // PR_CAPBSET_DROP
		47, // PR_CAP_AMBIENT
	)...)
	return p
}

func wasmSealedPolicy() policy {
	return policy{
		allow: []string{
			// The connection, and files without a name.
			"close", "ftruncate", "memfd_create", "pwrite64", "read", "write", "readv", "writev",
			// Guests' memory, and their machine code, which is written before it is executable.
			"madvise", "mmap", "mprotect", "munmap",
			// Go's scheduler, collector and signals. The runtime makes what it waits with
			// when the first timer is set, which may be later than the seal.
			"epoll_create1", "eventfd2",
			"clock_gettime", "clock_nanosleep", "epoll_ctl", "epoll_pwait", "exit", "exit_group", "futex", "getpid",
			"getrandom", "gettid", "gettimeofday", "mincore", "nanosleep", "restart_syscall", "rseq", "rt_sigaction",
			"rt_sigprocmask", "rt_sigreturn", "sched_yield", "sigaltstack", "tgkill",
		},
		refuse: map[string]errno{
			// glibc and Go's runtime go on to clone, whose flags a filter can read.
			"clone3": eNOSYS,
		},
		check: map[string]check{
			// A thread of this process, and nothing else.
			"clone": bitsOf(0, ePERM, cloneThread|cloneSighand|cloneVM, cloneNamespaces|cloneParent),
			"ioctl": only(1, eNOTTY, ioctlPagemapScan),
			"fcntl": only(1, eINVAL, wasmFcntls()...),
			"prctl": only(0, eINVAL, 15 /* PR_SET_NAME */, 0x53564d41 /* PR_SET_VMA */),
			// The calling thread's own turn of the processor, which is longer while it runs a
			// guest. What takes a privilege to set, this process has none for.
			"sched_getattr": only(0, ePERM, 0),
			"sched_setattr": only(0, ePERM, 0),
		},
	}
}

// ioctlPagemapScan finds the pages that a guest has written to: linux/fs.h.
const ioctlPagemapScan = 0xc0606610

// wasmFcntls are F_GETFD, F_SETFD, F_GETFL, F_SETFL, F_DUPFD_CLOEXEC and F_ADD_SEALS:
// linux/fcntl.h.
func wasmFcntls() []uint32 { return []uint32{1, 2, 3, 4, 1030, 1033} }
