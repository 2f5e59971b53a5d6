//go:build linux

package message

import (
	"encoding/json"
	"sync"

	"golang.org/x/sys/unix"
)

// Most bytes and descriptors of one packet. The kernel takes no more than 253
// descriptors at once.
const (
	MaxSize = 384 << 10
	MaxFDs  = 250
)

// Conn is one end of a connection, for a program that may block a thread on it.
type Conn struct {
	fd      int
	sending sync.Mutex
	buf     []byte
	oob     []byte
}

// NewConn wraps a descriptor.
func NewConn(fd int) *Conn {
	return &Conn{fd: fd}
}

// Send sends one packet. The descriptors stay open.
func (c *Conn) Send(v any, fds ...int) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	var oob []byte
	if len(fds) > 0 {
		oob = unix.UnixRights(fds...)
	}
	c.sending.Lock()
	defer c.sending.Unlock()
	for {
		err := unix.Sendmsg(c.fd, b, oob, nil, unix.MSG_NOSIGNAL)
		if err != unix.EINTR {
			return err
		}
	}
}

// Recv reads one packet into v, and the descriptors beside it, which are closed at
// an exec. It gives unix.ENOTCONN when the other end is gone.
func (c *Conn) Recv(v any) ([]int, error) {
	n, err := c.length()
	if err != nil {
		return nil, err
	}
	if n > len(c.buf) { // not before: many are only sent by
		c.buf = make([]byte, n)
	}
	if c.oob == nil {
		c.oob = make([]byte, unix.CmsgSpace(4*MaxFDs))
	}
	n, on, flags, _, err := unix.Recvmsg(c.fd, c.buf, c.oob, unix.MSG_CMSG_CLOEXEC)
	if err != nil {
		return nil, err
	}
	fds, err := Rights(c.oob[:on])
	if err != nil {
		return nil, err
	}
	if n == 0 {
		return nil, unix.ENOTCONN
	}
	if flags&(unix.MSG_TRUNC|unix.MSG_CTRUNC) != 0 {
		Close(fds)
		return nil, unix.EMSGSIZE
	}
	if err := json.Unmarshal(c.buf[:n], v); err != nil {
		Close(fds)
		return nil, err
	}
	return fds, nil
}

// length waits for a packet and gives its length.
func (c *Conn) length() (int, error) {
	for {
		n, _, err := unix.Recvfrom(c.fd, nil, unix.MSG_PEEK|unix.MSG_TRUNC)
		switch {
		case err == unix.EINTR:
		case err != nil:
			return 0, err
		case n == 0:
			return 0, unix.ENOTCONN
		case n > MaxSize:
			return 0, unix.EMSGSIZE
		default:
			return n, nil
		}
	}
}

// Close closes the connection.
func (c *Conn) Close() { _ = unix.Close(c.fd) }

// Rights gives the descriptors in a control message.
func Rights(oob []byte) ([]int, error) {
	if len(oob) == 0 {
		return nil, nil
	}
	msgs, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return nil, err
	}
	var fds []int
	for i := range msgs {
		if msgs[i].Header.Level != unix.SOL_SOCKET || msgs[i].Header.Type != unix.SCM_RIGHTS {
			continue
		}
		got, err := unix.ParseUnixRights(&msgs[i])
		if err != nil {
			Close(fds)
			return nil, err
		}
		fds = append(fds, got...)
	}
	return fds, nil
}

// Close closes descriptors.
func Close(fds []int) {
	for _, fd := range fds {
		_ = unix.Close(fd)
	}
}
