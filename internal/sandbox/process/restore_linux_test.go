package process

import (
	"testing"

	"github.com/casemate-dev/casemate/internal/sandbox"
	"github.com/casemate-dev/casemate/internal/sandbox/sandboxtest"
)

// TestConformanceOfOtherWaysToRestore runs the suite on sandboxes that restore memory in
// the ways that a kernel without PAGEMAP_SCAN leaves them.
func TestConformanceOfOtherWaysToRestore(t *testing.T) {
	if testing.Short() {
		t.Skip("TestConformance runs the suite on what ships")
	}
	t.Parallel()
	for _, way := range []string{"advise", "copy"} {
		t.Run(way, func(t *testing.T) {
			t.Parallel()
			path, err := buildRole(way)
			if err != nil {
				t.Fatal(err)
			}
			sandboxtest.Run(t, sandboxtest.Harness{
				New: func(t *testing.T, s *sandboxtest.Store) sandbox.Runner {
					r := newRunner(t, s, func(c *Config) { c.Executable = path })
					if got := r.Posture().Restore; got != way {
						t.Fatalf("memory is restored by %s", got)
					}
					return r
				},
				Kill: kill,
			})
		})
	}
}
