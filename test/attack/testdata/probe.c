// probe makes one named attack and prints what came of it as a line of JSON:
//
//	{"attack":"mount","errno":"EPERM","count":0,"text":""}
//
// errno is empty when the attack got through: when it had its effect, or when the
// kernel came as far as to complain about arguments that were made to be harmless.
// Built with: cc -static -O1 -o probe probe.c
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/aio_abi.h>
#include <netinet/in.h>
#include <sched.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/timex.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

extern char **environ;
static const char *arg; // the attack's own argument
static long count;
static char text[1 << 16];

// failed gives the error of a call that returned r, or 0.
static int failed(long r) { return r < 0 ? errno : 0; }

static void note(const char *s) {
	size_t n = strlen(text);
	for (; *s && n < sizeof text - 8; s++) {
		if (*s == '"' || *s == '\\') text[n++] = '\\';
		if (*s == '\n') { text[n++] = '\\'; text[n++] = 'n'; continue; }
		if ((unsigned char)*s >= ' ') text[n++] = *s;
	}
	text[n] = 0;
}

static int opens(const char *path, int flags) {
	int fd = open(path, flags | O_CLOEXEC | O_NONBLOCK, 0600);
	int e = failed(fd);
	if (fd >= 0) close(fd);
	return e;
}

static int sock(int family, int type, int proto) {
	int fd = socket(family, type, proto);
	int e = failed(fd);
	if (fd >= 0) close(fd);
	return e;
}

// reached turns errors that come after the kernel's permission checks into success.
static int reached(int e, int after) { return e == after ? 0 : e; }

// Kernel interfaces.
static int a_mount(void) { return failed(mount("x", "/tmp", "tmpfs", MS_NODEV, "size=4k")); }
static int a_umount(void) { return failed(umount2("/proc", MNT_DETACH)); }
static int a_remount(void) { return failed(mount("", "/", "", MS_REMOUNT | MS_BIND, "")); }
static int a_fsopen(void) { int fd = syscall(SYS_fsopen, "tmpfs", 0); return failed(fd); }
static int a_open_tree(void) { int fd = syscall(428, AT_FDCWD, "/", 1); return failed(fd); }
static int a_pivot_root(void) { return reached(failed(syscall(SYS_pivot_root, "/tmp", "/tmp")), EINVAL); }
static int a_chroot(void) { return failed(chroot("/")); }
static int a_unshare_user(void) { return failed(unshare(CLONE_NEWUSER)); }
static int a_unshare_mount(void) { return failed(unshare(CLONE_NEWNS)); }
static int a_unshare_net(void) { return failed(unshare(CLONE_NEWNET)); }
static int a_unshare_cgroup(void) { return failed(unshare(CLONE_NEWCGROUP)); }
static int a_clone_user(void) {
	long p = syscall(SYS_clone, CLONE_NEWUSER | SIGCHLD, 0, 0, 0, 0);
	if (p == 0) _exit(0);
	int e = failed(p);
	if (p > 0) waitpid(p, 0, 0);
	return e;
}
static int a_clone3(void) { // with no more than a size: EINVAL is the call's own answer
	return reached(failed(syscall(SYS_clone3, 0, 0)), EINVAL);
}
static int a_setns(void) { return reached(failed(setns(open("/", O_RDONLY), 0)), EINVAL); }
static int a_ptrace(void) {
	pid_t p = fork();
	if (p == 0) _exit(failed(ptrace(PTRACE_TRACEME, 0, 0, 0)));
	int st;
	waitpid(p, &st, 0);
	return WEXITSTATUS(st);
}
static int a_ptrace_parent(void) { return failed(ptrace(PTRACE_SEIZE, getppid(), 0, 0)); }
static int a_process_vm(void) {
	char b[8], c[8] = "x";
	struct iovec l = {b, 8}, r = {c, 8};
	return failed(syscall(SYS_process_vm_readv, getpid(), &l, 1, &r, 1, 0));
}
static int a_pidfd_getfd(void) {
	int p = syscall(SYS_pidfd_open, getpid(), 0);
	return p < 0 ? errno : failed(syscall(SYS_pidfd_getfd, p, 0, 0));
}
static int a_kcmp(void) { return failed(syscall(SYS_kcmp, getpid(), getpid(), 1, 0, 0)); }
static int a_keyctl(void) { return failed(syscall(SYS_keyctl, 0, -3, 1)); }
static int a_add_key(void) { return failed(syscall(SYS_add_key, "user", "casemate-probe", "y", 1, -2)); }
static int a_userfaultfd(void) { return failed(syscall(SYS_userfaultfd, 1)); }
static int a_io_uring(void) { char p[256] = {0}; return failed(syscall(SYS_io_uring_setup, 1, p)); }
static int a_aio(void) { aio_context_t c = 0; return failed(syscall(SYS_io_setup, 1, &c)); }
static int a_bpf(void) { // BPF_MAP_CREATE of an array
	unsigned attr[32] = {2, 4, 4, 1};
	return failed(syscall(SYS_bpf, 0, attr, sizeof attr));
}
static int a_perf(void) { // a clock of this process, which needs no privilege
	unsigned attr[32] = {1, 128, 0};
	attr[10] = 0x60; // not the kernel, not the hypervisor
	return failed(syscall(SYS_perf_event_open, attr, 0, -1, -1, 0));
}
static int a_kexec(void) { return reached(failed(syscall(SYS_kexec_load, 0, 0, 0, 0xffffffffUL)), EINVAL); }
static int a_module(void) {
	int e = failed(syscall(SYS_init_module, "x", 1, ""));
	return e == ENOEXEC || e == EINVAL || e == EFAULT || e == EBADMSG ? 0 : e;
}
static int a_finit_module(void) {
	int e = failed(syscall(SYS_finit_module, -1, "", 0));
	return reached(e, EBADF);
}
static int a_reboot(void) { return reached(failed(syscall(SYS_reboot, 0, 0, 0, 0)), EINVAL); }
static int a_swapon(void) { return reached(failed(syscall(SYS_swapon, "/does/not/exist", 0)), ENOENT); }
static int a_quota(void) {
	int e = failed(syscall(SYS_quotactl, 0x80000100, "/dev/null", 0, 0));
	return e == ENOTBLK || e == EINVAL || e == ENODEV ? 0 : e;
}
static int a_acct(void) { return failed(syscall(SYS_acct, 0)); }
static int a_syslog(void) { return failed(syscall(SYS_syslog, 3, text + 1024, 8)); }
static int a_vhangup(void) { return failed(vhangup()); }
static int a_settime(void) { return failed(syscall(SYS_settimeofday, 0, 0)); }
static int a_adjtime(void) { struct timex t = {.modes = ADJ_ESTERROR, .esterror = 16000000}; return failed(syscall(SYS_adjtimex, &t)); }
static int a_handle(void) {
	struct { struct file_handle h; char b[128]; } f = {{128, 0}};
	int id;
	return failed(name_to_handle_at(AT_FDCWD, "/", &f.h, &id, 0));
}
static int a_personality(void) { return failed(syscall(SYS_personality, 0x0040000)); }
static int a_mlockall(void) { return failed(syscall(SYS_mlockall, 1)); }
static int a_shm(void) {
	long id = syscall(SYS_shmget, 0, 4096, 0600);
	if (id < 0) return errno;
	syscall(SYS_shmctl, id, 0, 0);
	return 0;
}
static int a_mq(void) { struct { long a, b, c, d; } at = {0, 1, 8, 0}; int r = syscall(SYS_mq_open, "casemate-probe", O_RDWR | O_CREAT, 0600, &at); if (r >= 0) syscall(SYS_mq_unlink, "casemate-probe"); return failed(r); }
static int a_fanotify(void) { return failed(syscall(SYS_fanotify_init, 0, O_RDONLY)); }
static int a_seccomp(void) { unsigned act = 0x7fff0000; return failed(syscall(SYS_seccomp, 2, 0, &act)); }
static int a_landlock(void) { return failed(syscall(444, 0, 0, 1)); }
static int a_splice(void) {
	int p[2], fd = open("/proc/self/exe", O_RDONLY);
	if (pipe(p) || fd < 0) return errno;
	loff_t off = 0;
	return failed(splice(fd, &off, p[1], 0, 1, 0));
}
static int a_vmsplice(void) {
	int p[2];
	if (pipe(p)) return errno;
	struct iovec v = {text, 8};
	return failed(vmsplice(p[1], &v, 1, 0));
}
static int a_merge(void) { // no kernel without KSM has it
	void *m = mmap(0, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	return failed(madvise(m, 4096, MADV_MERGEABLE));
}
static int a_dumpable(void) { return failed(prctl(PR_SET_DUMPABLE, 1)); }
static int a_terminal(void) { // into whatever is there: a terminal would take it
	return reached(failed(ioctl(open("/dev/null", O_RDWR), TIOCSTI, "x")), EIO);
}
static int a_memfd(void) { return failed(syscall(SYS_memfd_create, "x", 0)); }

// Foreign system calls.
static int a_i386(void) {
#ifdef __x86_64__
	pid_t p = fork();
	if (p == 0) {
		int r;
		__asm__ volatile("int $0x80" : "=a"(r) : "a"(20) : "memory"); // getpid
		_exit(r == getpid() ? 0 : 1);
	}
	int st;
	waitpid(p, &st, 0);
	if (WIFSIGNALED(st)) { note(strsignal(WTERMSIG(st))); return EACCES; }
	return WEXITSTATUS(st) ? ENOSYS : 0;
#else
	return ENOSYS;
#endif
}
static int a_x32(void) { return failed(syscall(0x40000000 | SYS_getpid)); }

// Sockets.
static int a_raw(void) { return sock(AF_INET, SOCK_RAW, 1); }
static int a_raw6(void) { return sock(AF_INET6, SOCK_RAW, 58); }
static int a_ping(void) { return sock(AF_INET, SOCK_DGRAM, 1); }
static int a_packet(void) { return sock(AF_PACKET, SOCK_RAW, 0); }
static int a_netlink(void) { return sock(AF_NETLINK, SOCK_RAW, 0); }
static int a_vsock(void) { return sock(40, SOCK_STREAM, 0); }
static int a_alg(void) { return sock(38, SOCK_SEQPACKET, 0); }
static int a_bluetooth(void) { return sock(31, SOCK_RAW, 1); }
static int a_xdp(void) { return sock(44, SOCK_RAW, 0); }
static int a_sctp(void) { return sock(AF_INET, SOCK_STREAM, 132); }
static int a_attach(void) {
	struct { unsigned short len; void *p; } prog = {1, &(struct { unsigned short c; unsigned char t, f; unsigned k; }){6, 0, 0, 0}};
	return failed(setsockopt(socket(AF_INET, SOCK_DGRAM, 0), SOL_SOCKET, 26, &prog, sizeof prog));
}
static int a_ktls(void) {
	int e = failed(setsockopt(socket(AF_INET, SOCK_STREAM, 0), 6, 31, "tls", 3));
	return reached(e, ENOTCONN);
}
static int connects(const char *ip, int port) {
	struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons(port)};
	unsigned b[4];
	if (sscanf(ip, "%u.%u.%u.%u", b, b + 1, b + 2, b + 3) != 4) return EINVAL;
	a.sin_addr.s_addr = htonl(b[0] << 24 | b[1] << 16 | b[2] << 8 | b[3]);
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
	int e = failed(connect(fd, (void *)&a, sizeof a));
	close(fd);
	return reached(e, EINPROGRESS);
}
static int a_metadata(void) { return connects("169.254.169.254", 80); }
static int a_private(void) { return connects("10.0.0.1", 80); }
static int a_host_port(void) { // of the host's loopback
	struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons(atoi(arg)), .sin_addr = {htonl(INADDR_LOOPBACK)}};
	return failed(connect(socket(AF_INET, SOCK_STREAM, 0), (void *)&a, sizeof a));
}
static int a_low_port(void) {
	struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons(80)};
	return failed(bind(socket(AF_INET, SOCK_STREAM, 0), (void *)&a, sizeof a));
}
static int a_abstract(void) { // a socket of the host without a path
	struct sockaddr_un a = {.sun_family = AF_UNIX};
	memcpy(a.sun_path + 1, arg, strlen(arg));
	return failed(connect(socket(AF_UNIX, SOCK_STREAM, 0), (void *)&a, offsetof(struct sockaddr_un, sun_path) + 1 + strlen(arg)));
}

// Users and files.
static int a_setuid(void) { return failed(syscall(SYS_setresuid, 0, 0, 0)); }
static int a_setgid(void) { return failed(syscall(SYS_setresgid, 0, 0, 0)); }
static int a_setgroups(void) { return failed(syscall(SYS_setgroups, 0, 0)); }
static int a_capset(void) {
	struct { unsigned v; int pid; } h = {0x20080522, 0};
	unsigned d[6] = {1, 1, 0, 0, 0, 0};
	return failed(syscall(SYS_capset, &h, d));
}
static int a_mknod(void) { int r = mknod("/tmp/node", S_IFBLK | 0600, 0x801); if (!r) unlink("/tmp/node"); return failed(r); }
static int a_mknod_char(void) { int r = mknod("/tmp/node", S_IFCHR | 0600, 0x101); if (!r) unlink("/tmp/node"); return failed(r); }
static int a_xattr(void) {
	close(open("/tmp/x", O_CREAT | O_WRONLY, 0600));
	int r = failed(syscall(SYS_setxattr, "/tmp/x", "user.x", "y", 1, 0));
	unlink("/tmp/x");
	return r;
}
static int a_core_pattern(void) { return opens("/proc/sys/kernel/core_pattern", O_WRONLY); }
static int a_proc_sys(void) { return opens("/proc/sys/kernel/hostname", O_RDONLY); }
static int a_sysrq(void) { return opens("/proc/sysrq-trigger", O_WRONLY); }
static int a_kcore(void) { return opens("/proc/kcore", O_RDONLY); }
static int a_kallsyms(void) { return opens("/proc/kallsyms", O_RDONLY); }
static int a_keys(void) { return opens("/proc/keys", O_RDONLY); }
static int a_init_environ(void) { return opens("/proc/1/environ", O_RDONLY); }
static int a_init_mem(void) { return opens("/proc/1/mem", O_RDWR); }
static int a_init_root(void) { return opens("/proc/1/root/etc", O_RDONLY); }
static int a_init_fd(void) { return opens("/proc/1/fd", O_RDONLY); }
static int a_parent_mem(void) {
	char p[64];
	snprintf(p, sizeof p, "/proc/%d/mem", getppid());
	return opens(p, O_RDWR);
}
static int a_oom_adj(void) { // to be killed last
	int fd = open("/proc/self/oom_score_adj", O_WRONLY);
	return fd < 0 ? errno : failed(write(fd, "-1000", 5));
}
static int a_sysfs(void) { return opens("/sys/kernel", O_RDONLY); }
static int a_cgroupfs(void) { return opens("/sys/fs/cgroup", O_RDONLY); }
static int a_mount_cgroup(void) { return failed(mount("x", "/tmp", "cgroup2", 0, "")); }
static int a_kvm(void) { return opens("/dev/kvm", O_RDWR); }
static int a_disk(void) { return opens(arg, O_RDONLY); }
static int a_mem_device(void) { return opens("/dev/mem", O_RDONLY); }
static int a_write_root(void) { return opens("/probe-was-here", O_WRONLY | O_CREAT); }
static int a_write_etc(void) { return opens("/etc/probe-was-here", O_WRONLY | O_CREAT); }
static int a_write_code(void) { return opens("/var/task/probe-was-here", O_WRONLY | O_CREAT); }
static int a_write_program(void) { return opens("/bin/probe", O_WRONLY); }
static int a_chmod_program(void) { return failed(chmod("/bin/probe", 04755)); }
static int a_host_file(void) { return opens(arg, O_RDONLY); }
static int a_climb(void) { // out of the root, by name
	char p[4200] = "";
	for (int i = 0; i < 40; i++) strcat(p, "../");
	strcat(p, arg[0] == '/' ? arg + 1 : arg);
	return opens(p, O_RDONLY);
}

// Other processes.
static int a_signal_init(void) { return failed(kill(1, SIGKILL)); }
static int a_signal_others(void) { // counts those that could be sent a signal
	for (int p = 2; p < 1 << 16; p++)
		if (p != getpid() && kill(p, 0) == 0) count++;
	if (kill(atoi(arg), 0) == 0 && atoi(arg) != getpid()) count++;
	return count ? 0 : ESRCH;
}
static int a_see_others(void) { // counts those that are in /proc
	DIR *d = opendir("/proc");
	if (!d) return errno;
	for (struct dirent *e; (e = readdir(d));)
		if (e->d_name[0] >= '1' && e->d_name[0] <= '9' && atoi(e->d_name) != getpid()) count++;
	return count ? 0 : ESRCH;
}

// What was inherited. They succeed: the test looks at the text.
static int a_env(void) {
	for (char **e = environ; *e; e++, count++) note(*e), note("\n");
	return 0;
}
static int a_fds(void) {
	for (int fd = 0; fd < 4096; fd++)
		if (fcntl(fd, F_GETFD) >= 0) {
			char b[64], to[256] = "?", p[64];
			struct stat st = {0};
			fstat(fd, &st);
			snprintf(p, sizeof p, "/proc/self/fd/%d", fd);
			int n = readlink(p, to, sizeof to - 1);
			if (n > 0) to[n] = 0;
			snprintf(b, sizeof b, "%d %s %x ", fd, S_ISCHR(st.st_mode) ? "char" : S_ISFIFO(st.st_mode) ? "pipe" : "other", (int)st.st_rdev);
			note(b), note(to), note("\n");
			count++;
		}
	return 0;
}
static int a_read(void) { // a file's text
	int fd = open(arg, O_RDONLY);
	if (fd < 0) return errno;
	static char b[8192];
	int n = read(fd, b, sizeof b - 1);
	if (n < 0) return errno;
	b[n] = 0;
	note(b);
	return 0;
}
// crawl reads every file there is and looks for the argument in it.
static void crawl(const char *dir, int depth) {
	DIR *d = opendir(dir);
	if (!d) return;
	for (struct dirent *e; (e = readdir(d));) {
		char p[4096];
		struct stat st;
		if (!strcmp(e->d_name, ".") || !strcmp(e->d_name, "..")) continue;
		if (snprintf(p, sizeof p, "%s/%s", strcmp(dir, "/") ? dir : "", e->d_name) >= (int)sizeof p) continue;
		if (lstat(p, &st)) continue;
		if (!strncmp(p, "/proc/", 6) && depth > 2) continue;
		if (S_ISDIR(st.st_mode)) { if (depth < 12) crawl(p, depth + 1); continue; }
		if (strncmp(p, "/proc/", 6)) note(p), note("\n");
		if (S_ISSOCK(st.st_mode)) { note("a socket\n"); continue; }
		if (!S_ISREG(st.st_mode)) continue;
		int fd = open(p, O_RDONLY | O_NONBLOCK);
		if (fd < 0) continue;
		static char b[1 << 20];
		for (ssize_t n; (n = read(fd, b, sizeof b)) > 0;)
			if (memmem(b, n, arg, strlen(arg))) {
				if (strcmp(p, "/proc/self/cmdline") && !strstr(p, "/cmdline")) count++, note("FOUND IN "), note(p), note("\n");
				break;
			} else if (!strncmp(p, "/proc/", 6)) break; // the map of all pages has no end
		close(fd);
	}
	closedir(d);
}
static int a_crawl(void) { crawl("/", 0); return 0; }

// A program of one's own.
static int copy(const char *to) {
	int in = open("/proc/self/exe", O_RDONLY), out = open(to, O_WRONLY | O_CREAT | O_TRUNC, 0755);
	if (in < 0 || out < 0) return -1;
	static char b[1 << 16];
	for (ssize_t n; (n = read(in, b, sizeof b)) > 0;)
		if (write(out, b, n) != n) return -1;
	close(in), close(out);
	return 0;
}
static int executes(const char *path, int fd) {
	pid_t p = fork();
	if (p == 0) {
		char *argv[] = {"miner", "nothing", 0};
		dup2(open("/dev/null", O_WRONLY), 1);
		if (path) execv(path, argv);
		else syscall(SYS_execveat, fd, "", argv, environ, AT_EMPTY_PATH);
		_exit(errno);
	}
	int st;
	waitpid(p, &st, 0);
	return WIFEXITED(st) ? WEXITSTATUS(st) : EFAULT;
}
static int a_miner(void) {
	if (copy("/tmp/miner")) return errno;
	int e = executes("/tmp/miner", 0);
	unlink("/tmp/miner");
	return e;
}
static int a_miner_fd(void) { // without a path
	if (copy("/tmp/miner")) return errno;
	int fd = open("/tmp/miner", O_RDONLY), e = executes(0, fd);
	unlink("/tmp/miner");
	return e;
}
static int a_miner_proc(void) { // by the path of a descriptor
	char p[64];
	if (copy("/tmp/miner")) return errno;
	snprintf(p, sizeof p, "/proc/self/fd/%d", open("/tmp/miner", O_RDONLY));
	int e = executes(p, 0);
	unlink("/tmp/miner");
	return e;
}
static int a_miner_map(void) { // as a loader would
	if (copy("/tmp/miner")) return errno;
	void *m = mmap(0, 4096, PROT_READ | PROT_EXEC, MAP_PRIVATE, open("/tmp/miner", O_RDONLY), 0);
	int e = m == MAP_FAILED ? errno : 0;
	unlink("/tmp/miner");
	return e;
}
static int a_miner_memfd(void) {
	int fd = syscall(SYS_memfd_create, "miner", 0);
	if (fd < 0) return errno;
	char p[64];
	snprintf(p, sizeof p, "/proc/self/fd/%d", fd);
	if (copy(p)) return errno;
	return executes(0, fd);
}
static int a_nothing(void) { return 0; }

// Floods. They end by themselves at a bound of ours, far above what is allowed.
static int a_forks(void) {
	int e = 0;
	while (count < 2000) {
		pid_t p = fork();
		if (p < 0) { e = errno; break; }
		if (p == 0) { pause(); _exit(0); }
		count++;
	}
	return e;
}
static int a_zombies(void) {
	signal(SIGCHLD, SIG_DFL);
	int e = 0;
	while (count < 2000) {
		pid_t p = fork();
		if (p < 0) { e = errno; break; }
		if (p == 0) _exit(0);
		count++;
	}
	return e;
}
static int a_orphans(void) { // children of the init, which it has to take note of
	for (int i = 0; i < 500; i++) {
		pid_t p = fork();
		if (p < 0) return errno;
		if (p == 0) { if (fork() >= 0) _exit(0); _exit(1); }
		int st;
		waitpid(p, &st, 0);
		if (WEXITSTATUS(st)) usleep(1000); else count++;
	}
	return 0;
}
static int a_memory(void) { // megabytes; it is not expected to return
	for (; count < 1024; count++) {
		char *m = mmap(0, 1 << 20, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
		if (m == MAP_FAILED) return errno;
		memset(m, 1, 1 << 20);
	}
	return 0;
}
static int a_disk_fill(void) { // kilobytes
	static char b[1 << 14];
	int fd = open("/tmp/fill", O_WRONLY | O_CREAT, 0600);
	for (; count < 1 << 20; count += sizeof b >> 10)
		if (write(fd, b, sizeof b) != sizeof b) return errno;
	return 0;
}
static int a_inode_fill(void) {
	for (; count < 100000; count++) {
		char p[64];
		snprintf(p, sizeof p, "/tmp/f%ld", count);
		int fd = open(p, O_WRONLY | O_CREAT | O_EXCL, 0600);
		if (fd < 0) return errno;
		close(fd);
	}
	return 0;
}
static int a_files(void) {
	for (; count < 100000; count++)
		if (open("/dev/null", O_RDONLY) < 0) return errno;
	return 0;
}
static int a_device(void) { // what anybody may ask of this device, where nothing forbids asking
	int n, fd = open("/dev/urandom", O_RDONLY | O_CLOEXEC);
	return fd < 0 ? errno : failed(ioctl(fd, _IOR('R', 0, int), &n));
}
static int a_big_pipe(void) { int p[2]; return pipe(p) ? errno : failed(fcntl(p[1], F_SETPIPE_SZ, 1 << 30)); }
static int a_log(void) { // until it is killed
	static char b[1 << 16];
	memset(b, 'x', sizeof b);
	b[sizeof b - 1] = '\n';
	for (;;)
		if (write(1, b, sizeof b) < 0) return errno;
}
static int a_spin(void) { // for a second; counts thousandths of it in which it computed
	struct timespec t0, t, c;
	clock_gettime(CLOCK_MONOTONIC, &t0);
	do clock_gettime(CLOCK_MONOTONIC, &t);
	while ((t.tv_sec - t0.tv_sec) * 1000 + (t.tv_nsec - t0.tv_nsec) / 1000000 < 1000);
	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &c);
	count = c.tv_sec * 1000 + c.tv_nsec / 1000000;
	return 0;
}
static int a_forever(void) { signal(SIGTERM, SIG_IGN); for (;;); return 0; }

#define A(f) {#f, a_##f}
static const struct { const char *name; int (*run)(void); } attacks[] = {
	A(mount), A(umount), A(remount), A(fsopen), A(open_tree), A(pivot_root), A(chroot), A(unshare_user), A(unshare_mount),
	A(unshare_net), A(unshare_cgroup), A(clone_user), A(clone3), A(setns), A(ptrace), A(ptrace_parent), A(process_vm),
	A(pidfd_getfd), A(kcmp), A(keyctl), A(add_key), A(userfaultfd), A(io_uring), A(aio), A(bpf), A(perf), A(kexec), A(module),
	A(finit_module), A(reboot), A(swapon), A(quota), A(acct), A(syslog), A(vhangup), A(settime), A(adjtime), A(handle),
	A(personality), A(mlockall), A(shm), A(mq), A(fanotify), A(seccomp), A(landlock), A(splice), A(vmsplice), A(merge),
	A(dumpable), A(terminal), A(memfd), A(i386), A(x32), A(raw), A(raw6), A(ping), A(packet), A(netlink), A(vsock), A(alg),
	A(bluetooth), A(xdp), A(sctp), A(attach), A(ktls), A(metadata), A(private), A(host_port), A(low_port), A(abstract), A(setuid), A(setgid),
	A(setgroups), A(capset), A(mknod), A(mknod_char), A(xattr), A(core_pattern), A(proc_sys), A(sysrq), A(kcore), A(kallsyms),
	A(keys), A(init_environ), A(init_mem), A(init_root), A(init_fd), A(parent_mem), A(oom_adj), A(sysfs), A(cgroupfs),
	A(mount_cgroup), A(kvm), A(disk), A(mem_device), A(write_root), A(write_etc), A(write_code), A(write_program),
	A(chmod_program), A(host_file), A(climb), A(signal_init), A(signal_others), A(see_others), A(env), A(fds), A(read),
	A(crawl), A(miner), A(miner_fd), A(miner_proc), A(miner_map), A(miner_memfd), A(nothing), A(forks), A(zombies),
	A(orphans), A(memory), A(disk_fill), A(inode_fill), A(files), A(device), A(big_pipe), A(log), A(spin), A(forever),
};

int main(int argc, char **argv) {
	arg = argc > 2 ? argv[2] : "";
	for (size_t i = 0; argc > 1 && i < sizeof attacks / sizeof *attacks; i++)
		if (!strcmp(argv[1], attacks[i].name)) {
			int e = attacks[i].run();
			const char *name = e ? strerrorname_np(e) : "";
			printf("{\"attack\":\"%s\",\"errno\":\"%s\",\"count\":%ld,\"text\":\"%s\"}\n", argv[1], name ? name : "?", count, text);
			return 0;
		}
	fprintf(stderr, "probe: no such attack\n");
	return 2;
}
