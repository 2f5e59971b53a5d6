package build

import (
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
)

// environment is what of the caller's environment a tool may see.
type environment struct {
	vars map[string]string
}

// These names reach every tool: where programs and homes are, how text is
// encoded, and the way to the network. All else, so every credential that a
// shell or a CI system holds, stays behind.
var everyTool = []string{
	"PATH", "HOME", "TMPDIR", "LANG", "LC_ALL", "LC_CTYPE",
	"HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "no_proxy", "all_proxy",
	"SSL_CERT_FILE", "SSL_CERT_DIR",
	"SYSTEMROOT", "USERPROFILE", "LOCALAPPDATA", "APPDATA", "TEMP", "TMP", // what Windows programs do not start without
}

// These reach the tools of one runtime: where it keeps its cache and from where
// it fetches. Names that carry tokens (NPM_TOKEN, CARGO_REGISTRY_TOKEN) or change
// what is compiled (GOFLAGS, RUSTFLAGS, CFLAGS) are left out on purpose.
var (
	goTool = []string{
		"GOROOT", "GOPATH", "GOCACHE", "GOMODCACHE", "GOENV", "GOTOOLCHAIN", "GOTELEMETRYDIR",
		"GOPROXY", "GOPRIVATE", "GONOPROXY", "GOSUMDB", "GONOSUMDB", "XDG_CACHE_HOME", "XDG_CONFIG_HOME",
	}
	rustTool = []string{
		"CARGO_HOME", "CARGO_HTTP_CAINFO", "CARGO_NET_OFFLINE",
		"RUSTUP_HOME", "RUSTUP_TOOLCHAIN", "RUSTUP_DIST_SERVER", "RUSTUP_UPDATE_ROOT", "RUSTUP_AUTO_INSTALL",
	}
	cTool      = []string{"WASI_SDK_PATH"}
	pythonTool = []string{"PIP_INDEX_URL", "PIP_FIND_LINKS", "PIP_CERT", "PIP_CACHE_DIR", "PIP_DEFAULT_TIMEOUT", "PYENV_ROOT", "PYENV_VERSION"}
	jsTool     = []string{"npm_config_registry", "npm_config_cache", "npm_config_cafile", "NODE_EXTRA_CA_CERTS"}
)

func newEnvironment(env []string) environment {
	e := environment{vars: make(map[string]string, len(env))}
	for _, kv := range env {
		if k, v, ok := strings.Cut(kv, "="); ok && k != "" {
			e.vars[k] = v
		}
	}
	return e
}

// get looks a variable up.
func (e environment) get(name string) string { return e.vars[name] }

// pick gives the environment of a tool: the names of everyTool and extra, then
// the settings in set, which win.
func (e environment) pick(extra []string, set ...string) []string {
	var out []string
	for _, name := range slices.Concat(everyTool, extra) {
		overridden := slices.ContainsFunc(set, func(kv string) bool { return strings.HasPrefix(kv, name+"=") })
		if v, ok := e.vars[name]; ok && !overridden {
			out = append(out, name+"="+v)
		}
	}
	return append(out, set...)
}

// find looks a program up on the caller's PATH and gives its absolute path, or ""
// when there is none. Relative entries of PATH are passed over, so that a function's
// folder cannot supply the compiler that builds it.
func (e environment) find(name string) string {
	for _, dir := range filepath.SplitList(e.vars["PATH"]) {
		if !filepath.IsAbs(dir) {
			continue
		}
		if p := filepath.Join(dir, name); executable(p) {
			return p
		}
	}
	return ""
}

func executable(path string) bool {
	if runtime.GOOS == "windows" {
		path += ".exe"
	}
	info, err := os.Stat(path)
	return err == nil && info.Mode().IsRegular() && (runtime.GOOS == "windows" || info.Mode()&0o111 != 0)
}
