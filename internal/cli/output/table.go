package output

import (
	"strings"

	"charm.land/lipgloss/v2"
)

// Cell is a text and its colour; a nil Style leaves it plain.
type Cell struct {
	Text  string
	Style func(string) string
}

// Table lines columns up. The column Flex is shortened when the terminal is too
// narrow; a pipe gets everything.
type Table struct {
	head []string
	rows [][]Cell
	Flex int
}

const gap = "  "

// NewTable starts a table. Without a head, nothing is printed above the rows.
func NewTable(head ...string) *Table { return &Table{head: head, Flex: -1} }

// Row adds a row of plain strings and Cells.
func (t *Table) Row(cells ...any) {
	row := make([]Cell, len(cells))
	for i, c := range cells {
		switch c := c.(type) {
		case Cell:
			row[i] = c
		case string:
			row[i] = Cell{Text: c}
		}
		row[i].Text = strings.ReplaceAll(Safe(row[i].Text), "\n", " ")
	}
	t.rows = append(t.rows, row)
}

// Table writes t among the results.
func (p *Printer) Table(t *Table) error { return p.Printf("%s", p.layout(t, "")) }

// Indented writes t two cells in.
func (p *Printer) Indented(t *Table) error { return p.Printf("%s", p.layout(t, gap)) }

func (p *Printer) layout(t *Table, indent string) string {
	widths := t.widths()
	if total := len(indent) + sum(widths) + len(gap)*(len(widths)-1); p.Pretty() && total > p.Width() && t.Flex >= 0 && t.Flex < len(widths) {
		widths[t.Flex] = max(8, widths[t.Flex]-(total-p.Width()))
	}
	var b strings.Builder
	line := func(cells []Cell) {
		var l strings.Builder
		l.WriteString(indent)
		for i, c := range cells {
			text := c.Text
			if p.Pretty() {
				text = Truncate(text, widths[i])
			}
			pad := ""
			if i < len(cells)-1 {
				pad = strings.Repeat(" ", max(0, widths[i]-lipgloss.Width(text))) + gap
			}
			if c.Style != nil {
				text = c.Style(text)
			}
			l.WriteString(text + pad)
		}
		b.WriteString(strings.TrimRight(l.String(), " ") + "\n")
	}
	if len(t.head) > 0 {
		head := make([]Cell, len(t.head))
		for i, h := range t.head {
			head[i] = Cell{h, p.out.Dim}
		}
		line(head)
	}
	for _, r := range t.rows {
		line(r)
	}
	return b.String()
}

func (t *Table) widths() []int {
	n := len(t.head)
	for _, r := range t.rows {
		n = max(n, len(r))
	}
	w := make([]int, n)
	for i, h := range t.head {
		w[i] = lipgloss.Width(h)
	}
	for _, r := range t.rows {
		for i, c := range r {
			w[i] = max(w[i], lipgloss.Width(c.Text))
		}
	}
	return w
}

func sum(ns []int) (s int) {
	for _, n := range ns {
		s += n
	}
	return s
}

// Truncate shortens s to at most width cells, the last of them an ellipsis.
func Truncate(s string, width int) string {
	if lipgloss.Width(s) <= width {
		return s
	}
	w, out := 0, ""
	for _, r := range s {
		rw := lipgloss.Width(string(r))
		if w+rw > width-1 {
			break
		}
		w, out = w+rw, out+string(r)
	}
	return out + "…"
}
