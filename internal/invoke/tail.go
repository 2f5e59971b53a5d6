package invoke

import "sync"

// tail keeps the last lines of a log. Lines come from one goroutine at a time,
// but the reader is another one.
type tail struct {
	mu       sync.Mutex
	max      int // lines
	maxBytes int // of the lines and a line break each; 0 for any number
	bytes    int
	lines    []string
}

func (t *tail) add(s string) {
	if t.max <= 0 {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.lines = append(t.lines, s)
	t.bytes += len(s) + 1
	// One line is kept however long it is; who asked for bytes cuts it.
	for len(t.lines) > t.max || (t.maxBytes > 0 && len(t.lines) > 1 && t.bytes-len(t.lines[0])-1 >= t.maxBytes) {
		t.bytes -= len(t.lines[0]) + 1
		t.lines[0] = ""
		t.lines = t.lines[1:]
	}
}
