package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
)

// boot joins the boot scripts to one function expression, as boot/NATIVES.md says,
// and gives it as the elements of a C array.
func (j *job) boot() ([]byte, error) {
	files, err := filepath.Glob(filepath.Join(j.dir, "boot", "*.js")) // sorted
	if err != nil || len(files) == 0 {
		return nil, fmt.Errorf("reading the boot scripts: none in %s", filepath.Join(j.dir, "boot"))
	}
	var script bytes.Buffer
	script.WriteString("(function (__native) { \"use strict\";\n")
	for _, name := range files {
		text, err := os.ReadFile(name)
		if err != nil {
			return nil, fmt.Errorf("reading the boot scripts: %w", err)
		}
		script.Write(text)
		script.WriteByte('\n')
	}
	script.WriteString("})\n")
	var out bytes.Buffer
	for i, c := range script.Bytes() {
		out.WriteString(strconv.Itoa(int(int8(c)))) // a C char is signed
		out.WriteByte(',')
		if i%32 == 31 {
			out.WriteByte('\n')
		}
	}
	return out.Bytes(), nil
}
