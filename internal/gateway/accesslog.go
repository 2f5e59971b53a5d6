package gateway

import (
	"log/slog"
	"net"
	"strconv"
	"strings"

	"github.com/casemate-dev/casemate/api/problem"
)

// account gives back what the request held and writes its one line in the access
// log: no header field, no query, nothing that could be a key. It is deferred.
func (g *Gateway) account(x *exchange) {
	if x.reserved != 0 {
		g.bodyMemory.Add(-x.reserved)
		if x.target.kind == toHook {
			g.hookMemory.Add(-x.reserved)
		}
	}
	if x.admitted {
		g.flight.end()
	}
	ctx, handler := x.r.Context(), g.logger.Handler()
	if !handler.Enabled(ctx, slog.LevelInfo) {
		return
	}
	end := g.clock()
	route, fn := "", ""
	if x.target != nil {
		route, fn = x.target.route, x.target.name
	}
	attrs := [...]slog.Attr{
		slog.String("id", x.id),
		slog.String("method", loggable(x.r.Method)),
		slog.String("path", loggable(x.r.URL.Path)),
		slog.String("route", route),
		slog.String("function", fn),
		slog.Int("status", x.status),
		slog.Int("bytesIn", len(x.body)),
		slog.Int64("bytesOut", x.bytesOut),
		slog.Duration("duration", end.Sub(x.start)),
		slog.String("principal", x.principal.String()),
		slog.String("receipt", x.receipt),
		slog.String("remote", remoteIP(x.r.RemoteAddr)),
		{},
		{},
	}
	n := len(attrs) - 2
	if x.failure != nil {
		attrs[n] = slog.String("code", string(x.failure.Code))
		n++
		// The private cause is for whoever runs the node, when the fault is on this side, and
		// of a webhook in any case: its sender is told next to nothing.
		if x.target != nil && x.target.kind == toHook || problem.Lookup(x.failure.Code).Status >= 500 {
			attrs[n] = slog.String("error", loggable(x.failure.Error()))
			n++
		}
	}
	// Without the caller's position, which no line shows and slog.Logger looks up.
	line := slog.NewRecord(end, slog.LevelInfo, "request", 0)
	line.AddAttrs(attrs[:n]...)
	_ = handler.Handle(ctx, line) // a log that fails has nobody to tell
}

// loggable returns s so that no reader of a log is deceived by it: in one line,
// in ASCII, bounded, and with whatever looks like a key of ours cut out.
func loggable(s string) string {
	plain := len(s) <= maxLoggedPath && !strings.Contains(s, keyPrefix)
	for i := 0; plain && i < len(s); i++ {
		plain = ' ' <= s[i] && s[i] <= '~'
	}
	if plain {
		return s
	}
	s = withoutKeys(s)
	if len(s) > maxLoggedPath {
		s = s[:maxLoggedPath] + "…"
	}
	quoted := strconv.QuoteToASCII(s)
	return quoted[1 : len(quoted)-1]
}

// withoutKeys replaces the rest of each segment that holds the beginning of a key.
func withoutKeys(s string) string {
	if !strings.Contains(s, keyPrefix) {
		return s
	}
	segments := strings.Split(s, "/")
	for i, segment := range segments {
		if before, _, found := strings.Cut(segment, keyPrefix); found {
			segments[i] = before + "[key]"
		}
	}
	return strings.Join(segments, "/")
}

// remoteIP is the address without the port.
func remoteIP(addr string) string {
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		return ""
	}
	return host
}
