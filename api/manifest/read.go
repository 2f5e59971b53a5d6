package manifest

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"regexp"
	"strings"
	"unicode/utf8"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"
	"github.com/goccy/go-yaml/scanner"
	"github.com/goccy/go-yaml/token"

	"github.com/casemate-dev/casemate/api/problem"
)

const (
	// maxTokens bounds a manifest's parts: the YAML parser's work grows with the
	// square of their number. A hundred full functions take about half of it.
	maxTokens = 20_000
	maxLines  = 20_000
	maxDepth  = 25 // of nesting: ten, and as far as a filter goes
)

// parse is one reading of one manifest.
type parse struct {
	file   string
	folder string // in which schemas are looked for; empty: nowhere
	lines  []string
	issues []Issue
	unread []string // fields whose value is of a wrong kind
}

// kind of a node, in the words of JSON Schema.
type kind string

const (
	object  kind = "object"
	array   kind = "array"
	text    kind = "string"
	integer kind = "integer"
	number  kind = "number"
	boolean kind = "boolean"
	null    kind = "null"
)

// place is a piece of the source.
type place struct{ line, column, length int }

// node is a value in the source. YAML's references and tags have been refused.
type node struct {
	place
	kind   kind
	value  string // of a scalar: text as it reads, anything else as written
	fields []field
	items  []*node
}

// field is one entry of an object.
type field struct {
	place // of the key
	key   string
	value *node
}

func (n *node) get(key string) *field {
	if n == nil {
		return nil
	}
	for i := range n.fields {
		if n.fields[i].key == key {
			return &n.fields[i]
		}
	}
	return nil
}

func (p *parse) add(at place, field, text, message, remedy string) {
	p.issues = append(p.issues, Issue{
		File: p.file, Line: at.line, Column: max(at.column, 1), Length: max(at.length, 1),
		Field: field, Text: shown(text), Code: problem.InvalidManifest, Message: message, Remedy: remedy,
	})
}

// read turns the source into one tree, or gives nil and an issue that says why not.
func (p *parse) read(src []byte) *node {
	if len(src) > MaxSize {
		p.add(place{line: 1}, "", "", "the manifest is larger than 1 MiB", "keep data out of it: a manifest describes functions")
		return nil
	}
	src = bytes.TrimPrefix(src, []byte("\xef\xbb\xbf"))
	src = bytes.ReplaceAll(src, []byte("\r\n"), []byte("\n"))
	p.lines = strings.Split(string(src), "\n")
	if len(p.lines) > maxLines {
		p.add(place{line: maxLines + 1}, "", "", fmt.Sprintf("the manifest has more than %d lines", maxLines), "split it: each folder can have a manifest of its own")
		return nil
	}
	if !p.characters() {
		return nil
	}
	tokens := tokenize(string(src))
	if len(tokens) > maxTokens {
		t := tokens[maxTokens]
		p.add(place{line: t.Position.Line, column: t.Position.Column}, "", "", fmt.Sprintf("the manifest has more than %d parts", maxTokens), "split it: each folder can have a manifest of its own")
		return nil
	}
	for _, t := range tokens { // before the parser, which would expand or nest them
		if !p.allowed(t) {
			return nil
		}
	}
	doc := p.document(tokens)
	if doc == nil {
		return nil
	}
	root := p.node(doc, 0)
	if len(p.issues) > 0 {
		return nil
	}
	return root
}

// tokenize reads little more than maxTokens of the source's parts.
func tokenize(src string) (tokens token.Tokens) {
	var s scanner.Scanner
	s.Init(src)
	for len(tokens) <= maxTokens {
		more, err := s.Scan()
		tokens.Add(more...) // also with an error: a token that says so
		if errors.Is(err, io.EOF) || (err != nil && len(more) == 0) {
			break
		}
	}
	return tokens
}

// characters refuses what cannot be part of a manifest.
func (p *parse) characters() bool {
	for i, line := range p.lines {
		if !utf8.ValidString(line) {
			p.add(place{line: i + 1}, "", "", "the line is not UTF-8", "save the file as UTF-8")
			return false
		}
		for column, r := range []rune(line) {
			if (r < ' ' && r != '\t') || r == 0x7f {
				p.add(place{line: i + 1, column: column + 1}, "", "", fmt.Sprintf("a control character, U+%04X, cannot stand here", r), `take it away, or write it as an escape in double quotes, such as "\u001b"`)
				return false
			}
		}
		if tab := strings.IndexByte(line[:indent(line)], '\t'); tab >= 0 {
			p.add(place{line: i + 1, column: tab + 1}, "", "", "a tab indents this line", "indent with spaces, as YAML asks")
			return false
		}
	}
	return true
}

// allowed refuses the parts of YAML that a manifest does without.
func (p *parse) allowed(t *token.Token) bool {
	at := place{line: t.Position.Line, column: t.Position.Column, length: utf8.RuneCountInString(t.Value)}
	switch t.Type {
	case token.AnchorType:
		p.add(at, "", t.Value, "anchors (&name) are not allowed", "write the value out at each place")
	case token.AliasType:
		p.add(at, "", t.Value, "aliases (*name) are not allowed", "write the value out; if the text begins with *, put it in quotes")
	case token.MergeKeyType:
		p.add(at, "", t.Value, "merge keys (<<) are not allowed", "write the fields out at each place")
	case token.TagType:
		p.add(at, "", t.Value, "tags (!name) are not allowed", "take the tag away; if the text begins with !, put it in quotes")
	case token.DirectiveType:
		p.add(at, "", t.Value, "directives (%NAME) are not allowed", "take the line away")
	case token.MappingKeyType:
		p.add(at, "", t.Value, "a key written with ? is not allowed", "write the key, a colon and the value on one line")
	default:
		return true
	}
	return false
}

// document gives the one document of the file.
func (p *parse) document(tokens token.Tokens) (body ast.Node) {
	defer func() {
		if r := recover(); r != nil { // a fault of the YAML parser must not take the node down
			p.add(place{line: 1}, "", "", "the YAML cannot be read", "simplify the file: one key and value on each line")
			body = nil
		}
	}()
	f, err := parser.Parse(tokens, 0, parser.AllowDuplicateMapKey())
	if err != nil {
		p.syntax(err)
		return nil
	}
	for _, d := range f.Docs {
		switch {
		case d.Body == nil || d.Body.Type() == ast.CommentType:
		case body != nil:
			at := place{line: 1}
			if t := d.Body.GetToken(); t != nil {
				at.line = t.Position.Line
			}
			if d.Start != nil {
				at = place{line: d.Start.Position.Line, column: d.Start.Position.Column, length: 3}
			}
			p.add(at, "", "---", "a second document begins here", "keep one document in a file: take the --- away, or move the rest to a file of its own")
			return nil
		default:
			body = d.Body
		}
	}
	if body == nil {
		p.add(place{line: 1}, "", "", "the manifest is empty", "name a function under functions:, or let `casemate init NAME` write one")
	}
	return body
}

// barePath finds a path with a parameter and no quotes, which YAML cannot read
// between braces.
var barePath = regexp.MustCompile(`path:\s+(/[^\s"',{}]*(?:\{[^\s"',{}]*\}[^\s"',{}]*)+)`)

// syntax reports where the YAML parser gave up.
func (p *parse) syntax(err error) {
	at, message := place{line: 1}, "this is not YAML"
	var e yaml.Error
	if errors.As(err, &e) {
		message = "this is not YAML: " + printable(e.GetMessage())
		if t := e.GetToken(); t != nil {
			at = place{line: t.Position.Line, column: t.Position.Column}
		}
	}
	remedy := "look at the indentation, and put text with : # { [ , & * ! % @ in quotes"
	if at.line >= 1 && at.line <= len(p.lines) {
		if bare := barePath.FindStringSubmatch(p.lines[at.line-1]); bare != nil {
			remedy = `put the path in quotes, since it holds braces: path: "` + shown(bare[1]) + `"`
		}
	}
	p.add(at, "", "", message, remedy)
}
