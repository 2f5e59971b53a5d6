package servertest

import (
	"testing"

	"github.com/nats-io/nats-server/v2/server"
)

// NATS is a NATS server with JetStream, in this process.
type NATS struct {
	Port int

	t       testing.TB
	options *server.Options
	running *server.Server
}

// StartNATS starts one; change may alter its options before.
func StartNATS(t testing.TB, change func(*server.Options)) *NATS {
	t.Helper()
	n := &NATS{t: t, Port: Port(t)}
	n.options = &server.Options{
		Host: "127.0.0.1", Port: n.Port, JetStream: true, StoreDir: t.TempDir(), NoLog: true, NoSigs: true, MaxPayload: 8 << 20,
	}
	if change != nil {
		change(n.options)
	}
	t.Cleanup(n.Stop)
	n.Restart()
	return n
}

// Restart starts the server again after Stop.
func (n *NATS) Restart() {
	n.t.Helper()
	s, err := server.NewServer(n.options.Clone())
	if err != nil {
		n.t.Fatal(err)
	}
	s.Start()
	n.running = s
	if !s.ReadyForConnections(Patience) {
		n.t.Fatal("the NATS server is not ready")
	}
}

// Stop ends the server.
func (n *NATS) Stop() {
	if n.running != nil {
		n.running.Shutdown()
		n.running.WaitForShutdown()
		n.running = nil
	}
}
