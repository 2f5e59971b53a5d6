// Package manifest reads casemate.yaml, the file that says which functions a
// project has and how each of them runs.
//
// Anybody may import it; it imports nothing of internal. Parse reports every
// issue that it finds, in order of position, each with the place, what is wrong
// and what to write instead. Check holds the rules on what a configuration may
// say. They are the same for a file on a developer's machine and for a node,
// which applies them again because it believes no client.
//
// No text made here shows a secret: values that look like one are masked, in
// messages and in the lines of the source that accompany them.
//
// All functions may be called from many goroutines; none keeps state.
//
// # Quantities
//
// A size is a whole number of bytes, or one with Ki, Mi or Gi: 64Ki, 128Mi. A
// duration is made of whole numbers with h, m, s or ms, the largest unit first,
// each at most once: 10s, 1m30s, 250ms.
package manifest
