// Package identity establishes who is calling, and lets callers establish that
// they reached this node: API keys, the principals and scopes they stand for, and
// the node's own certificate authority.
//
// Doors, deciders and node may import it. It is a mechanism: it imports no other
// one, and takes the store and the sealing of its key as small interfaces.
//
// # Promises
//
// A key's secret exists in the clear only in what Create returns and what Verify
// is handed. What is kept is a SHA-256 digest, which is enough because the secret
// is 256 random bits: there is nothing to guess faster than all of them. The
// secret of an access key (KindAWS) is never sent, so it has to be kept to check
// what it signed: sealed, on disk and in memory, and open for the length of one
// check. No value of this package shows a secret, a digest of one or a private key
// when it is formatted, logged or marshalled.
//
// Verify, Signed and SigningKey read an immutable index: no lock, no I/O, any number of
// goroutines.
// Create and Revoke are serialised. Once Revoke has returned, with or without an
// error, no Verify that begins later accepts the key.
//
// The authority can vouch only for the names it was made for: they are in its
// certificate as critical name constraints (RFC 5280, section 4.2.1.10), so that
// even its stolen key impersonates nobody else to those who trust it.
package identity
