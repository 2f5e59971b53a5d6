package servertest

import (
	"net"
	"strconv"
	"testing"

	"github.com/twmb/franz-go/pkg/kfake"
)

// Kafka is a stand-in for a Kafka broker in this process: the one that belongs to the
// client under test. It is not a real broker: what it proves is the protocol and the order
// of our calls, not how Kafka itself behaves.
type Kafka struct {
	*kfake.Cluster
	Port int

	t       testing.TB
	options []kfake.Opt
}

// StartKafka starts one of a single broker that keeps its records over restarts.
func StartKafka(t testing.TB, options ...kfake.Opt) *Kafka {
	t.Helper()
	k := &Kafka{t: t, Port: Port(t)}
	k.options = append([]kfake.Opt{kfake.NumBrokers(1), kfake.Ports(k.Port), kfake.DataDir(t.TempDir())}, options...)
	t.Cleanup(k.Stop)
	k.Restart()
	return k
}

// Restart starts it again after Stop.
func (k *Kafka) Restart() {
	k.t.Helper()
	c, err := kfake.NewCluster(k.options...)
	if err != nil {
		k.t.Fatal(err)
	}
	k.Cluster = c
	if _, port, _ := net.SplitHostPort(c.ListenAddrs()[0]); port != strconv.Itoa(k.Port) {
		k.t.Fatalf("it listens on port %s, not on %d", port, k.Port)
	}
}

// Stop ends it and its connections.
func (k *Kafka) Stop() {
	if k.Cluster != nil {
		k.Close()
		k.Cluster = nil
	}
}
