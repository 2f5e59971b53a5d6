package servertest

import (
	"context"
	"database/sql"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"

	"github.com/go-sql-driver/mysql"
)

// MariaDB is a server with a database and a user, both named casemate; the user's
// password is secret.
type MariaDB struct {
	*Process
	Port int
}

// StartMariaDB makes a data directory and starts a server. args are added to the
// server's own.
func StartMariaDB(t testing.TB, args ...string) *MariaDB {
	t.Helper()
	server := Program(t, "mariadbd")
	dir := t.TempDir()
	data := filepath.Join(dir, "data")
	as := unprivileged(t, "mysql", dir)
	install := append(as, Program(t, "mariadb-install-db"), "--no-defaults", "--datadir="+data, "--auth-root-authentication-method=normal", "--skip-test-db")
	if out, err := exec.Command(install[0], install[1:]...).CombinedOutput(); err != nil {
		t.Fatalf("mariadb-install-db: %v\n%s", err, out)
	}
	first := filepath.Join(dir, "first.sql")
	statements := "CREATE DATABASE IF NOT EXISTS casemate;\nCREATE USER IF NOT EXISTS casemate@'%' IDENTIFIED BY 'secret';\nGRANT ALL ON casemate.* TO casemate@'%';\n"
	if err := os.WriteFile(first, []byte(statements), 0o644); err != nil {
		t.Fatal(err)
	}
	port := Port(t)
	run := append(as, server, "--no-defaults", "--datadir="+data, "--bind-address=127.0.0.1", "--port="+strconv.Itoa(port),
		"--socket="+filepath.Join(dir, "s"), "--pid-file="+filepath.Join(dir, "pid"), "--init-file="+first, "--innodb-buffer-pool-size=32M")
	run = append(run, args...)
	m := &MariaDB{Port: port}
	m.Process = Start(t, func() *exec.Cmd { return exec.Command(run[0], run[1:]...) }, func(ctx context.Context) error {
		db, err := m.open()
		if err != nil {
			return err
		}
		defer db.Close()
		return db.PingContext(ctx)
	})
	return m
}

func (m *MariaDB) open() (*sql.DB, error) {
	c := mysql.NewConfig()
	c.Net, c.Addr, c.User, c.Passwd, c.DBName = "tcp", Local(m.Port), "casemate", "secret", "casemate"
	c.MultiStatements, c.Logger = true, quiet{}
	connector, err := mysql.NewConnector(c)
	if err != nil {
		return nil, fmt.Errorf("connecting: %w", err)
	}
	return sql.OpenDB(connector), nil
}

// quiet drops what the driver says while the server is not there yet.
type quiet struct{}

func (quiet) Print(...any) {}

// Open gives a client as casemate.
func (m *MariaDB) Open(t testing.TB) *sql.DB {
	t.Helper()
	db, err := m.open()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	return db
}
