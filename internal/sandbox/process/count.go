package process

// Count says how many processes live, and how many of them wait for a namespace.
func (r *Runner) Count() (all, warm int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for p := range r.all {
		p.mu.Lock()
		switch {
		case p.dead:
		case p.namespace == "" && !p.compiles.Load():
			all, warm = all+1, warm+1
		default:
			all++
		}
		p.mu.Unlock()
	}
	return all, warm
}
