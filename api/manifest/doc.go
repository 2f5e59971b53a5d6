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
// # Triggers
//
// Each trigger has one key that names its kind and holds the kind's settings. Which keys
// there are stands in schema.json; a kind of its operator's stands below connector. What
// a node reads (api.Trigger) has quantities as numbers, which kinds.go lists. Load reads
// the files with the schemas of the triggers' data, which lie in the manifest's folder or
// below it; links do not lead out, and a schema refers to nothing but itself. Whether
// settings make sense beyond their form, the kinds on the node say.
//
// # Quantities
//
// A size is a whole number of bytes, or one with Ki, Mi or Gi: 64Ki, 128Mi. A
// duration is made of whole numbers with h, m, s or ms, the largest unit first,
// each at most once: 10s, 1m30s, 250ms.
package manifest
