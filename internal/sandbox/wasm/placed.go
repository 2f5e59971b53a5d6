package wasm

import "os"

// placed is compiled code on its way into the engine: in memory, and perhaps mapped from
// the file in which the node placed it. Then its machine code is executed from there, and
// nothing of it is copied.
type placed struct {
	bytes []byte
	file  *os.File // nil when the bytes came by the connection
	at    int64    // where in the file they begin
}
