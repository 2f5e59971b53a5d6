package native

import (
	"encoding/base64"
	"testing"

	"github.com/casemate-dev/casemate/internal/sandbox"
)

// What a client says of itself is a word of AWS's API, whose callers have signed it. The
// same header in anybody's request is no such word.
func TestOnlyTheLambdaAPIHasAClientContext(t *testing.T) {
	t.Parallel()
	const said = `{"custom":{"user":"root"}}`
	for _, c := range []struct{ trigger, header, want string }{
		{triggerLambda, base64.StdEncoding.EncodeToString([]byte(said)), said},
		{triggerLambda, base64.StdEncoding.EncodeToString([]byte("no JSON")), ""},
		{triggerLambda, said, ""},
		{triggerHTTP, base64.StdEncoding.EncodeToString([]byte(said)), ""},
		{triggerInvoke, base64.StdEncoding.EncodeToString([]byte(said)), ""},
		{"webhook", base64.StdEncoding.EncodeToString([]byte(said)), ""},
	} {
		h := sandbox.Head{Trigger: c.trigger, Headers: map[string][]string{"x-amz-client-context": {c.header}}}
		if got := clientContext(&h); got != c.want {
			t.Errorf("%s, %s: %q", c.trigger, c.header, got)
		}
	}
}
