package build

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"strings"
)

// azureCommand reads from host.json what is started (Azure Functions, "Custom
// handlers": customHandler.description).
func azureCommand(j *job) ([]string, error) {
	b, err := readBounded(filepath.Join(j.source, "host.json"), maxPackage)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, j.input("source", j.source+" has no host.json", "write one, with the custom handler under customHandler.description")
	}
	var host struct {
		CustomHandler struct {
			Description struct {
				Path      string   `json:"defaultExecutablePath"`
				Directory string   `json:"workingDirectory"`
				Arguments []string `json:"arguments"`
			} `json:"description"`
		} `json:"customHandler"`
	}
	if err == nil {
		err = json.Unmarshal(b, &host)
	}
	if err != nil {
		return nil, j.input("source", fmt.Sprintf("host.json cannot be read (%v)", err), "correct it")
	}
	d := host.CustomHandler.Description
	switch {
	case d.Path == "":
		return nil, j.input("source", "host.json names no customHandler.description.defaultExecutablePath", "name the program there, as in \"defaultExecutablePath\": \"handler\"")
	case strings.HasSuffix(strings.ToLower(d.Path), ".exe"):
		return nil, j.input("source", "host.json names "+d.Path+", a program for Windows", "name one for Linux: \"defaultExecutablePath\": \""+d.Path[:len(d.Path)-4]+"\"")
	case !filepath.IsLocal(filepath.FromSlash(d.Path)):
		return nil, j.input("source", "host.json names "+d.Path+", which does not lie in the function's folder", "name a program in it, or node or python3")
	}
	return append([]string{d.Path}, d.Arguments...), nil
}
