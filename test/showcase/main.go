// Command showcase is what `make run` shows: it starts a node in a fresh data
// directory, deploys every example whose compiler is here, calls each over HTTPS
// with real input, checks the answers, shows one function for each kind of source of
// events with what there is on its far side, and keeps serving until it is interrupted.
// With -oneshot, or ONESHOT=1, it stops after the checks; its exit code is 0 when
// every answer was right and the node ended cleanly.
//
// It knows the platform only as a newcomer does: the casemate program, its client
// configuration, and HTTPS with the node's own authority.
package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/casemate-dev/casemate/internal/cli/build"
	"github.com/casemate-dev/casemate/internal/jsengine"
	"github.com/casemate-dev/casemate/test/guests"
)

// keyScope is all that the key in the callers' hands may do.
const keyScope = "invoke:default/*"

func main() {
	// The node is to end when the thread that started it does (see ownGroup).
	runtime.LockOSThread()
	oneshot := flag.Bool("oneshot", os.Getenv("ONESHOT") == "1", "stop after the checks")
	program := flag.String("casemate", "bin/casemate", "the casemate `program`")
	examples := flag.String("examples", "examples", "the `folder` of examples")
	flag.Parse()

	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	s := &show{out: os.Stdout, program: *program, oneshot: *oneshot}
	if err := s.run(ctx, *examples); err != nil {
		fmt.Fprintf(os.Stderr, "\nshowcase: %v\n", err)
		os.Exit(1)
	}
}

// show is one run of the showcase.
type show struct {
	out     io.Writer
	program string
	oneshot bool

	dir    string // temporary, removed at the end
	config string // the client configuration in it
	inbox  string // a folder that the node watches
	ca     string // the node's authority, as a file for curl
	node   *node
	client *http.Client
	key    string

	farSide func() // ends what the sources of events need; nil until then
}

func (s *show) run(ctx context.Context, examplesDir string) (err error) {
	examples, err := guests.Load(examplesDir)
	if err != nil {
		return err
	}
	if s.program, err = filepath.Abs(s.program); err != nil {
		return fmt.Errorf("finding the program: %v", err)
	}
	if s.dir, err = os.MkdirTemp("", "casemate-showcase-"); err != nil {
		return fmt.Errorf("making a data directory: %v", err)
	}
	defer func() { err = errors.Join(err, s.end(ctx)) }()
	s.config, s.inbox = filepath.Join(s.dir, "client", "config.json"), filepath.Join(s.dir, "inbox")
	if err := os.MkdirAll(filepath.Join(s.inbox, "done"), 0o700); err != nil {
		return fmt.Errorf("making a folder to watch: %v", err)
	}

	s.say("Starting a node in %s", s.dir)
	if s.node, err = startNode(ctx, s); err != nil {
		return err
	}
	s.say("  gateway %s, control %s", s.node.GatewayURL, s.node.ControlURL)
	if err := s.trust(); err != nil {
		return err
	}

	s.say("\nBuilding and deploying the examples")
	deployed, err := s.deploy(ctx, examples)
	if ctx.Err() != nil {
		return errors.New("interrupted before every example was deployed")
	}
	if err != nil {
		return err
	}
	if len(deployed) == 0 {
		return errors.New("no example could be deployed: no compiler is here")
	}
	if err := s.createKey(ctx); err != nil {
		return err
	}

	s.say("\nCalling each over HTTPS\n")
	rows, wrong := s.callAll(ctx, deployed)
	s.table(rows)
	if err := ctx.Err(); err != nil {
		return errors.New("interrupted before every answer was in")
	}
	if wrong > 0 {
		return fmt.Errorf("%d answers were wrong", wrong)
	}
	s.say("\nEvery answer was right.")
	if err := s.showEvents(ctx, filepath.Join(examplesDir, "events")); err != nil {
		return err
	}
	if s.oneshot {
		return nil
	}
	s.commands(deployed)
	s.say("\nServing until Ctrl-C.")
	select {
	case <-ctx.Done():
		s.say("\nStopping the node.")
		return nil
	case <-s.node.ended:
		return fmt.Errorf("the node ended by itself: %v%s", s.node.err, s.node.lastWords())
	}
}

// showEvents shows the sources. What is on their far side goes with the node.
func (s *show) showEvents(ctx context.Context, dir string) error {
	s.say("\nBringing an event about at each kind of source\n")
	end, wrong, err := s.events(ctx, dir)
	s.farSide = end
	if wrong > 0 {
		err = errors.Join(err, fmt.Errorf("%d sources went wrong", wrong))
	}
	return err
}

// end stops the node and removes what it kept, also after a half start and when
// the context ended already.
func (s *show) end(ctx context.Context) error {
	var err error
	if s.node != nil {
		err = s.node.stop(context.WithoutCancel(ctx))
	}
	if s.farSide != nil {
		s.farSide()
	}
	if s.client != nil {
		s.client.CloseIdleConnections()
	}
	if removed := os.RemoveAll(s.dir); removed != nil {
		err = errors.Join(err, fmt.Errorf("removing the data directory: %v", removed))
	}
	return err
}

// trust reads the node's authority from the client configuration. Nothing else
// is trusted, and nothing is taken unverified.
func (s *show) trust() error {
	b, err := os.ReadFile(s.config)
	if err != nil {
		return fmt.Errorf("reading the client configuration: %v", err)
	}
	var config struct {
		Contexts []struct {
			Name string `json:"name"`
			CA   string `json:"ca"`
		} `json:"contexts"`
	}
	if err := json.Unmarshal(b, &config); err != nil {
		return errors.New("reading the client configuration: it is not JSON") // the cause could quote the key
	}
	i := slices.IndexFunc(config.Contexts, func(c struct {
		Name string `json:"name"`
		CA   string `json:"ca"`
	},
	) bool {
		return c.Name == s.node.Context
	})
	pool := x509.NewCertPool()
	if i < 0 || !pool.AppendCertsFromPEM([]byte(config.Contexts[i].CA)) {
		return errors.New("reading the client configuration: it has no authority for the node")
	}
	s.ca = filepath.Join(s.dir, "client", "authority.pem")
	if err := os.WriteFile(s.ca, []byte(config.Contexts[i].CA), 0o600); err != nil {
		return fmt.Errorf("writing the authority: %v", err)
	}
	s.client = &http.Client{
		Timeout: time.Minute,
		// A redirect is an answer to look at; where it leads is not ours to ask.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		Transport: &http.Transport{
			ForceAttemptHTTP2: true,
			TLSClientConfig:   &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS13},
		},
	}
	return nil
}

// deploy deploys every example whose compiler is here and gives those.
func (s *show) deploy(ctx context.Context, examples []guests.Example) ([]guests.Example, error) {
	var deployed []guests.Example
	for _, e := range examples {
		f := e.Function
		_, _ = fmt.Fprintf(s.out, "  %-12s %-16s", f.Name, f.Config.Runtime)
		err := build.Check(ctx, build.Request{
			Name: f.Name, Dir: e.Dir, Source: f.Source, Runtime: f.Config.Runtime, Entry: f.Config.Entry, Handler: f.Config.Handler, Command: f.Config.Command,
		})
		var missing *build.ToolchainError
		if errors.As(err, &missing) {
			s.say("left out: %s is not installed\n  %29s%s", missing.Missing, "", missing.Install)
			continue
		}
		if err != nil {
			return nil, err
		}
		start := time.Now()
		if _, err := s.casemate(ctx, "deploy", e.Dir, "--yes"); err != nil {
			if _, none := jsengine.Module(); errors.Is(none, jsengine.ErrMissing) && isScript(f.Config.Runtime) {
				s.say("left out: %v", none)
				continue
			}
			return nil, fmt.Errorf("deploying %s: %w", f.Name, err)
		}
		s.say("%6.1f s", time.Since(start).Seconds())
		deployed = append(deployed, e)
	}
	return deployed, nil
}

func isScript(runtime string) bool { return runtime == "js" || runtime == "ts" }

// createKey makes the key for callers, which is never the administrator's.
func (s *show) createKey(ctx context.Context) error {
	out, err := s.casemate(ctx, "key", "create", "showcase", "--scope", keyScope)
	if err != nil {
		return fmt.Errorf("creating a key: %w", err)
	}
	var created struct {
		Secret string `json:"secret"`
	}
	if err := json.Unmarshal(out, &created); err != nil || created.Secret == "" {
		return errors.New("creating a key: the answer holds no secret")
	}
	s.key = created.Secret
	return nil
}

func (s *show) say(format string, args ...any) {
	_, _ = fmt.Fprintf(s.out, strings.TrimRight(format, " ")+"\n", args...)
}
