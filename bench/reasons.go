package main

// reason says why a goal is missed, as far as it is understood. It is shown beside a
// row only while the row misses its goal.
func reason(id string) string {
	for _, r := range []struct{ id, why string }{} {
		if r.id == id {
			return r.why
		}
	}
	return "Not explained yet"
}
