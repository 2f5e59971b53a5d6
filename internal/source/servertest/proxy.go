package servertest

import (
	"io"
	"net"
	"sync"
	"testing"
)

// Proxy stands before a server and can cut its connections.
type Proxy struct {
	Port int

	mu    sync.Mutex
	conns map[net.Conn]bool
	made  int
}

// NewProxy starts a proxy for a port of loopback.
func NewProxy(t testing.TB, to int) *Proxy {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &Proxy{Port: l.Addr().(*net.TCPAddr).Port, conns: make(map[net.Conn]bool)}
	var all sync.WaitGroup
	all.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			all.Go(func() { p.pass(c, to) })
		}
	})
	t.Cleanup(func() {
		_ = l.Close()
		p.Cut()
		all.Wait()
	})
	return p
}

func (p *Proxy) pass(c net.Conn, to int) {
	s, err := net.Dial("tcp", Local(to))
	if err != nil {
		_ = c.Close()
		return
	}
	p.mu.Lock()
	p.conns[c], p.conns[s] = true, true
	p.made++
	p.mu.Unlock()
	var both sync.WaitGroup
	for _, way := range [][2]net.Conn{{c, s}, {s, c}} {
		both.Go(func() {
			_, _ = io.Copy(way[0], way[1])
			_, _ = c.Close(), s.Close()
		})
	}
	both.Wait()
	p.mu.Lock()
	delete(p.conns, c)
	delete(p.conns, s)
	p.mu.Unlock()
}

// Cut ends all connections at once; new ones are let through.
func (p *Proxy) Cut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for c := range p.conns {
		if t, ok := c.(*net.TCPConn); ok {
			_ = t.SetLinger(0) // a reset, nothing that is on its way arrives
		}
		_ = c.Close()
	}
}

// Made is how many connections there were.
func (p *Proxy) Made() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.made
}
