// Package fuel holds the measure of what payment for work costs compute-heavy guests:
// benchmarks alone, which `make bench ONLY=wasm.fuel` runs. They are tests because only
// the engine's own packages, and tests, may use wazero. Nothing imports it.
package fuel
