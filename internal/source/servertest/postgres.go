package servertest

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/jackc/pgx/v5/pgconn"
)

// Postgres is a PostgreSQL server with wal_level = logical. From loopback its user
// postgres needs no password; users whose name begins with scram need one.
type Postgres struct {
	*Process
	Port int
}

// StartPostgres makes a cluster and starts it. config is added to its configuration.
func StartPostgres(t testing.TB, config ...string) *Postgres {
	t.Helper()
	bin := postgresPrograms(t)
	dir := t.TempDir()
	data := filepath.Join(dir, "data")
	as := unprivileged(t, "postgres", dir)
	init := append(as, filepath.Join(bin, "initdb"), "--no-sync", "-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C", "-D", data)
	if out, err := exec.Command(init[0], init[1:]...).CombinedOutput(); err != nil {
		t.Fatalf("initdb: %v\n%s", err, out)
	}
	port := Port(t)
	conf := strings.Join(append([]string{
		"port = " + strconv.Itoa(port), "listen_addresses = '127.0.0.1'", "unix_socket_directories = ''",
		"wal_level = logical", "max_wal_senders = 30", "max_replication_slots = 30", "shared_buffers = 32MB",
	}, config...), "\n")
	hba := "host all /^scram 127.0.0.1/32 scram-sha-256\nhost all scram 127.0.0.1/32 scram-sha-256\nhost all all 127.0.0.1/32 trust\n"
	for name, text := range map[string]string{"postgresql.auto.conf": conf + "\n", "pg_hba.conf": hba} {
		if err := os.WriteFile(filepath.Join(data, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	run := append(as, filepath.Join(bin, "postgres"), "-D", data)
	p := &Postgres{Port: port}
	p.Process = Start(t, func() *exec.Cmd { return exec.Command(run[0], run[1:]...) }, func(ctx context.Context) error {
		c, err := pgconn.Connect(ctx, p.URL("postgres"))
		if err != nil {
			return err
		}
		return c.Close(ctx)
	})
	return p
}

// postgresPrograms finds the directory of the server's programs.
func postgresPrograms(t testing.TB) string {
	t.Helper()
	found, _ := filepath.Glob("/usr/lib/postgresql/*/bin/postgres")
	if len(found) > 0 {
		return filepath.Dir(found[len(found)-1])
	}
	return filepath.Dir(Program(t, "postgres"))
}

// unprivileged gives what to put before a command so that root runs it as user, and makes
// dir that user's. It is empty for anybody else.
func unprivileged(t testing.TB, user, dir string) []string {
	t.Helper()
	if os.Getuid() != 0 {
		return nil
	}
	// The directory above is root's alone.
	if err := os.Chmod(filepath.Dir(dir), 0o711); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("chown", user, dir).CombinedOutput(); err != nil {
		Missing(t, fmt.Sprintf("there is no user %s: %s", user, out))
	}
	return []string{Program(t, "setpriv"), "--reuid=" + user, "--regid=" + user, "--clear-groups", "--pdeathsig=KILL", "--"}
}

// URL is for clients of tests.
func (p *Postgres) URL(database string) string {
	return fmt.Sprintf("postgres://postgres@127.0.0.1:%d/%s?sslmode=disable", p.Port, database)
}

// Connect connects as postgres.
func (p *Postgres) Connect(t testing.TB, database string) *pgconn.PgConn {
	t.Helper()
	c, err := pgconn.Connect(t.Context(), p.URL(database))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close(context.Background()) })
	return c
}

// Do runs SQL on a connection of its own and gives the last result's rows as text.
func (p *Postgres) Do(t testing.TB, database, sql string) [][]string {
	t.Helper()
	c, err := pgconn.Connect(t.Context(), p.URL(database))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close(context.Background())
	results, err := c.Exec(t.Context(), sql).ReadAll()
	if err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
	var rows [][]string
	if len(results) > 0 {
		for _, r := range results[len(results)-1].Rows {
			var row []string
			for _, v := range r {
				row = append(row, string(v))
			}
			rows = append(rows, row)
		}
	}
	return rows
}

// Kill ends all of the server's processes at once, as a lost machine does: they are not
// of one group, and the others would otherwise end in their own time.
func (p *Postgres) Kill() {
	p.mu.Lock()
	cmd := p.cmd
	p.mu.Unlock()
	if cmd == nil {
		return
	}
	pid := strconv.Itoa(cmd.Process.Pid)
	children, _ := os.ReadFile("/proc/" + pid + "/task/" + pid + "/children")
	p.Process.Kill()
	for _, c := range strings.Fields(string(children)) {
		if n, err := strconv.Atoi(c); err == nil {
			_ = syscall.Kill(n, syscall.SIGKILL)
		}
	}
}
