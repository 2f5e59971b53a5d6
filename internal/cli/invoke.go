package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/textproto"
	"os"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/spf13/cobra"

	"github.com/casemate-dev/casemate/api"
	"github.com/casemate-dev/casemate/api/problem"
	"github.com/casemate-dev/casemate/internal/cli/output"
)

// maxBody bounds what invoke sends, in bytes; the node's own bound is lower.
const maxBody = 64 << 20

// When a function fails, invoke shows the beginning of its log: of a stack trace,
// that is the part which says most.
const (
	crashLines    = 12
	maxCrashLog   = 1000 // records to ask for, so that the beginning is among them
	crashPatience = 2 * time.Second
)

type invokeFlags struct {
	data      string
	headers   []string
	method    string
	path      string
	qualifier string
	version   string
	event     string
	subject   string
	id        string
	ext       []string
	verbose   bool
}

func (a *app) invokeCommand() *cobra.Command {
	var f invokeFlags
	cmd := &cobra.Command{
		Use:   "invoke NAME [BODY]",
		Short: "Call a function",
		Long: text(`
			Invoke calls a function through the control listener and prints its answer. The
			body is the argument, or --data, or standard input when that is a pipe or the
			argument is -. Either may be @FILE, for what a file holds. A body that is JSON
			is sent as application/json, unless a header says otherwise.

			With --event, the function gets a CloudEvent of that type whose data is the
			body.

			The answer's body goes to standard output. Status, latency and the receipt go to
			standard error on a terminal, with -v, and when the function fails; with -v and
			when it fails, so does its log. An answer with a status of 400 or more exits 7.

			JSON: one api.InvocationResult (the body is base64).
		`),
		Example: examples(`
			casemate invoke hello '{"name":"Ada"}'
			casemate invoke thumbnail @photo.png > small.png
			cat order.json | casemate invoke orders -H 'Idempotency-Key: 42'
			casemate invoke orders --event com.example.order.placed --subject 42 --data @order.json
			casemate invoke hello --qualifier canary -o json
		`),
		Args: cobra.ArbitraryArgs, ValidArgsFunction: a.completeFunctions,
		RunE: a.run(arguments{1, 2, "the NAME of a function"}, func(ctx context.Context, args []string) error {
			return a.invoke(ctx, args, f)
		}),
	}
	fl := cmd.Flags()
	fl.StringVarP(&f.data, "data", "d", "", "Body, or @FILE, or @- for standard input")
	fl.StringArrayVarP(&f.headers, "header", "H", nil, "Header, as in 'Accept: text/html'; repeatable")
	fl.StringVarP(&f.method, "method", "X", "", "Method (default POST)")
	fl.StringVar(&f.path, "path", "", "Path and query, as in /orders/42?full=1 (default /)")
	fl.StringVarP(&f.qualifier, "qualifier", "q", "", "Alias or version to call (default live)")
	fl.StringVar(&f.version, "version", "", "Same as --qualifier")
	fl.StringVar(&f.event, "event", "", "Type of a CloudEvent to deliver")
	fl.StringVar(&f.subject, "subject", "", "Subject of the event")
	fl.StringVar(&f.id, "id", "", "Id of the event (default: a fresh one)")
	fl.StringArrayVar(&f.ext, "ext", nil, "Extension of the event, as in key=value; repeatable")
	fl.BoolVarP(&f.verbose, "verbose", "v", false, "Print status, headers, latency, receipt and log")
	return cmd
}

func (a *app) invoke(ctx context.Context, args []string, f invokeFlags) error {
	in, err := a.invocation(args[1:], f)
	if err != nil {
		return err
	}
	client, _, err := a.client()
	if err != nil {
		return err
	}
	defer client.Close()
	res, err := client.Invoke(ctx, a.space(), args[0], in)
	if err != nil {
		a.crashed(ctx, client, err)
		return err
	}
	failed := res.Status >= 400
	if a.p.JSON() {
		err = a.p.Value(res)
	} else {
		err = a.showAnswer(res, f.verbose)
	}
	if err == nil && failed {
		return &failure{Exit: exitFunction, silent: true}
	}
	return err
}

func (a *app) invocation(body []string, f invokeFlags) (api.Invocation, error) {
	in := api.Invocation{Qualifier: f.qualifier, Method: strings.ToUpper(f.method)}
	if f.version != "" {
		if f.qualifier != "" && f.qualifier != f.version {
			return in, usagef("--qualifier and --version name different things").hint("give one of them")
		}
		in.Qualifier = f.version
	}
	in.Path, in.Query, _ = strings.Cut(f.path, "?")
	if in.Path != "" && !strings.HasPrefix(in.Path, "/") {
		return in, usagef("--path must begin with a slash, not %.40q", f.path).hint("--path /%s", f.path)
	}
	var err error
	if in.Headers, err = parseHeaders(f.headers); err != nil {
		return in, err
	}
	if in.Body, err = a.body(body, f.data); err != nil {
		return in, err
	}
	guess := ""
	if len(in.Body) > 0 && json.Valid(in.Body) {
		guess = "application/json"
	}
	if f.event == "" {
		if f.subject != "" || f.id != "" || len(f.ext) > 0 {
			return in, usagef("--subject, --id and --ext belong to an event").hint("name its type with --event")
		}
		if _, given := in.Headers["content-type"]; !given && guess != "" {
			in.Headers["content-type"] = []string{guess}
		}
		return in, nil
	}
	in.Event = &api.Event{ID: f.id, Type: f.event, Subject: f.subject, DataContentType: guess, Extensions: map[string]string{}}
	if ct := in.Headers["content-type"]; len(ct) > 0 {
		in.Event.DataContentType = ct[0]
	}
	for _, e := range f.ext {
		k, v, ok := strings.Cut(e, "=")
		if !ok || k == "" {
			return in, usagef("--ext %.60q is not key=value", e)
		}
		in.Event.Extensions[k] = v
	}
	return in, nil
}

func parseHeaders(lines []string) (map[string][]string, error) {
	h := map[string][]string{}
	for _, l := range lines {
		k, v, ok := strings.Cut(l, ":")
		k = strings.ToLower(strings.TrimSpace(k))
		if !ok || k == "" || strings.ContainsAny(k, " \t") {
			// What was given may be a credential: it is not repeated.
			return nil, usagef("a header must be 'Name: value'").hint("-H 'Accept: text/html'")
		}
		h[k] = append(h[k], textproto.TrimString(v))
	}
	return h, nil
}

// body finds the body: the argument, --data, or standard input.
func (a *app) body(args []string, data string) ([]byte, error) {
	switch {
	case len(args) > 0 && data != "":
		return nil, usagef("the body is given twice: as an argument and with --data").hint("give one of them")
	case len(args) > 0 && (args[0] == "-" || args[0] == "@-"), data == "@-":
		return a.readBody(a.env.Stdin)
	case len(args) > 0:
		data = args[0]
	case data == "" && piped(a.env.Stdin):
		return a.readBody(a.env.Stdin)
	}
	if strings.HasPrefix(data, "@") {
		file, err := os.Open(a.abs(data[1:]))
		if err != nil {
			return nil, failf("reading the body: %v", err)
		}
		defer func() { _ = file.Close() }()
		return a.readBody(file)
	}
	return []byte(data), nil
}

// piped reports whether input was given on r on purpose: by a pipe or a file, and
// not by the terminal, /dev/null or a socket that a supervisor happens to hold open.
func piped(r io.Reader) bool {
	f, ok := r.(*os.File)
	if !ok {
		return true
	}
	info, err := f.Stat()
	return err == nil && (info.Mode()&os.ModeNamedPipe != 0 || info.Mode().IsRegular())
}

func (a *app) readBody(r io.Reader) ([]byte, error) {
	b, err := io.ReadAll(io.LimitReader(r, maxBody+1))
	if err != nil {
		return nil, failf("reading the body: %v", err)
	}
	if len(b) > maxBody {
		return nil, failf("the body is larger than %s", output.Bytes(maxBody))
	}
	return b, nil
}

// crashed adds to an error of a function itself: what it logged, as far as the
// key may read that, and the command that shows all of it.
func (a *app) crashed(ctx context.Context, client *api.Client, err error) {
	var refused *api.Error
	if !errors.As(err, &refused) || refused.RequestID == "" || !strings.HasPrefix(string(refused.Code), "function_") {
		return
	}
	if refused.Code == problem.FunctionCrashed {
		refused.Remedy = "all it logged: `casemate logs --request " + refused.RequestID + a.elsewhere(a.space()) + "`"
	}
	if a.p.JSON() {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, crashPatience)
	defer cancel()
	c, shown := a.p.Err(), 0
	for r, err := range client.Logs(ctx, a.space(), api.LogQuery{RequestID: refused.RequestID, Tail: maxCrashLog}) {
		if err != nil {
			return // the failure itself is what matters, and it is about to be shown
		}
		if r.Receipt != nil {
			continue
		}
		if shown++; shown > crashLines {
			a.p.Notef("%s\n", c.Dim("log: …"))
			return
		}
		a.p.Notef("%s %s\n", c.Dim("log:"), c.Plain(r.Text))
	}
}

func (a *app) showAnswer(res *api.InvocationResult, verbose bool) error {
	c := a.p.Err()
	if verbose {
		for _, k := range sortedKeys(res.Headers) {
			for _, v := range res.Headers[k] {
				a.p.Notef("%s %s\n", c.Dim(k+":"), c.Plain(v))
			}
		}
	}
	if verbose || res.Status >= 400 {
		for _, l := range res.Log {
			a.p.Notef("%s %s\n", c.Dim("log:"), c.Plain(l))
		}
	}
	if err := a.writeBody(res.Body); err != nil {
		return err
	}
	if verbose || a.p.PrettyErr() || res.Status >= 400 {
		r := res.Receipt
		a.p.Notef("%s %s %s\n", c.Status(res.Status), c.Plain(fmt.Sprintf("in %s (CPU %s, %s)", output.Millis(r.WallMillis), output.Millis(r.CPUMillis), output.Bytes(r.MemoryPeak))),
			c.Dim("receipt "+r.ID))
	}
	return nil
}

// writeBody prints an answer as it is, unless a terminal reads: then control
// characters are made visible, and what is no text is not printed.
func (a *app) writeBody(b []byte) error {
	if !a.p.Pretty() {
		_, err := a.p.Write(b)
		return err
	}
	if !utf8.Valid(b) || strings.ContainsRune(string(b), 0) {
		a.p.Notef("%s\n", a.p.Err().Warn(fmt.Sprintf("the answer is not text (%s); write it to a file with > FILE", output.Bytes(int64(len(b))))))
		return nil
	}
	s := output.Safe(strings.ReplaceAll(string(b), "\r\n", "\n"))
	if s != "" && !strings.HasSuffix(s, "\n") {
		s += "\n"
	}
	return a.p.Printf("%s", s)
}
