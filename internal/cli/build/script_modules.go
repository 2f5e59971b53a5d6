package build

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

const (
	npmLock      = "package-lock.json"
	maxPackage   = 1 << 20 // bytes of a package.json
	maxLock      = 64 << 20
	packageFile  = "package.json"
	modulesDir   = "node_modules"
	installedNow = modulesDir + "/.package-lock.json" // npm's own note of what it installed
)

// dependencies are the packages that package.json declares for the function itself,
// not for its development, sorted. Without the file there are none.
func (j *job) dependencies() ([]string, error) {
	b, err := readBounded(filepath.Join(j.source, packageFile), maxPackage)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	var declared struct {
		Dependencies map[string]string `json:"dependencies"`
	}
	if err == nil {
		err = json.Unmarshal(b, &declared)
	}
	if err != nil {
		return nil, j.input("source", fmt.Sprintf("%s cannot be read (%v)", packageFile, err), "correct it; `npm pkg get` checks")
	}
	return slices.Sorted(maps.Keys(declared.Dependencies)), nil
}

// uninstalled gives the first of the packages that is in no node_modules, neither
// the folder's own nor one above it, as in a workspace; or "".
func (j *job) uninstalled(packages []string) string {
	for _, name := range packages {
		found := false
		for dir := j.source; !found; dir = filepath.Dir(dir) {
			_, err := os.Stat(filepath.Join(dir, modulesDir, filepath.FromSlash(name)))
			found = err == nil
			if dir == filepath.Dir(dir) {
				break
			}
		}
		if !found {
			return name
		}
	}
	return ""
}

// installModules sees to it that the packages are there, and are those of the lock
// file: what was reviewed is what is bundled. It fetches them when they are missing
// and npm can know which, without those for development and without running any
// package's install script. It never replaces what is there.
func installModules(ctx context.Context, j *job) error {
	want, err := j.dependencies()
	if err != nil || len(want) == 0 {
		return err
	}
	name := j.uninstalled(want)
	switch {
	case name == "":
		return checkInstalled(j)
	case !j.has(npmLock):
		return j.input("source", fmt.Sprintf("the package %s is not installed and there is no %s", name, npmLock), "run `"+j.installCommand()+"` in "+j.source+" and keep the lock file")
	case j.env.find("npm") == "":
		return j.missing("npm", nodeInstall+"; then run `npm ci` in "+j.source)
	}
	if err := j.run(ctx, tool{
		path: j.env.find("npm"), args: []string{"ci", "--omit=dev", "--ignore-scripts", "--no-audit", "--no-fund"},
		dir: j.source, env: j.env.pick(jsTool),
	}); err != nil {
		return err
	}
	if name := j.uninstalled(want); name != "" {
		return j.input("source", fmt.Sprintf("%s does not hold the package %s", npmLock, name), "run `npm install` in "+j.source)
	}
	return nil
}

// installCommand is how the folder's packages are installed, by its lock file.
func (j *job) installCommand() string {
	switch {
	case j.has("pnpm-lock.yaml"):
		return "pnpm install --frozen-lockfile"
	case j.has("yarn.lock"):
		return "yarn install --immutable"
	case j.has("bun.lock"), j.has("bun.lockb"):
		return "bun install --frozen-lockfile"
	default:
		return "npm install"
	}
}

// lockedPackage is what npm's lock file says of one package.
type lockedPackage struct {
	Version     string `json:"version"`
	Integrity   string `json:"integrity"`
	Dev         bool   `json:"dev"`
	Optional    bool   `json:"optional"`
	DevOptional bool   `json:"devOptional"`
	Peer        bool   `json:"peer"`
	Link        bool   `json:"link"`
}

// checkInstalled compares what npm noted when it installed the packages with what
// the lock file pins. Where either is missing, as with another package manager or
// in a workspace, there is nothing to compare.
func checkInstalled(j *job) error {
	locked, err := readLock(filepath.Join(j.source, npmLock))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return j.input("source", fmt.Sprintf("%s cannot be read (%v)", npmLock, err), "run `npm install` in "+j.source+" to make it anew")
	}
	installed, err := readLock(filepath.Join(j.source, filepath.FromSlash(installedNow)))
	if err != nil {
		return nil // npm writes the note for itself and may leave it out
	}
	remedy := "run `npm ci` in " + j.source
	for _, at := range slices.Sorted(maps.Keys(locked)) {
		pin, have := locked[at], installed[at]
		name := strings.TrimPrefix(at, modulesDir+"/")
		_, there := installed[at]
		switch {
		case at == "" || !strings.HasPrefix(at, modulesDir+"/") || pin.Link:
		case !there && (pin.Dev || pin.Optional || pin.DevOptional || pin.Peer):
		case !there:
			return j.input("source", fmt.Sprintf("%s pins %s, which is not installed", npmLock, name), remedy)
		case pin.Version != have.Version:
			return j.input("source", fmt.Sprintf("%s %s is installed, and %s pins %s", name, have.Version, npmLock, pin.Version), remedy)
		case pin.Integrity != "" && have.Integrity != "" && pin.Integrity != have.Integrity:
			return j.input("source", fmt.Sprintf("%s %s is installed with another content than %s pins", name, have.Version, npmLock), remedy)
		}
	}
	for _, at := range slices.Sorted(maps.Keys(installed)) {
		if _, pinned := locked[at]; !pinned && strings.HasPrefix(at, modulesDir+"/") {
			return j.input("source", fmt.Sprintf("%s is installed, and %s does not pin it", strings.TrimPrefix(at, modulesDir+"/"), npmLock), remedy)
		}
	}
	return nil
}

func readLock(path string) (map[string]lockedPackage, error) {
	b, err := readBounded(path, maxLock)
	if err != nil {
		return nil, err
	}
	var lock struct {
		Packages map[string]lockedPackage `json:"packages"`
	}
	if err := json.Unmarshal(b, &lock); err != nil {
		return nil, err
	}
	return lock.Packages, nil
}

// readBounded reads a file of at most so many bytes. Its error matches
// fs.ErrNotExist when there is none.
func readBounded(path string, most int64) ([]byte, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if info.Size() > most {
		return nil, fmt.Errorf("it is larger than %d MiB", most>>20)
	}
	return os.ReadFile(path)
}
