package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/casemate-dev/casemate/internal/cli/contexts"
	"github.com/casemate-dev/casemate/internal/cli/output"
)

// Where a node listens and how long it drains unless told otherwise.
const (
	defaultGateway = "127.0.0.1:8443"
	defaultControl = "127.0.0.1:8444"
	defaultObjects = "127.0.0.1:8445"
	defaultDrain   = 20 * time.Second
)

func (a *app) upCommand() *cobra.Command {
	var o UpOptions
	var level, format string
	var watched []string
	cmd := &cobra.Command{
		Use:   "up",
		Short: "Start a node on this machine",
		Long: text(`
			Up starts a node and serves until it is interrupted, then lets work in flight
			end. The first start makes everything it needs in the data directory: a root
			key, an authority with a server certificate, the state store, and a key for you,
			which goes into your client configuration under the name given by --context
			(default local). Later starts reuse it all.

			The gateway, for callers, listens on 127.0.0.1:8443, the control listener, for
			operators, on 127.0.0.1:8444, and the object store, which speaks S3, on
			127.0.0.1:8445, all with TLS 1.3. Nothing else listens. With --objects off there
			is no object store; what it holds stays in the data directory.

			Triggers may watch no folder of this machine but those given by --watch, and by
			the name given there. A folder is for triggers of the namespace default, unless a
			colon and other namespaces follow, separated by commas; * stands for all.

			If your configuration holds no valid key for the data directory, the node makes a
			new one: whoever can open the directory may have it.

			Native functions are refused on a machine that cannot lock them in, unless
			--unsandboxed says otherwise: then they run as plain processes of the user that
			runs the node, can read what he can, and use his network. Status and every
			receipt say so.

			JSON: one object when the node is ready, {"context", "gatewayUrl", "controlUrl",
			"objectsUrl", "dataDir", "firstBoot"}.
		`),
		Example: examples(`
			casemate up
			casemate up --data-dir /srv/casemate --gateway 0.0.0.0:443 --host casemate.example.com
			casemate up --watch invoices=/srv/invoices:shop,billing
			casemate up --gateway 127.0.0.1:0 --control 127.0.0.1:0 --objects off --context test
		`),
		Args: cobra.ArbitraryArgs,
		RunE: a.run(arguments{}, func(ctx context.Context, _ []string) error {
			handler, flush, err := a.nodeLog(a.env.Stderr, level, format)
			if err != nil {
				return err
			}
			defer flush()
			o.LogHandler = handler
			switch o.Objects {
			case objectsOff:
				o.Objects = ""
			case "":
				return usagef("--objects is empty").hint("write host:port, or off for a node without an object store")
			}
			if o.Folders, err = a.folders(watched); err != nil {
				return err
			}
			return a.up(ctx, o)
		}),
	}
	fl := cmd.Flags()
	fl.StringVar(&o.DataDir, "data-dir", "", "Data directory (default ~/.local/share/casemate)")
	fl.StringVar(&o.Gateway, "gateway", defaultGateway, "Where callers connect")
	fl.StringVar(&o.Control, "control", defaultControl, "Where operators connect")
	fl.StringVar(&o.Objects, "objects", defaultObjects, "Where clients of the object store connect, or off")
	fl.StringArrayVar(&watched, "watch", nil, "Folder that triggers may watch, as NAME=FOLDER or NAME=FOLDER:NAMESPACE,…; repeatable")
	fl.StringVar(&o.KeyFile, "key-file", "", "Root key (default root.key in the data directory)")
	fl.BoolVar(&o.AllowTLS12, "allow-tls12", false, "Accept TLS 1.2 besides 1.3")
	fl.BoolVar(&o.Unsandboxed, "unsandboxed", false, "INSECURE: run native functions without a sandbox where the machine has none to offer")
	fl.StringSliceVar(&o.Hosts, "host", nil, "Further name or address for the certificate; repeatable; buckets of the object store may stand before a name")
	fl.DurationVar(&o.Drain, "drain", defaultDrain, "How long work in flight may take at the end")
	fl.StringVar(&level, "log-level", "info", "What the node logs: debug, info, warn or error")
	fl.StringVar(&format, "log-format", "text", "How the node logs: text or json")
	return cmd
}

func (a *app) up(ctx context.Context, o UpOptions) error {
	if a.env.Up == nil {
		return failf("this program was built without a node")
	}
	if o.Drain < 0 {
		return usagef("--drain must not be negative")
	}
	err := checkAddresses(o)
	if err != nil {
		return err
	}
	if o.DataDir, err = a.dataDir(o.DataDir); err != nil {
		return err
	}
	o.KeyFile = a.abs(o.KeyFile)
	name := cmp.Or(a.contextName(), upContext)
	if err := a.claimContext(name, &o); err != nil {
		return err
	}
	o.Ready = func(info ReadyInfo) error {
		c, err := a.saveContext(name, o.DataDir, info)
		if err != nil {
			return err
		}
		return a.showReady(c, info)
	}
	return a.serve(ctx, o)
}

// checkAddresses refuses what cannot be listened on, as far as that can be seen
// without trying; "" stands for a default, or for none.
func checkAddresses(o UpOptions) error {
	for _, given := range [...]struct{ flag, addr string }{{"--gateway", o.Gateway}, {"--control", o.Control}, {"--objects", o.Objects}} {
		if given.addr == "" {
			continue
		}
		if _, port, err := net.SplitHostPort(given.addr); err != nil || port == "" {
			return usagef("%s %.80q is not host:port", given.flag, given.addr).hint("write it as 127.0.0.1:8443, or with port 0 for any free one")
		}
	}
	return nil
}

// objectsOff says that the node is to have no object store.
const objectsOff = "off"

// plainName reports whether s is in the form of the names of namespaces.
func plainName(s string) bool {
	return s != "" && len(s) <= 63 && s[0] >= 'a' && s[0] <= 'z' && s[len(s)-1] != '-' &&
		strings.Trim(s, "abcdefghijklmnopqrstuvwxyz0123456789-") == ""
}

// folders reads what --watch says: NAME=FOLDER[:NAMESPACE,…].
func (a *app) folders(given []string) (map[string]Folder, error) {
	all := map[string]Folder{}
	for _, text := range given {
		wrong := func(format string, args ...any) (map[string]Folder, error) {
			return nil, usagef("--watch %.200q: %s", text, fmt.Sprintf(format, args...)).hint("write it as invoices=/srv/invoices, or invoices=/srv/invoices:shop,billing")
		}
		name, path, ok := strings.Cut(text, "=")
		if !ok || !plainName(name) {
			return wrong("it begins with no name of lower-case letters, digits and hyphens, a letter first")
		}
		if _, twice := all[name]; twice {
			return wrong("the name is there twice")
		}
		spaces := []string{"default"}
		if i := strings.LastIndexByte(path, ':'); i >= 0 && !strings.Contains(path[i:], "/") {
			path, spaces = path[:i], strings.Split(path[i+1:], ",")
		}
		for _, ns := range spaces {
			if ns != "*" && !plainName(ns) {
				return wrong("%.80q cannot name a namespace", ns)
			}
		}
		if path == "" {
			return wrong("it names no folder")
		}
		path = a.abs(path)
		if info, err := os.Stat(path); err != nil || !info.IsDir() || path == "/" {
			return wrong("%s is no folder that could be watched", path)
		}
		all[name] = Folder{path, spaces}
	}
	return all, nil
}

// serve runs the node. An end that was asked for is no failure.
func (a *app) serve(ctx context.Context, o UpOptions) error {
	err := a.env.Up(ctx, o)
	if interrupted(ctx, err) {
		return nil
	}
	return err
}

// logHandler is where a node of ours logs to.
func (a *app) logHandler(w io.Writer, level, format string) (slog.Handler, error) {
	var o slog.HandlerOptions
	switch level {
	case "debug":
		o.Level = slog.LevelDebug
	case "info":
		o.Level = slog.LevelInfo
	case "warn":
		o.Level = slog.LevelWarn
	case "error":
		o.Level = slog.LevelError
	default:
		return nil, usagef("--log-level %q is not known; use debug, info, warn or error", level)
	}
	switch format {
	case "json":
		return slog.NewJSONHandler(w, &o), nil
	case "text":
		if a.env.IsTerminal(w) { // a person knows the day
			o.ReplaceAttr = func(groups []string, at slog.Attr) slog.Attr {
				if len(groups) == 0 && at.Key == slog.TimeKey {
					return slog.String(at.Key, at.Value.Time().Format(time.TimeOnly))
				}
				return at
			}
		}
		return slog.NewTextHandler(w, &o), nil
	}
	return nil, usagef("--log-format %q is not known; use text or json", format)
}

func (a *app) dataDir(given string) (string, error) {
	switch {
	case given != "":
		return a.abs(given), nil
	case filepath.IsAbs(a.env.Getenv("XDG_DATA_HOME")):
		return filepath.Join(a.env.Getenv("XDG_DATA_HOME"), "casemate"), nil
	case a.env.Getenv("HOME") != "":
		return filepath.Join(a.env.Getenv("HOME"), ".local", "share", "casemate"), nil
	}
	return "", usagef("no data directory: neither XDG_DATA_HOME nor HOME is set").hint("name one with --data-dir")
}

// claimContext makes sure, before the node starts, that its key will find a place
// and pushes out no other: the configuration can be written, and a context of
// that name belongs to the same directory or to none that is left.
func (a *app) claimContext(name string, o *UpOptions) error {
	if !contexts.ValidName(name) {
		return usagef("%.80q cannot name a context", name)
	}
	return a.changeContexts(func(f *contexts.File) error {
		c, err := f.Get(name)
		if err != nil {
			return nil // free
		}
		if c.DataDir != o.DataDir && (c.DataDir == "" || used(c.DataDir)) {
			where := "another node, " + c.ControlURL
			if c.DataDir != "" {
				where = "the node in " + c.DataDir
			}
			return (&failure{Exit: exitConflict, Message: fmt.Sprintf("the context %s belongs to %s", name, where)}).
				hint("choose another name with --context NAME, or forget that one: casemate config remove %s", name)
		}
		o.AdminKey = keyFor(c, o.DataDir)
		return nil
	})
}

// keyFor gives the key of a context for the node in a directory; never another's.
func keyFor(c contexts.Context, dir string) string {
	if c.DataDir != dir {
		return ""
	}
	return c.Key
}

// used reports whether a node has lived in dir.
func used(dir string) bool {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return false
	}
	return err != nil || len(entries) > 0
}

// saveContext writes what a node says of itself into the client configuration.
func (a *app) saveContext(name, dir string, info ReadyInfo) (contexts.Context, error) {
	var c contexts.Context
	err := a.changeContexts(func(f *contexts.File) error {
		old, _ := f.Get(name) // or the zero value
		c = contexts.Context{
			Name: name, ControlURL: info.ControlURL, GatewayURL: info.GatewayURL, CA: string(info.CA), DataDir: dir,
			Key: cmp.Or(info.AdminKey, keyFor(old, dir)),
		}
		return f.Put(c)
	})
	if err != nil {
		return c, fmt.Errorf("keeping the key in the client configuration: %w", err)
	}
	_, err = a.caFile(c)
	return c, err
}

func (a *app) showReady(node contexts.Context, info ReadyInfo) error {
	if a.p.JSON() {
		return a.p.Record(struct {
			Context    string `json:"context"`
			GatewayURL string `json:"gatewayUrl"`
			ControlURL string `json:"controlUrl"`
			ObjectsURL string `json:"objectsUrl,omitempty"`
			DataDir    string `json:"dataDir"`
			FirstBoot  bool   `json:"firstBoot"`
		}{node.Name, info.GatewayURL, info.ControlURL, info.ObjectsURL, node.DataDir, info.FirstBoot})
	}
	c := a.p.Out()
	path, err := contexts.Path(a.env.Getenv)
	if err != nil {
		return err
	}
	note, took := "", ""
	if info.Took > 0 {
		took = c.Dim(" after " + output.Duration(info.Took))
	}
	if info.AdminKey != "" {
		note = "  " + c.Dim("(key kept in "+path+")")
	}
	store := "" // what is not there is not spoken of
	if info.ObjectsURL != "" {
		store = "  objects  " + c.Accent(info.ObjectsURL) + "\n"
	}
	err = a.p.Printf("\n  %s %s is up%s\n\n  gateway  %s\n  control  %s\n%s  data     %s\n  context  %s%s\n\n",
		c.Good("●"), c.Bold("casemate"), took, c.Accent(info.GatewayURL), c.Accent(info.ControlURL), store, c.Plain(node.DataDir), c.Plain(node.Name), note)
	if err != nil {
		return err
	}
	if !a.p.Pretty() {
		return nil
	}
	return a.p.Printf("  %s\n    %s\n    %s\n    %s\n    %s   %s\n\n", c.Dim("In another terminal:"),
		c.Accent("casemate init hello --runtime go"), c.Accent("casemate deploy hello"),
		c.Accent(`casemate invoke hello '{"name":"Ada"}'`), c.Accent("casemate trust"), c.Dim("# so that browsers and curl accept the certificate"))
}
