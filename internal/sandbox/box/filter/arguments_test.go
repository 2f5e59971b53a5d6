package filter

import "testing"

// argumentCases say what arguments decide, by hand.
func argumentCases() map[string][]struct {
	args []uint64
	want uint32
} {
	type c = []struct {
		args []uint64
		want uint32
	}
	const high = 0xdead_beef << 32 // the kernel does not see it
	return map[string]c{
		"socket": {
			{[]uint64{1, 1, 0}, actAllow},                       // unix stream
			{[]uint64{1, 2 | 0o2000000 | 0o4000, 0}, actAllow},  // unix dgram, cloexec, nonblock
			{[]uint64{1, 5, 0}, actAllow},                       // unix seqpacket
			{[]uint64{1, 3, 0}, failing(ePERM)},                 // unix raw
			{[]uint64{2, 1, 0}, actAllow},                       // tcp
			{[]uint64{2, 1 | 0o2000000, 6}, actAllow},           // tcp by name
			{[]uint64{2, 1, 262}, failing(ePROTONOSUPPORT)},     // mptcp
			{[]uint64{2, 1, 132}, failing(ePROTONOSUPPORT)},     // sctp
			{[]uint64{2, 2, 0}, actAllow},                       // udp
			{[]uint64{10, 2, 17}, actAllow},                     // udp by name, IPv6
			{[]uint64{2, 2, 1}, failing(ePROTONOSUPPORT)},       // ping
			{[]uint64{2, 2, 136}, failing(ePROTONOSUPPORT)},     // udplite
			{[]uint64{10, 2, 58}, failing(ePROTONOSUPPORT)},     // ping, IPv6
			{[]uint64{2, 3, 1}, failing(ePERM)},                 // raw
			{[]uint64{10, 3 | 0o2000000, 255}, failing(ePERM)},  // raw, IPv6
			{[]uint64{2, 5, 132}, failing(ePERM)},               // sctp, one to many
			{[]uint64{2, 6, 33}, failing(ePERM)},                // dccp
			{[]uint64{2, 10, 0}, failing(ePERM)},                // packet, the old way
			{[]uint64{2 | high, 1 | high, high}, actAllow},      // tcp
			{[]uint64{16 | high, 3, 0}, failing(eAFNOSUPPORT)},  // netlink
			{[]uint64{16, 3, 0}, failing(eAFNOSUPPORT)},         // netlink
			{[]uint64{17, 3, 0}, failing(eAFNOSUPPORT)},         // packet
			{[]uint64{38, 5, 0}, failing(eAFNOSUPPORT)},         // alg
			{[]uint64{40, 1, 0}, failing(eAFNOSUPPORT)},         // vsock
			{[]uint64{44, 3, 0}, failing(eAFNOSUPPORT)},         // xdp
			{[]uint64{31, 3, 1}, failing(eAFNOSUPPORT)},         // bluetooth
			{[]uint64{0, 1, 0}, failing(eAFNOSUPPORT)},          // unspecified
			{[]uint64{^uint64(0), 1, 0}, failing(eAFNOSUPPORT)}, //
			{[]uint64{1 | 1<<31, 1, 0}, failing(eAFNOSUPPORT)},  //
			{[]uint64{2, 0, 0}, failing(ePERM)},                 // no type
			{[]uint64{2, 0x11, 0}, actAllow},                    // the kernel refuses the flag
		},
		"socketpair": {
			{[]uint64{1, 1, 0}, actAllow},
			{[]uint64{30, 1, 0}, failing(eAFNOSUPPORT)}, // tipc
			{[]uint64{2, 1, 0}, failing(eAFNOSUPPORT)},
		},
		"setsockopt": {
			{[]uint64{3, 1, 2}, actAllow},         // SO_REUSEADDR
			{[]uint64{3, 6, 1}, actAllow},         // TCP_NODELAY
			{[]uint64{3, 1, 26}, failing(ePERM)},  // SO_ATTACH_FILTER
			{[]uint64{3, 1, 50}, failing(ePERM)},  // SO_ATTACH_BPF
			{[]uint64{3, 1, 51}, failing(ePERM)},  // SO_ATTACH_REUSEPORT_CBPF
			{[]uint64{3, 1, 52}, failing(ePERM)},  // SO_ATTACH_REUSEPORT_EBPF
			{[]uint64{3, 6, 31}, failing(eNOENT)}, // TCP_ULP
			{[]uint64{3, 41, 26}, actAllow},       // IPV6_V6ONLY, another level's 26
			{[]uint64{3, 0, 31}, actAllow},        //
		},
		"clone": {
			{[]uint64{17}, actAllow},                                 // fork
			{[]uint64{0x4111}, actAllow},                             // vfork
			{[]uint64{0x3d0f00}, actAllow},                           // pthread_create
			{[]uint64{0x1000 | 17}, actAllow},                        // with a pidfd
			{[]uint64{0x00020000 | 17}, failing(ePERM)},              // mount namespace
			{[]uint64{0x02000000 | 17}, failing(ePERM)},              // cgroup
			{[]uint64{0x04000000 | 17}, failing(ePERM)},              // uts
			{[]uint64{0x08000000 | 17}, failing(ePERM)},              // ipc
			{[]uint64{0x10000000 | 17}, failing(ePERM)},              // user
			{[]uint64{0x20000000 | 17}, failing(ePERM)},              // pid
			{[]uint64{0x40000000 | 17}, failing(ePERM)},              // network
			{[]uint64{0x10000000 | 0x3d0f00 | high}, failing(ePERM)}, //
			{[]uint64{0x8000 | 17}, failing(ePERM)},                  // a sibling
		},
		"ioctl": {
			{[]uint64{0, 0x5401}, actAllow},
			{[]uint64{0, 0x5413}, actAllow},
			{[]uint64{3, 0x541b}, actAllow},
			{[]uint64{3, 0x5421}, actAllow},
			{[]uint64{0, 0x5412}, failing(eNOTTY)},        // TIOCSTI
			{[]uint64{0, 0x5412 | high}, failing(eNOTTY)}, // TIOCSTI
			{[]uint64{0, 0x541c}, failing(eNOTTY)},        // TIOCLINUX
			{[]uint64{0, 0x8914}, failing(eNOTTY)},        // SIOCSIFFLAGS
			{[]uint64{0, 0x40049409}, failing(eNOTTY)},    // FICLONE
			{[]uint64{0, 0xae00}, failing(eNOTTY)},        // KVM_GET_API_VERSION
			{[]uint64{0, 0xb701}, failing(eNOTTY)},        // NS_GET_USERNS
			{[]uint64{0, 0xc0606610}, failing(eNOTTY)},    // PAGEMAP_SCAN
		},
		"prctl": {
			{[]uint64{15}, actAllow},                   // PR_SET_NAME
			{[]uint64{0x53564d41}, actAllow},           // PR_SET_VMA
			{[]uint64{38, 1}, actAllow},                // PR_SET_NO_NEW_PRIVS
			{[]uint64{1, 9}, actAllow},                 // PR_SET_PDEATHSIG
			{[]uint64{4, 1}, failing(eINVAL)},          // PR_SET_DUMPABLE
			{[]uint64{8, 1}, failing(eINVAL)},          // PR_SET_KEEPCAPS
			{[]uint64{22, 2}, failing(eINVAL)},         // PR_SET_SECCOMP
			{[]uint64{24, 0}, failing(eINVAL)},         // PR_CAPBSET_DROP
			{[]uint64{28, 0}, failing(eINVAL)},         // PR_SET_SECUREBITS
			{[]uint64{35, 0}, failing(eINVAL)},         // PR_SET_MM
			{[]uint64{47, 2}, failing(eINVAL)},         // PR_CAP_AMBIENT
			{[]uint64{53, 0}, failing(eINVAL)},         // PR_SET_SPECULATION_CTRL
			{[]uint64{59, 1}, failing(eINVAL)},         // PR_SET_SYSCALL_USER_DISPATCH
			{[]uint64{67, 1}, failing(eINVAL)},         // PR_SET_MEMORY_MERGE
			{[]uint64{0x59616d61, 1}, failing(eINVAL)}, // PR_SET_PTRACER
		},
		"arch_prctl": {
			{[]uint64{0x1002}, actAllow},
			{[]uint64{0x5001}, actAllow},
			{[]uint64{0x2001}, failing(eINVAL)}, // ARCH_MAP_VDSO_X32
			{[]uint64{0x1012}, failing(eINVAL)}, // ARCH_SET_CPUID
		},
		"personality": {
			{[]uint64{0}, actAllow},
			{[]uint64{0xffffffff}, actAllow},
			{[]uint64{0x0040000}, failing(ePERM)}, // ADDR_NO_RANDOMIZE
			{[]uint64{0x0400000}, failing(ePERM)}, // READ_IMPLIES_EXEC
			{[]uint64{8}, failing(ePERM)},         // PER_LINUX32
		},
		"madvise": {
			{[]uint64{0, 0, 4}, actAllow},
			{[]uint64{0, 0, 12}, failing(eINVAL)},
			{[]uint64{0, 12, 4}, actAllow},
		},
		"mknod": {
			{[]uint64{0, 0o10600, 0}, actAllow},       // a pipe
			{[]uint64{0, 0o100600, 0}, actAllow},      // a file
			{[]uint64{0, 0o20600, 0}, failing(ePERM)}, // a character device
			{[]uint64{0, 0o60600, 0}, failing(ePERM)}, // a block device
			{[]uint64{0, 0o60600 | 1<<16}, failing(ePERM)},
		},
		"mknodat": {
			{[]uint64{0, 0, 0o10600, 0}, actAllow},
			{[]uint64{0, 0o10600, 0o20600, 0}, failing(ePERM)},
			{[]uint64{0, 0o10600, 0o60600, 0}, failing(ePERM)},
		},
	}
}

func TestArgumentsDecide(t *testing.T) {
	for _, a := range architectures() {
		numbers, err := numbersFor(a)
		if err != nil {
			t.Fatal(err)
		}
		m := boot(t, nativePolicy(), a)
		cases := argumentCases()
		for name := range nativePolicy().check {
			if len(cases[name]) == 0 {
				t.Errorf("no case for %s", name)
			}
		}
		for name, rows := range cases {
			n := numbers[name]
			if n < 0 {
				continue
			}
			for _, c := range rows {
				if got := m.ask(uint32(n), c.args...); got != c.want {
					t.Errorf("%s: %s(%#x): %s, want %s", a.name, name, c.args, said(got), said(c.want))
				}
			}
		}
	}
}

func TestSealedProcessMakesThreadsAndNothingElse(t *testing.T) {
	for _, a := range architectures() {
		numbers, err := numbersFor(a)
		if err != nil {
			t.Fatal(err)
		}
		m := boot(t, wasmSealedPolicy(), a)
		for _, c := range []struct {
			name string
			arg  int
			v    uint64
			want uint32
		}{
			{"clone", 0, 0x50f00, actAllow}, // as Go's runtime does
			{"clone", 0, 0xd0f00, actAllow}, // with thread-local storage
			{"clone", 0, 17, failing(ePERM)},
			{"clone", 0, 0x4111, failing(ePERM)},
			{"clone", 0, 0x10100, failing(ePERM)},
			{"clone", 0, 0x50f00 | 0x10000000, failing(ePERM)},
			{"clone", 0, 0x50f00 | 0x8000, failing(ePERM)},
			{"ioctl", 1, 0xc0606610, actAllow},
			{"ioctl", 1, 0x5401, failing(eNOTTY)},
			{"ioctl", 1, 0x5412, failing(eNOTTY)},
			{"fcntl", 1, 1033, actAllow},
			{"fcntl", 1, 1024, failing(eINVAL)}, // F_SETLEASE
			{"fcntl", 1, 8, failing(eINVAL)},    // F_SETOWN
			{"prctl", 0, 0x53564d41, actAllow},
			{"prctl", 0, 38, failing(eINVAL)},
			{"prctl", 0, 22, failing(eINVAL)},
			{"sched_getattr", 0, 0, actAllow},
			{"sched_getattr", 0, 1, failing(ePERM)},
			{"sched_setattr", 0, 0, actAllow},
			{"sched_setattr", 0, 1, failing(ePERM)}, // another thread, or another process
		} {
			args := make([]uint64, 6)
			args[c.arg] = c.v
			if got := m.ask(uint32(numbers[c.name]), args...); got != c.want {
				t.Errorf("%s: %s(%#x): %s, want %s", a.name, c.name, args, said(got), said(c.want))
			}
		}
	}
}
