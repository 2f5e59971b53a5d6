// Package vault holds the root key of a data directory and what is made from it:
// keys for single purposes (HKDF-SHA256, RFC 5869) and sealed values
// (AES-256-GCM, NIST SP 800-38D). It also takes the lock that keeps a second
// process out of the directory.
//
// The root key lies in a text file that nobody but its owner can read. Beside
// it, in the data directory, lies a canary: a known text sealed under the key.
// A key that does not open the canary is refused before anything else is read,
// so a wrong key can never be mistaken for lost data.
//
// Mechanisms do not import this package; the composition root hands them keys,
// or a Vault behind an interface of theirs. A Vault is safe for concurrent use.
// It puts no key material into errors. Open must run before anything else makes
// folders in the data directory: folders without a canary mean that the canary
// was lost, and are refused.
package vault
