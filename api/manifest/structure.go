package manifest

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/santhosh-tekuri/jsonschema/v6"
	broken "github.com/santhosh-tekuri/jsonschema/v6/kind"
)

// structure applies the schema in two steps: what it says of keys and of the
// kinds of values comes first, since the rules in Go know only what could be read.
// The function that it returns reports the rest, as far as those rules did not.
func (p *parse) structure(root *node) (rest func()) {
	var invalid *jsonschema.ValidationError
	if !errors.As(compiled().validator.Validate(root.plain()), &invalid) {
		return func() {}
	}
	var others []func()
	p.leaves(root, invalid, &others)
	return func() {
		for _, report := range others {
			report()
		}
	}
}

func (p *parse) leaves(root *node, e *jsonschema.ValidationError, others *[]func()) {
	if _, ok := e.ErrorKind.(*broken.PropertyNames); !ok && len(e.Causes) > 0 {
		for _, c := range e.Causes {
			p.leaves(root, c, others)
		}
		return
	}
	spot := find(root, e.InstanceLocation)
	switch k := e.ErrorKind.(type) {
	case *broken.AdditionalProperties:
		for _, f := range spot.node.fields { // in the order of the file
			if slices.Contains(k.Properties, f.key) {
				p.add(f.place, spot.below(f.key), f.key, "there is no key "+quote(f.key)+" here", unknownKey(spot.part, f.key))
			}
		}
	case *broken.Type:
		p.wrongKind(spot, k)
	default:
		*others = append(*others, func() { p.other(spot, k) })
	}
}

// other reports what is wrong with a value of the right kind.
func (p *parse) other(s spot, k jsonschema.ErrorKind) {
	switch k := k.(type) {
	case *broken.Required:
		for _, missing := range k.Missing {
			if !p.reportedWithin(s.below(missing)) {
				p.add(s.key, s.below(missing), "", missing+" is missing", "add "+missing+": "+example(missing))
			}
		}
	case *broken.PropertyNames:
		for _, f := range s.node.fields {
			if f.key == k.Property && !p.reportedAt(f.place) {
				p.add(f.place, s.below(f.key), f.key, quote(f.key)+" cannot be a name here", "use letters, digits and hyphens (in variables: _), a letter first")
			}
		}
	default:
		if !p.reportedWithin(s.name) {
			message, remedy := generic(k)
			p.add(s.value, s.name, "", message, remedy)
		}
	}
}

// spot is a place in the tree as the schema names it.
type spot struct {
	node  *node
	part  *part
	name  string // as fields are named in issues
	key   place  // of the key that leads here
	value place
}

func (s spot) below(key string) string {
	return strings.TrimPrefix(s.name+"."+shown(key), ".")
}

func find(root *node, location []string) spot {
	s := spot{node: root, part: compiled().root, key: root.place, value: root.place}
	for _, segment := range location {
		inArray := s.node.kind == array
		s.part = s.part.child(segment, inArray)
		if i, err := strconv.Atoi(segment); inArray && err == nil && i < len(s.node.items) {
			s.node = s.node.items[i]
			s.name += "[" + segment + "]"
			s.key, s.value = s.node.place, s.node.place
			continue
		}
		f := s.node.get(segment)
		if f == nil {
			return s
		}
		s.name, s.node, s.key, s.value = s.below(segment), f.value, f.place, f.value.place
		if strings.Contains(s.name, ".environment.") {
			s.value = f.place // the line of a value is never shown
		}
	}
	return s
}

func (p *parse) reportedAt(at place) bool {
	for _, i := range p.issues {
		if i.Line == at.line && i.Column == at.column {
			return true
		}
	}
	return false
}

func (p *parse) reportedWithin(name string) bool {
	for _, i := range p.issues {
		if i.Field == name || strings.HasPrefix(i.Field, name+".") || strings.HasPrefix(i.Field, name+"[") {
			return true
		}
	}
	return false
}

func (p *parse) wrongKind(s spot, k *broken.Type) {
	if s.node.kind == null {
		p.unread = append(p.unread, s.name)
		p.add(s.key, s.name, "", "there is no value", "write one behind the colon, or take the key away")
		return
	}
	want := k.Want[0]
	if len(k.Want) > 1 {
		want = "size"
	}
	if quantity := want == "size" || s.part != nil && s.part.Pattern == durationForm; quantity && (s.node.kind == integer || s.node.kind == number) {
		return // the conversion explains numbers better
	}
	p.unread = append(p.unread, s.name)
	shown, remedy := s.node.value, map[string]string{
		"object":  "write fields below it, indented, each as key: value",
		"array":   "write a list, as in [a, b]",
		"string":  "write text",
		"integer": "write a whole number, without quotes",
		"boolean": "write true or false, without quotes",
		"size":    "write a size, as in 128Mi",
	}[want]
	scalar := s.node.kind == integer || s.node.kind == number || s.node.kind == boolean
	switch {
	case strings.Contains(s.name, ".environment."):
		shown = ""
		if scalar {
			remedy = "put the value in quotes"
		}
	case want == "string" && scalar:
		remedy = `put it in quotes: "` + shown + `"`
	case strings.HasSuffix(s.name, ".command"):
		remedy = "write a list, one argument an item, as in command: [./server, --quiet]"
	case strings.HasSuffix(s.name, ".triggers"):
		remedy = `write each below a name of its own, as in triggers: {nightly: {schedule: {cron: "0 2 * * *"}}}`
	case strings.HasSuffix(s.name, ".onFailure"), strings.HasSuffix(s.name, ".onSuccess"):
		remedy = "write a list, as in [{topic: failed}]"
	case strings.HasSuffix(s.name, ".schema") && s.node.kind == object:
		remedy = "put it into a file of JSON, and name that, as in schema: schemas/order.json"
	case strings.HasSuffix(s.name, ".http"):
		remedy = "write a list of routes, as in http: [{method: GET, path: /hello}]"
	}
	p.add(s.value, s.name, shown, "must be "+words(want)+", not "+words(string(s.node.kind)), remedy)
}

func words(kind string) string {
	switch kind {
	case "object":
		return "fields"
	case "array":
		return "a list"
	case "string":
		return "text"
	case "integer":
		return "a whole number"
	case "number":
		return "a number"
	case "boolean":
		return "true or false"
	case "size":
		return "a size"
	default:
		return "nothing"
	}
}

func example(key string) string {
	switch key {
	case "runtime":
		return "one of " + strings.Join(runtimes(), ", ")
	case "method":
		return "GET"
	case "path":
		return "/hello"
	case "origins":
		return `["https://example.com"]`
	case "provider":
		return "standard, github, stripe, slack, hmac, jwt or cloudevents"
	case "topic", "queue", "stream", "bucket", "root", "table":
		return "its name"
	case "topics":
		return "a list of names"
	case "kind":
		return "casemate-connector-KIND is the program's name"
	case "header":
		return "the name of the header that holds the signature"
	case "issuer", "audience", "algorithms":
		return "without it a token of somebody else's would be believed"
	default:
		return "with a name and runtime below it"
	}
}

// listed joins the values that the schema allows.
func listed(values []any) string {
	words := make([]string, len(values))
	for i, v := range values {
		words[i] = fmt.Sprint(v)
	}
	return strings.Join(words, ", ")
}

// generic explains what no rule in Go has explained better. Values are left out.
func generic(k jsonschema.ErrorKind) (message, remedy string) {
	switch k := k.(type) {
	case *broken.MinProperties:
		return "nothing is named here", "name at least one"
	case *broken.MaxProperties:
		return fmt.Sprintf("%d entries are more than the %d allowed", k.Got, k.Want), "take some away"
	case *broken.MinItems:
		return "the list is empty", "name at least one, or take the key away"
	case *broken.MaxItems:
		return fmt.Sprintf("%d entries are more than the %d allowed", k.Got, k.Want), "take some away"
	case *broken.MinLength:
		return "the text is empty", "write one, or take the key away"
	case *broken.MaxLength:
		return fmt.Sprintf("the text is longer than %d characters", k.Want), "shorten it"
	case *broken.Minimum:
		return "the number is less than the " + k.Want.RatString() + " allowed at least", "write a larger one"
	case *broken.Maximum:
		return "the number is more than the " + k.Want.RatString() + " allowed", "write a smaller one"
	case *broken.UniqueItems:
		return "an entry stands in the list twice", "take one of the two away"
	case *broken.Pattern:
		if k.Want == nameForm {
			return "the text cannot be a name", nameRemedy
		}
		return "the value is not in the form that this field has", "see the examples of the field in the JSON Schema of the manifest"
	case *broken.Enum:
		return "the value is not one that can stand here", "write one of " + listed(k.Want)
	default:
		return "the value is not in the form that this field has", "see the examples of the field in the JSON Schema of the manifest"
	}
}
