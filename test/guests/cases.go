// Package guests holds what the examples promise: for each, the requests of its
// test.json and the answers they must get. The showcase asks a running node; the
// tests here ask the bare modules, under an engine of their own.
//
// Only programs and tests below test/ may import it.
package guests

import (
	"bytes"
	"encoding/json"
	"fmt"
	"image/png"
	"os"
	"path/filepath"
	"reflect"
	"strings"

	"github.com/casemate-dev/casemate/api/manifest"
)

// Example is one folder of examples/: one function and its requests.
type Example struct {
	Dir      string // absolute
	Manifest string // path of its casemate.yaml
	Function manifest.Function
	Requests []Request
}

// Request is one call of an example, and what must come back.
type Request struct {
	Name    string            `json:"name"`
	Method  string            `json:"method"`
	Path    string            `json:"path"`
	Query   string            `json:"query"`
	Headers map[string]string `json:"headers"`
	// The body: at most one of these.
	Text string          `json:"text"`
	JSON json.RawMessage `json:"json"`
	File string          `json:"file"` // relative to the example's folder

	Want Want   `json:"want"`
	Body []byte `json:"-"` // what the three above come to
}

// Want says what must be true of an answer. What it is silent on may be anything.
type Want struct {
	Status   int               `json:"status"`
	Headers  map[string]string `json:"headers"`
	Text     *string           `json:"text"` // the whole body
	JSON     json.RawMessage   `json:"json"` // members an object must have; all else must be equal
	Contains []string          `json:"contains"`
	Absent   []string          `json:"absent"`
	PNG      *Size             `json:"png"`
	Show     string            `json:"show"` // the line to show is the first that holds this
}

// Size is the size of a picture in pixels.
type Size struct {
	Width  int `json:"width"`
	Height int `json:"height"`
}

// Answer is what came back. Header names are lower-case.
type Answer struct {
	Status  int
	Headers map[string]string
	Body    []byte
}

// Load reads every example below root, in the order of their names.
func Load(root string) ([]Example, error) {
	manifests, err := filepath.Glob(filepath.Join(root, "*", "casemate.yaml"))
	if err != nil || len(manifests) == 0 {
		return nil, fmt.Errorf("looking for examples: no casemate.yaml in the folders of %s", root)
	}
	var examples []Example
	for _, path := range manifests {
		e, err := load(path)
		if err != nil {
			return nil, err
		}
		examples = append(examples, e)
	}
	return examples, nil
}

func load(path string) (Example, error) {
	m, err := manifest.Load(path)
	if err != nil {
		return Example{}, fmt.Errorf("reading %s: %w", path, err)
	}
	if len(m.Functions) != 1 {
		return Example{}, fmt.Errorf("reading %s: want one function, got %d", path, len(m.Functions))
	}
	dir, err := filepath.Abs(filepath.Dir(path))
	if err != nil {
		return Example{}, fmt.Errorf("finding %s: %v", path, err)
	}
	e := Example{Dir: dir, Manifest: path, Function: m.Functions[0]}
	b, err := os.ReadFile(filepath.Join(dir, "test.json"))
	if err != nil {
		return Example{}, fmt.Errorf("reading the requests: %v", err)
	}
	var file struct {
		Requests []Request `json:"requests"`
	}
	dec := json.NewDecoder(bytes.NewReader(b))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&file); err != nil {
		return Example{}, fmt.Errorf("reading %s: %v", filepath.Join(dir, "test.json"), err)
	}
	for _, r := range file.Requests {
		r.Body = []byte(r.Text)
		if len(r.JSON) > 0 {
			r.Body = r.JSON
		}
		if r.File != "" {
			if r.Body, err = os.ReadFile(filepath.Join(dir, r.File)); err != nil {
				return Example{}, fmt.Errorf("reading the body of %q: %v", r.Name, err)
			}
		}
		e.Requests = append(e.Requests, r)
	}
	if len(e.Requests) == 0 {
		return Example{}, fmt.Errorf("reading %s: it has no requests", filepath.Join(dir, "test.json"))
	}
	return e, nil
}

// Check compares an answer with what was wanted and says the first difference.
func (w Want) Check(a Answer) error {
	if a.Status != w.Status {
		return fmt.Errorf("status %d, want %d; the body is %.200q", a.Status, w.Status, a.Body)
	}
	for name, want := range w.Headers {
		if got := a.Headers[strings.ToLower(name)]; got != want {
			return fmt.Errorf("header %s is %q, want %q", name, got, want)
		}
	}
	if w.Text != nil && string(a.Body) != *w.Text {
		return fmt.Errorf("body %.200q, want %.200q", a.Body, *w.Text)
	}
	for _, s := range w.Contains {
		if !bytes.Contains(a.Body, []byte(s)) {
			return fmt.Errorf("the body lacks %q: %.400q", s, a.Body)
		}
	}
	for _, s := range w.Absent {
		if bytes.Contains(a.Body, []byte(s)) {
			return fmt.Errorf("the body must not hold %q: %.400q", s, a.Body)
		}
	}
	if w.PNG != nil {
		picture, err := png.Decode(bytes.NewReader(a.Body))
		if err != nil {
			return fmt.Errorf("the body is not a PNG: %v", err)
		}
		if got := (Size{picture.Bounds().Dx(), picture.Bounds().Dy()}); got != *w.PNG {
			return fmt.Errorf("a picture of %d x %d, want %d x %d", got.Width, got.Height, w.PNG.Width, w.PNG.Height)
		}
	}
	if len(w.JSON) == 0 {
		return nil
	}
	var got, want any
	if err := json.Unmarshal(w.JSON, &want); err != nil {
		return fmt.Errorf("what is wanted is not JSON: %v", err)
	}
	if err := json.Unmarshal(a.Body, &got); err != nil {
		return fmt.Errorf("the body is not JSON: %.200q", a.Body)
	}
	if object, ok := want.(map[string]any); ok {
		members, _ := got.(map[string]any)
		for key, value := range object {
			if have, ok := members[key]; !ok || !reflect.DeepEqual(have, value) {
				return fmt.Errorf("member %q is %v, want %v", key, have, value)
			}
		}
		return nil
	}
	if !reflect.DeepEqual(got, want) {
		return fmt.Errorf("body %v, want %v", got, want)
	}
	return nil
}

// Summary says in one line what came back.
func (w Want) Summary(a Answer) string {
	if w.PNG != nil {
		if c, err := png.DecodeConfig(bytes.NewReader(a.Body)); err == nil {
			return fmt.Sprintf("PNG, %d x %d pixels, %d bytes", c.Width, c.Height, len(a.Body))
		}
	}
	for line := range strings.Lines(string(a.Body)) {
		if line = strings.TrimSpace(line); line != "" && strings.Contains(line, w.Show) {
			return line
		}
	}
	return ""
}
