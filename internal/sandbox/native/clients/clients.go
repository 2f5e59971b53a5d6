// Package clients holds the runtime clients for Node.js and Python: the programs that
// the interpreters run in a box, which load a function's handler and ask the Runtime API
// for its events. internal/sandbox/native puts them into the runtime's image, below Dir.
// It imports the standard library alone; its functions may be called from many goroutines.
//
// A client is told everything by its environment, and believes it to be complete:
//
//	AWS_LAMBDA_RUNTIME_API           host:port of the Runtime API, an IPv4 address
//	_HANDLER                         dir/file.function
//	LAMBDA_TASK_ROOT                 where the function's code is
//	AWS_LAMBDA_FUNCTION_NAME, _VERSION, _MEMORY_SIZE, AWS_LAMBDA_LOG_GROUP_NAME,
//	AWS_LAMBDA_LOG_STREAM_NAME       for the handler's context
//	AWS_LAMBDA_LOG_LEVEL             for Python's logging; may be missing
//
// Both end with a status other than 0 when the handler cannot be loaded, after they
// have posted init/error.
package clients

import (
	"embed"
	"io/fs"
	"path"
)

// Dir is where the files of FS stand inside a box.
const Dir = "/opt/casemate"

// The clients' places in FS, and below Dir.
const (
	Node   = "node/bootstrap.cjs"
	Python = "python/bootstrap.py"
)

//go:embed node/bootstrap.cjs python/bootstrap.py
var files embed.FS

// FS gives the clients' files, read-only.
func FS() fs.FS { return files }

// NodeArgs gives what follows the name of the Node.js interpreter.
func NodeArgs() []string { return []string{path.Join(Dir, Node)} }

// PythonArgs gives what follows the name of the Python interpreter: it does not look for
// packages of the host, which costs 3 MB and are not in the box anyway, and writes no
// compiled files, for there is nowhere to write them.
func PythonArgs() []string { return []string{"-S", "-B", path.Join(Dir, Python)} }
