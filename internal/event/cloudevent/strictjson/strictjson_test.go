package strictjson_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/casemate-dev/casemate/internal/event/cloudevent/strictjson"
)

func TestCheckRefuses(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		text string
		want error
	}{
		"nothing":                    {"", strictjson.ErrSyntax},
		"two values":                 {"1 2", strictjson.ErrSyntax},
		"trailing comma":             {`{"a":1,}`, strictjson.ErrSyntax},
		"not UTF-8":                  {"\"\xff\"", strictjson.ErrText},
		"overlong UTF-8":             {"\"\xc0\xaf\"", strictjson.ErrText},
		"too deep":                   {`[[[[1]]]]`, strictjson.ErrDepth},
		"too deep in an object":      {`{"a":[{"b":[]}]}`, strictjson.ErrDepth},
		"a hundred thousand levels":  {strings.Repeat("[", 100_000), strictjson.ErrSyntax},
		"name twice":                 {`{"a":1,"b":2,"a":3}`, strictjson.ErrDuplicate},
		"name twice, escaped":        {`{"a":1,"\u0061":2}`, strictjson.ErrDuplicate},
		"name twice, far inside":     {`[{"x":{"a":1,"a":1}}]`, strictjson.ErrDuplicate},
		"name twice, around a value": {`{"a":{"b":1},"a":2}`, strictjson.ErrDuplicate},
		"half a pair in a name":      {`{"\ud800":1}`, strictjson.ErrText},
		"wrong pair in a name":       {`{"\ud800\u0041":1}`, strictjson.ErrText},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if err := strictjson.Check([]byte(tc.text), 3); !errors.Is(err, tc.want) {
				t.Errorf("got %v, want %v", err, tc.want)
			}
		})
	}
	for _, ok := range []string{
		`1`, ` "x" `, `[[[1]]]`, `{"a":{"a":1},"b":{"a":2}}`, `["a","a",{"a":"a"}]`, `{"a":"a","b":"a"}`,
		`{"\ud83d\ude00":1,"😀x":2}`, `{"":1," ":2}`, `["\ud800"]`,
	} {
		if err := strictjson.Check([]byte(ok), 3); err != nil {
			t.Errorf("%s: %v", ok, err)
		}
	}
}

func TestPartsAreThoseOfTheText(t *testing.T) {
	t.Parallel()
	text := []byte(" { \"a\" : [1, {\"x\":\"]}\"}] ,\"b\\n\\ud83d\\ude00\":-1.5e3,\"c\":\"q\\\"\\\\\", \"d\":null } ")
	if err := strictjson.Check(text, 3); err != nil {
		t.Fatal(err)
	}
	members, err := strictjson.Members(text)
	if err != nil {
		t.Fatal(err)
	}
	got := ""
	for _, m := range members {
		got += fmt.Sprintf("%q=%s;", m.Name, m.Value)
	}
	want := `"a"=[1, {"x":"]}"}];"b\n😀"=-1.5e3;"c"="q\"\\";"d"=null;`
	if got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	parts, err := strictjson.Elements([]byte(`[1,[2,3] , "," ]`), 10)
	if err != nil || len(parts) != 3 || string(parts[1]) != "[2,3]" || string(parts[2]) != `","` {
		t.Errorf("got %q, %v", parts, err)
	}
	if parts, err := strictjson.Elements([]byte(`[1,2,3,4]`), 2); err != nil || len(parts) != 3 {
		t.Errorf("got %q, %v; want one more than the limit", parts, err)
	}
	if _, err := strictjson.Members([]byte(`[1]`)); !errors.Is(err, strictjson.ErrKind) {
		t.Errorf("members of an array: got %v", err)
	}
	if _, err := strictjson.String([]byte(`1`)); !errors.Is(err, strictjson.ErrKind) {
		t.Errorf("string of a number: got %v", err)
	}
}

// FuzzParts has the standard library judge what is taken apart.
func FuzzParts(f *testing.F) {
	for _, s := range []string{`{"a":1,"b":[{}]}`, `[1,"\ud83d\ude00",{"x":null}]`, `{"a":{"a":"}"}}`, ` [ ] `, `"\ud800"`} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		if strictjson.Check(b, 64) != nil {
			return
		}
		var object map[string]json.RawMessage
		if json.Unmarshal(b, &object) == nil && object != nil {
			members, err := strictjson.Members(b)
			if err != nil || len(members) != len(object) {
				t.Fatalf("got %d members and %v, want %d", len(members), err, len(object))
			}
			for _, m := range members {
				if string(object[m.Name]) != string(m.Value) {
					t.Fatalf("%q: got %s, want %s", m.Name, m.Value, object[m.Name])
				}
			}
		}
		var array []json.RawMessage
		if json.Unmarshal(b, &array) == nil && array != nil {
			parts, err := strictjson.Elements(b, len(array))
			if err != nil || len(parts) != len(array) {
				t.Fatalf("got %d elements and %v, want %d", len(parts), err, len(array))
			}
			for i, p := range parts {
				if string(array[i]) != string(p) {
					t.Fatalf("element %d: got %s, want %s", i, p, array[i])
				}
			}
		}
		var text string
		if json.Unmarshal(b, &text) == nil {
			trimmed := strings.Trim(string(b), " \t\r\n")
			if s, err := strictjson.String([]byte(trimmed)); err == nil && s != text {
				t.Fatalf("got %q, want %q", s, text)
			}
		}
	})
}
