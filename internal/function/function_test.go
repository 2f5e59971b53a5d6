package function_test

import (
	"encoding/json"
	"regexp"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/casemate-dev/casemate/internal/function"
)

func config() function.Config {
	return function.Config{
		Runtime: function.RuntimeGo, Entry: function.EntryCommand, Isolation: function.IsolationInvocation,
		Limits:      function.Limits{Memory: function.DefaultMemory, Timeout: function.DefaultTimeout, Concurrency: 3},
		Environment: map[string]string{"B": "2", "A": "1"},
		HTTP:        []function.HTTPTrigger{{Method: "GET", Path: "/x", BodyLimit: 1, CORS: &function.CORS{Origins: []string{"https://a"}, MaxAge: time.Second}}},
	}
}

func TestVersionIDChangesWithEverythingThatDecidesBehaviour(t *testing.T) {
	t.Parallel()
	artifact := function.DigestOf([]byte("code"))
	base, err := function.VersionID(artifact, config())
	if err != nil {
		t.Fatal(err)
	}
	if again, _ := function.VersionID(artifact, config()); again != base {
		t.Errorf("the same input gave %s and %s", base, again)
	}
	if other, _ := function.VersionID(function.DigestOf([]byte("other")), config()); other == base {
		t.Error("other code, same id")
	}
	for name, change := range map[string]func(*function.Config){
		"runtime":     func(c *function.Config) { c.Runtime = function.RuntimeC },
		"entry":       func(c *function.Config) { c.Entry = function.EntryHandle },
		"isolation":   func(c *function.Config) { c.Isolation = "instance" },
		"memory":      func(c *function.Config) { c.Limits.Memory++ },
		"timeout":     func(c *function.Config) { c.Limits.Timeout++ },
		"CPU":         func(c *function.Config) { c.Limits.CPU++ },
		"calls":       func(c *function.Config) { c.Limits.Calls++ },
		"output":      func(c *function.Config) { c.Limits.Output++ },
		"log":         func(c *function.Config) { c.Limits.Log++ },
		"concurrency": func(c *function.Config) { c.Limits.Concurrency++ },
		"reserved":    func(c *function.Config) { c.Limits.Reserved++ },
		"environment": func(c *function.Config) { c.Environment["A"] = "3" },
		"public":      func(c *function.Config) { c.HTTP[0].Public = true },
		"path":        func(c *function.Config) { c.HTTP[0].Path = "/y" },
		"CORS":        func(c *function.Config) { c.HTTP[0].CORS.Credentials = true },
	} {
		c := config()
		change(&c)
		if id, _ := function.VersionID(artifact, c); id == base {
			t.Errorf("%s does not change the id", name)
		}
	}
}

// TestVersionIDIsPinned fails when the encoding changes by accident: ids that
// are stored must be recomputable for ever.
func TestVersionIDIsPinned(t *testing.T) {
	t.Parallel()
	id, err := function.VersionID(function.DigestOf([]byte("code")), config())
	if err != nil {
		t.Fatal(err)
	}
	const want = "sha256:c851aafb7974e9b51e202a9772519739c7b632b149086bde86f228ac27e7a99c"
	if string(id) != want {
		t.Errorf("got %s, want %s", id, want)
	}
}

func TestVersionIDSurvivesStorage(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		c := config()
		c.Environment = rapid.MapOf(rapid.String(), rapid.String()).Draw(t, "environment")
		c.Limits.Memory = rapid.Int64().Draw(t, "memory")
		c.Limits.CPU = time.Duration(rapid.Int64().Draw(t, "cpu"))
		c.Limits.Calls = rapid.Int64().Draw(t, "calls")
		before, err := function.VersionID("sha256:x", c)
		if err != nil {
			t.Fatal(err)
		}
		b, err := json.Marshal(c)
		if err != nil {
			t.Fatal(err)
		}
		var back function.Config
		if err := json.Unmarshal(b, &back); err != nil {
			t.Fatal(err)
		}
		after, err := function.VersionID("sha256:x", back)
		if err != nil {
			t.Fatal(err)
		}
		if before != after {
			t.Fatalf("the id changed on the way through JSON: %s", b)
		}
	})
}

// A version that was stored before there were these limits is still bounded by them.
func TestLimitsHoldWhereAnOldVersionIsSilent(t *testing.T) {
	t.Parallel()
	var silent function.Limits
	if silent.ComputeTime() != function.DefaultCPU || silent.HostCalls() != function.DefaultCalls {
		t.Errorf("got %v and %d calls", silent.ComputeTime(), silent.HostCalls())
	}
	said := function.Limits{CPU: 5 * time.Millisecond, Calls: 7}
	if said.ComputeTime() != 5*time.Millisecond || said.HostCalls() != 7 {
		t.Errorf("got %v and %d calls", said.ComputeTime(), said.HostCalls())
	}
}

func TestScriptsAreTheOnesWithoutAModule(t *testing.T) {
	t.Parallel()
	for runtime, want := range map[function.Runtime]bool{
		function.RuntimeJavaScript: true, function.RuntimeTypeScript: true,
		function.RuntimeWasm: false, function.RuntimeAssemblyScript: false, function.RuntimeGo: false, "": false,
	} {
		if runtime.Script() != want {
			t.Errorf("%q: Script() is %v", runtime, !want)
		}
	}
}

// TestNamesAreLabels holds ValidName to the form that the manifest's schema gives, over
// all short texts of characters from every class and over long ones.
func TestNamesAreLabels(t *testing.T) {
	t.Parallel()
	form := regexp.MustCompile(`^[a-z]([a-z0-9-]{0,61}[a-z0-9])?$`)
	check := func(name string) {
		if want := form.MatchString(name); function.ValidName(name) != want {
			t.Errorf("ValidName(%q) is %v", name, !want)
		}
	}
	const classes = "az09-AZ_.`{/: \n\x00\x7f\x80é"
	for i := range len(classes) {
		for j := range len(classes) {
			for k := range len(classes) {
				check(string([]byte{classes[i], classes[j], classes[k]}))
				check("a" + string([]byte{classes[i], classes[j], classes[k]}) + "9")
			}
		}
	}
	for n := range 70 {
		check(strings.Repeat("a", n))
		check(strings.Repeat("a", n) + "-")
		check(strings.Repeat("a", n) + "\n")
	}
}

func TestNamesAndDigests(t *testing.T) {
	t.Parallel()
	for name, want := range map[string]bool{
		"a": true, "hello-world2": true, "": false, "A": false, "-a": false, "a-": false, "1a": false, "a.b": false,
		"a/b": false, "..": false, "a_b": false, "é": false,
		"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa":  true,
		"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa": false,
	} {
		if function.ValidName(name) != want {
			t.Errorf("ValidName(%q) is %v", name, !want)
		}
	}
	d := function.DigestOf(nil)
	if p, err := function.ParseDigest(string(d)); err != nil || p != d || len(d.Short()) != 12 {
		t.Errorf("%s: %v", d, err)
	}
	for _, bad := range []string{"", "sha256:", "sha256:ABC", string(d) + "0", "md5:" + d.Hex(), string(d) + "\n"} {
		if _, err := function.ParseDigest(bad); err == nil {
			t.Errorf("ParseDigest(%q) passed", bad)
		}
	}
}
