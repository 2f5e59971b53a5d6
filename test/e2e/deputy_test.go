package e2e

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// Who deploys a trigger must be allowed what it does: the program says which scope is
// missing, and with it the deployment goes through.
func TestATriggerDoesNoMoreThanWhoDeploysIt(t *testing.T) {
	t.Parallel()
	n := newEventNode(t)
	n.deploy("plain", onWork) // by the administrator
	secret := func(scopes ...string) string {
		t.Helper()
		args := []string{"key", "create", "deployer", "-o", "json"}
		for _, s := range scopes {
			args = append(args, "--scope", s)
		}
		var k struct{ Secret string }
		if err := json.Unmarshal([]byte(n.Run(args...)), &k); err != nil {
			t.Fatal(err)
		}
		return k.Secret
	}
	deploy := func(key string) (string, error) {
		cmd := n.Command(t.Context(), "deploy", filepath.Join(n.Dir, "worker"), "--yes")
		cmd.Env = append(cmd.Env, "CASEMATE_KEY="+key)
		out, err := cmd.CombinedOutput()
		return string(out), err
	}
	scopes := []string{"deploy:default/worker", "read:default/worker"}
	for trigger, missing := range map[string]string{
		"topic: {topic: work}\nschema: none\nreason: r":                                "deploy:default/*",
		"bucket: {bucket: photos}":                                                     "fetch:default/photos",
		"kv: {bucket: flags}\nschema: none\nreason: r":                                 "fetch:default/flags",
		"schedule: {every: 1h}\ndelivery: {reply: finished}":                           "publish:default/finished",
		"schedule: {every: 1h}\ndelivery: {onSuccess: [{topic: finished}]}":            "publish:default/finished",
		"schedule: {every: 1h}\ndelivery: {onFailure: [{function: echo}]}":             "invoke:default/echo",
		"schedule: {every: 1h}\ndelivery: {onSuccess: [{function: worker}]} # its own": "",
	} {
		file := filepath.Join(n.Dir, "worker", "casemate.yaml")
		if err := os.WriteFile(file, []byte("functions:\n  worker:\n    runtime: js\n    source: .\n    triggers:\n      in:\n"+indent(trigger, 8)), 0o600); err != nil {
			t.Fatal(err)
		}
		out, err := deploy(secret(scopes...))
		if missing == "" {
			if err != nil {
				t.Errorf("%s: %v\n%s", trigger, err, out)
			}
			continue
		}
		if err == nil || !strings.Contains(out, missing) || !strings.Contains(out, "functions.worker.triggers.in.") {
			t.Errorf("%s: %v\n%s", trigger, err, out)
		}
		if out, err := deploy(secret(append(scopes, missing)...)); err != nil {
			t.Errorf("%s with %s: %v\n%s", trigger, missing, err, out)
		}
	}
	n.Stop()
}
