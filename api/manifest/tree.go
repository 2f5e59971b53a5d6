package manifest

import (
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/token"
)

// node converts a value of the YAML parser, refusing duplicate keys, keys that
// are not text, and deep nesting.
func (p *parse) node(n ast.Node, depth int) *node {
	at := placeOf(n.GetToken())
	if depth > maxDepth {
		p.add(at, "", "", "values are nested too deeply here", "a manifest needs ten levels at most, but for filters: look at the indentation and the brackets")
		return &node{place: at, kind: null}
	}
	switch n := n.(type) {
	case *ast.MappingNode:
		out := &node{place: at, kind: object}
		for _, v := range n.Values {
			p.field(out, v, depth)
		}
		if len(out.fields) > 0 && !n.IsFlowStyle {
			out.place = out.fields[0].place
		}
		return out
	case *ast.MappingValueNode:
		out := &node{place: at, kind: object}
		p.field(out, n, depth)
		if len(out.fields) > 0 {
			out.place = out.fields[0].place
		}
		return out
	case *ast.SequenceNode:
		out := &node{place: at, kind: array}
		for _, v := range n.Values {
			out.items = append(out.items, p.node(v, depth+1))
		}
		return out
	case *ast.StringNode:
		return &node{place: at, kind: text, value: n.Value}
	case *ast.LiteralNode:
		return &node{place: placeOf(n.Start), kind: text, value: n.Value.Value}
	case *ast.IntegerNode:
		return &node{place: at, kind: integer, value: n.Token.Value}
	case *ast.FloatNode:
		return &node{place: at, kind: number, value: n.Token.Value}
	case *ast.InfinityNode:
		return &node{place: at, kind: number, value: n.Token.Value}
	case *ast.NanNode:
		return &node{place: at, kind: number, value: n.Token.Value}
	case *ast.BoolNode:
		return &node{place: at, kind: boolean, value: n.Token.Value}
	case *ast.NullNode:
		return &node{place: at, kind: null, value: n.Token.Value}
	default:
		p.add(at, "", "", "this kind of value cannot stand in a manifest", "write plain text, a number, a list or fields")
		return &node{place: at, kind: null}
	}
}

func (p *parse) field(out *node, v *ast.MappingValueNode, depth int) {
	at := placeOf(v.Key.GetToken())
	key, ok := keyText(v.Key)
	if !ok {
		p.add(at, "", "", "a key must be plain text", "write a name, without brackets, before the colon")
		return
	}
	if first := out.get(key); first != nil {
		p.add(at, "", key, "the key "+quote(key)+" stands here a second time", "keep one of the two; the first is on line "+strconv.Itoa(first.line))
		return
	}
	value := p.node(v.Value, depth+1)
	if value.kind == null {
		value.place = at // YAML's absent value has no place of its own
	}
	out.fields = append(out.fields, field{place: at, key: key, value: value})
}

// keyText gives a key as it is written: 1, true and null are names too.
func keyText(n ast.MapKeyNode) (string, bool) {
	switch n := n.(type) {
	case *ast.StringNode:
		return n.Value, true
	case *ast.IntegerNode, *ast.FloatNode, *ast.BoolNode, *ast.NullNode, *ast.InfinityNode, *ast.NanNode:
		return n.GetToken().Value, true
	default:
		return "", false
	}
}

// placeOf measures a token on its first line, with its quotes.
func placeOf(t *token.Token) place {
	if t == nil || t.Position == nil {
		return place{line: 1, column: 1, length: 1}
	}
	written, _, _ := strings.Cut(strings.TrimSpace(t.Origin), "\n")
	return place{line: t.Position.Line, column: t.Position.Column, length: utf8.RuneCountInString(written)}
}

// plain gives the tree as encoding/json would decode it, for the schema.
func (n *node) plain() any {
	switch n.kind {
	case object:
		m := make(map[string]any, len(n.fields))
		for _, f := range n.fields {
			m[f.key] = f.value.plain()
		}
		return m
	case array:
		l := make([]any, 0, len(n.items))
		for _, it := range n.items {
			l = append(l, it.plain())
		}
		return l
	case integer:
		if v, ok := n.integer(); ok {
			return v
		}
		return 0.5 // too large to hold: not an integer to the schema
	case number:
		return 0.5 // the format has no fractions: any will do to say so
	case boolean:
		return n.value == "true" || n.value == "True" || n.value == "TRUE"
	case null:
		return nil
	default:
		return n.value
	}
}

// integer gives a whole number written in decimal. YAML has more forms (0x10,
// 0b1, 0o7, 1_000), which nobody expects in a manifest.
func (n *node) integer() (int64, bool) {
	if n.kind != integer {
		return 0, false
	}
	v, err := strconv.ParseInt(n.value, 10, 64)
	return v, err == nil
}
