package manifest

import (
	"slices"
	"strings"
	"testing"

	"github.com/casemate-dev/casemate/api"
)

// EveryTrigger gives triggers that have each key of each kind, completed.
func EveryTrigger(t *testing.T) []api.Trigger {
	t.Helper()
	f, _ := loadEvery(t)
	return WithDefaults(f.Config).Triggers
}

// WireKeys gives the settings of a kind that a manifest can say, as a node reads them,
// or those below one of them: webhook.jwt.
func WireKeys(path string) []string {
	p := compiled().root.child("functions", false).child("f", false).child("triggers", false).child("t", false)
	for segment := range strings.SplitSeq(path, ".") {
		p = p.child(segment, false)
	}
	keys := p.keys()
	for i, key := range keys {
		if q, ok := quantityOf(func(q quantity) bool { return q.kind == path && q.key == key }); ok {
			keys[i] = q.wire
		}
	}
	slices.Sort(keys)
	return keys
}
