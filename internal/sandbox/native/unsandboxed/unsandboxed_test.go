package unsandboxed_test

import (
	"runtime"
	"testing"

	"github.com/casemate-dev/casemate/internal/sandbox/native"
	"github.com/casemate-dev/casemate/internal/sandbox/native/nativetest"
	"github.com/casemate-dev/casemate/internal/sandbox/native/unsandboxed"
)

func TestVersionsInPlainProcesses(t *testing.T) {
	t.Parallel()
	if runtime.GOOS != "linux" {
		t.Skip("archives are unpacked on Linux only")
	}
	nativetest.Run(t, nativetest.Harness{Launcher: func(t *testing.T) native.Launcher {
		l, err := unsandboxed.New("a test")
		if err != nil {
			t.Fatal(err)
		}
		if p := l.Posture(); p.Kind != unsandboxed.Kind || p.Missing["sandbox"] == "" {
			t.Errorf("the posture does not say that there is no sandbox: %+v", p)
		}
		return l
	}})
}
