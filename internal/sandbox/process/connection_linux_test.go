package process

import (
	"testing"

	"golang.org/x/sys/unix"

	"github.com/casemate-dev/casemate/internal/sandbox/sandboxtest"
)

// TestSandboxEndsWithItsConnection closes the node's end under a sandbox that waits for
// it: the thread that is blocked in reading must notice, and end in good order.
func TestSandboxEndsWithItsConnection(t *testing.T) {
	eachWay(t, endsWithItsConnection)
}

func endsWithItsConnection(t *testing.T, way func(*Config)) {
	r := newRunner(t, &sandboxtest.Store{}, way, func(c *Config) { c.Warm = -1 })
	for _, how := range []struct {
		name string
		end  func(*child) error
	}{
		{"closed", func(c *child) error { return c.conn.Close() }},
		{"no more to come", func(c *child) error { return unix.Shutdown(int(c.conn.Fd()), unix.SHUT_WR) }},
	} {
		c, err := r.starter.start(r.mostCharged)
		if err != nil {
			t.Fatal(err)
		}
		if err := how.end(c); err != nil {
			t.Errorf("%s: %v", how.name, err)
		}
		c.words.wait()
		if ended := c.life.wait(); ended != "exit status 0" {
			t.Errorf("%s: %v, it said %q", how.name, ended, c.words.text())
		}
		_ = c.conn.Close()
	}
}
