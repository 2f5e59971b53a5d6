package gateway

import "testing"

// To call a function and to look at it are two rights, and neither gives the other.
func TestLambdaCallingAndLookingAreTwoRights(t *testing.T) {
	t.Parallel()
	w := newLambdaWorld(t)
	calling := w.newKey(t, "invoke:*/*")
	for _, target := range []string{"hello", "hello/configuration", "hello/versions", "hello/aliases/live"} {
		w.ask(t, calling, "GET", "/2015-03-31/functions/"+target, "").wantAWS(t, 403, "AccessDeniedException")
		if a := w.ask(t, w.looking, "GET", "/2015-03-31/functions/"+target, ""); a.status != 200 {
			t.Errorf("a key that may read: %s", a.text)
		}
	}
	if a := w.ask(t, calling, "GET", "/2015-03-31/functions/", ""); a.status != 200 || a.body != `{"Functions":[]}` {
		t.Errorf("a key that may only call is shown %s", a.text)
	}
	w.ask(t, w.looking, "POST", helloPath, "{}").wantAWS(t, 403, "AccessDeniedException")
	if a := w.ask(t, calling, "POST", helloPath, "{}"); a.status != 200 {
		t.Errorf("a key that may call: %s", a.text)
	}
}
