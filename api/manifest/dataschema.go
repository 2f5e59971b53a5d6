package manifest

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"

	"github.com/santhosh-tekuri/jsonschema/v6"

	"github.com/casemate-dev/casemate/api"
)

// noSchema is what stands in place of a file.
const noSchema = "none"

// dataSchemaURL is the name of a trigger's schema for itself. Nothing loads it.
const dataSchemaURL = "trigger:///schema"

// dataSchema reads the schema of a trigger, or the reason why there is none.
func (p *parse) dataSchema(n *node, prefix string, t *api.Trigger, fn *Function) {
	var reason string
	p.text(n, "reason", &reason)
	s, r := n.get("schema"), n.get("reason")
	switch {
	case s == nil && r != nil:
		t.NoSchema = reason // so that it is not asked for besides
		p.add(r.place, prefix+".reason", "reason", "a reason goes with schema: none", "write schema: none beside it, or take reason away")
	case s == nil || s.value.kind != text:
	case s.value.value != noSchema && r != nil:
		t.NoSchema = reason
		p.add(r.place, prefix+".reason", "reason", "a reason for having no schema does not go with a schema", "take one of the two away")
	case s.value.value != noSchema:
		t.Schema = p.schemaFile(s.value, prefix+".schema", fn)
	case reason != "":
		t.NoSchema = reason
	case outside(t):
		p.add(s.value.place, prefix+".schema", noSchema, "schema: none needs a reason", "say why nothing checks the data, as in reason: orders are checked where they are published; or name a file with a JSON Schema")
	}
}

// outside reports whether somebody other than the platform makes the data.
func outside(t *api.Trigger) bool {
	if k, _ := kindOf(t.Kind); k.outside {
		return true
	}
	var s struct {
		Content bool `json:"content"`
	}
	// Settings that cannot be read are reported as such.
	return t.Kind == "folder" && json.Unmarshal(t.Settings, &s) == nil && s.Content
}

// schemaFile reads a schema that the manifest names. What is wrong with it is reported
// where it is named.
func (p *parse) schemaFile(n *node, field string, fn *Function) json.RawMessage {
	name := n.value
	bad := func(message, remedy string) json.RawMessage {
		p.add(n.place, field, name, message, remedy)
		return nil
	}
	switch {
	case name == "":
		return nil // the schema reports it
	case strings.HasPrefix(name, "/") || strings.HasPrefix(name, "~") || len(name) > 1 && name[1] == ':':
		return bad("the schema must be named relative to the manifest, not "+quote(name), "write the way from the manifest's folder, as in schemas/order.json")
	case strings.ContainsAny(name, "\\\x00"):
		return bad("the schema's name holds a character that no path here has", "write slashes: schemas/order.json")
	case !filepath.IsLocal(filepath.FromSlash(name)):
		return bad(quote(name)+" leads out of the manifest's folder", "put the schema beside the manifest, or below it")
	case p.folder == "":
		return bad("a manifest that names schemas is read from a file", "read it with Load")
	}
	raw, reason := readWithin(p.folder, path.Clean(name))
	if reason != "" {
		return bad("the schema "+quote(name)+" "+reason, "name a file with a JSON Schema (2020-12) in the manifest's folder or below it")
	}
	fn.Schemas = append(fn.Schemas, path.Clean(name))
	if len(raw) > MaxTriggerSchema {
		return bad("the schema "+quote(name)+" is larger than "+FormatSize(MaxTriggerSchema), "say less: a schema describes the data's form")
	}
	if reason := compileDataSchema(raw); reason != "" {
		return bad("the schema "+quote(name)+" "+shortenTo(printable(redact(reason)), maxReason), "mend the file, and keep its $ref within it")
	}
	var b bytes.Buffer
	if err := json.Compact(&b, raw); err != nil {
		return bad("the schema "+quote(name)+" is not JSON", "mend the file")
	}
	return b.Bytes()
}

// maxReason bounds what is shown of the reason why a schema is of no use, in characters.
const maxReason = 300

func shortenTo(s string, most int) string {
	if r := []rune(s); len(r) > most {
		return string(r[:most-1]) + "…"
	}
	return s
}

// readWithin reads a little more than a schema may have of a plain file below a folder.
// Links are followed as long as they do not lead out of it.
func readWithin(folder, name string) (content []byte, reason string) {
	root, err := os.OpenRoot(folder)
	if err != nil {
		return nil, "cannot be read: " + cause(err)
	}
	defer func() { _ = root.Close() }()
	name = filepath.FromSlash(name)
	info, err := root.Stat(name)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, "is not there"
	case err != nil:
		return nil, "cannot be read: " + cause(err)
	case !info.Mode().IsRegular(): // to open a pipe would wait for somebody to write
		return nil, "is not a plain file"
	}
	f, err := root.Open(name)
	if err != nil {
		return nil, "cannot be read: " + cause(err)
	}
	defer func() { _ = f.Close() }()
	content, err = io.ReadAll(io.LimitReader(f, MaxTriggerSchema+1))
	if err != nil {
		return nil, "cannot be read: " + cause(err)
	}
	return content, ""
}

// cause leaves out the path, which the message has already.
func cause(err error) string {
	var pe *fs.PathError
	if errors.As(err, &pe) {
		return pe.Err.Error()
	}
	return err.Error()
}

// compileDataSchema says what keeps a schema from being used, or gives "". A node asks
// for the same, and bounds what a schema may cost besides.
func compileDataSchema(raw []byte) (reason string) {
	var doc any
	if err := json.Unmarshal(raw, &doc); err != nil {
		var syntax *json.SyntaxError
		if errors.As(err, &syntax) {
			before := raw[:min(max(syntax.Offset-1, 0), int64(len(raw)))]
			line := bytes.Count(before, []byte("\n"))
			return fmt.Sprintf("is not JSON: line %d, column %d: %s", line+1, len(before)-bytes.LastIndexByte(before, '\n'), syntax.Error())
		}
		return "is not JSON: " + err.Error()
	}
	switch doc.(type) {
	case bool, map[string]any:
	default:
		return "is not a JSON Schema: it must be an object, or true or false"
	}
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(raw))
	if err != nil {
		return "is not JSON: " + err.Error()
	}
	c := jsonschema.NewCompiler()
	c.DefaultDraft(jsonschema.Draft2020)
	c.UseLoader(noLoader{})
	c.AssertFormat()
	c.AssertVocabs()
	if err = c.AddResource(dataSchemaURL, doc); err == nil {
		_, err = c.Compile(dataSchemaURL)
	}
	var elsewhere *jsonschema.LoadURLError
	switch {
	case err == nil:
		return ""
	case errors.As(err, &elsewhere):
		return "refers to " + elsewhere.URL + ", and nothing is loaded from elsewhere"
	default:
		return "is not a JSON Schema: " + strings.Join(strings.Fields(strings.ReplaceAll(err.Error(), dataSchemaURL, "")), " ")
	}
}
