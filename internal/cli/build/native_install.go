package build

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
)

const (
	requirementsFile = "requirements.txt"
	pythonInstall    = "install Python 3, with pip, from your distribution or https://www.python.org"
	maxRequirements  = 1 << 20 // bytes
	maxIncludes      = 16      // of requirements files
)

// takesNode reports whether a package.json means something to a runtime.
func (p *pack) takesNode() bool {
	return p.Runtime == NodeJS || p.Runtime == HTTP || p.Runtime == Azure
}

// needsNode reports whether the folder declares packages of npm.
func (p *pack) needsNode() (bool, error) {
	if !p.takesNode() {
		return false, nil
	}
	want, err := p.dependencies()
	return len(want) > 0, err
}

// nodeModulesOurs reports whether node_modules is made anew for the archive. Without a
// package.json it is the developer's, and goes along as it is.
func (p *pack) nodeModulesOurs() bool { return p.takesNode() && p.has(packageFile) }

// installNode puts the packages of the lock file into the stage, without those for
// development and without running any package's install script.
func (p *pack) installNode(ctx context.Context) error {
	needed, err := p.needsNode()
	if err != nil || !needed {
		return err
	}
	if !p.has(npmLock) && !p.has("npm-shrinkwrap.json") {
		return p.input("source", p.source+" has no "+npmLock, "run `npm install` there and keep the lock file: what was reviewed is what is deployed")
	}
	rc := filepath.Join(p.source, ".npmrc") // says where from; it never goes into the archive
	if _, err := copyFile(rc, filepath.Join(p.stage, ".npmrc")); err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, fs.ErrExist) {
		return p.input("source", ".npmrc cannot be read", "check its permissions")
	}
	for _, name := range []string{packageFile, npmLock} { // an ignore file may have left them out
		if _, err := copyFile(filepath.Join(p.source, name), filepath.Join(p.stage, name)); err != nil && !errors.Is(err, fs.ErrExist) && !errors.Is(err, fs.ErrNotExist) {
			return p.input("source", name+" cannot be read", "check its permissions")
		}
	}
	err = p.run(ctx, tool{
		path: p.env.find("npm"), args: []string{"ci", "--omit=dev", "--ignore-scripts", "--no-audit", "--no-fund", "--no-update-notifier"},
		dir: p.stage, env: p.env.pick(jsTool),
	})
	if err != nil {
		return err
	}
	for _, left := range []string{".npmrc", installedNow, modulesDir + "/.cache"} {
		if err := os.RemoveAll(filepath.Join(p.stage, filepath.FromSlash(left))); err != nil {
			return fmt.Errorf("tidying up after npm: %v", err)
		}
	}
	return nil
}

// needsPython reports whether the folder declares packages of pip.
func (p *pack) needsPython() bool {
	return (p.Runtime == Python || p.Runtime == HTTP || p.Runtime == Azure) && p.has(requirementsFile)
}

// pip gives the interpreter whose pip installs. It decides which builds of a package
// are taken, and has to be of the node's version.
func (p *pack) pip(ctx context.Context) (string, error) {
	python := p.env.find("python3")
	if python == "" {
		return "", p.missing("python3", pythonInstall)
	}
	err := p.run(ctx, tool{path: python, args: []string{"-m", "pip", "--version"}, dir: p.tmp, env: p.env.pick(pythonTool), quiet: true})
	switch {
	case err != nil && ctx.Err() != nil:
		return "", err
	case err != nil:
		return "", p.missing("pip", pythonInstall)
	}
	return python, nil
}

// installPython puts the packages of requirements.txt beside the function, where
// Python looks for them. Only packages that are built already are taken, since
// building one runs its code.
func (p *pack) installPython(ctx context.Context) error {
	if !p.needsPython() {
		return nil
	}
	python, err := p.pip(ctx)
	if err != nil {
		return err
	}
	target := filepath.Join(p.tmp, "packages")
	if err := p.run(ctx, tool{
		path: python, dir: p.source,
		args: []string{
			"-m", "pip", "install", "--disable-pip-version-check", "--no-input", "--no-compile", "--no-warn-script-location", "--root-user-action=ignore",
			"--only-binary=:all:", "--target", target, "-r", requirementsFile,
		},
		env: p.env.pick(pythonTool, "PYTHONDONTWRITEBYTECODE=1"),
	}); err != nil {
		return err
	}
	return p.merge(target)
}

// merge moves what pip installed into the stage, without what depends on this machine:
// programs with its interpreter's path in their first line, and the lists of files
// that count those programs.
func (p *pack) merge(target string) error {
	entries, err := os.ReadDir(target)
	if errors.Is(err, fs.ErrNotExist) { // an empty list of requirements
		return nil
	}
	if err != nil {
		return fmt.Errorf("reading what pip installed: %v", err)
	}
	for _, e := range entries {
		from, to := filepath.Join(target, e.Name()), filepath.Join(p.stage, e.Name())
		switch {
		case e.Name() == "bin", e.Name() == "__pycache__":
			continue
		case strings.HasSuffix(e.Name(), ".dist-info"):
			if err := os.Remove(filepath.Join(from, "RECORD")); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return fmt.Errorf("tidying up after pip: %v", err)
			}
		}
		if _, err := os.Lstat(to); err == nil {
			return p.input("source", e.Name()+" is in the folder, and "+requirementsFile+" brings one too", "rename the folder's, or leave it out with "+ignoreFile)
		}
		if err := os.Rename(from, to); err != nil {
			return fmt.Errorf("moving what pip installed: %v", err)
		}
	}
	return nil
}

// checkRequirements refuses what would make pip run code of a package that nobody
// built before: sources from version control, from a folder or by request.
func (p *pack) checkRequirements(name string, depth int) error {
	b, err := readBounded(filepath.Join(p.source, filepath.FromSlash(name)), maxRequirements)
	if err != nil || depth > maxIncludes {
		return p.input("source", name+" cannot be read", "check it, and what it includes with -r")
	}
	for line := range bytes.Lines(b) {
		text, _, _ := strings.Cut(string(line), " #")
		text = strings.TrimSpace(text)
		words := strings.Fields(strings.ReplaceAll(text, "=", " "))
		if len(words) == 0 || strings.HasPrefix(text, "#") {
			continue
		}
		refused := slices.Contains([]string{"-e", "--editable", "--no-binary", "--pre", "--trusted-host"}, words[0]) ||
			strings.Contains(text, "git+") || strings.Contains(text, "file:") ||
			strings.HasPrefix(text, ".") || strings.HasPrefix(text, "/") || strings.HasPrefix(text, "-e")
		if refused {
			return p.input("source", fmt.Sprintf("%s asks for what is not a built package of an index: %.80s", name, text), "name the package and its version, as in flask==3.1.2; or copy the code into the folder")
		}
		included := ""
		switch {
		case len(words) > 1 && slices.Contains([]string{"-r", "--requirement", "-c", "--constraint"}, words[0]):
			included = words[1]
		case strings.HasPrefix(text, "-r"), strings.HasPrefix(text, "-c"):
			included = text[2:]
		}
		if included == "" {
			continue
		}
		included = path.Join(path.Dir(name), included)
		if !filepath.IsLocal(filepath.FromSlash(included)) {
			return p.input("source", name+" includes a file that does not lie in the folder: "+included, "copy it into the folder")
		}
		if err := p.checkRequirements(included, depth+1); err != nil {
			return err
		}
	}
	return nil
}
