package look

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// linkName gives the name of a network interface, or "" when there is none of that
// number (netdevice(7), SIOCGIFNAME).
func linkName(fd int, index uint32) string {
	var r struct {
		name  [unix.IFNAMSIZ]byte
		index uint32
		_     [20]byte
	}
	r.index = index
	_, _, e := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.SIOCGIFNAME, uintptr(unsafe.Pointer(&r)))
	if e != 0 {
		return ""
	}
	return unix.ByteSliceToString(r.name[:])
}
