package node

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/casemate-dev/casemate/internal/control"
)

// serve opens the doors, says so, and waits for the end.
func (n *node) serve(ctx context.Context) error {
	n.gatewayServer = n.gateway.Server(n.authority.ServerConfig(n.tlsVersion()))
	n.controlServer = control.Server(n.control, n.authority.ServerConfig(n.tlsVersion()))
	failed := make(chan error, 3)
	for _, d := range []struct {
		name string
		srv  *http.Server
		ln   net.Listener
	}{{"gateway", n.gatewayServer, n.gateway.Listener(n.gatewayListener)}, {"control", n.controlServer, n.gateway.Listener(n.controlListener)}} {
		go func() {
			if err := d.srv.ServeTLS(d.ln, "", ""); !errors.Is(err, http.ErrServerClosed) {
				failed <- fmt.Errorf("serving the %s: %v", d.name, err)
			}
		}()
	}
	n.serveObjects(failed)
	n.state.Store("ready")
	n.onStop("let work under way finish", n.drain)
	took := n.clock().Sub(n.began)
	n.log.Info("ready", "node", n.id, "gateway", n.gatewayListener.Addr().String(), "control", n.controlListener.Addr().String(), "objects", n.objectsURL(), "took", took)
	if n.opts.Ready != nil {
		if err := n.opts.Ready(Ready{
			Node: n.id, GatewayURL: n.url(n.gatewayListener), ControlURL: n.url(n.controlListener), ObjectsURL: n.objectsURL(),
			CA: n.authority.CAPEM(), AdminKey: n.issuedKey, FirstBoot: n.firstBoot, Took: took,
		}); err != nil {
			return err
		}
	}
	select {
	case <-ctx.Done():
		return nil
	case err := <-failed:
		return err
	}
}

// drain takes no new work and waits for what is under way, at most for
// Options.Drain. Requests that still arrive are told that the node is going.
func (n *node) drain(ctx context.Context) error {
	n.state.Store("draining")
	begun := n.clock()
	ctx, cancel := context.WithTimeout(ctx, n.opts.Drain)
	defer cancel()
	n.control.Drain() // log streams would never end by themselves
	// First the doors, so that what they have let in still finds the way open;
	// then the connections, when the last answer has been written to them.
	shut := make(chan error, 2)
	go func() { shut <- n.controlServer.Shutdown(ctx) }()
	go func() { shut <- n.shutObjects(ctx) }()
	err := n.gateway.Drain(ctx)
	err = errors.Join(err, n.gatewayServer.Shutdown(ctx), <-shut, <-shut, n.admission.Drain(ctx))
	for _, srv := range []*http.Server{n.gatewayServer, n.controlServer} {
		_ = srv.Close() // the time is up: whoever is left is cut off
	}
	n.log.Info("drained", "took", n.clock().Sub(begun), "complete", err == nil)
	if err != nil {
		n.log.Warn("work was still under way when the time to finish was up", "error", err)
	}
	return nil
}

// stopTimeout bounds each step of the stop besides the drain, which has its own
// bound.
const stopTimeout = 10 * time.Second

// stop undoes the start in reverse. It goes on after an error.
func (n *node) stop() error {
	var errs []error
	for i := len(n.closers) - 1; i >= 0; i-- {
		c := n.closers[i]
		ctx, cancel := context.WithTimeout(context.Background(), stopTimeout+n.opts.Drain)
		if err := c.stop(ctx); err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", c.name, err))
		}
		cancel()
	}
	n.closers = nil
	return errors.Join(errs...)
}

// url is how a client on this machine reaches a listener: by the name it was
// configured with, or by localhost when it listens everywhere.
func (n *node) url(ln net.Listener) string {
	addr := ln.Addr().(*net.TCPAddr)
	host := addr.IP.String()
	switch {
	case addr.IP.IsUnspecified():
		host = "localhost"
	case strings.Contains(host, ":"):
		host = "[" + host + "]"
	}
	return fmt.Sprintf("https://%s:%d", host, addr.Port)
}
