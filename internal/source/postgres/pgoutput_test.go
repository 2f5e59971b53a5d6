package postgres

import (
	"encoding/json"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/casemate-dev/casemate/internal/event/cloudevent/strictjson"

	"github.com/casemate-dev/casemate/internal/event"
)

func TestValuesBecomeJSON(t *testing.T) {
	t.Parallel()
	deep := ""
	for range maxNesting + 1 {
		deep += "["
	}
	for range maxNesting + 1 {
		deep += "]"
	}
	deepString, _ := json.Marshal(deep)
	for _, tc := range []struct {
		oid        uint32
		text, want string
	}{
		{oidBool, "t", "true"},
		{oidBool, "f", "false"},
		{oidInt4, "-7", "-7"},
		{oidInt8, "9007199254740991", "9007199254740991"},
		{oidInt8, "9007199254740992", `"9007199254740992"`},
		{oidInt8, "-9223372036854775808", `"-9223372036854775808"`},
		{oidFloat8, "1e+20", "1e+20"},
		{oidFloat8, "NaN", `"NaN"`},
		{oidFloat8, "-Infinity", `"-Infinity"`},
		{oidNumeric, "1.10", "1.10"},
		{oidNumeric, "0.000000000000001", "0.000000000000001"},
		{oidNumeric, "1234567890.123456", `"1234567890.123456"`},
		{oidNumeric, "NaN", `"NaN"`},
		{oidJSONB, `{"a": [1, null]}`, `{"a": [1, null]}`},
		{oidJSON, deep, string(deepString)},
		{oidJSON, `"[[[["`, `"[[[["`},
		// The door refuses these, and the row they stand in with them.
		{oidJSON, `{"a": 1, "a": 2}`, `"{\"a\": 1, \"a\": 2}"`},
		{oidJSON, `[{"a": {"b": 1, "\u0062": 2}}]`, `"[{\"a\": {\"b\": 1, \"\\u0062\": 2}}]"`},
		{oidJSON, `{"a": {"a": 1}, "b": "e1111,1"}`, `{"a": {"a": 1}, "b": "e1111,1"}`},
		{oidJSON, `[1e1000]`, `"[1e1000]"`},
		{oidJSON, `[1e+999,-0.1E-007]`, `[1e+999,-0.1E-007]`},
		{oidJSONB, strings.Repeat("7", maxNumber), strings.Repeat("7", maxNumber)},
		{oidJSONB, strings.Repeat("7", maxNumber+1), `"` + strings.Repeat("7", maxNumber+1) + `"`},
		{199, `{"{\"a\":1,\"a\":2}",1}`, `["{\"a\":1,\"a\":2}",1]`},
		{oidBytea, `\x00ff`, `"AP8="`},
		{oidBytea, `\x`, `""`},
		{oidTimestamptz, "2024-02-29 23:59:59.123456+00", `"2024-02-29T23:59:59.123456Z"`},
		{oidTimestamptz, "infinity", `"infinity"`},
		{oidTimestamptz, "0044-03-15 12:00:00+00 BC", `"0044-03-15 12:00:00+00 BC"`},
		{oidTimestamptz, "12024-02-29 23:59:59+00", `"12024-02-29 23:59:59+00"`},
		{oidTimestamp, "2024-02-29 23:59:59", `"2024-02-29T23:59:59"`},
		{oidDate, "2024-02-29", `"2024-02-29"`},
		{oidText, "a\"b\n<é>", `"a\"b\n\u003cé\u003e"`},
		{oidText, "\xff\xfe", `{"base64":"//4="}`},
		{1007, "{1,2,NULL}", "[1,2,null]"},
		{1007, "{}", "[]"},
		{1007, "{{1,2},{3,4}}", "[[1,2],[3,4]]"},
		{1007, "[0:1]={1,2}", `"[0:1]={1,2}"`},
		{1009, `{a,"b,\"c\\","NULL",NULL,""}`, `["a","b,\"c\\","NULL",null,""]`},
		{1016, "{9007199254740993}", `["9007199254740993"]`},
		{3807, `{"{\"a\": 1}"}`, `[{"a": 1}]`},
		{1009, "{a", `"{a"`},
		{99999, "(1,2)", `"(1,2)"`},
	} {
		got := appendValue(nil, tc.oid, []byte(tc.text))
		if string(got) != tc.want {
			t.Errorf("type %d, %q: got %s, want %s", tc.oid, tc.text, got, tc.want)
		}
	}
}

func FuzzValue(f *testing.F) {
	for _, s := range []string{"{1,2}", `{"a\"b",NULL}`, "{{{{", `\xzz`, "2024-01-01 00:00:00+00", `{"a":[1]}`, "-", "1e5", "{,}", `{"`} {
		for _, oid := range []uint32{1007, 1009, 3807, oidJSON, oidTimestamptz, oidNumeric, oidBytea} {
			f.Add(oid, []byte(s))
		}
	}
	f.Fuzz(func(t *testing.T, oid uint32, text []byte) {
		if got := appendValue(nil, oid, text); !json.Valid(got) || !utf8.Valid(got) {
			t.Errorf("type %d, %q became %q", oid, text, got)
		}
		if oid == oidJSON && strictjson.Check(appendValue(nil, oid, text), maxNesting) != nil {
			t.Errorf("%q became what the door refuses", text)
		}
	})
}

// sample messages, as PostgreSQL 15 sent them.
func samples() map[string]string {
	return map[string]string{
		"begin":    "B\x00\x00\x00\x00\x01\x6b\x37\x48\x00\x02\xd1\x1b\x4c\x8e\x2d\x4a\x00\x00\x02\xe5",
		"commit":   "C\x00\x00\x00\x00\x00\x01\x6b\x37\x48\x00\x00\x00\x00\x01\x6b\x37\x78\x00\x02\xd1\x1b\x4c\x8e\x2d\x4a",
		"relation": "R\x00\x00\x40\x00public\x00t\x00d\x00\x02\x01id\x00\x00\x00\x00\x17\xff\xff\xff\xff\x00v\x00\x00\x00\x00\x19\xff\xff\xff\xff",
		"insert":   "I\x00\x00\x40\x00N\x00\x02t\x00\x00\x00\x011n",
		"update":   "U\x00\x00\x40\x00K\x00\x02t\x00\x00\x00\x011nN\x00\x02t\x00\x00\x00\x012u",
		"delete":   "D\x00\x00\x40\x00K\x00\x02t\x00\x00\x00\x011n",
		"truncate": "T\x00\x00\x00\x01\x00\x00\x00\x40\x00",
	}
}

func TestDecoderRefusesEveryShorterAndLongerMessage(t *testing.T) {
	t.Parallel()
	for name, s := range samples() {
		var d decoder
		if _, err := d.decode([]byte(s)); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		for n := range len(s) {
			if _, err := d.decode([]byte(s[:n])); err == nil {
				t.Errorf("%s: %d of %d bytes were accepted", name, n, len(s))
			}
		}
		if _, err := d.decode([]byte(s + "x")); err == nil {
			t.Errorf("%s: a byte too many was accepted", name)
		}
	}
}

func FuzzDecode(f *testing.F) {
	for _, s := range samples() {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		var d decoder
		m, err := d.decode(b)
		if err != nil {
			return
		}
		// Whatever was decoded becomes valid events for any table.
		c, ok := m.(*changeMessage)
		if !ok {
			return
		}
		tab := newTable("public", "t", 'd', []column{{"id", oidInt4, true}, {"v", oidText, false}, {"a", 1009, false}}, nil, nil)
		p := &place{system: "1-1"}
		for _, m := range tab.messages(nil, c, p, func(operation) bool { return true }) {
			m.Source = "/test"
			if err := m.Validate(); err != nil {
				t.Error(err)
			}
			if !json.Valid(m.Data) {
				t.Errorf("not JSON: %q", m.Data)
			}
		}
	})
}

func TestWhatIsTooLargeIsLeftOutAndNamed(t *testing.T) {
	t.Parallel()
	tab := newTable("public", "t", 'd', []column{{"id", oidInt4, true}, {"big", oidText, false}, {"small", oidText, false}}, nil, nil)
	big := make([]byte, event.MaxData)
	for i := range big {
		big[i] = 'x'
	}
	text := func(s []byte) datum { return datum{datumText, s} }
	m := tab.message(row{op: opInsert, new: []datum{text([]byte("1")), text(big), text([]byte("s"))}}, &place{system: "1-1"})
	var got struct {
		Key, New map[string]any
		Omitted  []string
	}
	if err := json.Unmarshal(m.Data, &got); err != nil {
		t.Fatal(err)
	}
	if len(m.Data) > event.MaxData || len(got.Omitted) != 1 || got.Omitted[0] != "big" || got.New["small"] != "s" || got.Key["id"] != 1.0 {
		t.Errorf("%d bytes, %+v", len(m.Data), got)
	}
}

func TestNamesOfTwoTriggersDiffer(t *testing.T) {
	t.Parallel()
	seen := map[string]string{}
	long := "a123456789012345678901234567890"
	for _, n := range [][3]string{
		{"a", "b-c", "d"}, {"a-b", "c", "d"}, {"a", "b", "c-d"}, {"a", "b", "c"}, {long, long, "x"}, {long, long, "y"}, {long, long + "-", "x"},
	} {
		name := ownName(ref(n[0], n[1]), n[2])
		if other, ok := seen[name]; ok {
			t.Errorf("%v and %v share the slot %s", n, other, name)
		}
		if len(name) > maxName || slotName(name) == nil {
			t.Errorf("%q is no good", name)
		}
		seen[name] = n[0] + "/" + n[1] + "/" + n[2]
	}
	if got := ownName(ref("shop", "orders"), "rows"); got != "casemate_shop_orders_rows" {
		t.Error(got)
	}
}
