// Package stub chooses what a program is that was started for a box: the broker, or the
// one that looks around inside. cmd/casemate-box and, for builds without the embedded
// program, cmd/casemate call it before anything else. It must not be used beside other
// code: its roles own the process.
package stub
