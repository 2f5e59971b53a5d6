package node

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/casemate-dev/casemate/api"
	"github.com/casemate-dev/casemate/api/problem"
	"github.com/casemate-dev/casemate/internal/sandbox"
)

// deploying is a node and what it takes to put triggers in force under several keys.
type deploying struct {
	*storing
	artifact string
}

// newDeploying starts the node; answer is that of every function, or empty.
func newDeploying(t *testing.T, answer sandbox.Result) *deploying {
	t.Helper()
	d := &deploying{storing: &storing{t: t, dir: t.TempDir(), calls: make(chan *sandbox.Invocation, 100), answer: answer}}
	d.start("")
	code := []byte("\x00asm\x01\x00\x00\x00")
	d.artifact = fmt.Sprintf("sha256:%x", sha256.Sum256(code))
	if err := d.client.PutArtifact(t.Context(), d.artifact, int64(len(code)), bytes.NewReader(code)); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(d.dir, "hook.key")
	if err := os.WriteFile(file, []byte("a-token-that-nobody-would-guess"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := d.client.PutConnection(t.Context(), "default", "hook", api.PutConnection{Kind: "webhook", Files: map[string]string{"key": file}}); err != nil {
		t.Fatal(err)
	}
	return d
}

// under is a client with a key of these scopes.
func (d *deploying) under(scopes ...string) *api.Client {
	d.t.Helper()
	c, err := api.NewClient(api.Options{URL: d.ready.ControlURL, CA: d.ready.CA, Key: d.key("", scopes...).Secret})
	if err != nil {
		d.t.Fatal(err)
	}
	return c
}

// put deploys the function cx, with what is new in it said by word, and gives its version.
func (d *deploying) put(c *api.Client, word string, triggers ...api.Trigger) (string, error) {
	d.t.Helper()
	specs := []api.FunctionSpec{{Name: "cx", Artifact: d.artifact, Config: api.FunctionConfig{Runtime: "wasm", Environment: map[string]string{"WORD": word}, Triggers: triggers}}}
	plan, err := c.Plan(d.t.Context(), "default", api.PlanRequest{Functions: specs})
	if err != nil {
		// Who does not plan is refused as well.
		_, direct := c.Apply(d.t.Context(), "default", api.ApplyRequest{Plan: api.Plan{Namespace: "default", Alias: "live"}, Functions: specs})
		if direct == nil || direct.Error() != err.Error() {
			d.t.Errorf("planning is refused with %v, applying with %v", err, direct)
		}
		return "", err
	}
	done, err := c.Apply(d.t.Context(), "default", api.ApplyRequest{Plan: *plan, Functions: specs})
	if err != nil {
		return "", err
	}
	return done.Functions[0].Version, nil
}

func having(kind, settings string, to api.Delivery) api.Trigger {
	return api.Trigger{Name: "in", Kind: kind, Settings: json.RawMessage(settings), NoSchema: "a test's", Delivery: to}
}

// TestAttackTriggersDoNoMoreThanTheirDeployerMay has a key deploy triggers that have the
// node do what the key may not do itself.
func TestAttackTriggersDoNoMoreThanTheirDeployerMay(t *testing.T) {
	t.Parallel()
	d := newDeploying(t, sandbox.Result{})
	const deploys = "deploy:default/cx"
	every := `{"every":"1m"}`
	to := func(x api.Destination) []api.Destination { return []api.Destination{x} }
	for name, c := range map[string]struct {
		trigger api.Trigger
		field   string   // that is named
		wants   string   // the scope that is named
		other   []string // scopes that look like enough
		enough  []string // each of which is
	}{
		"a function is told of success": {
			having("schedule", every, api.Delivery{OnSuccess: to(api.Destination{Function: "echo"})}),
			"delivery.onSuccess[0].function", "invoke:default/echo",
			[]string{"invoke:default/cx", "invoke:shop/*", "read:default/*", "publish:default/echo", "connect:default/echo"},
			[]string{"invoke:default/echo", "invoke:*/*", "deploy:default/echo", "deploy:default/*", "admin"},
		},
		"a function is told of failure": {
			having("schedule", every, api.Delivery{OnFailure: to(api.Destination{Function: "echo"})}),
			"delivery.onFailure[0].function", "invoke:default/echo",
			[]string{"invoke:default/cx"},
			[]string{"invoke:default/echo", "deploy:default/*"},
		},
		"a topic is told of success": {
			having("schedule", every, api.Delivery{OnSuccess: to(api.Destination{Topic: "paid"})}),
			"delivery.onSuccess[0].topic", "publish:default/paid",
			[]string{"publish:default/cx", "publish:shop/paid", "deploy:default/*", "invoke:default/*"},
			[]string{"publish:default/paid", "publish:default/*", "admin"},
		},
		"a topic is told of failure": {
			having("schedule", every, api.Delivery{OnFailure: []api.Destination{{Function: "cx"}, {Topic: "paid"}}}),
			"delivery.onFailure[1].topic", "publish:default/paid",
			[]string{"publish:default/cx"},
			[]string{"publish:default/paid"},
		},
		"a topic gets the replies": {
			having("schedule", every, api.Delivery{Reply: "paid"}),
			"delivery.reply", "publish:default/paid",
			[]string{"publish:default/cx", "deploy:default/*", "store:default/paid"},
			[]string{"publish:default/paid", "admin"},
		},
		"a web hook is told": {
			having("schedule", every, api.Delivery{OnSuccess: to(api.Destination{Webhook: "hook"})}),
			"delivery.onSuccess[0].webhook", "connect:default/hook",
			[]string{"publish:default/hook", "deploy:default/*"},
			[]string{"connect:default/hook", "admin"},
		},
		"a bucket is read": {
			having("bucket", `{"bucket":"photos"}`, api.Delivery{}),
			"bucket.bucket", "fetch:default/photos",
			[]string{"fetch:default/cx", "fetch:shop/photos", "read:default/*", "deploy:default/*", "connect:default/photos"},
			[]string{"fetch:default/photos", "store:default/photos", "fetch:*/*", "admin"},
		},
		"keys are read": {
			having("kv", `{"bucket":"flags"}`, api.Delivery{}),
			"kv.bucket", "fetch:default/flags",
			[]string{"fetch:default/photos", "fetch:shop/flags", "read:default/*", "deploy:default/*"},
			[]string{"fetch:default/flags", "store:default/*", "admin"},
		},
		"a topic is read": {
			having("topic", `{"topic":"orders"}`, api.Delivery{}),
			"topic.topic", "deploy:default/*",
			[]string{"read:default/*", "publish:default/orders", "fetch:default/orders", "deploy:shop/*"},
			[]string{"deploy:default/*", "deploy:*/*", "admin"},
		},
	} {
		for i, scope := range append([]string{""}, c.other...) {
			scopes := []string{deploys, scope}
			if scope == "" {
				scopes = scopes[:1]
			}
			_, err := d.put(d.under(scopes...), fmt.Sprint(name, i), c.trigger)
			var p *api.Error
			if !errors.As(err, &p) {
				t.Errorf("%s under %q: %v", name, scopes, err)
				continue
			}
			code := problem.Forbidden
			if strings.HasPrefix(c.wants, "connect:") { // in the same words as one that is not there
				code = problem.InvalidManifest
			}
			if p.Code != code || p.Field != "functions.cx.triggers.in."+c.field || !strings.Contains(p.Detail+p.Remedy, c.wants) {
				t.Errorf("%s under %q: %+v", name, scopes, p)
			}
		}
		for i, scope := range c.enough {
			if _, err := d.put(d.under(deploys, scope), fmt.Sprint(name, "allowed", i), c.trigger); err != nil {
				t.Errorf("%s under %s: %v", name, scope, err)
			}
		}
	}
}

// Nor does who moves an alias, or rolls back, put in force what he could not deploy.
func TestAttackAliasToATriggerThatDoesMore(t *testing.T) {
	t.Parallel()
	d := newDeploying(t, sandbox.Result{})
	mighty, err := d.put(d.client, "mighty", having("bucket", `{"bucket":"photos"}`, api.Delivery{Reply: "paid"}))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := d.put(d.client, "plain"); err != nil {
		t.Fatal(err)
	}
	moves := map[string]func(c *api.Client) error{
		"alias": func(c *api.Client) error {
			_, err := c.SetAlias(t.Context(), "default", "cx", "live", api.SetAlias{Targets: []api.Weight{{Version: mighty, Percent: 100}}})
			return err
		},
		"rollback": func(c *api.Client) error {
			_, err := c.Rollback(t.Context(), "default", "cx", api.Rollback{})
			return err
		},
		"rollback to": func(c *api.Client) error {
			_, err := c.Rollback(t.Context(), "default", "cx", api.Rollback{To: mighty})
			return err
		},
	}
	for name, move := range moves {
		for scope, wants := range map[string]string{"publish:default/paid": "fetch:default/photos", "fetch:default/photos": "publish:default/paid"} {
			var p *api.Error
			if err := move(d.under("deploy:default/*", scope)); !errors.As(err, &p) || p.Code != problem.Forbidden || !strings.Contains(p.Detail, wants) {
				t.Errorf("%s under %s: %v", name, scope, err)
			}
		}
	}
	if err := moves["rollback"](d.under("deploy:default/cx", "publish:default/paid", "fetch:default/photos")); err != nil {
		t.Errorf("with all scopes: %v", err)
	}
	f, err := d.client.Function(t.Context(), "default", "cx")
	if err != nil || f.Live == nil || f.Live.ID != mighty {
		t.Errorf("live is %+v, %v", f, err)
	}
}
