// Command crash is a sandbox that does not survive what it is asked: it ends when it
// is to compile a module named after "compile", and when it is to load anything. Other
// modules it compiles to nonsense.
package main

import (
	"io"
	"os"
	"strings"

	"github.com/casemate-dev/casemate/internal/sandbox/wire"
)

func main() {
	conn := os.NewFile(3, "node")
	out, in := wire.NewWriter(conn), wire.NewReader(conn)
	send := func(t wire.Type, stream uint32, message any) {
		payload, err := wire.AppendJSON(nil, message)
		if err != nil || out.Send(t, stream, payload) != nil {
			os.Exit(1)
		}
	}
	send(wire.Ready, 0, wire.Hello{Protocol: wire.Version})
	for {
		f, err := in.Next()
		if err == io.EOF {
			return
		}
		if err != nil {
			os.Exit(1)
		}
		if f.Type != wire.Load {
			continue
		}
		var spec wire.LoadSpec
		if wire.ParseJSON(f.Payload, &spec) != nil || !spec.Compile || strings.Contains(spec.Name, "compile") {
			os.Exit(1)
		}
		send(wire.Compiled, f.Stream, wire.CompileReport{Size: 8})
		_ = out.Send(wire.Machine, f.Stream, []byte("nonsense"))
	}
}
