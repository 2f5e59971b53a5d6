package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/casemate-dev/casemate/test/guests"
)

const (
	receiptHeader = "Casemate-Receipt"
	maxAnswer     = 32 << 20
)

// row is one line of the table: the first request of a function.
type row struct {
	function, first, again, receipt, answer string
}

// callAll asks each example all it promises to answer and counts what was wrong.
func (s *show) callAll(ctx context.Context, examples []guests.Example) (rows []row, wrong int) {
	for _, e := range examples {
		r := row{function: e.Function.Name}
		var problems []error
		for i, request := range e.Requests {
			answer, receipt, took, err := s.call(ctx, request, s.key)
			if err == nil {
				err = request.Want.Check(answer)
			}
			if err == nil && receipt == "" {
				err = errors.New("the answer names no receipt")
			}
			if err != nil {
				problems = append(problems, fmt.Errorf("%s: %w", request.Name, err))
			}
			if i > 0 {
				continue
			}
			r.first, r.receipt, r.answer = milliseconds(took), receipt, request.Want.Summary(answer)
			if _, _, took, err := s.call(ctx, request, s.key); err == nil {
				r.again = milliseconds(took)
			}
		}
		if err := s.refused(ctx, e.Requests[0]); err != nil {
			problems = append(problems, err)
		}
		if len(problems) > 0 {
			wrong += len(problems)
			r.answer = "WRONG: " + strings.ReplaceAll(errors.Join(problems...).Error(), "\n", "; ")
		}
		rows = append(rows, r)
	}
	return rows, wrong
}

// refused makes sure that nobody gets in without a key.
func (s *show) refused(ctx context.Context, request guests.Request) error {
	answer, _, _, err := s.call(ctx, request, "")
	if err == nil && answer.Status != http.StatusUnauthorized {
		err = fmt.Errorf("status %d, want 401", answer.Status)
	}
	if err != nil {
		return fmt.Errorf("without a key: %w", err)
	}
	return nil
}

func (s *show) call(ctx context.Context, request guests.Request, key string) (guests.Answer, string, time.Duration, error) {
	url := s.node.GatewayURL + request.Path
	if request.Query != "" {
		url += "?" + request.Query
	}
	req, err := http.NewRequestWithContext(ctx, request.Method, url, bytes.NewReader(request.Body))
	if err != nil {
		return guests.Answer{}, "", 0, fmt.Errorf("making the request: %v", err)
	}
	for name, value := range request.Headers {
		req.Header.Set(name, value)
	}
	if key != "" {
		req.Header.Set("Authorization", "Bearer "+key)
	}
	start := time.Now()
	resp, err := s.client.Do(req)
	if err != nil {
		return guests.Answer{}, "", 0, fmt.Errorf("calling: %v", err)
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	took := time.Since(start)
	if err != nil {
		return guests.Answer{}, "", 0, fmt.Errorf("reading the answer: %v", err)
	}
	answer := guests.Answer{Status: resp.StatusCode, Headers: map[string]string{}, Body: body}
	for name := range resp.Header {
		answer.Headers[strings.ToLower(name)] = resp.Header.Get(name)
	}
	return answer, resp.Header.Get(receiptHeader), took, nil
}

func milliseconds(d time.Duration) string {
	return fmt.Sprintf("%.1f ms", float64(d.Microseconds())/1000)
}

// table prints the rows in columns. A wrong answer is printed whole.
func (s *show) table(rows []row) {
	const line = "  %-12s %10s %10s  %-36s  %s"
	s.say(line, "function", "first", "again", "receipt", "what came back")
	for _, r := range rows {
		answer := []rune(strings.Map(printable, r.answer))
		if len(answer) > 72 && !strings.HasPrefix(r.answer, "WRONG") {
			answer = append(answer[:71], '…')
		}
		s.say(line, r.function, r.first, r.again, r.receipt, string(answer))
	}
}

// printable keeps what a function answers from steering the terminal.
func printable(r rune) rune {
	if r < ' ' || r >= 0x7f && r < 0xa0 {
		return '�'
	}
	return r
}

// commands prints what to paste into another terminal. The key may call functions
// and nothing else, and ends with the node.
func (s *show) commands(examples []guests.Example) {
	s.say("\nIn another terminal:\n")
	s.say("  export CASEMATE_CONFIG=%s", quote(s.config))
	s.say("  KEY=%s\n", s.key)
	for _, e := range examples {
		r := e.Requests[0]
		b := &strings.Builder{}
		fmt.Fprintf(b, "  curl --cacert %s -H \"Authorization: Bearer $KEY\"", quote(s.ca))
		for _, name := range slices.Sorted(maps.Keys(r.Headers)) {
			fmt.Fprintf(b, " -H %s", quote(name+": "+r.Headers[name]))
		}
		switch {
		case r.File != "":
			fmt.Fprintf(b, " --data-binary @%s", quote(filepath.Join(e.Dir, filepath.FromSlash(r.File))))
		case len(r.JSON) > 0:
			var compact bytes.Buffer
			_ = json.Compact(&compact, r.JSON) // it was parsed as JSON before
			fmt.Fprintf(b, " --data-binary %s", quote(compact.String()))
		case r.Text != "":
			fmt.Fprintf(b, " --data-binary %s", quote(r.Text))
		}
		url := s.node.GatewayURL + r.Path
		if r.Query != "" {
			url += "?" + r.Query
		}
		fmt.Fprintf(b, " %s", quote(url))
		if r.Want.PNG != nil {
			b.WriteString(" -o small.png")
		}
		s.say("%s", b)
	}
	name := examples[0].Function.Name
	s.say("\n  %s status", quote(s.program))
	s.say("  %s logs -f", quote(s.program))
	s.say("  %s describe %s", quote(s.program), name)
	s.say("\n  gateway %s   control %s", s.node.GatewayURL, s.node.ControlURL)
}

// quote makes one word of s for a POSIX shell.
func quote(s string) string {
	if s != "" && !strings.ContainsFunc(s, func(r rune) bool {
		return !strings.ContainsRune("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_./:=@%+,", r)
	}) {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}
