package gateway

import (
	"fmt"
	"log/slog"
	"net/http"
	"runtime"
	"runtime/debug"

	"github.com/casemate-dev/casemate/api/problem"
)

// rescue turns a panic into an answer that says nothing of it. It is deferred.
func (g *Gateway) rescue(x *exchange) {
	v := recover()
	if v == nil {
		return
	}
	if v == http.ErrAbortHandler { //nolint:errorlint // a panic value, compared as net/http does
		panic(v)
	}
	// The value may be anything, a credential too; what the runtime itself says is
	// the only text that cannot be.
	attrs := []slog.Attr{slog.String("id", x.id), slog.String("type", fmt.Sprintf("%T", v)), slog.String("stack", string(debug.Stack()))}
	if err, ok := v.(runtime.Error); ok {
		attrs = append(attrs, slog.String("error", err.Error()))
	}
	g.logger.LogAttrs(x.r.Context(), slog.LevelError, "handling a request panicked", attrs...)
	g.refuse(x, problem.New(problem.Internal, "something went wrong on our side"))
}
