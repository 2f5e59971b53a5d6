package build

import (
	"context"
	"path/filepath"
)

const goInstall = "install Go 1.24 or newer from https://go.dev/dl"

func checkGo(_ context.Context, j *job) error {
	if j.env.find("go") == "" {
		return j.missing("go", goInstall)
	}
	return nil
}

// buildGo compiles the main package in the source folder. Nothing of the folder's
// place or of version control goes into the module, and neither a workspace
// file above it nor flags of the caller change what is compiled.
func buildGo(ctx context.Context, j *job) ([]byte, error) {
	if err := checkGo(ctx, j); err != nil {
		return nil, err
	}
	if !j.has("go.mod") {
		return nil, j.input("source", j.source+" has no go.mod", "run `go mod init "+moduleName(j)+"` there")
	}
	out := filepath.Join(j.tmp, "function.wasm")
	args := []string{"build", "-trimpath", "-buildvcs=false", "-ldflags", "-s -w", "-o", out}
	if j.Entry == EntryHandle {
		args = append(args, "-buildmode=c-shared")
	}
	if err := j.run(ctx, tool{
		path: j.env.find("go"),
		args: append(args, "."),
		dir:  j.source,
		env: j.env.pick(goTool,
			"GOOS=wasip1", "GOARCH=wasm", "CGO_ENABLED=0", "GOWORK=off",
			"GOFLAGS=-buildvcs=false", // also wins over a flag that `go env -w` keeps
		),
	}); err != nil {
		return nil, err
	}
	return j.output(out)
}

func moduleName(j *job) string {
	if j.Name != "" {
		return j.Name
	}
	return filepath.Base(j.source)
}
