package build

import (
	"fmt"
	"io"
	"path"
	"regexp"
	"slices"
	"strings"
	"unicode/utf8"

	esbuild "github.com/evanw/esbuild/pkg/api"
)

// maxBundleMessages bounds what is shown of one build: the first errors are those
// that matter.
const maxBundleMessages = 20

// maxSnippet bounds the part of a source line that is shown, in bytes: a line of a
// minified package is the whole package.
const maxSnippet = 160

// The two messages of the bundler that say too little, or say what to do with a
// bundler's options, which nobody here sets.
var (
	unresolved = regexp.MustCompile(`^Could not resolve "([^"]+)"`)
	noLoader   = regexp.MustCompile(`^No loader is configured for "([^"]*)" files: (.*)$`)
)

// explainMessage says what an error means here.
func explainMessage(m esbuild.Message) esbuild.Message {
	if found := unresolved.FindStringSubmatch(m.Text); found != nil {
		name := found[1]
		switch {
		case ofNode(name):
			m.Text = fmt.Sprintf("%q is a module of Node.js, which this runtime does not have: Node.js code runs in the native tier", name)
			m.Notes = notes("here are the interfaces of the web: fetch, Request, Response, URL, crypto.subtle, TextEncoder, streams")
		case !strings.HasPrefix(name, ".") && !strings.HasPrefix(name, "/"):
			m.Notes = notes(fmt.Sprintf("if it is a package, install it with `npm install %s` and keep package-lock.json; a file of yours begins with ./", packageOf(name)))
		}
		return m
	}
	if found := noLoader.FindStringSubmatch(m.Text); found != nil {
		m.Text = fmt.Sprintf("%s cannot be imported: JSON can, and text (.txt, .md, .html, .css, .svg, .sql, .csv, .graphql)", found[2])
		if found[1] == ".wasm" {
			m.Notes = notes("a WebAssembly module is a function of its own: runtime: wasm")
		}
	}
	return m
}

func notes(text string) []esbuild.Note { return []esbuild.Note{{Text: text}} }

// ofNode reports whether an import means a module that Node.js has built in.
func ofNode(name string) bool {
	bare, prefixed := strings.CutPrefix(name, "node:")
	if prefixed {
		return true
	}
	first, _, _ := strings.Cut(bare, "/")
	return slices.Contains([]string{
		"assert", "async_hooks", "buffer", "child_process", "cluster", "console", "constants", "crypto", "dgram", "diagnostics_channel",
		"dns", "domain", "events", "fs", "http", "http2", "https", "inspector", "module", "net", "os", "path", "perf_hooks", "process",
		"punycode", "querystring", "readline", "repl", "stream", "string_decoder", "sys", "timers", "tls", "trace_events", "tty", "url",
		"util", "v8", "vm", "wasi", "worker_threads", "zlib",
	}, first)
}

// packageOf is the name to install for an import: @scope/name, or name.
func packageOf(name string) string {
	parts := strings.SplitN(name, "/", 3)
	if strings.HasPrefix(name, "@") && len(parts) > 1 {
		return path.Join(parts[0], parts[1])
	}
	return parts[0]
}

// writeMessage writes one message as compilers do: file:line:column, what is wrong,
// and the line with the place marked.
func writeMessage(w io.Writer, kind string, m esbuild.Message) {
	var b strings.Builder
	writePlace(&b, m.Location)
	fmt.Fprintf(&b, "%s: %s\n", kind, m.Text)
	writeSnippet(&b, m.Location)
	for _, n := range m.Notes {
		if n.Text == "" {
			continue
		}
		writePlace(&b, n.Location)
		fmt.Fprintf(&b, "note: %s\n", n.Text)
		writeSnippet(&b, n.Location)
	}
	_, _ = io.WriteString(w, b.String()) // the output is a buffer or a terminal; a failed build says so besides
}

func writePlace(b *strings.Builder, l *esbuild.Location) {
	if l != nil {
		fmt.Fprintf(b, "%s:%d:%d: ", l.File, l.Line, l.Column+1)
	}
}

// writeSnippet shows the line of a place, or of a long one the part around it.
func writeSnippet(b *strings.Builder, l *esbuild.Location) {
	if l == nil || l.LineText == "" {
		return
	}
	column := min(l.Column, len(l.LineText))
	start := 0
	if column > maxSnippet/2 {
		start = column - maxSnippet/2
	}
	end := min(len(l.LineText), start+maxSnippet)
	if start > 0 || end < len(l.LineText) { // cut between characters
		for start < column && !utf8.RuneStart(l.LineText[start]) {
			start++
		}
		for end < len(l.LineText) && !utf8.RuneStart(l.LineText[end]) {
			end++
		}
	}
	line := strings.ToValidUTF8(l.LineText[start:end], "\uFFFD")
	marked := l.LineText[column:max(column, min(column+max(l.Length, 1), end))]
	number := fmt.Sprint(l.Line)
	indent := strings.Map(func(r rune) rune {
		if r == '\t' {
			return r
		}
		return ' '
	}, l.LineText[start:column])
	fmt.Fprintf(b, "  %s | %s\n  %*s | %s^%s\n", number, line, len(number), "", indent, strings.Repeat("~", max(0, utf8.RuneCountInString(marked)-1)))
}
