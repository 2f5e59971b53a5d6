package main

import (
	"bytes"
	"context"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"time"

	"github.com/casemate-dev/casemate/api"
	"github.com/casemate-dev/casemate/api/manifest"
	"github.com/casemate-dev/casemate/internal/cli/build"
	"github.com/casemate-dev/casemate/internal/function"
)

// site is a running node of ours, as `casemate up` starts it.
type site struct {
	b       *bench
	dir     string // the node's data is below it; it outlives the node
	pid     int
	stop    func()
	gateway string
	client  *api.Client
	pool    *x509.CertPool
	keyFile string // holds a key that may invoke everything
}

// built is a function with its code.
type built struct {
	name   string
	config api.FunctionConfig
	code   []byte
}

// site starts a node in a fresh directory.
func (b *bench) site(ctx context.Context) (*site, error) {
	dir, err := os.MkdirTemp(b.dir, "node-")
	if err != nil {
		return nil, err
	}
	s := &site{b: b, dir: dir}
	return s, s.start(ctx)
}

// start starts the node on its directory and returns when it is ready. A node that
// was stopped can be started again.
func (s *site) start(ctx context.Context) error {
	gw, err := freePort()
	if err != nil {
		return err
	}
	ctl, err := freePort()
	if err != nil {
		return err
	}
	conf := filepath.Join(s.dir, "client.json")
	s.pid, s.stop, err = s.b.spawn("casemate", []string{
		s.b.cfg.casemate, "up", "--data-dir", filepath.Join(s.dir, "data"),
		"--gateway", "127.0.0.1:" + strconv.Itoa(gw), "--control", "127.0.0.1:" + strconv.Itoa(ctl), "--objects", "off",
	}, "CASEMATE_CONFIG="+conf, "NO_COLOR=1")
	if err != nil {
		return err
	}
	s.gateway = fmt.Sprintf("https://127.0.0.1:%d", gw)
	control := fmt.Sprintf("https://127.0.0.1:%d", ctl)
	wait, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	err = poll(wait, 20*time.Millisecond, func() error {
		if err := s.connect(conf, control); err != nil {
			return err
		}
		st, err := s.client.Status(wait)
		if err == nil && (!st.Healthy || st.State != "ready") {
			err = fmt.Errorf("the node is %s", st.State)
		}
		return err
	})
	if err == nil && s.keyFile == "" {
		err = s.makeKey(ctx)
	}
	if err != nil {
		s.stop()
		return fmt.Errorf("waiting for the node: %v", err)
	}
	return nil
}

// connect makes a client from what the node wrote for its own.
func (s *site) connect(conf, control string) error {
	f, err := os.ReadFile(conf)
	if err != nil {
		return err
	}
	var c struct {
		Contexts []struct {
			ControlURL string `json:"controlUrl"`
			CA         string `json:"ca"`
			Key        string `json:"key"`
		} `json:"contexts"`
	}
	if err := json.Unmarshal(f, &c); err != nil {
		return fmt.Errorf("reading the client's configuration: %v", err)
	}
	for _, x := range c.Contexts {
		if x.ControlURL != control {
			continue
		}
		s.pool = x509.NewCertPool()
		s.pool.AppendCertsFromPEM([]byte(x.CA))
		s.client, err = api.NewClient(api.Options{URL: control, CA: []byte(x.CA), Key: x.Key})
		return err
	}
	return errors.New("the client's configuration does not name the node yet")
}

func (s *site) makeKey(ctx context.Context) error {
	key, err := s.client.CreateKey(ctx, api.CreateKey{Name: "bench", Scopes: []string{"invoke:*/*"}})
	if err != nil {
		return err
	}
	s.keyFile = filepath.Join(s.dir, "key")
	return os.WriteFile(s.keyFile, []byte(key.Secret+"\n"), 0o600)
}

// deploy deploys functions to a namespace, in one step.
func (s *site) deploy(ctx context.Context, namespace string, fns ...built) error {
	var specs []api.FunctionSpec
	for _, f := range fns {
		digest := string(function.DigestOf(f.code))
		if there, err := s.client.HasArtifact(ctx, digest); err != nil {
			return err
		} else if !there {
			if err := s.client.PutArtifact(ctx, digest, int64(len(f.code)), bytes.NewReader(f.code)); err != nil {
				return err
			}
		}
		specs = append(specs, api.FunctionSpec{Name: f.name, Artifact: digest, Config: f.config})
	}
	plan, err := s.client.Plan(ctx, namespace, api.PlanRequest{Functions: specs})
	if err != nil {
		return err
	}
	_, err = s.client.Apply(ctx, namespace, api.ApplyRequest{Plan: *plan, Functions: specs})
	return err
}

// target is a function's route, which answers hello.
func (s *site) target(namespace string, f built) *target {
	path := f.config.HTTP[0].Path
	if namespace != manifest.DefaultNamespace {
		path = "/~" + namespace + path
	}
	return &target{Name: "casemate", URL: s.gateway + path, KeyFile: s.keyFile, PID: s.pid, stop: s.stop}
}

// sandboxes waits until the node has that many processes kept ready for a namespace
// to come, and no others when alone is set. It asks every so often: answering is work.
func (s *site) sandboxes(ctx context.Context, every time.Duration, warm int, alone bool) error {
	return poll(ctx, every, func() error {
		st, err := s.client.Status(ctx)
		if err != nil {
			return err
		}
		if st.Sandbox.Warm < warm || alone && st.Sandbox.Processes != st.Sandbox.Warm {
			return fmt.Errorf("the node has %d sandbox processes, %d of them ready for use", st.Sandbox.Processes, st.Sandbox.Warm)
		}
		return nil
	})
}

// node starts a node with one of the functions that casemate.yaml describes.
func (b *bench) node(ctx context.Context, fn string) (*target, error) {
	f, err := b.build(ctx, fn)
	if err != nil {
		return nil, err
	}
	s, err := b.site(ctx)
	if err != nil {
		return nil, err
	}
	if err := s.deploy(ctx, manifest.DefaultNamespace, f); err != nil {
		s.stop()
		return nil, err
	}
	t := s.target(manifest.DefaultNamespace, f)
	if err := errors.Join(b.await(ctx, t, s.pool), s.quiet(ctx)); err != nil {
		s.stop()
		return nil, err
	}
	return t, nil
}

// quiet waits until the node has done what it does by itself after a start, such as
// compiling the engine for scripts, which would be measured as well otherwise.
func (s *site) quiet(ctx context.Context) error {
	const (
		window = 500 * time.Millisecond
		least  = 3 // windows in a row in which next to nothing was done
	)
	wait, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	last, err := treeCPU(s.pid)
	if err != nil {
		return err
	}
	for calm := 0; calm < least; {
		if err := pause(wait, window); err != nil {
			return fmt.Errorf("waiting until the node rests: %v", err)
		}
		now, err := treeCPU(s.pid)
		if err != nil {
			return err
		}
		calm++
		if now-last > window/20 || now < last { // less than before: a process ended
			calm = 0
		}
		last = now
	}
	return nil
}

// build compiles a function of functions/casemate.yaml as the client does, once.
func (b *bench) build(ctx context.Context, name string) (built, error) {
	if f, ok := b.functions[name]; ok {
		return f, nil
	}
	m, err := manifest.Load(filepath.Join("functions", "casemate.yaml"))
	if err != nil {
		return built{}, err
	}
	i := slices.IndexFunc(m.Functions, func(f manifest.Function) bool { return f.Name == name })
	if i < 0 {
		return built{}, fmt.Errorf("functions/casemate.yaml describes no %s", name)
	}
	f := m.Functions[i]
	source := filepath.FromSlash(f.Source)
	if native := function.Runtime(f.Config.Runtime).Native(); !native { // of native ones, the build installs what they need
		if err := npmInstall(ctx, filepath.Join("functions", source)); err != nil {
			return built{}, err
		}
	}
	art, err := build.Build(ctx, build.Request{
		Name: f.Name, Dir: "functions", Source: source, Runtime: f.Config.Runtime, Entry: f.Config.Entry,
		Handler: f.Config.Handler, Command: f.Config.Command,
	})
	if err != nil {
		return built{}, fmt.Errorf("building %s: %v", name, err)
	}
	if b.functions == nil {
		b.functions = map[string]built{}
	}
	b.functions[name] = built{name, f.Config, art.Bytes}
	return b.functions[name], nil
}

// variant is the same function with other bytes, under another name and route: a
// module gets a custom section (WebAssembly core 1.0, section 5.5.3), a script a comment.
func (f built) variant(i int) built {
	v := built{name: fmt.Sprintf("%s-%d", f.name, i), config: f.config}
	v.config.HTTP = slices.Clone(f.config.HTTP)
	v.config.HTTP[0].Path = fmt.Sprintf("%s-%d", f.config.HTTP[0].Path, i)
	if script(f.config.Runtime) {
		v.code = fmt.Appendf(slices.Clone(f.code), "\n// variant %d\n", i)
		return v
	}
	name := fmt.Sprintf("variant-%05d", i)
	v.code = append(slices.Clone(f.code), 0, byte(1+len(name)), byte(len(name)))
	v.code = append(v.code, name...)
	return v
}

func script(runtime string) bool { return runtime == build.JavaScript || runtime == build.TypeScript }

// poll calls f, now and then, until it succeeds, and gives its last error when ctx
// ends first.
func poll(ctx context.Context, every time.Duration, f func() error) error {
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		err := f()
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return errors.Join(err, ctx.Err())
		case <-tick.C:
		}
	}
}

// pause lets d pass, for what happens by itself and tells nobody.
func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d):
		return nil
	}
}
