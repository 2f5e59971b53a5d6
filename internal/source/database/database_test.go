package database_test

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"github.com/casemate-dev/casemate/internal/source"
	"github.com/casemate-dev/casemate/internal/source/database"
)

func TestConnectionSettingsNameTheField(t *testing.T) {
	t.Parallel()
	const rest = `"database":"d","user":"u"`
	for raw, field := range map[string]string{
		`{"database":"d","user":"u"}`:                                            "host",
		`{"host":"h","user":"u"}`:                                                "database",
		`{"host":"h","database":"d"}`:                                            "user",
		`{"host":"h",` + rest + `,"password":"x"}`:                               "password",
		`{"host":"h",` + rest + `,"Password":"x"}`:                               "Password",
		`{"url":"postgres://u:p@h/d"}`:                                           "url",
		`{"host":"u:p@h",` + rest + `}`:                                          "host",
		`{"host":"/var/run/postgresql",` + rest + `}`:                            "host",
		`{"host":"a,b",` + rest + `}`:                                            "host",
		`{"host":"h",` + rest + `,"port":70000}`:                                 "port",
		`{"host":"h",` + rest + `,"tls":"prefer"}`:                               "tls",
		`{"host":"db.example.com",` + rest + `,"tls":"off"}`:                     "tls",
		`{"host":"h",` + rest + `,"tls":"verify-full","insecurePlaintext":true}`: "insecurePlaintext",
		`{"host":"h",` + rest + `,"sslmode":"disable"}`:                          "sslmode",
	} {
		var fe *source.FieldError
		if err := (database.Connections{}).CheckConnection(json.RawMessage(raw), nil); !errors.As(err, &fe) || fe.Field != field {
			t.Errorf("%s: got %v, want field %s", raw, err, field)
		} else if strings.Contains(err.Error(), ":p@") {
			t.Errorf("the error holds the credential: %v", err)
		}
	}
	for _, raw := range []string{
		`{"host":"h",` + rest + `}`, `{"host":"127.0.0.1",` + rest + `,"tls":"off"}`, `{"host":"h",` + rest + `,"tls":"off","insecurePlaintext":true}`,
	} {
		if err := (database.Connections{}).CheckConnection(json.RawMessage(raw), []string{"password", "ca"}); err != nil {
			t.Errorf("%s: %v", raw, err)
		}
	}
	var fe *source.FieldError
	for _, secrets := range [][]string{{"cert"}, {"token"}} {
		if err := (database.Connections{}).CheckConnection(json.RawMessage(`{"host":"h",`+rest+`}`), secrets); !errors.As(err, &fe) || fe.Field != "secrets" {
			t.Errorf("%v: %v", secrets, err)
		}
	}
}

func TestEnvironmentIsNotBelieved(t *testing.T) {
	for _, name := range []string{"PGHOST", "PGUSER", "PGPASSWORD", "PGDATABASE", "PGOPTIONS"} {
		t.Setenv(name, "evil")
	}
	c, err := database.Postgres(&source.Connection{Kind: "postgres", Settings: json.RawMessage(`{"host":"h","database":"d","user":"u"}`)}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if c.Host != "h" || c.User != "u" || c.Database != "d" || c.Password != "" || c.RuntimeParams["options"] != "" || len(c.Fallbacks) != 0 || c.TLSConfig == nil || c.TLSConfig.InsecureSkipVerify || c.TLSConfig.ServerName != "h" {
		t.Errorf("%+v", c)
	}
}
