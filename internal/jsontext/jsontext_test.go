package jsontext_test

import (
	"encoding/json"
	"testing"

	"github.com/casemate-dev/casemate/internal/jsontext"
)

func FuzzAppend(f *testing.F) {
	for _, s := range []string{"", "plain", `a"b\c`, "<&>", "é", "\xff", "\x00\x1f\x7f", "\u2028"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		want, err := json.Marshal(s)
		if err != nil {
			t.Fatal(err)
		}
		if got := jsontext.Append([]byte("x"), s); string(got) != "x"+string(want) {
			t.Errorf("%q became %s, want %s", s, got[1:], want)
		}
	})
}
