package main

import (
	"bytes"
	"fmt"
	"regexp"
)

// change is one edit to a file of QuickJS-ng. What it looks for must be there as
// often as it says, so that a new version does not silently escape it.
type change struct {
	file  string
	why   string
	old   *regexp.Regexp
	times int
	with  string
}

// literal is a pattern for a text.
func literal(text string) *regexp.Regexp { return regexp.MustCompile(regexp.QuoteMeta(text)) }

const argument = `\(((?:[^()]|\([^()]*\))*)\)` // with at most one level of brackets in it

// changes is all that we change in foreign code, in order.
func changes() []change {
	return []change{
		{
			file: "quickjs.c", why: "objects of the snapshot are never freed: src/counts.h",
			old: regexp.MustCompile(`--JS_REF_COUNT` + argument), times: 7, with: "count_down($1)",
		},
		{
			file: "quickjs.c", why: "as above",
			old: regexp.MustCompile(`JS_REF_COUNT` + argument + `--`), times: 2, with: "count_down($1)",
		},
		{
			file: "quickjs.c", why: "as above",
			old: regexp.MustCompile(`JS_REF_COUNT` + argument + `\+\+`), times: 19, with: "count_up($1)",
		},
		{
			file: "quickjs.c", why: "as above", old: literal("#define JS_GC_MARK(p)   (js_rc(p)->mark)\n"), times: 1,
			with: "#define JS_GC_MARK(p)   (js_rc(p)->mark)\n#include \"counts.h\"\n",
		},
		{
			file: "quickjs.c", why: "the allocator is ours: src/heap.h",
			old:   regexp.MustCompile(`(?s)/\* max overhead for size >= 64: 12\.5% \*/\n.*?\nvoid \*js_calloc_rt\(`),
			times: 1, with: "#include \"heap.h\"\n\nvoid *js_calloc_rt(",
		},
	}
}

// edit applies our changes to one file.
func edit(file string, data []byte) ([]byte, error) {
	for _, c := range changes() {
		if c.file != file {
			continue
		}
		if n := len(c.old.FindAllIndex(data, -1)); n != c.times {
			return nil, fmt.Errorf("editing %s (%s): the place occurs %d times, not %d", file, c.why, n, c.times)
		}
		data = c.old.ReplaceAll(data, []byte(c.with))
	}
	return bytes.Clone(data), nil
}
