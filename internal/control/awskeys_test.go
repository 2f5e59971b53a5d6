package control

import (
	"strings"
	"testing"

	"github.com/casemate-dev/casemate/api"
	"github.com/casemate-dev/casemate/internal/identity"
)

func TestAccessKeysSayWhatTheyAre(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	made, err := r.client(adminSecret).CreateKey(t.Context(), api.CreateKey{Kind: api.KeyAWS, Scopes: []string{"invoke:default/*"}})
	if err != nil || made.Kind != api.KeyAWS || made.AccessKeyID != "CASEK9" || made.Secret != "the-new-secret" {
		t.Fatalf("made %+v, %v", made, err)
	}
	if in := r.keys.created[0]; in.Kind != identity.KindAWS {
		t.Errorf("asked for %+v", in)
	}
	_, body := r.raw("POST", "/v1/keys", adminSecret, jsonMedia, `{"kind":"gcp","scopes":["invoke:default/*"]}`)
	if !strings.Contains(body, `"field":"kind"`) || len(r.keys.created) != 1 {
		t.Errorf("another kind: %s", body)
	}
}
