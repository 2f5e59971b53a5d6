package manifest

import (
	"cmp"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/casemate-dev/casemate/api/problem"
)

// maxIssues bounds how many issues one manifest gives.
const maxIssues = 100

// Issue is one thing wrong with a manifest. Secrets are masked in all of it.
type Issue struct {
	File    string       `json:"file"`
	Line    int          `json:"line"`   // from 1
	Column  int          `json:"column"` // from 1, in characters
	Length  int          `json:"length"` // of the offending text on that line, in characters; at least 1
	Field   string       `json:"field,omitempty"`
	Text    string       `json:"text,omitempty"` // the offending text
	Code    problem.Code `json:"code"`           // invalid_manifest or secret_in_config
	Message string       `json:"message"`
	Remedy  string       `json:"remedy"`
	Source  string       `json:"source,omitempty"` // the line it stands on

	shift int // by which masking moved the place in Source
}

// Issues is everything wrong with a manifest, in order of position. It is the
// error of Parse, and encodes as a JSON array.
type Issues []Issue

// Error prints each issue as a compiler does: the place and what is wrong, the
// line with the place marked, and what to do.
func (is Issues) Error() string {
	var b strings.Builder
	for i, issue := range is {
		if i > 0 {
			b.WriteByte('\n')
		}
		b.WriteString(issue.String())
	}
	return b.String()
}

// JSON is the form for programs: an array of objects.
func (is Issues) JSON() ([]byte, error) { return json.MarshalIndent([]Issue(is), "", "  ") }

// Width of the part of a long line that is shown.
const window = 100

// String prints the issue as Issues.Error does.
func (i Issue) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s:%d:%d: ", i.File, i.Line, i.Column)
	if i.Field != "" {
		b.WriteString(i.Field + ": ")
	}
	b.WriteString(i.Message)
	if i.Source != "" {
		line, at := []rune(i.Source), i.Column-1+i.shift
		if from := at - window/2; len(line) > window && from > 0 {
			from = min(from, len(line)-1)
			line, at = line[from:], at-from
		}
		line = line[:min(len(line), window)]
		at = min(max(at, 0), len(line))
		mark := "^" + strings.Repeat("~", max(0, min(i.Length, len(line)-at)-1))
		fmt.Fprintf(&b, "\n    %s\n    %s%s", string(line), strings.Repeat(" ", at), mark)
	}
	b.WriteString("\n  hint: " + i.Remedy)
	return b.String()
}

// printable makes text safe for a terminal: one column for each character and
// no control sequences.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r == '\t', r == '\n', r == '\r':
			return ' '
		case r == utf8.RuneError || !unicode.IsPrint(r):
			return '·'
		default:
			return r
		}
	}, s)
}

// maxText bounds a quoted piece of input, in characters.
const maxText = 60

func shorten(s string) string {
	if r := []rune(s); len(r) > maxText {
		return string(r[:maxText-1]) + "…"
	}
	return s
}

// maxScanned bounds the text that is searched for secrets, in bytes. It is more
// than is ever shown.
const maxScanned = 8 << 10

// shown prepares a piece of input to be shown: masked before it is cut, since a
// part of a secret does not look like one.
func shown(s string) string {
	if len(s) > maxScanned {
		s = s[:maxScanned]
	}
	return shorten(printable(redact(s)))
}

func quote(s string) string { return `"` + shown(s) + `"` }

// failed gives the issues as an error, sorted and bounded, or nil.
func (p *parse) failed() error {
	if len(p.issues) == 0 {
		return nil
	}
	slices.SortStableFunc(p.issues, func(a, b Issue) int {
		return cmp.Or(cmp.Compare(a.Line, b.Line), cmp.Compare(a.Column, b.Column))
	})
	if n := len(p.issues) - maxIssues; n > 0 {
		p.issues = p.issues[:maxIssues]
		last := &p.issues[maxIssues-1]
		last.Remedy += fmt.Sprintf(" (and %d more issues after this one)", n)
	}
	out := make(Issues, len(p.issues))
	for i, issue := range p.issues {
		issue.Source, issue.shift = p.sourceLine(issue.Line, issue.Column)
		issue.Message, issue.Remedy = redact(issue.Message), redact(issue.Remedy)
		out[i] = issue
	}
	return out
}

// sourceLine is one line of the source, masked and safe to print, and by how much
// masking moved the column.
func (p *parse) sourceLine(n, column int) (line string, shift int) {
	if n < 1 || n > len(p.lines) {
		return "", 0
	}
	line = p.lines[n-1]
	if len(line) > maxScanned {
		return "", 0
	}
	if p.underSecretName(n - 1) {
		return strings.Repeat(" ", indent(line)) + mask, 0
	}
	masked := redact(line)
	if runes := []rune(line); masked != line && column >= 1 && column <= len(runes) {
		before, after := redact(string(runes[:column-1])), redact(string(runes[column-1:]))
		if before+after == masked {
			shift = utf8.RuneCountInString(before) - (column - 1)
		}
	}
	return printable(masked), shift
}

// Bounds of the search for the key that a line belongs to.
const maxLinesUp = 400

// underSecretName reports whether the line continues the value of a key whose
// name says that it is a secret.
func (p *parse) underSecretName(at int) bool {
	least := indent(p.lines[at])
	for i := at - 1; i >= 0 && i > at-maxLinesUp && least > 0; i-- {
		line := p.lines[i]
		if strings.TrimSpace(line) == "" || indent(line) >= least {
			continue
		}
		least = indent(line)
		key, _, ok := strings.Cut(strings.TrimSpace(line), ":")
		if ok && secretName(strings.Trim(key, `"' -`)) {
			return true
		}
	}
	return false
}

func indent(line string) int { return len(line) - len(strings.TrimLeft(line, " \t")) }
