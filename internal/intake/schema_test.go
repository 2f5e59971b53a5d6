package intake

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/casemate-dev/casemate/internal/source"
)

func TestSchemasThatCannotBeUsed(t *testing.T) {
	t.Parallel()
	many := "{\"allOf\":[" + strings.TrimSuffix(strings.Repeat(`{"type":"string"},`, 2001), ",") + "]}"
	for schema, want := range map[string]string{
		`{`:                       "schema is JSON that",
		`7`:                       "must be an object",
		`{"type":"text"}`:         "cannot be used",
		`{"type":1,"type":2}`:     "twice",
		`{"$ref":"#/$defs/none"}`: "cannot be used",
		`{"$ref":"https://example.com/schema.json"}`:     "nothing is loaded",
		`{"$ref":"file:///etc/passwd"}`:                  "nothing is loaded",
		`{"$schema":"https://example.com/mine"}`:         "nothing is loaded",
		`{"pattern":"(a"}`:                               "cannot be used",
		`{"pattern":"` + strings.Repeat("a", 513) + `"}`: "cannot be used",
		many:                                    "more than 2000 schemas",
		`"` + strings.Repeat("x", 64<<10) + `"`: "has 65538 bytes",
		strings.Repeat(`{"not":`, 65) + "true" + strings.Repeat("}", 65): "deeper than 64",
	} {
		_, err := NewRules(trigger("", schema))
		var field *source.FieldError
		if !errors.As(err, &field) || field.Field != "schema" || !strings.Contains(err.Error(), want) {
			t.Errorf("%.60s: got %v, want %s", schema, err, want)
		}
	}
	none, both := trigger("", ""), trigger("", "true")
	none.NoSchema, both.NoSchema = "", "and a reason"
	if _, err := NewRules(none); err == nil {
		t.Error("a trigger without schema and reason was taken")
	}
	if _, err := NewRules(both); err == nil {
		t.Error("a trigger with schema and reason was taken")
	}
	for settings, want := range map[string]string{
		`[]`: "settings must be", `{"filter":{"exact":{"type":1}}}`: "filter.exact.type must be text",
	} {
		if _, err := NewRules(trigger(settings, "")); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v", settings, err)
		}
	}
}

func TestSplitSettings(t *testing.T) {
	t.Parallel()
	filter, rest, err := SplitSettings([]byte(`{"queue":"q","filter":{"sql":"TRUE"}}`))
	if err != nil || string(filter) != `{"sql":"TRUE"}` || string(rest) != `{"queue":"q"}` {
		t.Errorf("got %s %s %v", filter, rest, err)
	}
	if filter, rest, err := SplitSettings([]byte(`{"queue":"q"}`)); err != nil || filter != nil || string(rest) != `{"queue":"q"}` {
		t.Errorf("got %s %s %v", filter, rest, err)
	}
}

func TestSchema(t *testing.T) {
	t.Parallel()
	s := func(text string) *schema {
		t.Helper()
		s, err := compileSchema([]byte(text))
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	const order = `{"type":"object","required":["id"],"properties":{"id":{"type":"string","format":"uuid"},"price":{"multipleOf":0.01},"a/b~c":{"type":"null"}}}`
	// 2 to the 60th ways through a schema of 60 definitions.
	var explosive strings.Builder
	explosive.WriteString(`{"$ref":"#/$defs/d0","$defs":{`)
	for i := range 60 {
		fmt.Fprintf(&explosive, `"d%d":{"allOf":[{"$ref":"#/$defs/d%d"},{"$ref":"#/$defs/d%d"}]},`, i, i+1, i+1)
	}
	explosive.WriteString(`"d60":{"type":"object"}}}`)
	bomb := s(explosive.String())
	for _, c := range []struct {
		schema            *schema
		data, field, want string
	}{
		{s(order), `{"id":"0190163d-8694-739b-aea5-966c26f8ad90","price":1.01}`, "", ""},
		{s(order), ``, "data", "is missing"},
		{s(order), `{`, "data", "JSON"},
		{s(order), `{"id":"0190163d-8694-739b-aea5-966c26f8ad90","price":1e999999}`, "data", "exponent"},
		{s(order), `{}`, "data", "id"},
		{s(order), `{"id":"x"}`, "data/id", "uuid"},
		{s(order), `{"id":"0190163d-8694-739b-aea5-966c26f8ad90","price":0.001}`, "data/price", "multiple"},
		{s(order), `{"id":"0190163d-8694-739b-aea5-966c26f8ad90","a/b~c":1}`, "data/a~1b~0c", "null"},
		{s(`{"format":"regex"}`), `"` + strings.Repeat("a", 513) + `"`, "data", "does not fit"},
		{s(`{"items":{"type":"string"}}`), "[" + strings.Repeat("0,", maxSchemaSteps) + "0]", "data", "more than 250000 values"},
		{s(`{"pattern":"(x{1,500}){1,2}$"}`), `"` + strings.Repeat("x", 1<<20) + `"`, "data", "too many steps"},
		{bomb, `{}`, "data", "too many steps"},
		{bomb, `{}`, "data", "too many steps"}, // and it can be used again
		{s(`{"maxLength":1000}`), `"` + strings.Repeat("x", 2000) + `"`, "data", "maxLength"},
		{s(`{"const":1}`), `"` + strings.Repeat("x", 2000) + `"`, "data", "must be 1"},
	} {
		f := c.schema.check([]byte(c.data))
		switch {
		case f == nil && c.field == "":
		case f == nil || f.field != c.field || !strings.Contains(f.reason, c.want) || len(f.reason) > 400:
			t.Errorf("%.80s: got %v, want %s %s", c.data, f, c.field, c.want)
		}
	}
}

func FuzzSchema(f *testing.F) {
	f.Add([]byte(`{"type":"object","properties":{"a":{"$ref":"#"}}}`), []byte(`{"a":{"a":1}}`))
	f.Add([]byte(`{"anyOf":[{"pattern":"^a+$"},{"uniqueItems":true}]}`), []byte(`["a",1]`))
	f.Add([]byte(`{"$dynamicRef":"#x","unevaluatedProperties":false}`), []byte(`{}`))
	f.Fuzz(func(_ *testing.T, text, data []byte) {
		if s, err := compileSchema(text); err == nil {
			s.check(data)
		}
	})
}
