package servertest

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	client "github.com/rabbitmq/amqp091-go"
)

// RabbitMQ is an AMQP broker with the user guest, whose password is guest.
type RabbitMQ struct {
	*Process
	Port int
}

// StartRabbitMQ starts one with a node name, directory and port mapper of its own; config
// is added to rabbitmq.conf. It takes some seconds.
func StartRabbitMQ(t testing.TB, config ...string) *RabbitMQ {
	t.Helper()
	mapper := Program(t, "epmd")
	// The wrapper in the path changes to a user of its own; the script behind it does not.
	Program(t, "rabbitmq-server")
	const script = "/usr/lib/rabbitmq/bin/rabbitmq-server"
	if _, err := os.Stat(script); err != nil {
		Missing(t, script+" is not installed")
	}
	dir := t.TempDir()
	port, distribution, names := Port(t), Port(t), Port(t)
	Start(t, func() *exec.Cmd {
		return exec.Command(mapper, "-address", "127.0.0.1", "-port", fmt.Sprint(names))
	}, Listening(names))
	conf := append([]string{
		"listeners.tcp.1 = " + Local(port), "log.console = true", "log.console.level = warning",
		"disk_free_limit.absolute = 1MB", "vm_memory_high_watermark.absolute = 512MB",
	}, config...)
	file := filepath.Join(dir, "rabbitmq.conf")
	if err := os.WriteFile(file, []byte(strings.Join(conf, "\n")+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "plugins"), []byte("[].\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	command := func() *exec.Cmd {
		cmd := exec.Command(script)
		cmd.Dir = dir
		cmd.Env = []string{
			"PATH=" + os.Getenv("PATH"), "HOME=" + dir, "LANG=C.UTF-8", "LC_ALL=C.UTF-8",
			"ERL_EPMD_ADDRESS=127.0.0.1", fmt.Sprintf("ERL_EPMD_PORT=%d", names),
			fmt.Sprintf("RABBITMQ_NODENAME=test%d@localhost", port), fmt.Sprintf("RABBITMQ_NODE_PORT=%d", port),
			"RABBITMQ_NODE_IP_ADDRESS=127.0.0.1", fmt.Sprintf("RABBITMQ_DIST_PORT=%d", distribution),
			"RABBITMQ_MNESIA_BASE=" + filepath.Join(dir, "mnesia"), "RABBITMQ_LOG_BASE=" + filepath.Join(dir, "log"),
			"RABBITMQ_CONFIG_FILE=" + file, "RABBITMQ_ENABLED_PLUGINS_FILE=" + filepath.Join(dir, "plugins"),
			"RABBITMQ_GENERATED_CONFIG_DIR=" + filepath.Join(dir, "generated"),
			"RABBITMQ_CONF_ENV_FILE=" + filepath.Join(dir, "none"), "RABBITMQ_ADVANCED_CONFIG_FILE=" + filepath.Join(dir, "none"),
			"RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS=-kernel inet_dist_use_interface {127,0,0,1} +S 1:1",
		}
		return cmd
	}
	ready := func(ctx context.Context) error {
		c, err := client.DialConfig("amqp://guest:guest@"+Local(port), client.Config{Dial: func(network, address string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, network, address)
		}})
		if err == nil {
			err = c.Close()
		}
		return err
	}
	return &RabbitMQ{Start(t, command, ready), port}
}
