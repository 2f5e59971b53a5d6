package postgres_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/casemate-dev/casemate/internal/source"
	"github.com/casemate-dev/casemate/internal/source/servertest"
)

func TestTLSVerifiesTheServer(t *testing.T) {
	t.Parallel()
	certs, others := servertest.NewCertificates(t, "scram"), servertest.NewCertificates(t, "scram")
	key := filepath.Join(certs.Directory, "server.key")
	if err := os.Chmod(key, 0o600); err != nil {
		t.Fatal(err)
	}
	if os.Getuid() == 0 {
		if out, err := exec.Command("chown", "postgres", key).CombinedOutput(); err != nil {
			servertest.Missing(t, string(out))
		}
		if err := os.Chmod(filepath.Dir(certs.Directory), 0o711); err != nil {
			t.Fatal(err)
		}
	}
	p := servertest.StartPostgres(t, "fsync = off", "ssl = on", "ssl_cert_file = '"+filepath.Join(certs.Directory, "server.pem")+"'", "ssl_key_file = '"+key+"'")
	db := database(t, p, "CREATE TABLE t (id int PRIMARY KEY); CREATE ROLE scram LOGIN SUPERUSER PASSWORD 'geheim'")
	for name, tc := range map[string]struct {
		ca         []byte
		serverName string
		want       source.State
		reason     string
	}{
		"own authority":      {certs.CA, "", source.Running, ""},
		"another authority":  {others.CA, "", source.Failing, "certificate"},
		"system authorities": {nil, "", source.Failing, "certificate"},
		"another name":       {certs.CA, "db.example.com", source.Failing, "db.example.com"},
	} {
		t.Run(name, func(t *testing.T) {
			secrets := map[string]string{"password": "geheim"}
			if tc.ca != nil {
				secrets["ca"] = string(tc.ca)
			}
			connection := map[string]any{"host": "127.0.0.1", "port": p.Port, "database": db, "user": "scram"}
			if tc.serverName != "" {
				connection["serverName"] = tc.serverName
			}
			f := servertest.Bind(t, "postgres", settings{"tables": []string{"public.t"}}, connection, secrets)
			f.Binding.Ref.Name = "tls-" + strings.ReplaceAll(name, " ", "-")
			f.Run(t, kind(), secrets)
			if h, _ := f.Health.Wait(t, 0, tc.want); !strings.Contains(h.Reason, tc.reason) {
				t.Errorf("%+v", h)
			}
			if tc.want == source.Running {
				p.Do(t, db, "INSERT INTO t VALUES (1)")
				await(t, f, 1)
			}
		})
	}
}
