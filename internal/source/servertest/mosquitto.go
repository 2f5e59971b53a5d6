package servertest

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// Mosquitto is an MQTT broker that keeps its sessions over restarts.
type Mosquitto struct {
	*Process
	Port int
}

// StartMosquitto starts one; config is added to its configuration file, where it may hold
// another listener and its options, and %p stands for the main listener's port.
func StartMosquitto(t testing.TB, config ...string) *Mosquitto {
	t.Helper()
	program := Program(t, "mosquitto")
	dir := t.TempDir()
	port := Port(t)
	lines := append([]string{
		"per_listener_settings false", "persistence true", "persistence_location " + dir + "/", "autosave_interval 1",
		"autosave_on_changes true", "max_queued_messages 0", "log_dest stderr",
	}, config...)
	// Tests that set up passwords say so themselves.
	text := strings.ReplaceAll(strings.Join(lines, "\n"), "%p", fmt.Sprint(port))
	if !strings.Contains(text, "allow_anonymous") {
		text += "\nallow_anonymous true"
	}
	if !strings.Contains(text, "listener ") {
		text += fmt.Sprintf("\nlistener %d 127.0.0.1", port)
	}
	if os.Getuid() == 0 {
		text += "\nuser root" // it would give up the rights to its own directory
	}
	file := filepath.Join(dir, "mosquitto.conf")
	if err := os.WriteFile(file, []byte(text+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return &Mosquitto{Start(t, func() *exec.Cmd { return exec.Command(program, "-c", file) }, Listening(port)), port}
}
