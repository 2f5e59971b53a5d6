package delivery

// CompactAt has retry logs compacted far more often than it is worth.
func (e *Engine) CompactAt(records int) { e.compactAt = records }
