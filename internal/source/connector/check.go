package connector

import (
	"bufio"
	"errors"
	"io"
	"os"
	"time"

	"github.com/casemate-dev/casemate/internal/source"
)

// check has the program look at settings, after look has looked at what it offers. It
// fails with a *source.FieldError.
func (k *Kind) check(m *message, look func(*offered) error) error {
	p, err := k.host.start(k.name)
	if err != nil {
		return &source.FieldError{Field: "kind", Reason: "cannot be checked: " + err.Error()}
	}
	go func() {
		// What it logs about settings is of no interest, but it must not fill the pipe.
		_, _ = io.Copy(io.Discard, p.err)
	}()
	defer p.end()
	s := &session{p: p, lines: bufio.NewReaderSize(p.out, 4<<10), answer: k.host.cfg.Answer}
	reply, err := s.ask(k.name, m, look)
	var field *source.FieldError
	switch {
	case errors.As(err, &field):
		return field
	case errors.Is(err, os.ErrDeadlineExceeded):
		return &source.FieldError{Field: "kind", Reason: "cannot be checked: the connector did not answer in time"}
	case errors.Is(err, io.EOF):
		return &source.FieldError{Field: "kind", Reason: "cannot be checked: the connector ended"}
	case err != nil:
		return &source.FieldError{Field: "kind", Reason: "cannot be checked: " + err.Error()}
	case reply.Field != "" || reply.Reason != "":
		return &source.FieldError{Field: clean(reply.Field, 200), Reason: clean(reply.Reason, maxReason)}
	}
	return nil
}

// ask asks the one question.
func (s *session) ask(name string, m *message, look func(*offered) error) (*message, error) {
	kind, version, err := s.hello(name)
	if err != nil {
		return nil, err
	}
	if err := look(kind); err != nil {
		return nil, err
	}
	m.Message, m.Protocol, m.Kind = "check", version, name
	if err := s.send(m); err != nil {
		return nil, err
	}
	if err := s.p.out.SetReadDeadline(time.Now().Add(s.answer)); err != nil { //nolint:forbidigo // a deadline of the kernel is in wall-clock time
		return nil, err
	}
	line, err := readLine(s.lines, maxFirstLine)
	if err != nil {
		return nil, err
	}
	reply, err := parse(line)
	if err != nil {
		return nil, err
	}
	if reply.Message != "checked" {
		return nil, &violation{"it did not answer with checked"}
	}
	return reply, nil
}
