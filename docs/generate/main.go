// Command generate writes the references that are derived from the code: the
// command line, the errors, the manifest's schema and the admin API. A test
// beside it fails when the files in docs do not say what the code says. Nothing
// imports it.
package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/casemate-dev/casemate/api/manifest"
	"github.com/casemate-dev/casemate/api/problem"
	"github.com/casemate-dev/casemate/internal/cli"
	"github.com/casemate-dev/casemate/internal/control"
)

func main() {
	files, err := generate()
	if err == nil {
		for name, content := range files {
			if err = os.WriteFile(filepath.Join("docs", name), content, 0o644); err != nil {
				break
			}
		}
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "generate:", err)
		os.Exit(1)
	}
}

// generate gives every derived file by its name within docs.
func generate() (map[string][]byte, error) {
	var commands bytes.Buffer
	if err := cli.Docs(&commands); err != nil {
		return nil, fmt.Errorf("documenting the command line: %v", err)
	}
	openapi, err := control.OpenAPI()
	if err != nil {
		return nil, fmt.Errorf("documenting the admin API: %v", err)
	}
	return map[string][]byte{
		"cli.md":               commands.Bytes(),
		"errors.md":            errorsPage(),
		"casemate.schema.json": manifest.Schema(),
		"openapi.json":         openapi,
	}, nil
}

func errorsPage() []byte {
	var w bytes.Buffer
	w.WriteString(`# Errors

Every error of the gateway and of the control plane is a problem detail (RFC 9457, ` + "`application/problem+json`" + `). Its ` + "`code`" + ` is stable: programs may switch on it. ` + "`detail`" + ` says what happened this time, ` + "`field`" + ` which part of the input is meant, ` + "`remedy`" + ` what to do, ` + "`requestId`" + ` what to search the log for.

| code | status | what it means | what to do |
|---|---|---|---|
`)
	for _, r := range problem.Catalogue() {
		fmt.Fprintf(&w, "| <a id=%q></a>`%s` | %d | %s | %s |\n", r.Code, r.Code, r.Status, r.Title, strings.ReplaceAll(r.Remedy, "|", "\\|"))
	}
	return w.Bytes()
}
