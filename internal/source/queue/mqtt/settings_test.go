package mqtt_test

import (
	"encoding/json"
	"errors"
	"testing"

	"github.com/casemate-dev/casemate/internal/function"
	"github.com/casemate-dev/casemate/internal/source"
	"github.com/casemate-dev/casemate/internal/source/queue/mqtt"
)

func TestSettingsNameTheField(t *testing.T) {
	t.Parallel()
	for raw, want := range map[string]string{
		`{"topics":["a/+/b","$share/g/a/#","#"],"qos":2,"filter":{"exact":{}}}`: "",
		`{}`:                                   "topics",
		`{"topics":["a#"]}`:                    "topics",
		`{"topics":["a/#/b"]}`:                 "topics",
		`{"topics":["a+"]}`:                    "topics",
		`{"topics":["$share/g"]}`:              "topics",
		`{"topics":["a\u0000"]}`:               "topics",
		`{"topics":["a","a"]}`:                 "topics",
		`{"topics":["a"],"qos":3}`:             "qos",
		`{"topics":["a"],"qos":-1}`:            "qos",
		`{"topics":["a"],"prefetch":1001}`:     "prefetch",
		`{"topics":["a"],"prefetch":-1}`:       "prefetch",
		`{"topics":["a"],"contentType":"x\n"}`: "contentType",
		`{"topics":["a"],"password":"x"}`:      "password",
	} {
		check(t, raw, mqtt.Kind{}.Check(&function.Trigger{Connection: "far", Settings: json.RawMessage(raw)}), want)
	}
	check(t, "no connection", mqtt.Kind{}.Check(&function.Trigger{Settings: json.RawMessage(`{"topics":["a"]}`)}), "connection")
}

func TestConnectionSettingsNameTheField(t *testing.T) {
	t.Parallel()
	for raw, want := range map[string]string{
		`{"servers":["mqtt.example:8883"]}`:                         "",
		`{"servers":["127.0.0.1:1"],"plaintext":true}`:              "",
		`{"servers":["[::1]:1"],"plaintext":true}`:                  "",
		`{"servers":["mqtt.example:1"],"insecurePlaintext":true}`:   "",
		`{"servers":["mqtt.example:1"],"plaintext":true}`:           "plaintext",
		`{"servers":["127.0.0.1:1","10.0.0.1:1"],"plaintext":true}`: "plaintext",
		`{}`: "servers",
		`{"servers":["user:word@mqtt.example:1"]}`:      "servers",
		`{"servers":["mqtts://mqtt.example"]}`:          "servers",
		`{"servers":["mqtt.example"]}`:                  "servers",
		`{"servers":["mqtt.example:0"]}`:                "servers",
		`{"servers":["a:1"],"version":"4"}`:             "version",
		`{"servers":["a:1"],"sessionExpiry":0}`:         "sessionExpiry",
		`{"servers":["a:1"],"password":"x"}`:            "password",
		`{"servers":["a:1"],"ca":"x"}`:                  "ca",
		`{"servers":["a:1"],"insecureSkipVerify":true}`: "insecureSkipVerify",
	} {
		check(t, raw, mqtt.Kind{}.CheckConnection(json.RawMessage(raw), nil), want)
	}
	good := json.RawMessage(`{"servers":["a:1"]}`)
	check(t, "cert alone", mqtt.Kind{}.CheckConnection(good, []string{"cert"}), "secret cert")
	check(t, "unknown secret", mqtt.Kind{}.CheckConnection(good, []string{"passwort"}), "secret passwort")
}

func check(t *testing.T, what string, err error, field string) {
	t.Helper()
	var fe *source.FieldError
	switch {
	case field == "" && err != nil:
		t.Errorf("%s: %v", what, err)
	case field != "" && (!errors.As(err, &fe) || fe.Field != field):
		t.Errorf("%s: got %v, want field %s", what, err, field)
	}
}
