// Package connector is for authors of connectors: programs that bring events from outside
// to a Casemate node. The node starts one for each trigger, and both speak lines of JSON
// on the connector's stdin and stdout; docs/spec/connector.md has the protocol, this package
// speaks it.
//
//	func main() {
//		err := connector.Run(context.Background(), connector.Connector{
//			Name:  "clock",
//			Kinds: []connector.Kind{{Name: "clock"}},
//			Run: func(ctx context.Context, start connector.Start, s *connector.Session) error {
//				…
//				refusals, err := s.Emit(ctx, events)
//				// without an error all but the refused events are on the node's disk:
//				// now acknowledge them to where they came from
//			},
//		})
//		if err != nil {
//			fmt.Fprintln(os.Stderr, err)
//			os.Exit(1)
//		}
//	}
//
// It is a module of its own that needs nothing but the standard library. All methods of a
// Session may be called from many goroutines. Events of one call of Emit are taken in
// their order, those of two calls in the order of the calls, when one began after the
// other had ended.
package connector
