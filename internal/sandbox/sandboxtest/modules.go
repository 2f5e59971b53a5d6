package sandboxtest

import (
	"bytes"
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/casemate-dev/casemate/internal/function"
	"github.com/casemate-dev/casemate/internal/sandbox"
)

func testModules(t *testing.T, h Harness) {
	refused := func(code []byte, says string, options ...Option) func(*Bench) {
		return func(b *Bench) {
			v := b.Version(code, options...)
			o := b.Invoke(v, "")
			b.WantKind(o, sandbox.BadModule)
			if !strings.Contains(o.Err.Public, says) {
				b.T.Errorf("the refusal %q does not say %q", o.Err.Public, says)
			}
			var e *sandbox.Error
			if err := b.Runner.Prepare(context.Background(), v); !errors.As(err, &e) || e.Kind != sandbox.BadModule {
				b.T.Errorf("Prepare says %v, want the same refusal", err)
			}
		}
	}
	each(t, h, map[string]func(*Bench){
		"Empty":            refused(nil, ""),
		"NotWasm":          refused([]byte("#!/bin/sh\n"), ""),
		"Truncated":        refused(Hello()[:60], ""),
		"ForeignImport":    refused(Foreign(), `"fetch" from "browser"`),
		"NoHandle":         refused(Hello(), "entry: command", Handle),
		"NoStart":          refused(HelloHandle(0), "entry: handle"),
		"UnknownWASI":      refused(command(nil, Func{Name: "fd_teleport"}).Encode(), `"fd_teleport", which WASI preview 1 does not have`),
		"UnknownOperation": refused(command(nil, Func{Name: "teleport", From: "casemate"}).Encode(), `"teleport" from "casemate", which this platform does not have`),
		"OwnMeter":         refused(meddle(), ""),
		"BadType":          refused(command(Const(1)).Encode(), ""),
		"Tampered": func(b *Bench) {
			code := Print("{\"status\":200}\nhonest")
			v := b.Version(code, In("tampered"))
			b.Store.Replace(v.Artifact, bytes.ReplaceAll(code, []byte("honest"), []byte("hostil")))
			b.WantKind(b.Invoke(v, ""), sandbox.Tampered)
			// It is refused as long as it is wrong, and not longer.
			b.Store.Replace(v.Artifact, code)
			b.Want(v, "honest")
		},
		"MissingArtifact": func(b *Bench) {
			v := b.Version(Hello(), In("missing"))
			v.Artifact = function.Digest("sha256:" + strings.Repeat("0", 64))
			b.WantKind(b.Invoke(v, ""), sandbox.Unavailable)
		},
	})
}

// meddle tries to name a global that the module does not have: what meters the
// guest must be out of its reach.
func meddle() []byte {
	return command(Seq(Const64(1<<62), []byte{0x24, 0}, Loop())).Encode()
}
