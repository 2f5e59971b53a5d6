package servertest

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"
)

// Redis is a server whose data outlive it.
type Redis struct {
	*Process
	Port int
}

// StartRedis starts one that writes everything to disk at once. args are added to its
// command line, where they may set another port, as for TLS, that replaces its own.
func StartRedis(t testing.TB, args ...string) *Redis {
	t.Helper()
	program := Program(t, "redis-server")
	dir, port := t.TempDir(), Port(t)
	all := []string{"--bind", "127.0.0.1", "--dir", dir, "--appendonly", "yes", "--appendfsync", "always", "--save", ""}
	if strings.Contains(strings.Join(args, " "), "--tls-port") {
		all = append(all, "--port", "0")
	} else {
		all = append(all, "--port", strconv.Itoa(port))
	}
	for _, a := range args {
		all = append(all, strings.ReplaceAll(a, "%p", strconv.Itoa(port)))
	}
	return &Redis{Start(t, func() *exec.Cmd { return exec.Command(program, all...) }, func(ctx context.Context) error {
		if err := Listening(port)(ctx); err != nil {
			return err
		}
		if strings.Contains(strings.Join(all, " "), "--tls-port") {
			return nil
		}
		// It listens before it has read its data.
		_, err := command(ctx, port, "PING")
		if err != nil && strings.HasPrefix(err.Error(), "LOADING") {
			return err
		}
		return nil
	}), port}
}

// Do runs a command and gives its answer, of an array the elements by spaces.
func (r *Redis) Do(t testing.TB, words ...string) string {
	t.Helper()
	answer, err := command(t.Context(), r.Port, words...)
	if err != nil {
		t.Fatalf("%q: %v", words, err)
	}
	return answer
}

func command(ctx context.Context, port int, words ...string) (string, error) {
	c, err := (&net.Dialer{}).DialContext(ctx, "tcp", Local(port))
	if err != nil {
		return "", err
	}
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(Patience)); err != nil { //nolint:forbidigo // a deadline of the kernel is in wall-clock time
		return "", err
	}
	var b strings.Builder
	fmt.Fprintf(&b, "*%d\r\n", len(words))
	for _, w := range words {
		fmt.Fprintf(&b, "$%d\r\n%s\r\n", len(w), w)
	}
	if _, err := io.WriteString(c, b.String()); err != nil {
		return "", err
	}
	return reply(bufio.NewReader(c))
}

// reply reads one answer in the serialization protocol of Redis, version 2.
func reply(in *bufio.Reader) (string, error) {
	line, err := in.ReadString('\n')
	if err != nil {
		return "", err
	}
	kind, rest := line[0], strings.TrimSpace(line[1:])
	n, _ := strconv.Atoi(rest)
	switch kind {
	case '-':
		return "", fmt.Errorf("%s", rest)
	case '$':
		if n < 0 {
			return "", nil
		}
		b := make([]byte, n+2)
		if _, err := io.ReadFull(in, b); err != nil {
			return "", err
		}
		return string(b[:n]), nil
	case '*':
		var parts []string
		for range max(0, n) {
			p, err := reply(in)
			if err != nil {
				return "", err
			}
			parts = append(parts, p)
		}
		return strings.Join(parts, " "), nil
	}
	return rest, nil
}
