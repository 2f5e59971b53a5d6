package harness_test

import (
	"bytes"
	"strings"
	"testing"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/imports/wasi_snapshot_preview1"

	"github.com/casemate-dev/casemate/test/harness"
)

func TestGuestsRun(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		guest  harness.Guest
		stdout string
		stderr string
		err    string
	}{
		"answer":  {harness.Guest{Body: "hi", Log: "note\n", Millis: 1}, "{\"status\":200,\"headers\":{\"content-type\":\"text/plain\"}}\nhi", "note\n", ""},
		"trap":    {harness.Guest{Trap: true}, "", "", "unreachable"},
		"exit":    {harness.Guest{Exit: 7}, "", "", "exit_code(7)"},
		"recurse": {harness.Guest{Recurse: true}, "", "", "stack overflow"},
		"grow":    {harness.Guest{Grow: true}, "", "", "unreachable"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ctx := t.Context()
			r := wazero.NewRuntimeWithConfig(ctx, wazero.NewRuntimeConfig().WithMemoryLimitPages(64))
			defer r.Close(ctx)
			wasi_snapshot_preview1.MustInstantiate(ctx, r)
			var out, errs bytes.Buffer
			_, err := r.InstantiateWithConfig(ctx, tc.guest.Code(), wazero.NewModuleConfig().WithStdout(&out).WithStderr(&errs).WithSysNanosleep())
			if (err == nil) != (tc.err == "") || (err != nil && !strings.Contains(err.Error(), tc.err)) {
				t.Errorf("error %v, want %q", err, tc.err)
			}
			if out.String() != tc.stdout || errs.String() != tc.stderr {
				t.Errorf("stdout %q, stderr %q", out.String(), errs.String())
			}
		})
	}
}
