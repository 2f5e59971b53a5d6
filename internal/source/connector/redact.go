package connector

import (
	"bufio"
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"
)

// Bounds on a connector's log, in bytes and lines.
const (
	maxLogLine  = 4 << 10
	maxLogRead  = 256 << 10 // of a line; more than a secret in any of its forms
	logBurst    = 200
	logPerSec   = 20
	redacted    = "[secret]"
	shortSecret = 4 // bytes; a shorter one is not looked for inside other words
)

// redactor takes secrets out of what a connector says.
type redactor struct {
	mu      sync.Mutex
	forms   []string
	longest int
}

// learn adds secrets. It is called before the connector knows them.
func (r *redactor) learn(secrets map[string][]byte) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, secret := range secrets {
		s := string(secret)
		r.add(s)
		// A key in PEM has many lines, and a log shows one at a time.
		if strings.Contains(s, "\n") {
			for line := range strings.Lines(s) {
				r.add(strings.TrimSpace(line))
			}
		}
		r.add(strings.TrimSpace(s))
	}
	// The longest first: one secret may be a part of another.
	slices.SortFunc(r.forms, func(a, b string) int { return len(b) - len(a) })
	if len(r.forms) > 0 {
		r.longest = len(r.forms[0])
	}
}

// add adds a secret in the forms in which errors and addresses show it.
func (r *redactor) add(s string) {
	if len(s) < shortSecret {
		return
	}
	quoted, err := json.Marshal(s)
	if err != nil {
		quoted = []byte(`""`)
	}
	for _, f := range []string{
		s, string(quoted[1 : len(quoted)-1]), url.QueryEscape(s), url.PathEscape(s), url.UserPassword("", s).String()[1:],
		base64.StdEncoding.EncodeToString([]byte(s)), base64.RawURLEncoding.EncodeToString([]byte(s)),
	} {
		if len(f) >= shortSecret && !slices.Contains(r.forms, f) {
			r.forms = append(r.forms, f)
		}
	}
}

// line is text, of a line of which the end is missing when it was cut.
func (r *redactor) line(s string, cut bool) string {
	s = r.text(s)
	r.mu.Lock()
	defer r.mu.Unlock()
	if cut {
		// Its end may be the beginning of a secret.
		s = s[:max(0, len(s)-r.longest)]
	}
	return s
}

func (r *redactor) text(s string) string {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, f := range r.forms {
		s = strings.ReplaceAll(s, f, redacted)
	}
	return s
}

// log hands a connector's stderr to the log, line by line, until it ends. What is too much
// is left out and counted.
func (r *redactor) log(from io.Reader, log *slog.Logger, kind string, clock func() time.Time) {
	in := bufio.NewReaderSize(from, 64<<10)
	allowed := bucket{left: logBurst, most: logBurst, perSecond: logPerSec, at: clock()}
	out := 0
	for {
		line, cut, err := readCut(in, maxLogRead)
		if s := r.line(string(line), cut); s != "" {
			switch {
			case !allowed.take(clock()):
				out++
			default:
				if out > 0 {
					log.Warn("connector says more than is logged", "kind", kind, "lines", out)
					out = 0
				}
				log.Info("connector says", "kind", kind, "line", clean(s, maxLogLine))
			}
		}
		if err != nil {
			if out > 0 {
				log.Warn("connector says more than is logged", "kind", kind, "lines", out)
			}
			return
		}
	}
}

// readCut reads a line without its end, of which most bytes are kept, and says whether
// there were more.
func readCut(in *bufio.Reader, most int) (line []byte, cut bool, err error) {
	for {
		part, err := in.ReadSlice('\n')
		keep := part
		if len(line)+len(keep) > most {
			keep, cut = keep[:most-len(line)], true
		}
		line = append(line, keep...)
		if !errors.Is(err, bufio.ErrBufferFull) {
			return bytes.TrimRight(line, "\r\n"), cut, err
		}
	}
}

// bucket allows so many at once and so many per second.
type bucket struct {
	left, most, perSecond float64
	at                    time.Time
}

func (b *bucket) take(now time.Time) bool {
	b.add(max(0, now.Sub(b.at).Seconds()) * b.perSecond)
	b.at = now
	if b.left < 1 {
		return false
	}
	b.left--
	return true
}

func (b *bucket) add(n float64) { b.left = min(b.most, b.left+n) }
