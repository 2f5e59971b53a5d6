package registry

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/casemate-dev/casemate/api/manifest"
	"github.com/casemate-dev/casemate/api/problem"
	"github.com/casemate-dev/casemate/internal/function"
)

// checkTriggers refuses triggers that could not be told apart, or whose name could not
// stand where names stand. What they are set to, the kinds of sources check.
func checkTriggers(triggers []function.Trigger, field string) *problem.Error {
	if len(triggers) > function.MaxTriggers {
		return problem.New(problem.InvalidManifest, "the function has %d triggers and the most is %d", len(triggers), function.MaxTriggers).At(field + ".triggers")
	}
	seen := map[string]bool{}
	for i := range triggers {
		t := &triggers[i]
		if !function.ValidName(t.Name) {
			return problem.New(problem.InvalidManifest, "%.80q cannot name a trigger", t.Name).At(field + ".triggers").
				Fix("Use 1 to 63 lower-case letters, digits and hyphens, beginning with a letter and not ending with a hyphen.")
		}
		at := field + ".triggers." + t.Name
		if seen[t.Name] {
			return problem.New(problem.InvalidManifest, "two triggers are named %s", t.Name).At(at).Fix("Give one of them another name.")
		}
		if t.Kind == "" {
			return problem.New(problem.InvalidManifest, "the trigger %s has no kind", t.Name).At(at)
		}
		seen[t.Name] = true
	}
	return nil
}

// maxSpelled bounds a value in a difference, in bytes. Of a longer one a digest is
// shown, so that a change beyond is one too.
const maxSpelled = 200

func clipped(value string) string {
	if len(value) <= maxSpelled {
		return value
	}
	return strings.ToValidUTF8(value[:maxSpelled/2], "") + "… (" + function.DigestOf([]byte(value)).Short() + ")"
}

// triggerFields spells the triggers out into f. What a trigger does not have, it leaves out.
func triggerFields(f map[string]string, triggers []function.Trigger) {
	for i := range triggers {
		t := &triggers[i]
		at := "triggers." + t.Name
		f[at] = t.Kind
		f[at+".connection"] = t.Connection
		switch {
		case len(t.Schema) > 0:
			f[at+".schema"] = function.DigestOf(t.Schema).Short()
		case t.NoSchema != manifest.PlatformData:
			f[at+".schema"], f[at+".reason"] = "none", strconv.Quote(t.NoSchema)
		}
		for key, value := range manifest.SpellSettings(t.Kind, t.Settings) {
			f[at+"."+key] = clipped(value)
		}
		deliveryFields(f, at+".delivery", &t.Delivery)
	}
}

func deliveryFields(f map[string]string, at string, d *function.Delivery) {
	for key, n := range map[string]int{"concurrency": d.Concurrency, "rate": d.Rate, "attempts": d.Attempts, "backlog": d.Backlog, "batch": d.Batch} {
		if n != 0 {
			f[at+"."+key] = strconv.Itoa(n)
		}
	}
	if d.Ordered {
		f[at+".ordered"] = "true"
	}
	f[at+".maxAge"] = manifest.FormatDuration(d.MaxAge)
	f[at+".backoff"] = manifest.FormatDuration(d.Backoff)
	f[at+".backoffMost"] = manifest.FormatDuration(d.BackoffMost)
	if d.BatchWindow != 0 {
		f[at+".batchWindow"] = manifest.FormatDuration(d.BatchWindow)
	}
	f[at+".onSuccess"] = destinations(d.OnSuccess)
	f[at+".onFailure"] = destinations(d.OnFailure)
	f[at+".reply"] = d.Reply
}

func destinations(ds []function.Destination) string {
	var parts []string
	for _, d := range ds {
		for _, p := range [][2]string{{"function", d.Function}, {"topic", d.Topic}, {"webhook", d.Webhook}} {
			if p[1] != "" {
				parts = append(parts, p[0]+" "+p[1])
			}
		}
	}
	return strings.Join(parts, ", ")
}

// triggerWarnings names what lets more into the function, or more out of the platform,
// than before. from is nil for a function that is new.
func triggerWarnings(warn func(string, ...any), from, to *function.Config) {
	old := map[string]*function.Trigger{}
	if from != nil {
		for i := range from.Triggers {
			old[from.Triggers[i].Name] = &from.Triggers[i]
		}
	}
	for i := range to.Triggers {
		t := &to.Triggers[i]
		was := old[t.Name]
		webhookWarnings(warn, was, t)
		if from != nil {
			for _, name := range webhooksOf(t) {
				if was == nil || !slices.Contains(webhooksOf(was), name) {
					warn("trigger %s sends the outcome of its events to the webhook %s, out of the platform", t.Name, name)
				}
			}
		}
		if was == nil {
			continue
		}
		if origin(was) != origin(t) {
			warn("trigger %s takes events from %s, where they came from %s", t.Name, origin(t), origin(was))
		}
		if len(was.Schema) > 0 && len(t.Schema) == 0 {
			warn("trigger %s has no schema any more: the function gets data of any form", t.Name)
		}
		if filterOf(was) != "" && filterOf(t) == "" {
			warn("trigger %s has no filter any more: the function gets every event", t.Name)
		}
	}
}

// webhookWarnings names paths that strangers come to reach, and signatures that come to
// say less.
func webhookWarnings(warn func(string, ...any), was, t *function.Trigger) {
	route, ok := t.Route()
	if !ok {
		return
	}
	before, existed := function.HTTPTrigger{}, false
	if was != nil {
		before, existed = was.Route()
	}
	if !existed || before.Path != route.Path {
		warn("webhook %s: anybody who reaches the gateway can send to %s; signatures are checked with the connection %s, and nothing else is", t.Name, route.Path, t.Connection)
	}
	now, then := manifest.SpellSettings(t.Kind, t.Settings), map[string]string{}
	if existed {
		then = manifest.SpellSettings(was.Kind, was.Settings)
		if now, then := signed(now), signed(then); now != then {
			warn("webhook %s takes requests signed in the way of %s, where it was %s", t.Name, now, then)
		}
	}
	const body = "webhook.jwt.body"
	if now[body] == "unsigned" && then[body] != "unsigned" {
		warn("webhook %s: no signature covers what is sent; whoever sees one token can send anything with it until it expires", t.Name)
	}
}

// signed says how requests are signed.
func signed(s map[string]string) string {
	if auth := s["webhook.cloudevents.auth"]; auth != "" {
		return fmt.Sprintf("%s (%s)", s["webhook.provider"], auth)
	}
	return s["webhook.provider"]
}

// origin says where a trigger's events come from.
func origin(t *function.Trigger) string {
	if t.Connection == "" {
		return t.Kind
	}
	return t.Kind + " (connection " + t.Connection + ")"
}

// filterOf gives the filter, or "" when every event passes.
func filterOf(t *function.Trigger) string {
	for key, value := range manifest.SpellSettings(t.Kind, t.Settings) {
		if _, setting, _ := strings.Cut(key, "."); setting == "filter" && value != "[]" && value != "null" {
			return value
		}
	}
	return ""
}

// webhooksOf names the webhooks that are sent to.
func webhooksOf(t *function.Trigger) []string {
	var names []string
	for _, list := range [][]function.Destination{t.Delivery.OnSuccess, t.Delivery.OnFailure} {
		for _, d := range list {
			if d.Webhook != "" && !slices.Contains(names, d.Webhook) {
				names = append(names, d.Webhook)
			}
		}
	}
	return names
}
