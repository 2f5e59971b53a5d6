package native

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/casemate-dev/casemate/internal/function"
	"github.com/casemate-dev/casemate/internal/sandbox"
	"github.com/casemate-dev/casemate/internal/sandbox/sandboxtest"
)

// named is a Launcher that only lays out, and says so.
type named struct {
	Launcher
	name   string
	laid   *[]string
	closed *[]string
}

var errLaid = errors.New("laid out")

func (n named) Lay(context.Context, *function.Version, []byte) (Tree, error) {
	*n.laid = append(*n.laid, n.name)
	return nil, &sandbox.Error{Kind: sandbox.Unavailable, Public: "enough", Cause: errLaid}
}

func (n named) Close() error {
	*n.closed = append(*n.closed, n.name)
	return nil
}

// A version that asks for a stronger sandbox gets that or none.
func TestStrongerSandboxes(t *testing.T) {
	t.Parallel()
	var laid, closed []string
	store := &sandboxtest.Store{}
	make := func(stronger map[function.SandboxKind]Stronger) *Runner {
		r, err := New(Config{
			Launcher: named{name: "own", laid: &laid, closed: &closed}, Stronger: stronger, Artifacts: store,
			Memory: 1 << 30, Starts: 1, Clock: time.Now, Logger: slog.New(slog.DiscardHandler),
		})
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	v := &function.Version{Ref: function.Ref{Namespace: "alpha", Name: "f"}, Artifact: store.Put([]byte("code"))}
	v.Config.Runtime, v.Config.Sandbox = function.RuntimeProvided, function.SandboxGVisor
	for name, c := range map[string]struct {
		stronger map[function.SandboxKind]Stronger
		kind     sandbox.Kind
		says     string
		laid     []string
	}{
		"there":              {map[function.SandboxKind]Stronger{function.SandboxGVisor: {Launcher: named{name: "gvisor", laid: &laid, closed: &closed}}}, sandbox.Unavailable, "enough", []string{"gvisor"}},
		"not there":          {map[function.SandboxKind]Stronger{function.SandboxGVisor: {Reason: "install it"}}, sandbox.Refused, "this node has no sandbox of the kind gvisor: install it", nil},
		"nobody knows of it": {nil, sandbox.Refused, "leave out sandbox: gvisor", nil},
	} {
		laid, closed = nil, nil
		r := make(c.stronger)
		err := r.Prepare(t.Context(), v)
		var e *sandbox.Error
		if !errors.As(err, &e) || e.Kind != c.kind || !strings.Contains(e.Public, c.says) || strings.Join(laid, ",") != strings.Join(c.laid, ",") {
			t.Errorf("%s: %v, laid out by %v", name, err, laid)
		}
		if err := r.Close(); err != nil {
			t.Error(err)
		}
		if want := strings.Join(append(c.laid, "own"), ","); strings.Join(closed, ",") != want {
			t.Errorf("%s: closed %v, want %s", name, closed, want)
		}
	}
}
