package filter

import "golang.org/x/net/bpf"

// A filter sees registers of 64 bits. Every parameter that is looked at here is an int
// or shorter in the kernel, which drops the upper half, so the lower half is all there
// is to look at.
func argument(i int) bpf.Instruction {
	return bpf.LoadAbsolute{Off: uint32(offArgs + 8*i), Size: 4}
}

func allowed() bpf.Instruction           { return bpf.RetConstant{Val: actAllow} }
func refused(e errno) bpf.Instruction    { return bpf.RetConstant{Val: actErrno | uint32(e)} }
func masked(mask uint32) bpf.Instruction { return bpf.ALUOpConstant{Op: bpf.ALUOpAnd, Val: mask} }

// among returns allowed when what is loaded is one of the values, and otherwise goes on
// after it.
func among(values ...uint32) check {
	var c check
	for i, v := range values {
		c = append(c, bpf.JumpIf{Cond: bpf.JumpEqual, Val: v, SkipTrue: uint8(len(values) - i)})
	}
	return append(c, bpf.Jump{Skip: 1}, allowed())
}

// only allows a call when an argument is one of the values.
func only(arg int, e errno, values ...uint32) check {
	c := check{argument(arg)}
	return append(append(c, among(values...)...), refused(e))
}

// unless refuses a call when an argument is one of the values.
func unless(arg int, e errno, values ...uint32) check {
	c := check{argument(arg)}
	for i, v := range values {
		c = append(c, bpf.JumpIf{Cond: bpf.JumpEqual, Val: v, SkipTrue: uint8(len(values) - i)})
	}
	return append(c, allowed(), refused(e))
}

// noBits refuses a call when an argument has any of the bits.
func noBits(arg int, e errno, bits uint32) check {
	return check{argument(arg), bpf.JumpIf{Cond: bpf.JumpBitsSet, Val: bits, SkipTrue: 1}, allowed(), refused(e)}
}

// bitsOf allows a call when an argument has all of one set of bits and none of
// another.
func bitsOf(arg int, e errno, all, none uint32) check {
	return check{
		argument(arg), masked(all | none),
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: all, SkipTrue: 1},
		refused(e), allowed(),
	}
}

// Flags of clone(2): linux/sched.h.
const (
	cloneVM         = 0x00000100
	cloneSighand    = 0x00000800
	cloneThread     = 0x00010000
	cloneParent     = 0x00008000
	cloneNamespaces = 0x00020000 | 0x02000000 | 0x04000000 | 0x08000000 | 0x10000000 | 0x20000000 | 0x40000000
)

// Families, types and protocols of socket(2): linux/socket.h, linux/net.h, linux/in.h.
const (
	afUnix, afInet, afInet6           = 1, 2, 10
	sockStream, sockDgram, sockPacket = 1, 2, 5
	sockTypeMask                      = 0xf
	protoTCP, protoUDP                = 6, 17
)

// sockets allows UNIX sockets, TCP and UDP. No raw or packet sockets; no netlink, vsock
// (which network namespaces do not contain), AF_ALG, Bluetooth and the rest; of the
// internet's protocols not ICMP, SCTP, MPTCP, whose code is seldom walked.
// EAFNOSUPPORT is what glibc's getaddrinfo expects where there is no netlink,
// EPROTONOSUPPORT what Go expects where there is no MPTCP, which it tries first.
func sockets() check {
	inet := internet()
	local := check{argument(1), masked(sockTypeMask)}
	local = append(append(local, among(sockStream, sockDgram, sockPacket)...), refused(ePERM))
	c := check{
		argument(0),
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: afUnix, SkipTrue: 3},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: afInet, SkipTrue: uint8(2 + len(local))},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: afInet6, SkipTrue: uint8(1 + len(local))},
		refused(eAFNOSUPPORT),
	}
	return append(append(c, local...), inet...)
}

// connections is sockets without those of UNIX.
func connections() check {
	c := check{
		argument(0),
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: afInet, SkipTrue: 2},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: afInet6, SkipTrue: 1},
		refused(eAFNOSUPPORT),
	}
	return append(c, internet()...)
}

// internet allows TCP and UDP.
func internet() check {
	stream := append(check{argument(2)}, append(among(0, protoTCP), refused(ePROTONOSUPPORT))...)
	dgram := append(check{argument(2)}, append(among(0, protoUDP), refused(ePROTONOSUPPORT))...)
	inet := check{
		argument(1), masked(sockTypeMask),
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: sockStream, SkipTrue: 2},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: sockDgram, SkipTrue: uint8(1 + len(stream))},
		refused(ePERM),
	}
	return append(append(inet, stream...), dgram...)
}

// Levels and options of setsockopt(2): asm-generic/socket.h, linux/tcp.h.
const (
	solSocket, solTCP        = 1, 6
	soAttachFilter           = 26
	soAttachBPF              = 50
	soAttachReuseportClassic = 51
	soAttachReuseportBPF     = 52
	tcpULP                   = 31
)

// socketOptions refuses those that hand the kernel a program to compile, and those
// that replace a connection's protocol by one out of a module (kernel TLS).
func socketOptions() check {
	programs := []uint32{soAttachFilter, soAttachBPF, soAttachReuseportClassic, soAttachReuseportBPF}
	onSocket := unless(2, ePERM, programs...)
	c := check{
		argument(1),
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: solSocket, SkipTrue: 2},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: solTCP, SkipTrue: uint8(1 + len(onSocket))},
		allowed(),
	}
	return append(append(c, onSocket...), unless(2, eNOENT, tcpULP)...)
}

// nodes allows mknod of pipes, sockets and plain files: no devices, nor the
// device 0:0 by which overlays mark what is deleted, and which needs no privilege.
func nodes(mode int) check {
	const typeMask, char, block = 0xf000, 0x2000, 0x6000
	return check{
		argument(mode), masked(typeMask),
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: char, SkipTrue: 2},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: block, SkipTrue: 1},
		allowed(), refused(ePERM),
	}
}
