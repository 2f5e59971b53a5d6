package farside

import (
	"testing"

	"github.com/casemate-dev/casemate/internal/source/servertest"
)

// postgres changes a row of a table.
func postgres(t testing.TB, e *Event) *far {
	t.Helper()
	s := servertest.StartPostgres(t)
	s.Do(t, "postgres", "CREATE DATABASE shop")
	for _, sql := range e.Before {
		s.Do(t, "shop", sql)
	}
	return &far{
		kind:     "postgres",
		settings: map[string]any{"host": "127.0.0.1", "port": s.Port, "database": "shop", "user": "postgres", "tls": "off"},
		cause: func(t testing.TB, _ *Node, e *Event) {
			for _, sql := range e.SQL {
				s.Do(t, "shop", sql)
			}
		},
	}
}

// outbox writes a row into a table of MariaDB, as an application does in its transaction.
func outbox(t testing.TB, e *Event) *far {
	t.Helper()
	s := servertest.StartMariaDB(t)
	db := s.Open(t)
	do := func(t testing.TB, statements []string) {
		t.Helper()
		for _, sql := range statements {
			if _, err := db.ExecContext(t.Context(), sql); err != nil {
				t.Fatalf("%s: %v", sql, err)
			}
		}
	}
	do(t, e.Before)
	return &far{
		kind:     "mysql",
		settings: map[string]any{"host": "127.0.0.1", "port": s.Port, "database": "casemate", "user": "casemate", "tls": "off"},
		secrets:  map[string]string{"password": "secret"},
		cause:    func(t testing.TB, _ *Node, e *Event) { do(t, e.SQL) },
	}
}
