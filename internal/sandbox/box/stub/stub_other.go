//go:build !linux

package stub

// Main reports false: boxes exist on Linux only.
func Main(string) (code int, ok bool) { return 0, false }
