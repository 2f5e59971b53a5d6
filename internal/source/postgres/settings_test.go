package postgres

import (
	"encoding/json"
	"errors"
	"testing"

	"github.com/casemate-dev/casemate/internal/function"
	"github.com/casemate-dev/casemate/internal/source"
)

func ref(namespace, name string) function.Ref {
	return function.Ref{Namespace: namespace, Name: name}
}

func TestSettingsNameTheField(t *testing.T) {
	t.Parallel()
	k := New(Config{})
	for raw, field := range map[string]string{
		`{}`:                       "tables",
		`{"tables":["t"]}`:         "tables",
		`{"tables":["a.b.c"]}`:     "tables",
		`{"tables":["a.b","a.b"]}`: "tables",
		`{"tables":["a.b"],"operations":["drop"]}`:              "operations",
		`{"tables":["a.b"],"slot":"Upper"}`:                     "slot",
		`{"tables":["a.b"],"slot":"x; DROP TABLE y"}`:           "slot",
		`{"tables":["a.b"],"slot":"casemate_other_ns_trigger"}`: "slot",
		`{"tables":["a.b"],"snapshot":"always"}`:                "snapshot",
		`{"tables":["a.b"],"lostSlot":"x"}`:                     "lostSlot",
		`{"tables":["a.b"],"lagAlertBytes":-1}`:                 "lagAlertBytes",
		`{"tables":["a.b"],"columns":{"a.c":["x"]}}`:            "columns",
		`{"tables":["a.b"],"columns":{"a.b":[]}}`:               "columns",
		`{"tables":["a.b"],"password":"x"}`:                     "password",
	} {
		var fe *source.FieldError
		err := k.Check(&function.Trigger{Connection: "db", Settings: json.RawMessage(raw)})
		if !errors.As(err, &fe) || fe.Field != field {
			t.Errorf("%s: got %v, want field %s", raw, err, field)
		}
	}
	if err := k.Check(&function.Trigger{Connection: "db", Settings: json.RawMessage(`{"tables":["a.b"],"snapshot":"initial"}`)}); err != nil {
		t.Error(err)
	}
	var fe *source.FieldError
	if err := k.Check(&function.Trigger{Settings: json.RawMessage(`{"tables":["a.b"]}`)}); !errors.As(err, &fe) || fe.Field != "connection" {
		t.Error(err)
	}
}
