// Package web speaks HTTP/1.1 to a server that runs as a guest: one that listens on
// $PORT, as Cloud Run and Knative have it, or an Azure Functions custom handler.
// The guest is hostile until proven otherwise: what it answers is parsed by the
// letter of RFC 9112, bounded in every dimension, and never acted upon (redirects
// are not followed, no connection is upgraded).
//
// The native sandbox and its package azure may import it. It imports the package
// sandbox alone.
//
// A Client belongs to one instance of one version and serves one request at a
// time; two instances never share one. It keeps at most one connection.
//
// # The contract with the guest
//
// The guest listens on the port that PORT names, on 127.0.0.1 or on all addresses,
// and gets one request at a time (see Environment). A request is sent once: it is
// tried again only on another connection when not one of its bytes had left. Before
// the guest is killed it is sent SIGTERM and given some time; that is the sandbox's
// part.
package web
