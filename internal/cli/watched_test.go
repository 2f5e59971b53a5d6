package cli_test

import (
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/casemate-dev/casemate/api"
)

// patience bounds how long a test waits for what must come: only a failure reaches it.
const patience = 2 * time.Minute

// watched is a writer that can be waited on.
type watched struct {
	mu    sync.Mutex
	text  strings.Builder
	wrote chan struct{} // closed and replaced at each write
}

func newWatched() *watched { return &watched{wrote: make(chan struct{})} }

func (w *watched) Write(b []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	close(w.wrote)
	w.wrote = make(chan struct{})
	return w.text.Write(b)
}

func (w *watched) String() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.text.String()
}

func (w *watched) await(t *testing.T, want string) { w.awaitCount(t, want, 1) }

// awaitCount waits until want has been written n times.
func (w *watched) awaitCount(t *testing.T, want string, n int) {
	t.Helper()
	deadline := time.NewTimer(patience)
	defer deadline.Stop()
	for {
		w.mu.Lock()
		got, next := w.text.String(), w.wrote
		w.mu.Unlock()
		if strings.Count(got, want) >= n {
			return
		}
		select {
		case <-next:
		case <-deadline.C:
			t.Fatalf("%q was not written %d times:\n%s", want, n, got)
		}
	}
}

func logLine(function, text string) api.LogRecord {
	return api.LogRecord{Time: noon, Function: function, RequestID: "req-1", Text: text}
}

// breakFile makes the file unusable, as another program might.
func breakFile(t *testing.T, path string) {
	t.Helper()
	if err := os.WriteFile(path, []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
}
