package wire

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"time"

	"github.com/casemate-dev/casemate/internal/function"
	"github.com/casemate-dev/casemate/internal/sandbox"
)

// Version is the version of this protocol. Both ends come from one binary, so a
// difference means that the wrong binary was started.
const Version = 2

// Bounds on what travels, in bytes.
const (
	// MaxCode bounds a module.
	MaxCode = 64 << 20
	// MaxCompiled bounds compiled code and what is sent with it.
	MaxCompiled = 768 << 20
	// MaxInput bounds what a guest gets on standard input: head and body.
	MaxInput = 40 << 20
	// MaxOutput bounds what a guest gives on standard output: head and body.
	MaxOutput = function.MaxOutputLimit + sandbox.MaxHeadLine + 1
)

// Hello is what a process says when it is ready: the payload of Ready, as JSON.
type Hello struct {
	Protocol int `json:"protocol"`
	// Enforced and Missing are the measures in force, and those that are not with
	// the reason. They are believed, since no guest has run yet.
	Enforced []string          `json:"enforced,omitempty"`
	Missing  map[string]string `json:"missing,omitempty"`
	// Restore is how the process restores guests' memory: "scan", "advise" or "copy".
	Restore string `json:"restore,omitempty"`
}

// LoadSpec says what to load, or to compile: the payload of Load, as JSON. Size bytes
// follow in Code frames: the compiled code, or the module when it is to be compiled,
// and at their end the preparation.
type LoadSpec struct {
	Name    string          `json:"name"`   // the guest's argument zero
	Digest  function.Digest `json:"digest"` // of the module
	Size    int64           `json:"size"`
	Prepare int64           `json:"prepare,omitempty"` // how much of Size is standard input of the preparation
	// Placed bytes of compiled code, from At on, are in the file that the process was
	// started with, and do not follow. The node writes them before it says so, and never
	// again while the version is loaded.
	Placed      int64             `json:"placed,omitempty"`
	At          int64             `json:"at,omitempty"`
	Entry       function.Entry    `json:"entry"`
	Limits      function.Limits   `json:"limits"`
	Environment map[string]string `json:"environment,omitempty"`
	// Compile asks for the module's compiled code, and loads nothing.
	Compile bool `json:"compile,omitempty"`
	// Engine says that the module is the platform's own and draws fresh entropy for each
	// invocation by itself.
	Engine bool `json:"engine,omitempty"`
	// Base loads the module for others to be made from, and From makes one from the base
	// that was loaded under that stream.
	Base bool   `json:"base,omitempty"`
	From uint32 `json:"from,omitempty"`
}

// LoadReport is the payload of Loaded, as JSON.
type LoadReport struct {
	Cost int64  `json:"cost"`           // estimate of the memory that the loaded version keeps, in bytes
	Anew string `json:"anew,omitempty"` // why each invocation starts from nothing, "" when it need not
}

// CompileReport is the payload of Compiled, as JSON. The code follows in Machine
// frames, Size bytes of it.
type CompileReport struct {
	Size int64 `json:"size"`
}

// Failure says why a load or an invocation failed: the payload of LoadFailed and
// the end of Failed, as JSON.
type Failure struct {
	Kind   sandbox.Kind `json:"kind"`
	Public string       `json:"public"`
	Cause  string       `json:"cause,omitempty"`
}

// maxFailureText bounds each text of a Failure, in bytes.
const maxFailureText = 4 << 10

// AppendJSON appends the JSON of one of the messages above.
func AppendJSON(b []byte, message any) ([]byte, error) {
	j, err := json.Marshal(message)
	if err != nil {
		return nil, fmt.Errorf("encoding message: %v", err)
	}
	if len(j) > MaxPayload {
		return nil, fmt.Errorf("encoding message: %d bytes exceed %d", len(j), MaxPayload)
	}
	return append(b, j...), nil
}

// ParseJSON reads one of the messages above.
func ParseJSON(payload []byte, message any) error {
	if err := json.Unmarshal(payload, message); err != nil {
		return fmt.Errorf("decoding message: %v: %w", err, ErrFrame)
	}
	return nil
}

// ParseFailure reads a Failure, and refuses kinds that are not the sandbox's to
// give: whether it is lost, or was canceled by the caller, the node knows better.
func ParseFailure(payload []byte) (Failure, error) {
	var f Failure
	if err := ParseJSON(payload, &f); err != nil {
		return Failure{}, err
	}
	switch f.Kind {
	case sandbox.Timeout, sandbox.CPU, sandbox.Calls, sandbox.Canceled, sandbox.Memory, sandbox.Stack, sandbox.Output, sandbox.Trap,
		sandbox.Exit, sandbox.BadAnswer, sandbox.BadModule, sandbox.Tampered, sandbox.Unavailable, sandbox.Stale:
	default:
		return Failure{}, fmt.Errorf("decoding failure: kind %.40q: %w", f.Kind, ErrFrame)
	}
	f.Public = Cut(f.Public, maxFailureText)
	f.Cause = Cut(f.Cause, maxFailureText)
	return f, nil
}

// Cut shortens s to at most n bytes.
func Cut(s string, n int) string {
	if len(s) > n {
		return s[:n]
	}
	return s
}

// Start is the beginning of an Invoke payload. The first bytes of the guest's
// input follow it; the rest comes in Body frames.
type Start struct {
	Version uint32 // the stream under which the version was loaded
	Input   uint32 // length of the whole input, in bytes
}

// StartSize is the length of an encoded Start, in bytes.
const StartSize = 8

// AppendStart appends s.
func AppendStart(b []byte, s Start) []byte {
	b = binary.LittleEndian.AppendUint32(b, s.Version)
	return binary.LittleEndian.AppendUint32(b, s.Input)
}

// ParseStart reads a Start and gives what follows it.
func ParseStart(p []byte) (Start, []byte, error) {
	if len(p) < StartSize {
		return Start{}, nil, fmt.Errorf("decoding start: %d bytes: %w", len(p), ErrFrame)
	}
	s := Start{Version: binary.LittleEndian.Uint32(p), Input: binary.LittleEndian.Uint32(p[4:])}
	rest := p[StartSize:]
	if s.Input > MaxInput {
		return Start{}, nil, fmt.Errorf("decoding start: input of %d bytes exceeds %d: %w", s.Input, MaxInput, ErrFrame)
	}
	if len(rest) > int(s.Input) {
		return Start{}, nil, fmt.Errorf("decoding start: more input than announced: %w", ErrFrame)
	}
	return s, rest, nil
}

// Outcome is the beginning of the payloads of Result and Failed: what the
// invocation took. In a Result the first bytes of the answer follow it, in a
// Failed the Failure.
type Outcome struct {
	Wall, CPU  time.Duration
	MemoryPeak int64
	BytesOut   int64 // in a Result the length of the whole answer
	LogBytes   int64
	LogDropped int64
	Fuel       int64 // instructions executed, an upper bound
	Calls      int64 // of the host
}

// OutcomeSize is the length of an encoded Outcome, in bytes.
const OutcomeSize = 8 * 8

// AppendOutcome appends o.
func AppendOutcome(b []byte, o Outcome) []byte {
	for _, v := range [...]int64{int64(o.Wall), int64(o.CPU), o.MemoryPeak, o.BytesOut, o.LogBytes, o.LogDropped, o.Fuel, o.Calls} {
		b = binary.LittleEndian.AppendUint64(b, uint64(v))
	}
	return b
}

// ParseOutcome reads an Outcome and gives what follows it. No value is negative.
func ParseOutcome(p []byte) (Outcome, []byte, error) {
	if len(p) < OutcomeSize {
		return Outcome{}, nil, fmt.Errorf("decoding outcome: %d bytes: %w", len(p), ErrFrame)
	}
	var v [8]int64
	for i := range v {
		v[i] = int64(binary.LittleEndian.Uint64(p[i*8:]))
		if v[i] < 0 {
			return Outcome{}, nil, fmt.Errorf("decoding outcome: value %d is negative: %w", i, ErrFrame)
		}
	}
	return Outcome{
		Wall: time.Duration(v[0]), CPU: time.Duration(v[1]),
		MemoryPeak: v[2], BytesOut: v[3], LogBytes: v[4], LogDropped: v[5], Fuel: v[6], Calls: v[7],
	}, p[OutcomeSize:], nil
}

// lineHeader is the length of what stands before each line in a Log payload.
const lineHeader = 12

// AppendLine appends a log line: when it was written, in nanoseconds since 1970,
// its length, and its text.
func AppendLine(b []byte, at int64, text []byte) []byte {
	b = binary.LittleEndian.AppendUint64(b, uint64(at))
	b = binary.LittleEndian.AppendUint32(b, uint32(len(text)))
	return append(b, text...)
}

// LineSize is the encoded length of a line of n bytes.
func LineSize(n int) int { return lineHeader + n }

// ParseLine reads the first line of a Log payload and gives the rest. The text
// belongs to p.
func ParseLine(p []byte) (at int64, text, rest []byte, err error) {
	if len(p) < lineHeader {
		return 0, nil, nil, fmt.Errorf("decoding log line: %d bytes: %w", len(p), ErrFrame)
	}
	at = int64(binary.LittleEndian.Uint64(p))
	n := binary.LittleEndian.Uint32(p[8:])
	if n > sandbox.MaxLogLine || int(n) > len(p)-lineHeader {
		return 0, nil, nil, fmt.Errorf("decoding log line: %d bytes announced: %w", n, ErrFrame)
	}
	return at, p[lineHeader : lineHeader+n], p[lineHeader+n:], nil
}
