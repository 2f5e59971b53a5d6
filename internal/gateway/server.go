package gateway

import (
	"crypto/tls"
	"log/slog"
	"net"
	"net/http"
	"sync"
)

// Server returns the HTTP server for this door, HTTP/1.1 and HTTP/2, with every
// limit set. Serve it with ServeTLS on a listener from Listener.
func (g *Gateway) Server(config *tls.Config) *http.Server {
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	protocols.SetHTTP2(true)
	return &http.Server{
		Handler:           g,
		TLSConfig:         config,
		Protocols:         protocols,
		MaxHeaderBytes:    g.limits.HeaderBytes,
		ReadHeaderTimeout: g.limits.HeaderTime, // the handshake too
		IdleTimeout:       g.limits.IdleTime,
		// Reset for every request; the answer stage sets a tighter one. ReadTimeout
		// stays unset, see startClock.
		WriteTimeout:                 g.limits.ExchangeTime,
		DisableGeneralOptionsHandler: true, // "OPTIONS *" goes through the stages
		ErrorLog:                     slog.NewLogLogger(g.logger.Handler(), slog.LevelDebug),
		HTTP2: &http.HTTP2Config{
			MaxConcurrentStreams:          g.limits.Streams,
			MaxReceiveBufferPerConnection: h2ConnectionBuffer,
			MaxReceiveBufferPerStream:     h2StreamBuffer,
			SendPingTimeout:               h2PingAfter,
			PingTimeout:                   h2PingTimeout,
			WriteByteTimeout:              h2WriteTimeout,
		},
	}
}

// Listener returns l bounded to the limit on connections: the next one waits in
// the kernel's queue until another has ended.
func (g *Gateway) Listener(l net.Listener) net.Listener {
	return &boundedListener{Listener: l, places: make(chan struct{}, g.limits.Connections), closed: make(chan struct{})}
}

type boundedListener struct {
	net.Listener
	places    chan struct{}
	closed    chan struct{}
	closeOnce sync.Once
}

// Accept waits for a place and then for a connection.
func (l *boundedListener) Accept() (net.Conn, error) {
	select {
	case l.places <- struct{}{}:
	case <-l.closed:
		return nil, net.ErrClosed
	}
	c, err := l.Listener.Accept()
	if err != nil {
		<-l.places
		return nil, err
	}
	return &placedConn{Conn: c, leave: sync.OnceFunc(func() { <-l.places })}, nil
}

// Close also ends an Accept that waits for a place.
func (l *boundedListener) Close() error {
	l.closeOnce.Do(func() { close(l.closed) })
	return l.Listener.Close()
}

type placedConn struct {
	net.Conn
	leave func()
}

// Close gives the place back.
func (c *placedConn) Close() error {
	err := c.Conn.Close()
	c.leave()
	return err
}
