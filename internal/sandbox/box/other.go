//go:build !linux

package box

import (
	"context"
	"net"
	"net/netip"
	"os"
	"syscall"
)

// Broker does not exist here.
type Broker struct{}

// Image does not exist here.
type Image struct{}

type inside struct{}

// Open fails with ErrUnsupported.
func Open(context.Context, Config) (*Broker, error) {
	return nil, &Error{Step: "opening the broker: boxes exist on Linux only", Err: ErrUnsupported}
}

// Executable fails with ErrUnsupported.
func Executable([]byte) (*os.File, error) { return nil, ErrUnsupported }

// Posture says that nothing is enforced.
func (*Broker) Posture() Posture {
	p := Posture{Missing: map[string]string{}}
	for _, m := range measures() {
		p.Missing[m] = "boxes exist on Linux only"
	}
	return p
}

// NewImage fails with ErrUnsupported.
func (*Broker) NewImage(context.Context, ImageSpec) (*Image, error) { return nil, ErrUnsupported }

// Start fails with ErrUnsupported.
func (*Broker) Start(context.Context, Spec) (*Box, error) { return nil, ErrUnsupported }

// Close does nothing.
func (*Broker) Close() error { return nil }

// Done is nil.
func (*Broker) Done() <-chan struct{} { return nil }

// Dir gives nil.
func (*Image) Dir() *os.File { return nil }

// Seal fails with ErrUnsupported.
func (*Image) Seal() error { return ErrUnsupported }

// Release does nothing.
func (*Image) Release() error { return nil }

// Socket fails with ErrUnsupported.
func (*Box) Socket(context.Context) (*os.File, error) { return nil, ErrUnsupported }

// Dial fails with ErrUnsupported.
func (*Box) Dial(context.Context, netip.AddrPort) (net.Conn, error) { return nil, ErrUnsupported }

// Signal fails with ErrUnsupported.
func (*Box) Signal(context.Context, syscall.Signal) error { return ErrUnsupported }

// Usage fails with ErrUnsupported.
func (*Box) Usage() (Usage, error) { return Usage{}, ErrUnsupported }

// ResetPeak fails with ErrUnsupported.
func (*Box) ResetPeak() error { return ErrUnsupported }

// Yield fails with ErrUnsupported.
func (*Box) Yield() error { return ErrUnsupported }

// Compete fails with ErrUnsupported.
func (*Box) Compete() error { return ErrUnsupported }

// Freeze fails with ErrUnsupported.
func (*Box) Freeze() error { return ErrUnsupported }

// Thaw fails with ErrUnsupported.
func (*Box) Thaw() error { return ErrUnsupported }

// Missing gives nothing.
func (*Box) Missing() map[string]string { return nil }

// Program gives 0.
func (*Box) Program() int { return 0 }

// Kill does nothing.
func (*Box) Kill() {}

// Done is nil.
func (*Box) Done() <-chan struct{} { return nil }

// Exit gives nothing.
func (*Box) Exit() Exit { return Exit{} }
