package e2e

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/casemate-dev/casemate/test/harness"
)

// from is a client of the gateway that comes from an address of this machine.
func from(n *harness.Node, address string) *http.Client {
	c := n.HTTP()
	dialer := &net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(address)}}
	c.Transport.(*http.Transport).DialContext = func(ctx context.Context, network, to string) (net.Conn, error) {
		return dialer.DialContext(ctx, network, to)
	}
	return c
}

// Strangers, from as many addresses as they like, do not use up what a web hook takes from
// an address that something verified came from.
func TestStrangersLeaveAKnownSenderItsRate(t *testing.T) {
	t.Parallel()
	n := newEventNode(t)
	const token = "a-token-that-nobody-would-guess"
	key := filepath.Join(n.Dir, "hook.key")
	if err := os.WriteFile(key, []byte(token), 0o600); err != nil {
		t.Fatal(err)
	}
	n.Run("connection", "create", "hook", "--kind", "webhook", "--secret", "key="+key)
	n.deploy("plain", `
hook:
  webhook: {path: /hooks/work, provider: cloudevents, rate: 2}
  connection: hook
  schema: none
  reason: a test's
`)
	sent := 0
	post := func(c *http.Client, token string) int {
		t.Helper()
		sent++
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, n.Gateway+"/hooks/work", strings.NewReader(`{"text":"x"}`))
		if err != nil {
			t.Fatal(err)
		}
		for name, value := range map[string]string{
			"Authorization": "Bearer " + token, "Content-Type": "application/json",
			"ce-specversion": "1.0", "ce-id": fmt.Sprint("hook-", sent), "ce-source": "/test", "ce-type": "com.example.hook",
			"X-Forwarded-For": "127.0.0.1", "Forwarded": "for=127.0.0.1", // what anybody may claim
		} {
			req.Header.Set(name, value)
		}
		res, err := c.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		_, _ = io.Copy(io.Discard, res.Body)
		return res.StatusCode
	}
	provider := from(n.Node, "127.0.0.1")
	n.eventually(func() error { // the trigger may still be starting
		if status := post(provider, token); status != http.StatusAccepted {
			return fmt.Errorf("what was signed is answered %d", status)
		}
		return nil
	})
	// One address alone ends at its own share, and then many use up that of all strangers.
	refused := func(who *http.Client) bool {
		switch status := post(who, "another-token-that-nobody-has"); status {
		case http.StatusTooManyRequests:
			return true
		case http.StatusUnauthorized:
			return false
		default:
			t.Fatalf("what was forged is answered %d", status)
			return false
		}
	}
	one := from(n.Node, "127.0.0.2")
	for !refused(one) {
	}
	for i := 1; !refused(from(n.Node, fmt.Sprintf("127.0.%d.3", i))); i = i%250 + 1 {
	}
	if status := post(provider, token); status != http.StatusAccepted {
		t.Errorf("after strangers' requests the provider's is answered %d", status)
	}
	n.Stop()
}
