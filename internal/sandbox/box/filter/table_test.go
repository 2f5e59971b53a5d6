package filter

// What each program is meant to answer, written down a second time: a call that is added
// to a policy, or taken from it, has to be moved here too.

const nativeAllowed = `
		accept accept4 access alarm bind brk capget chdir chmod chown clock_getres clock_gettime clock_nanosleep
		close close_range connect copy_file_range creat dup dup2 dup3 epoll_create epoll_create1 epoll_ctl
		epoll_pwait epoll_pwait2 epoll_wait eventfd eventfd2 execve exit exit_group faccessat faccessat2 fadvise64
		fallocate fchdir fchmod fchmodat fchmodat2 fchown fchownat fcntl fdatasync fgetxattr flistxattr flock fork
		fstat fstatfs fsync ftruncate futex futex_waitv futimesat get_robust_list getcpu getcwd getdents getdents64
		getegid geteuid getgid getgroups getitimer getpeername getpgid getpgrp getpid getppid getpriority getrandom
		getresgid getresuid getrlimit getrusage getsid getsockname getsockopt gettid gettimeofday getuid getxattr
		inotify_add_watch inotify_init inotify_init1 inotify_rm_watch kill lchown lgetxattr link linkat listen
		listxattr llistxattr lseek lstat membarrier mincore mkdir mkdirat mlock mlock2 mmap mprotect mremap mseal
		msync munlock munmap nanosleep newfstatat open openat openat2 pause pidfd_open pidfd_send_signal pipe pipe2
		pkey_alloc pkey_free pkey_mprotect poll ppoll pread64 preadv preadv2 prlimit64 pselect6 pwrite64 pwritev
		pwritev2 read readahead readlink readlinkat readv recvfrom recvmmsg recvmsg rename renameat renameat2
		restart_syscall rmdir rseq rt_sigaction rt_sigpending rt_sigprocmask rt_sigqueueinfo rt_sigreturn
		rt_sigsuspend rt_sigtimedwait rt_tgsigqueueinfo sched_get_priority_max sched_get_priority_min
		sched_getaffinity sched_getattr sched_getparam sched_getscheduler sched_rr_get_interval sched_setaffinity
		sched_yield select sendfile sendmmsg sendmsg sendto set_robust_list set_tid_address setitimer setpgid
		setpriority setrlimit setsid shutdown sigaltstack signalfd signalfd4 stat statfs statx symlink symlinkat
		sysinfo tgkill time timer_create timer_delete timer_getoverrun timer_gettime timer_settime timerfd_create
		timerfd_gettime timerfd_settime times tkill truncate umask uname unlink unlinkat utime utimensat utimes
		vfork wait4 waitid write writev
`

// nativeChecked are the calls whose arguments decide; what they decide is in
// argumentCases.
const nativeChecked = `arch_prctl clone ioctl madvise mknod mknodat personality prctl setsockopt socket socketpair`

const nativeNoSuchCall = `
		clone3 execveat io_setup io_uring_enter io_uring_register io_uring_setup memfd_create memfd_secret

		cachestat file_getattr file_setattr futex_requeue futex_wait futex_wake getxattrat landlock_add_rule
		landlock_create_ruleset landlock_restrict_self listmount listns listxattrat lsm_get_self_attr
		lsm_list_modules lsm_set_self_attr map_shadow_stack open_tree_attr process_mrelease removexattrat
		rseq_slice_yield set_mempolicy_home_node setxattrat statmount`

const (
	nativeInvalid     = `splice tee vmsplice`
	nativeUnsupported = `fremovexattr fsetxattr lremovexattr lsetxattr removexattr setxattr`
	nativeNothingDone = `sync syncfs`
)

const nativeForbidden = `
		_sysctl acct add_key adjtimex afs_syscall arch_specific_syscall bpf capset chroot clock_adjtime
		clock_settime create_module delete_module epoll_ctl_old epoll_wait_old fanotify_init fanotify_mark
		finit_module get_kernel_syms get_mempolicy get_thread_area getpmsg init_module io_cancel io_destroy
		io_getevents io_pgetevents io_submit ioperm iopl ioprio_get ioprio_set kcmp kexec_file_load kexec_load
		keyctl lookup_dcookie mbind migrate_pages mlockall modify_ldt mount move_pages mq_getsetattr mq_notify
		mq_open mq_timedreceive mq_timedsend mq_unlink msgctl msgget msgrcv msgsnd munlockall name_to_handle_at
		nfsservctl open_by_handle_at perf_event_open pivot_root process_vm_readv process_vm_writev ptrace putpmsg
		query_module quotactl reboot remap_file_pages request_key sched_setattr sched_setparam sched_setscheduler
		seccomp security semctl semget semop semtimedop set_mempolicy set_thread_area setdomainname setfsgid
		setfsuid setgid setgroups sethostname setns setregid setresgid setresuid setreuid settimeofday setuid shmat
		shmctl shmdt shmget swapoff swapon sync_file_range sysfs syslog tuxcall umount2 unshare uprobe uretprobe
		uselib userfaultfd ustat vhangup vserver

		fsconfig fsmount fsopen fspick mount_setattr move_mount open_tree pidfd_getfd process_madvise quotactl_fd`

const sealedAllowed = `
		close clock_gettime clock_nanosleep epoll_create1 epoll_ctl epoll_pwait eventfd2 exit exit_group ftruncate futex getpid getrandom gettid
		gettimeofday madvise memfd_create mincore mmap mprotect munmap nanosleep pwrite64 read readv restart_syscall rseq
		rt_sigaction rt_sigprocmask rt_sigreturn sched_yield sigaltstack tgkill write writev
`

const sealedChecked = `clone fcntl ioctl prctl sched_getattr sched_setattr`

// wasmAllowed are those that a process may make until it is sealed.
const wasmAllowed = sealedAllowed + `
		access brk capget capset chdir close_range dup3 execve execveat fstat getdents64
		getegid geteuid getgid getppid getrlimit getuid lseek newfstatat open openat pipe2 pread64 prlimit64
		readlinkat sched_getaffinity seccomp set_robust_list set_tid_address setrlimit umask uname
`
