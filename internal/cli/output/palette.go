package output

import (
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"

	"charm.land/lipgloss/v2"
)

// Palette colours text with the sixteen colours of the reader's own theme. The
// zero value leaves text as it is. Its methods make text safe first.
type Palette struct{ on bool }

func (c Palette) render(st lipgloss.Style, s string) string {
	s = Safe(s)
	if !c.on || s == "" {
		return s
	}
	return st.Render(s)
}

func ink(color string) lipgloss.Style { return lipgloss.NewStyle().Foreground(lipgloss.Color(color)) }

// Plain makes text safe and leaves its colour.
func (c Palette) Plain(s string) string { return Safe(s) }

// Bold is for names and what matters most.
func (c Palette) Bold(s string) string { return c.render(lipgloss.NewStyle().Bold(true), s) }

// Dim is for what may be skipped.
func (c Palette) Dim(s string) string { return c.render(ink("8"), s) }

// Good is for success.
func (c Palette) Good(s string) string { return c.render(ink("2"), s) }

// Bad is for failure.
func (c Palette) Bad(s string) string { return c.render(ink("1"), s) }

// Warn is for what deserves a look.
func (c Palette) Warn(s string) string { return c.render(ink("3"), s) }

// Accent is for addresses, commands and ids.
func (c Palette) Accent(s string) string { return c.render(ink("6"), s) }

// Name tells functions apart in a stream, by a colour of their own.
func (c Palette) Name(s string) string {
	colors := [...]string{"6", "5", "4", "2", "3", "14", "13", "12"}
	sum := 0
	for _, b := range []byte(s) {
		sum = sum*31 + int(b)
	}
	return c.render(ink(colors[uint(sum)%uint(len(colors))]), s)
}

// Status colours an HTTP status.
func (c Palette) Status(code int) string {
	s := fmt.Sprint(code)
	switch {
	case code >= 500:
		return c.Bad(s)
	case code >= 400:
		return c.Warn(s)
	default:
		return c.Good(s)
	}
}

// Safe makes control characters visible, save tab and newline: an escape
// sequence within s could otherwise move the cursor, set the window's title or
// the clipboard, or hide text. Direction overrides are made visible too, and
// bytes that are no UTF-8.
func Safe(s string) string {
	clean := true
	for i := 0; i < len(s) && clean; i++ {
		clean = s[i] >= ' ' && s[i] < 0x7f || s[i] == '\n' || s[i] == '\t'
	}
	if clean {
		return s
	}
	var b strings.Builder
	for len(s) > 0 {
		r, n := utf8.DecodeRuneInString(s)
		switch {
		case r == utf8.RuneError && n == 1:
			fmt.Fprintf(&b, `\x%02x`, s[0])
		case r == '\n' || r == '\t':
			b.WriteRune(r)
		case unicode.IsControl(r):
			fmt.Fprintf(&b, `\x%02x`, r)
		case unicode.Is(unicode.Bidi_Control, r):
			fmt.Fprintf(&b, `\u%04x`, r)
		default:
			b.WriteRune(r)
		}
		s = s[n:]
	}
	return b.String()
}
