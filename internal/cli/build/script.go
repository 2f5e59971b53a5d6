package build

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"unicode/utf8"

	esbuild "github.com/evanw/esbuild/pkg/api"
)

// bundler is what messages call the bundler. It is linked in, so that what a
// version of casemate makes of a folder does not depend on the machine.
const bundler = "esbuild"

// script reports whether a runtime's artifact is source text: one ES module.
func script(runtime string) bool { return runtime == JavaScript || runtime == TypeScript }

func checkScript(_ context.Context, j *job) error {
	if j.Prebuilt {
		return nil
	}
	want, err := j.dependencies()
	if err != nil {
		return err
	}
	if j.uninstalled(want) != "" && j.has(npmLock) && j.env.find("npm") == "" {
		return j.missing("npm", nodeInstall)
	}
	return nil
}

// buildScript bundles the entry file and all it imports into one ES module. The
// bundler parses; nothing of the folder or of its packages is run.
func buildScript(ctx context.Context, j *job) ([]byte, error) {
	if j.Prebuilt {
		return j.output(j.source)
	}
	entry, err := j.entryFile()
	if err != nil {
		return nil, err
	}
	if err := installModules(ctx, j); err != nil {
		return nil, err
	}
	result, err := bundle(ctx, j, bundleOptions(j.source, entry))
	if err != nil {
		return nil, err
	}
	if err := hasDefaultExport(j, entry, result.Metafile); err != nil {
		return nil, err
	}
	if len(result.OutputFiles) != 1 {
		return nil, fmt.Errorf("building %s: the bundler gave %d files", j.Name, len(result.OutputFiles))
	}
	return result.OutputFiles[0].Contents, nil
}

// checkScriptArtifact finds out what a node would refuse the text for.
func checkScriptArtifact(j *job, code []byte) error {
	switch {
	case len(code) > MaxArtifact:
		return j.input("source", fmt.Sprintf("the bundle is larger than %d MiB", MaxArtifact>>20), "leave out what the function does not need")
	case len(code) == 0:
		return j.input("source", "the file is empty", "name one bundled ES module with a default export")
	case !utf8.Valid(code) || strings.IndexByte(string(code), 0) >= 0:
		return j.input("source", "the file is not JavaScript: it is not text in UTF-8", "name one bundled ES module with a default export")
	}
	return nil
}

// entryFile finds the file that a function begins with.
func (j *job) entryFile() (string, error) {
	endings := []string{"js", "mjs", "jsx"}
	if j.Runtime == TypeScript {
		endings = []string{"ts", "mts", "tsx"}
	}
	for _, folder := range []string{"src/", ""} {
		for _, e := range endings {
			if name := folder + "index." + e; j.has(filepath.FromSlash(name)) {
				return name, nil
			}
		}
	}
	return "", j.input("source", j.source+" has no src/index."+endings[0], "put the function there, with export default { async fetch(request, env, ctx) { … } }")
}

// bundleOptions say how everything is bundled. They are part of what a version's
// digest stands for: a change here changes artifacts.
func bundleOptions(root, entry string) esbuild.BuildOptions {
	return esbuild.BuildOptions{
		AbsWorkingDir: root, EntryPoints: []string{"./" + entry}, Outfile: "function.js",
		Bundle: true, Format: esbuild.FormatESModule, Target: esbuild.ES2023, TreeShaking: esbuild.TreeShakingTrue,
		Charset: esbuild.CharsetUTF8, LegalComments: esbuild.LegalCommentsEndOfFile,
		// The platform browser, not neutral, since only it honours the maps from files to
		// files that packages have under "browser". The conditions are those for which
		// packages publish code that runs on the web platform's interfaces alone.
		Platform: esbuild.PlatformBrowser, Conditions: []string{"workerd", "worker", "browser"},
		MainFields: []string{"browser", "module", "main"},
		Define:     map[string]string{"process.env.NODE_ENV": `"production"`, "global": "globalThis"},
		Loader: map[string]esbuild.Loader{
			".txt": esbuild.LoaderText, ".md": esbuild.LoaderText, ".html": esbuild.LoaderText, ".css": esbuild.LoaderText, ".module.css": esbuild.LoaderText,
			".svg": esbuild.LoaderText, ".sql": esbuild.LoaderText, ".csv": esbuild.LoaderText, ".graphql": esbuild.LoaderText,
		},
		// Readable stack traces are worth more than the kilobytes that shorter names save.
		Sourcemap: esbuild.SourceMapNone, Metafile: true,
		LogLevel: esbuild.LogLevelSilent, LogLimit: maxBundleMessages,
		Plugins: []esbuild.Plugin{{Name: "casemate", Setup: refuseRemoteImports}},
	}
}

// refuseRemoteImports refuses what the bundler would leave for the platform to
// fetch: code comes from the folder and its lock file.
func refuseRemoteImports(b esbuild.PluginBuild) {
	b.OnResolve(esbuild.OnResolveOptions{Filter: `^(https?:)?//`}, func(a esbuild.OnResolveArgs) (esbuild.OnResolveResult, error) {
		return esbuild.OnResolveResult{Errors: []esbuild.Message{{
			Text: fmt.Sprintf("%q is an address: code is not fetched while a function runs; install the package with npm and import it by its name", a.Path),
		}}}, nil
	})
}

// bundle runs the bundler, and stops it when ctx ends. What it has to say goes to
// the build's output.
func bundle(ctx context.Context, j *job, options esbuild.BuildOptions) (*esbuild.BuildResult, error) {
	failed := func(cause error) error {
		return &CompileError{Function: j.Name, Tool: bundler, ExitCode: -1, Cause: cause, TimedOut: errors.Is(cause, errTimedOut)}
	}
	b, refused := esbuild.Context(options)
	if refused != nil { // an option, which the folder's content does not reach
		return nil, failed(refused)
	}
	defer b.Dispose()
	defer context.AfterFunc(ctx, b.Cancel)()
	result := b.Rebuild()
	if ctx.Err() != nil {
		return nil, failed(context.Cause(ctx))
	}
	// Nobody reads warnings of packages; those of one's own code, everybody.
	for _, m := range result.Warnings {
		if m.Location == nil || !strings.Contains(m.Location.File, "node_modules/") {
			writeMessage(j.Out, "warning", m)
		}
	}
	if len(result.Errors) > 0 {
		for _, m := range result.Errors {
			writeMessage(j.Out, "error", explainMessage(m))
		}
		return nil, &CompileError{Function: j.Name, Tool: bundler, Found: len(result.Errors), Cause: errors.New("the bundler refused the source")}
	}
	return &result, nil
}

// hasDefaultExport reads the bundler's account of what the entry file exports.
func hasDefaultExport(j *job, entry, metafile string) error {
	var meta struct {
		Outputs map[string]struct {
			EntryPoint string   `json:"entryPoint"`
			Exports    []string `json:"exports"`
		} `json:"outputs"`
	}
	if err := json.Unmarshal([]byte(metafile), &meta); err != nil {
		return fmt.Errorf("reading what was bundled: %v", err)
	}
	for _, o := range meta.Outputs {
		for _, name := range o.Exports {
			if name == "default" {
				return nil
			}
		}
	}
	return j.input("source", entry+" has no default export", "write export default { async fetch(request, env, ctx) { … } }, and return a Response there")
}
