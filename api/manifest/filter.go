package manifest

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// filterKey is the setting that triggers of every kind have.
const filterKey = "filter"

// Bounds on a filter. A node has the same ones.
const (
	maxFilterDepth = 8   // of all, any and not within each other
	maxFilterParts = 100 // filters in all, an attribute of exact, prefix or suffix being one
	maxFilterSQL   = 2048
	maxAttribute   = 1024
)

func dialects() []string {
	return []string{"exact", "prefix", "suffix", "all", "any", "not", "sql"}
}

// filterCheck counts the parts of one filter.
type filterCheck struct {
	*check
	parts int
}

// filter checks the form of a filter: the dialects of the CloudEvents Subscriptions API
// 1.0, section 3.2.4.1. What an expression of SQL says, the node reads.
func (c *check) filter(field string, v any) {
	f := &filterCheck{check: c}
	if list, ok := v.([]any); ok {
		f.list(field, list, 0)
		return
	}
	f.one(field, v, 0)
}

func (f *filterCheck) count(field string) bool {
	if f.parts++; f.parts != maxFilterParts+1 {
		return f.parts <= maxFilterParts
	}
	f.add(field, "", fmt.Sprintf("the filter has more than %d parts", maxFilterParts), "make it simpler, or filter in the function")
	return false
}

func (f *filterCheck) list(field string, items []any, depth int) {
	for i, item := range items {
		f.one(fmt.Sprintf("%s[%d]", field, i), item, depth)
	}
}

func (f *filterCheck) one(field string, v any, depth int) {
	if !f.count(field) {
		return
	}
	if depth > maxFilterDepth {
		f.add(field, "", fmt.Sprintf("the filter is nested deeper than %d", maxFilterDepth), "make it simpler, or use sql")
		return
	}
	fields, ok := v.(map[string]any)
	if !ok || len(fields) != 1 {
		f.add(field, "", "a filter has one of "+strings.Join(dialects(), ", "), "write one, as in {exact: {type: order.created}}; a list of filters must all match")
		return
	}
	for dialect, value := range fields {
		f.dialect(field+"."+dialect, dialect, value, depth)
	}
}

func (f *filterCheck) dialect(field, dialect string, v any, depth int) {
	switch dialect {
	case "exact", "prefix", "suffix":
		f.attributes(field, v)
	case "all", "any":
		items, ok := v.([]any)
		if !ok || len(items) == 0 {
			f.add(field, "", dialect+" must be a list of filters", "write them as in "+dialect+": [{exact: {type: order.created}}]")
			return
		}
		f.list(field, items, depth+1)
	case "not":
		f.one(field, v, depth+1)
	case "sql":
		if s, ok := v.(string); !ok || s == "" || len(s) > maxFilterSQL {
			f.add(field, "", fmt.Sprintf("sql must be an expression of 1 to %d bytes", maxFilterSQL), `write CloudEvents SQL, as in sql: "subject LIKE 'eu/%'"`)
		}
	default:
		remedy := "write one of " + strings.Join(dialects(), ", ")
		if guess := nearest(dialect, dialects()); guess != "" {
			remedy = "write " + guess
		}
		f.add(field, dialect, "there is no filter "+quote(dialect), remedy)
	}
}

func (f *filterCheck) attributes(field string, v any) {
	fields, ok := v.(map[string]any)
	if !ok || len(fields) == 0 {
		f.add(field, "", "nothing says which attribute is compared", "name it, as in {type: order.created}")
		return
	}
	for _, name := range slices.Sorted(maps.Keys(fields)) {
		if !f.count(field) {
			return
		}
		at := field + "." + name
		if name == "" || len(name) > 20 || name == "data" || strings.Trim(name, "abcdefghijklmnopqrstuvwxyz0123456789") != "" {
			f.add(at, name, quote(name)+" cannot name an attribute", "use 1 to 20 lower-case letters and digits, such as type or subject; data cannot be compared")
			continue
		}
		if s, ok := fields[name].(string); !ok || s == "" || len(s) > maxAttribute {
			f.add(at, "", fmt.Sprintf("an attribute is compared with text of 1 to %d bytes", maxAttribute), `put it in quotes: "7"`)
		}
	}
}
