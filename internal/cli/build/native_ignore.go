package build

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"path/filepath"
	"strings"
)

// ignoreFile names what stays out of the archive, in the form of a .gitignore.
const ignoreFile = ".casemateignore"

const maxIgnore = 64 << 10 // bytes

// What never goes along unless an ignore file says !name: version control, editors,
// what tools leave behind, and the files in which secrets live.
const alwaysIgnored = `
.git/
.hg/
.svn/
.gitignore
.gitattributes
.github/
.casemate/
.casemateignore
.gcloudignore
.funcignore
.dockerignore
casemate.yaml
.DS_Store
.idea/
.vscode/
__pycache__/
*.pyc
.venv/
venv/
.pytest_cache/
.mypy_cache/
.ruff_cache/
.cache/
coverage/
.env
.env.*
.npmrc
.pypirc
.netrc
.aws/
.ssh/
local.settings.json
`

// ignored gives the rules for a pack: those above, those of what is built from source,
// and last, so that they win, the developer's own.
func (p *pack) ignored() (rules, error) {
	text := alwaysIgnored
	if p.nodeModulesOurs() {
		text += "node_modules/\n"
	}
	if p.golang {
		text += "*.go\n/go.mod\n/go.sum\n/go.work\n/go.work.sum\n/vendor/\ntestdata/\n"
	}
	if p.cargo {
		text += "*.rs\n/Cargo.toml\n/Cargo.lock\n/target/\n/.cargo/\n/rust-toolchain.toml\n"
	}
	var r rules
	if err := r.add(text); err != nil {
		return nil, fmt.Errorf("reading what is ignored: %v", err)
	}
	own, err := readBounded(filepath.Join(p.source, ignoreFile), maxIgnore)
	if errors.Is(err, fs.ErrNotExist) {
		return r, nil
	}
	if err == nil {
		err = r.add(string(own))
	}
	if err != nil {
		return nil, p.input("source", ignoreFile+" cannot be read ("+err.Error()+")", "correct it: a line is a pattern, as in a .gitignore")
	}
	return r, nil
}

// rule is one line: *, ? and [] within a segment, ** for any number of segments. A
// slash that is not the last character anchors it to the folder; one at the end limits
// it to folders; ! takes back what a line before it ignored.
type rule struct {
	segments []string
	folders  bool
	keep     bool
}

type rules []rule

func (r *rules) add(text string) error {
	lines := bufio.NewScanner(bytes.NewReader([]byte(text)))
	for n := 1; lines.Scan(); n++ {
		line := strings.TrimSpace(lines.Text())
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		var one rule
		line, one.keep = strings.CutPrefix(line, "!")
		line, one.folders = strings.CutSuffix(line, "/")
		if !strings.Contains(line, "/") {
			line = "**/" + line
		}
		one.segments = strings.Split(strings.TrimPrefix(line, "/"), "/")
		for _, s := range one.segments {
			if _, err := path.Match(s, ""); err != nil || s == "" || s == "." || s == ".." {
				return fmt.Errorf("line %d is not a pattern", n)
			}
		}
		*r = append(*r, one)
	}
	return lines.Err()
}

// match reports whether a file or folder, by its path with slashes, is left out. The
// last rule that fits decides. What lies in a folder left out is never asked about.
func (r rules) match(name string, folder bool) bool {
	out := false
	for _, one := range r {
		if (folder || !one.folders) && one.keep == out && fits(one.segments, strings.Split(name, "/")) {
			out = !one.keep
		}
	}
	return out
}

func fits(pattern, name []string) bool {
	for len(pattern) > 0 {
		if pattern[0] == "**" {
			for i := range len(name) + 1 {
				if fits(pattern[1:], name[i:]) {
					return true
				}
			}
			return false
		}
		if len(name) == 0 {
			return false
		}
		if ok, err := path.Match(pattern[0], name[0]); err != nil || !ok {
			return false
		}
		pattern, name = pattern[1:], name[1:]
	}
	return len(name) == 0
}
